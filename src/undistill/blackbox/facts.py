"""What answers look like from outside: zeros, decimals, sums."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.attacks import AccessKind
from undistill.blackbox.access import FULL, Access, Decimals

# Seven decimals cannot be told from float32: near 1 its steps are as large.
MOST_VISIBLE_DECIMALS = 6

# Coarser numbers first: what bfloat16 holds, float16 mostly holds, too.
FLOAT_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class AnswerFacts:
    """How fine the answers of a black box are, beside what it says of them; made by :func:`answer_facts`.

    Attributes:
        images: number of answers that were looked at.
        kind: what kind of answers the box says it gives.
        places: the decimals that it says it rounds to; None if it does not say so.
        with_zeros: answers with an exact zero.
        most_classes: the largest number of classes above zero in one answer.
        decimals: the fewest decimals that hold every probability; None if more than 6 are needed.
        float_type: ``"bfloat16"`` or ``"float16"`` if that holds every probability, and decimals do not.
        least_sum: of an answer's probabilities.
        largest_sum: of an answer's probabilities.
    """

    images: int
    kind: AccessKind
    places: int | None
    with_zeros: int
    most_classes: int
    decimals: int | None
    float_type: str | None
    least_sum: float
    largest_sum: float

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def answer_facts(log_probs: Float[Tensor, "n classes"], policy: Access = FULL) -> AnswerFacts:
    """Look at answers as they came.

    A probability p that was stored as a float32 logarithm comes back to within ``2^-23 p (1 + |ln p|)``; one that lies
    no farther than that from a number with d decimals (or from a float16 one) counts as such a number.

    Args:
        log_probs: natural logarithms, at least one row; ``-inf`` is an exact zero.
        policy: what the box says it lets through.

    Example:
        >>> found = answer_facts(torch.tensor([[0.72, 0.28, 0.0], [0.4, 0.35, 0.25]]).log())
        >>> found.decimals, found.with_zeros, found.most_classes
        (2, 1, 3)
    """
    logs = log_probs.double()
    probs, zero = logs.exp(), logs.isneginf()  # what is too small for a double is no exact zero
    noise = torch.finfo(torch.float32).eps * probs * (1 + logs.clamp_min(-1e3).abs())

    def holds(numbers: Float[Tensor, "n classes"]) -> bool:
        return bool((((probs - numbers).abs() <= noise) & (zero | (numbers > 0))).all())

    fits = (d for d in range(MOST_VISIBLE_DECIMALS + 1) if holds((probs * 10**d).round() / 10**d))
    decimals = next(fits, None)
    types = (name for name, kind in FLOAT_TYPES.items() if holds(probs.to(kind).double()))
    sums, classes = probs.sum(1), (~zero).sum(1)
    return AnswerFacts(
        images=len(log_probs),
        kind=policy.kind,
        places=policy.places if isinstance(policy, Decimals) else None,
        with_zeros=int((classes < log_probs.shape[1]).sum()),
        most_classes=int(classes.max()),
        decimals=decimals,
        float_type=next(types, None) if decimals is None else None,
        least_sum=sums.min().item(),
        largest_sum=sums.max().item(),
    )
