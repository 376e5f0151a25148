"""What the choice of the test images adds to the doubt about a difference of two accuracies."""

import math

import numpy as np
import scipy  # its parts are loaded when they are first used
from jaxtyping import Bool

from undistill.errors import InputError
from undistill.statistics.checks import check_alpha
from undistill.statistics.spread import Interval


def example_interval(
    a: Bool[np.ndarray, "seeds images"], b: Bool[np.ndarray, "seeds_of_b images_of_b"], *, alpha: float
) -> Interval:
    """Interval of a difference of accuracies over the images that the test set could have held, in points.

    The trained networks are taken as they are, and the test images as N independent draws. D_i is the mean over seeds
    of (a is right) - (b is right) on image i. Half an image is added to each of the four cases "both are right", "a
    alone", "b alone" and "neither" (Agresti and Min), so that networks that agree on all images claim no certainty:

        100 * (m ± z * sqrt((q - m^2) / (N + 2))),  m = sum of D_i / (N + 2),  q = (sum of D_i^2 + 1) / (N + 2)

    and z the 1 - alpha quantile of the normal distribution.

    Args:
        a: whether each network was right on each test image.
        b: the same of the networks it is paired with.
        alpha: probability in (0, 0.5) of missing on each side.

    Returns:
        The difference itself (not shrunk), and the ends of the interval, in points of accuracy.

    Raises:
        InputError: alpha outside (0, 0.5), shapes that differ, or no image.

    Source: Agresti & Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
    Medicine 24 (2005), for one seed. Deviation: D_i is a mean over seeds.

    >>> teacher_taught = np.arange(500)[None] < 480  # 500 images, one seed
    >>> alone = np.arange(500)[None] < 470
    >>> difference, low, high = example_interval(teacher_taught, alone, alpha=0.025)
    >>> f"{difference:.1f} [{low:.2f}, {high:.2f}]"
    '2.0 [0.71, 3.28]'
    """
    check_alpha(alpha)
    if a.shape != b.shape or not a.size:
        raise InputError(f"a is of shape {a.shape} and b of {b.shape}; give the same images and seeds, at least one")
    seeds, images = a.shape
    differences = (a.sum(0, dtype=np.int64) - b.sum(0, dtype=np.int64)) / seeds
    centre = math.fsum(differences) / (images + 2)
    square = (math.fsum(differences**2) + 1) / (images + 2)
    reach = -float(scipy.special.ndtri(alpha)) * math.sqrt((square - centre**2) / (images + 2))
    return Interval(100 * math.fsum(differences) / images, 100 * (centre - reach), 100 * (centre + reach))
