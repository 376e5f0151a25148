"""Checks on answers before anything is learnt from them."""

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.errors import InputError

# Four decimals over 20 classes pass always (20 times half the last decimal); anything worse is not a distribution.
SUM_TOLERANCE = 1e-3


def check_log_probs(log_probs: Float[Tensor, "n classes"], whose: str) -> None:
    """Refuse log-probabilities that hold NaN or do not sum to 1.

    Raises:
        InputError: how many rows are wrong, by how much, and which is the first.
    """
    not_a_number = log_probs.isnan().any(1)
    if not_a_number.any():
        raise InputError(
            f"{whose}: {int(not_a_number.sum())} of {len(log_probs)} rows hold NaN (first: row "
            f"{int(not_a_number.nonzero()[0])}); a model that gives NaN can be neither measured nor audited"
        )
    gap = torch.expm1(torch.logsumexp(log_probs.double(), 1))
    wrong = gap.abs() > SUM_TOLERANCE
    if wrong.any():
        worst = int(gap.abs().argmax())
        raise InputError(
            f"{whose}: probabilities of {int(wrong.sum())} of {len(log_probs)} rows do not sum to 1 (row {worst} sums "
            f"to {1 + gap[worst].item():.6g}, off by {gap[worst].item():+.3g}); give probabilities, their natural "
            "logarithms, or logits under the name that says which"
        )


def log_probs_of_probabilities(probs: Float[Tensor, "n classes"], whose: str) -> Float[Tensor, "n classes"]:
    """Natural logarithms of probabilities, float32; an exact zero becomes ``-inf``.

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
    check_log_probs(log_probs, whose)
    return log_probs.float()
