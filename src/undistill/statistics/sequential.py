"""Paired differences that are looked at several times, while seeds are added: one error rate for all looks together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from undistill.errors import InputError
from undistill.statistics.checks import Values, check_alpha
from undistill.statistics.paired import PairedDifference, paired_difference


@dataclass(frozen=True)
class SequentialDifference:
    """What paired differences say after each of several looks; made by :func:`sequential_difference`.

    It answers as :class:`PairedDifference` does, and its answers hold for all looks together, whatever decides when to
    stop. Look k spends the share w_k of every error rate, w_k = (pairs that it adds) / (pairs of the last planned
    look): a bound at level alpha is the best of the looks' own bounds at levels w_k alpha, and the p-value is the
    smallest p_k / w_k. Since the w_k sum to 1, the chance that any look errs is at most alpha (Bonferroni's inequality
    over looks), exactly for normal differences, for any number of pairs and any dependence.

    With a single look it is the plain paired t-test.

    Attributes:
        differences: of all pairs so far, one per look.
        shares: what each of these looks spends.

    Source: spending an error rate over looks is due to Lan & DeMets, Biometrika 70 (1983); spending it in proportion
    to the sample is the member rho = 1 of the family of Kim & DeMets, Biometrika 74 (1987); p-values of sequential
    tests, which Holm's procedure can take, are in Liu & Anderson, JASA 103 (2008). Deviation: those authors solve for
    levels from the looks' joint normal distribution. Bonferroni's inequality costs a little power and needs no such
    approximation, which is poor for t-tests of three pairs.
    """

    differences: tuple[PairedDifference, ...]
    shares: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of all pairs so far. After an early stop it lies, on average, a little beyond the truth."""
        return self.differences[-1].mean

    @property
    def standard_deviation(self) -> float:
        """Of all pairs so far."""
        return self.differences[-1].standard_deviation

    @property
    def n(self) -> int:
        """Number of pairs so far."""
        return self.differences[-1].n

    @property
    def p_value(self) -> float:
        """One-sided, against "the true mean is 0 or less"; below alpha exactly when ``lower(alpha)`` is above 0.

        >>> a, b = [3.0, 2.0, 4.0, 3.0], [1.0, 1.0, 1.0, 1.0]
        >>> round(sequential_difference(a, b, looks=(3, 4)).p_value, 4)  # the second look's
        0.0326
        """
        looks = zip(self.differences, self.shares, strict=True)
        return min(1.0, *(difference.p_value / share for difference, share in looks))

    def lower(self, alpha: float) -> float:
        """Lower bound of the true mean: the largest of the looks' bounds at ``share * alpha``.

        Args:
            alpha: in (0, 0.5), the chance that the true mean lies below the bound of any look.

        Raises:
            InputError: alpha outside (0, 0.5).
        """
        check_alpha(alpha)
        looks = zip(self.differences, self.shares, strict=True)
        return max(difference.lower(share * alpha) for difference, share in looks)

    def upper(self, alpha: float) -> float:
        """Upper bound of the true mean: the smallest of the looks' bounds; argument as of :meth:`lower`."""
        check_alpha(alpha)
        looks = zip(self.differences, self.shares, strict=True)
        return min(difference.upper(share * alpha) for difference, share in looks)


def look_shares(looks: Sequence[int]) -> list[float]:
    """The share of every error rate that each look spends: as large as its share of the pairs.

    Args:
        looks: numbers of pairs at which one looks, rising; the last is the most that may be had.

    Raises:
        InputError: no look, or numbers that do not rise from at least 1.

    >>> look_shares((3, 6, 12))
    [0.25, 0.25, 0.5]
    """
    if not looks or looks[0] < 1 or any(later <= earlier for earlier, later in pairwise(looks)):
        raise InputError(f"looks are {tuple(looks)}, but must be rising numbers of pairs, at least one of them")
    return [(size - before) / looks[-1] for before, size in zip((0, *looks), looks, strict=False)]


def sequential_difference(a: Values, b: Values, *, looks: Sequence[int]) -> SequentialDifference:
    """Summary of the differences ``a[i] - b[i]`` at every planned look that they reach.

    Args:
        a: n measurements; see :func:`paired_difference`.
        b: n measurements of the control.
        looks: numbers of pairs at which one planned to look before any was measured; n is one of them.

    Raises:
        InputError: n is none of the looks, looks do not rise, or the values are refused by :func:`paired_difference`.

    >>> both = sequential_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0], looks=(3, 6))
    >>> both.n, both.shares
    (3, (0.5,))
    >>> both.lower(0.1) == paired_difference([3.0, 2.0, 4.0], [1.0, 1.0, 1.0]).lower(0.05)
    True
    """
    shares = look_shares(looks)
    if len(a) not in looks:
        raise InputError(f"there are {len(a)} pairs, which is none of the planned looks {tuple(looks)}; plan it")
    if len(a) != len(b):
        raise InputError(f"a holds {len(a)} values and b {len(b)}; pairs need one value of each per seed")
    reached = [size for size in looks if size <= len(a)]
    differences = tuple(paired_difference(list(a)[:size], list(b)[:size]) for size in reached)
    return SequentialDifference(differences, tuple(shares[: len(reached)]))
