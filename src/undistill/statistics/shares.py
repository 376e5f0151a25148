"""Two shares: is one larger than chance would make it?"""

from math import exp, fsum, lgamma

from undistill.errors import InputError


def share_p_value(right: int, of: int, other_right: int, of_other: int) -> float:
    """One-sided p-value of Fisher's exact test against "the first share is not larger than the other".

    Given how many are right in all, the number of right ones among the first is hypergeometric, if it is chance which
    are in the first part. The p-value is the probability of at least as many. It is exact for small counts, and for
    shares near 0 or 1, where a normal approximation finds differences that are none.

    Args:
        right: right answers of the first part.
        of: answers of the first part, at least 1.
        other_right: right answers of the other part.
        of_other: answers of the other part, at least 1.

    Raises:
        InputError: a count is negative or above its total, or a part is empty.

    Source: Fisher, "The Logic of Inductive Inference", Journal of the Royal Statistical Society 98 (1935). Deviation
    from SciPy's: the same sum, without loading ``scipy.stats``, which takes longer than all that a complete audit does.

    >>> round(1 / share_p_value(4, 4, 0, 4))  # of the 70 ways to draw 4 of 8, one takes all 4 right ones
    70
    """
    for count, total in ((right, of), (other_right, of_other)):
        if not 0 <= count <= total or total < 1:
            raise InputError(f"{count} of {total} is no share; counts must be 0 or more, of at least 1, and not above")
    all_right, everyone = right + other_right, of + of_other
    ways = _log_ways(everyone, of)
    least, most = max(right, of - (everyone - all_right)), min(of, all_right)
    chances = (_log_ways(all_right, k) + _log_ways(everyone - all_right, of - k) - ways for k in range(least, most + 1))
    return min(1.0, fsum(map(exp, chances)))


def _log_ways(of: int, chosen: int) -> float:
    """Logarithm of the number of ways to choose some of them."""
    return lgamma(of + 1) - lgamma(chosen + 1) - lgamma(of - chosen + 1)
