"""The difference of two means whose measurements share nothing."""

import math

# Rational arithmetic: the variance of equal numbers is exactly 0, whatever their binary expansion.
from statistics import mean, variance

import scipy  # its parts are loaded when they are first used

from undistill.errors import InputError
from undistill.statistics.checks import Values, finite_values
from undistill.statistics.spread import Interval


def unpaired_interval(a: Values, b: Values, confidence: float = 0.95) -> Interval:
    """Two-sided interval of a difference of means, for measurements that share no seeds: Welch's t-interval.

    ``mean a - mean b ± t * sqrt(v)``, ``v = v_a + v_b``, ``v_a = s_a^2 / n_a`` and likewise for b; t is the
    ``(1 + confidence) / 2`` quantile at ``v^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1))`` degrees. Where seeds
    are shared, the :func:`interval` of the paired differences is narrower.

    Args:
        a: n_a independent measurements.
        b: n_b independent measurements, in the same unit.
        confidence: probability in (0, 1) that the interval covers the true difference, if the values are normal.

    Returns:
        ``(mean, low, high)``. One value on either side says nothing of that side's spread: the interval is
        ``(-inf, inf)``. If all values of each side are equal, both ends are the difference.

    Raises:
        InputError: no values, values that are not finite, or a confidence outside (0, 1).

    Source: Welch, "The generalization of 'Student's' problem when several different population variances are involved",
    Biometrika 34 (1947).

    >>> difference, low, high = unpaired_interval([76.5, 77.0, 76.0, 76.9], [75.1, 75.9, 75.3])
    >>> f"{difference:.2f} [{low:.2f}, {high:.2f}]"
    '1.17 [0.30, 2.03]'
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, but must lie strictly between 0 and 1 (say 0.95)")
    sides = finite_values("a", a), finite_values("b", b)
    difference = mean(sides[0]) - mean(sides[1])
    if min(map(len, sides)) == 1:
        return Interval(difference, -math.inf, math.inf)
    parts = [variance(side) / len(side) for side in sides]
    total = math.fsum(parts)
    if total == 0:
        return Interval(difference, difference, difference)
    # Shares of the total: its square may be too small a number.
    degrees = 1 / math.fsum((part / total) ** 2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    reach = -float(scipy.special.stdtrit(degrees, (1 - confidence) / 2)) * math.sqrt(total)
    return Interval(difference, difference - reach, difference + reach)
