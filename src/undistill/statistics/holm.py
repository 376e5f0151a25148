"""Holm's step-down correction: many hypotheses, one error rate for all of them together."""

from undistill.errors import InputError
from undistill.statistics.checks import Values, check_alpha, finite_values


def holm_levels(p_values: Values, alpha: float) -> list[float]:
    """The level for each hypothesis's one-sided lower bound, so that the sign of the bound is Holm's decision.

    Walking up from the smallest of m p-values, the k-th smallest (k = 1..m) is tested at level ``alpha / (m - k + 1)``,
    until one is not rejected; that one and all larger ones keep its level. With ``level = holm_levels(...)[i]``,
    "``lower(level)`` is above 0", "``p_values[i] < level``" and "Holm rejects hypothesis i" are one statement. The
    chance of rejecting even one true hypothesis is at most alpha, whatever the dependence between them.

    Only the signs of the bounds hold for all hypotheses together. Their values are not simultaneous confidence bounds:
    those of the later rejected ones use milder levels, which are earned by rejecting the earlier ones, not by bounding
    them.

    Args:
        p_values: m one-sided p-values in [0, 1]. Equal ones take their levels in the order given.
        alpha: the error rate for all hypotheses together, in (0, 0.5).

    Returns:
        m levels, in the order of ``p_values``; an empty list for no hypotheses.

    Raises:
        InputError: a p-value outside [0, 1] or not finite, or alpha outside (0, 0.5).

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics (1979).
    Deviation: a p-value equal to its level does not reject (Holm: it does), because the bound is then 0, not above it.

    >>> [round(level, 4) for level in holm_levels([0.04, 0.001, 0.3], alpha=0.06)]  # the first fails: 0.04 > 0.06 / 2
    [0.03, 0.02, 0.03]
    """
    check_alpha(alpha)
    numbers = _checked(p_values)
    levels = [0.0] * len(numbers)
    level, failed = 0.0, False
    for rank, index in enumerate(_ascending(numbers)):
        if not failed:
            level = alpha / (len(numbers) - rank)
            failed = numbers[index] >= level
        levels[index] = level
    return levels


def holm_adjust(p_values: Values) -> list[float]:
    """Adjusted p-values: the smallest alpha at which Holm's procedure rejects each hypothesis.

    The k-th smallest of m becomes ``max over j <= k of min(1, (m - j + 1) * p_j)``, ``p_j`` the j-th smallest.

    Args:
        p_values: m one-sided p-values in [0, 1].

    Returns:
        m adjusted p-values, in the order of ``p_values``; an empty list for no hypotheses.

    Raises:
        InputError: a p-value outside [0, 1] or not finite.

    Source: as for :func:`holm_levels`.

    >>> holm_adjust([0.25, 0.001, 0.02])
    [0.25, 0.003, 0.04]
    """
    numbers = _checked(p_values)
    adjusted = [0.0] * len(numbers)
    largest = 0.0
    for rank, index in enumerate(_ascending(numbers)):
        largest = max(largest, min(1.0, (len(numbers) - rank) * numbers[index]))
        adjusted[index] = largest
    return adjusted


def _ascending(numbers: list[float]) -> list[int]:
    return sorted(range(len(numbers)), key=numbers.__getitem__)


def _checked(p_values: Values) -> list[float]:
    if len(p_values) == 0:
        return []
    numbers = finite_values("p_values", p_values)
    bad = [number for number in numbers if not 0 <= number <= 1]
    if bad:
        raise InputError(
            f"{len(bad)} of the {len(numbers)} p-values lie outside [0, 1] (the first is {bad[0]}); give probabilities"
        )
    return numbers
