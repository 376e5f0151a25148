"""The mean of a few repeated measurements, with its t-interval."""

import math

# Rational arithmetic: the standard deviation of equal numbers is exactly 0, whatever their binary expansion.
from statistics import mean, stdev
from typing import NamedTuple

import scipy  # its parts are loaded when they are first used

from undistill.errors import InputError
from undistill.statistics.checks import Values, finite_values


class Interval(NamedTuple):
    """A mean and the two ends of its confidence interval, all in the unit of the values.

    A format is that of each of the three numbers:

    >>> f"{Interval(0.5, -0.25, 1.25):+.2f}"
    '+0.50 [-0.25, +1.25]'
    """

    mean: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def interval(values: Values, confidence: float = 0.95) -> Interval:
    """Two-sided t-interval of a mean: ``mean ± t * s / sqrt(n)``.

    Here s is the sample deviation and t the ``(1 + confidence) / 2`` quantile of the t-distribution at n - 1 degrees.

    Args:
        values: n independent measurements, for example the accuracy of one student at n seeds.
        confidence: probability in (0, 1) that the interval covers the true mean, if the values are normal.

    Returns:
        ``(mean, low, high)``. One value says nothing of the spread: its interval is ``(-inf, inf)``. If all values are
        equal, both ends are the mean.

    Raises:
        InputError: no values, values that are not finite, or a confidence outside (0, 1).

    >>> f"{interval([76.5, 77.0, 76.0, 76.9]):.2f}"
    '76.60 [75.88, 77.32]'
    >>> interval([76.5])
    Interval(mean=76.5, low=-inf, high=inf)
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, but must lie strictly between 0 and 1 (say 0.95)")
    numbers = finite_values("values", values)
    centre, n = mean(numbers), len(numbers)
    if n == 1:
        return Interval(centre, -math.inf, math.inf)
    reach = -float(scipy.special.stdtrit(n - 1, (1 - confidence) / 2)) * stdev(numbers) / math.sqrt(n)
    return Interval(centre, centre - reach, centre + reach)
