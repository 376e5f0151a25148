"""Differences between two rows of measurements that share their seeds."""

import math
from dataclasses import dataclass

# Rational arithmetic: the standard deviation of equal numbers is exactly 0, whatever their binary expansion.
from statistics import mean, stdev

import scipy  # its parts are loaded when they are first used

from undistill.errors import InputError
from undistill.statistics.checks import Values, check_alpha, finite_values


@dataclass(frozen=True)
class PairedDifference:
    """What n paired differences say about their true mean; made by :func:`paired_difference`.

    All bounds are one-sided t-bounds with n - 1 degrees of freedom, exact for independent normal differences.
    Two cases have no t-distribution, and are answered as follows:

    - n = 1: one difference says nothing of the spread. The deviation is nan, the bounds are infinite, the p-value is 1.
    - all differences equal: the deviation is 0, both bounds are the mean, and the p-value is 0 if the mean is above 0,
      else 1. This trusts that further seeds would agree too; with few seeds on a small test set they may not.

    Attributes:
        mean: mean of the differences, in the unit of the values.
        standard_deviation: sample deviation of the differences (divisor n - 1); nan at n = 1.
        n: number of pairs.
    """

    mean: float
    standard_deviation: float
    n: int

    def lower(self, alpha: float) -> float:
        """Lower bound of the true mean: ``mean - t * s / sqrt(n)``, t the ``1 - alpha`` quantile at n - 1 degrees.

        Args:
            alpha: probability in (0, 0.5) that the true mean lies below the bound. Give a level from
                :func:`holm_levels` when several differences are judged together.

        Raises:
            InputError: alpha outside (0, 0.5).

        >>> round(paired_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0]).lower(alpha=0.05), 3)
        0.314
        """
        return self.mean - self._reach(alpha)

    def upper(self, alpha: float) -> float:
        """Upper bound of the true mean: ``mean + t * s / sqrt(n)``, t as in :meth:`lower`.

        A leak is ruled out up to a margin when ``upper(alpha) < margin``: the one-sided half of two one-sided tests
        (Schuirmann 1987).

        Args:
            alpha: probability in (0, 0.5) that the true mean lies above the bound.

        Raises:
            InputError: alpha outside (0, 0.5).

        >>> round(paired_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0]).upper(alpha=0.05), 3)
        3.686
        """
        return self.mean + self._reach(alpha)

    @property
    def p_value(self) -> float:
        """One-sided p-value against "the true mean is 0 or less"; below alpha exactly when ``lower(alpha)`` is above 0.

        >>> round(paired_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0]).p_value, 4)
        0.0371
        """
        if self.n == 1:
            return 1.0
        if self.standard_deviation == 0:
            return 0.0 if self.mean > 0 else 1.0
        return float(scipy.special.stdtr(self.n - 1, -self.mean / self.standard_deviation * math.sqrt(self.n)))

    def _reach(self, alpha: float) -> float:
        check_alpha(alpha)
        if self.n == 1:
            return math.inf
        return -float(scipy.special.stdtrit(self.n - 1, alpha)) * self.standard_deviation / math.sqrt(self.n)


def paired_difference(a: Values, b: Values) -> PairedDifference:
    """Summary of the differences ``a[i] - b[i]``, i a seed that both share.

    Pairing takes out what a seed does to both sides (initial weights, order of samples, augmentations), so smaller gaps
    can be seen than by comparing two means.

    Args:
        a: n measurements, for example accuracies of a knockoff in points.
        b: n measurements of the control at the same seeds, in the same order and unit.

    Returns:
        Mean, standard deviation and number of the differences.

    Raises:
        InputError: the two rows differ in length, are empty, or hold values that are not finite.

    >>> paired_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    PairedDifference(mean=2.0, standard_deviation=1.0, n=3)
    >>> paired_difference([3.0], [1.0]).lower(alpha=0.05)
    -inf
    """
    if len(a) != len(b):
        raise InputError(f"a holds {len(a)} values and b {len(b)}; pairs need one value of each per seed")
    differences = [left - right for left, right in zip(finite_values("a", a), finite_values("b", b), strict=True)]
    n = len(differences)
    return PairedDifference(mean(differences), stdev(differences) if n > 1 else math.nan, n)
