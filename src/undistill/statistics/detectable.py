"""How small a gap an experiment could have seen."""

import math
from functools import cache

import scipy  # its parts are loaded when they are first used

from undistill.errors import InputError
from undistill.statistics.checks import check_alpha


def smallest_detectable(standard_deviation: float, n: int, *, alpha: float, power: float = 0.8) -> float:
    """The smallest true mean difference that a one-sided paired t-test would find with probability ``power``.

    It is ``shift * s / sqrt(n)``, with the shift at which a noncentral t variable (n - 1 degrees) exceeds the test's
    critical value with probability ``power``. For large n it nears ``(z_alpha + z_power) * s / sqrt(n)``. At n = 2
    SciPy's inverse of the noncentral t is rough for small alpha: off by 2e-5 of the gap at 0.001, by 2e-3 at 1e-5.

    Args:
        standard_deviation: deviation s of the paired differences, 0 or more; not looked at below two pairs.
        n: number of pairs, 0 or more.
        alpha: level of the test, in (0, 0.5).
        power: probability in (alpha, 1) of finding the gap. Not the power a = 1/T of a spectrum.

    Returns:
        The gap, in the unit of ``standard_deviation``; inf below two pairs, where no gap can be found.

    Raises:
        InputError: a negative or infinite deviation, a negative n, alpha outside (0, 0.5), or power outside (alpha, 1).

    >>> round(smallest_detectable(0.4, 3, alpha=0.05), 3)
    0.919
    >>> round(smallest_detectable(0.4, 10, alpha=0.05), 3)
    0.341
    >>> smallest_detectable(0.4, 1, alpha=0.05)
    inf
    """
    check_alpha(alpha)
    if not alpha < power < 1:
        raise InputError(f"power is {power}, but must lie strictly between alpha ({alpha}) and 1 (say 0.8)")
    if n < 0:
        raise InputError(f"n is {n}, but is a number of pairs; give 0 or more")
    if n < 2:
        return math.inf
    if not (math.isfinite(standard_deviation) and standard_deviation >= 0):
        raise InputError(f"standard_deviation is {standard_deviation}, but must be finite and 0 or more")
    return _shift(n, alpha, power) * standard_deviation / math.sqrt(n)


@cache  # the cells of an audit share their arguments
def _shift(n: int, alpha: float, power: float) -> float:
    critical = -scipy.special.stdtrit(n - 1, alpha)
    return float(scipy.special.nctdtrinc(n - 1, 1 - power, critical))
