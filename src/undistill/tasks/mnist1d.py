"""MNIST-1D: ten classes of noisy signals of 40 points, made by a procedure instead of stored.

Source: S. Greydanus and D. Kobak, "Scaling down deep learning with MNIST-1D", arXiv 2011.14439. Deviations: 6,000
signals instead of 5,000, so that there is a validation split; NumPy's random numbers in another order, so the signals
are others of the same kind; values are held as bytes, as those of all tasks, with a step of a thirtieth of a standard
deviation.
"""

import numpy as np
import scipy  # its parts are loaded when they are first used
from jaxtyping import Float64

from undistill.tasks.source import Source, consecutive

# One hand-drawn profile for each digit.
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
PADDING = (36, 60)  # zeros after the template: fewest and most
SCALE = 0.4  # amplitudes lie within half of this around 1
SHIFT = 48  # largest circular shift, exclusive
CORRELATED_NOISE = 0.25  # of the background, before smoothing with a Gaussian of 2 points
WHITE_NOISE = 0.02
SHEAR = 0.75  # slopes lie within half of this around 0
LENGTH = 40
PER_CLASS = 600
SEED = 42
LEVELS_PER_STD = 30


def mnist1d_signals(per_class: int, seed: int) -> Float64[np.ndarray, "n length"]:
    """Signals of all classes in turn, class 0 first, each class ``per_class`` times.

    A template is lengthened by a random number of zeros and stretched to a fixed length, scaled, shifted in a circle,
    laid on correlated noise, covered with white noise, sheared, and sampled at 40 points; then every point is
    standardised over all signals.

    Args:
        per_class: How many signals of each class.
        seed: Seed of the random numbers, 0..2^32-1.

    Returns:
        Signals of mean 0 and standard deviation 1 at each point, shape (10 * per_class, 40).

    Example:
        >>> mnist1d_signals(2, seed=0).shape
        (20, 40)
    """
    # RandomState's stream is frozen for ever by NumPy's policy, a Generator's is not.
    random = np.random.RandomState(seed)
    templates = np.array(TEMPLATES)
    templates = (templates - templates.mean(1, keepdims=True)) / templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6  # they begin and end at zero
    count, points = len(templates) * per_class, templates.shape[1]
    rows = np.arange(count)[:, None]

    canvas = np.repeat(np.pad(templates, ((0, 0), (0, PADDING[1]))), per_class, axis=0)
    lengths = points + random.randint(PADDING[0], PADDING[1] + 1, size=(count, 1))
    position = np.linspace(0, 1, points + PADDING[1]) * (lengths - 1)
    before = np.minimum(position.astype(int), canvas.shape[1] - 2)
    part = position - before
    signals = (1 - part) * canvas[rows, before] + part * canvas[rows, before + 1]
    signals *= 1 + SCALE * (random.random_sample((count, 1)) - 0.5)
    turned = (np.arange(signals.shape[1]) - random.randint(SHIFT, size=(count, 1))) % signals.shape[1]
    signals, in_template = signals[rows, turned], position[rows, turned] < points

    noise = CORRELATED_NOISE * scipy.ndimage.gaussian_filter1d(random.standard_normal(signals.shape), 2, axis=1)
    signals = np.where(in_template, signals, noise) + WHITE_NOISE * random.standard_normal(signals.shape)
    slopes = SHEAR * (random.random_sample((count, 1)) - 0.5)
    signals = signals - slopes * np.linspace(-0.5, 0.5, signals.shape[1])

    position = np.linspace(0, signals.shape[1] - 1, LENGTH)
    before = np.minimum(position.astype(int), signals.shape[1] - 2)
    part = position - before
    signals = (1 - part) * signals[:, before] + part * signals[:, before + 1]
    return (signals - signals.mean(0)) / signals.std(0)


def read_mnist1d() -> Source:
    """MNIST-1D; 4,000 signals are for training, 1,000 for validation and 1,000 for test."""
    signals = np.clip(np.round(128 + LEVELS_PER_STD * mnist1d_signals(PER_CLASS, SEED)), 0, 255).astype(np.uint8)
    labels = np.repeat(np.arange(len(TEMPLATES)), PER_CLASS)
    return Source(
        class_names=tuple("0123456789"),
        labels=labels,
        parts=consecutive({"train": len(labels)}),
        read=lambda rows: signals[rows][..., None],
        test_size=1000,
        validation_size=1000,
    )
