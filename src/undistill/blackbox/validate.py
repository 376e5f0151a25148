"""Checks on answers before anything is learnt from them."""

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.errors import InputError

# Four decimals over 20 classes pass always (20 times half the last decimal); anything worse is not a distribution.
SUM_TOLERANCE = 1e-3


def check_log_probs(log_probs: Float[Tensor, "n classes"], whose: str, sums: tuple[float, float] = (1.0, 1.0)) -> None:
    """Refuse log-probabilities that hold NaN or do not sum to 1.

    Args:
        log_probs: natural logarithms; ``-inf`` is an exact zero.
        whose: who is named when something is wrong.
        sums: the least and the largest sum of a row's probabilities, for answers that are rounded or cut off.

    Raises:
        InputError: how many rows are wrong, by how much, and which is the first.
    """
    not_a_number = log_probs.isnan().any(1)
    if not_a_number.any():
        raise InputError(
            f"{whose}: {int(not_a_number.sum())} of {len(log_probs)} rows hold NaN (first: row "
            f"{int(not_a_number.nonzero()[0])}); a model that gives NaN can be neither measured nor audited"
        )
    least, most = sums
    totals = torch.logsumexp(log_probs.double(), 1).exp()
    gaps = totals - totals.clamp(least, most)
    gaps = torch.where(totals == 0, -1.0, gaps)  # whatever is allowed, an answer names some class
    wrong = gaps.abs() > SUM_TOLERANCE
    if wrong.any():
        worst = int(gaps.abs().argmax())
        right = "1" if least == most else f"between {least:g} and {most:g}"
        raise InputError(
            f"{whose}: probabilities of {int(wrong.sum())} of {len(log_probs)} rows do not sum to {right} (row {worst} "
            f"sums to {totals[worst].item():.6g}, off by {gaps[worst].item():+.3g}); give probabilities, their natural "
            "logarithms, or logits under the name that says which; if they are rounded or cut off, name the access "
            "(such as decimals:3 or top-k-raw:5)"
        )


def check_logits(logits: Float[Tensor, "n classes"], whose: str) -> None:
    """Refuse logits whose largest one is infinite, so that no softmax exists. NaN passes: it is found thereafter.

    >>> check_logits(torch.tensor([[2.0, -torch.inf]]), "answers")  # the second class has probability 0

    Raises:
        InputError: how many rows are wrong, and which is the first.
    """
    wrong = logits.amax(1).isinf()
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise InputError(
            f"{whose}: {int(wrong.sum())} of {len(logits)} rows have no finite largest logit (first: row {first} with "
            f"{logits[first].max().item():+}); give finite logits, with -inf only for classes of probability 0"
        )


def log_probs_of_probabilities(
    probs: Float[Tensor, "n classes"], whose: str, sums: tuple[float, float] = (1.0, 1.0)
) -> Float[Tensor, "n classes"]:
    """Natural logarithms of probabilities, float32; an exact zero becomes ``-inf``. Arguments as above.

    >>> log_probs_of_probabilities(torch.tensor([[1.0, 0.0]]), "answers").tolist()
    [[0.0, -inf]]
    """
    negative = (probs < 0).any(1)
    if negative.any():
        raise InputError(
            f"{whose}: {int(negative.sum())} of {len(probs)} rows hold negative probabilities (first: row "
            f"{int(negative.nonzero()[0])}); if these are logits or log-probabilities, name them so"
        )
    log_probs = probs.double().log()
    check_log_probs(log_probs, whose, sums)
    return log_probs.float()
