"""A floor under all probabilities: what is small says nothing, at whatever temperature it is read."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from undistill.defences.output.decision import first, logarithms, probabilities
from undistill.defences.output.defence import FixedDefence
from undistill.errors import InputError


@dataclass(frozen=True)
class Floor(FixedDefence):
    """Serves the distribution next to the answer that has no probability below a floor.

        p'_c = max(f, s p_c)    with f = share / classes, and s such that the row sums to 1

    That is the projection of p onto { q : q_c >= f } by the Kullback-Leibler divergence, in either direction. A student
    reads answers at a power 1/T, which brings out the ratios of small probabilities. Below the floor all ratios are 1,
    and no power changes that: the log-odds of two classes are at most log(1 / f).

    Args:
        share: the floor as a share of the uniform probability, above 0 and below 1.

    Raises:
        InputError: another share.

    Example:
        >>> rows = torch.tensor([[0.9, 0.09, 0.01], [0.5, 0.3, 0.2]]).log()
        >>> Floor(0.3).apply(rows, torch.zeros(2, 1, 2, 2)).exp().round(decimals=4)
        tensor([[0.8000, 0.1000, 0.1000],
                [0.5000, 0.3000, 0.2000]])

    Source: ours, as what answers of a limited temperature can be. It is for teachers whose large probabilities say
    little already, as those of CMIM do.
    """

    name: ClassVar[str] = "floor"
    summary: ClassVar[str] = "no probability below a floor: small ones say nothing at any temperature"
    source: ClassVar[str] = "ours"
    keeps_top1 = True
    idempotent = True

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(
                f"floor cannot lie at a share of {self.share} of the uniform probability; share must lie between 0 "
                "and 1"
            )

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        decision = log_probs.argmax(1)
        served = raised(probabilities(log_probs), self.share / log_probs.shape[1])
        return first(logarithms(served, log_probs), decision)


def raised(probs: Float64[Tensor, "n classes"], floor: float) -> Float64[Tensor, "n classes"]:
    """``max(floor, s probs)`` with the s for which rows sum to 1, to rounding.

    Args:
        probs: rows that sum to 1.
        floor: above 0 and below 1 / classes.
    """
    classes = probs.shape[1]
    ordered = probs.sort(1, descending=True).values
    above = torch.arange(1, classes + 1, dtype=probs.dtype, device=probs.device)
    scales = (1 - floor * (classes - above)) / ordered.cumsum(1)  # s, were so many classes above the floor
    count = (scales * ordered > floor).sum(1, keepdim=True).clamp_min(1)  # none but for rounding
    return torch.maximum(probs * scales.gather(1, count - 1), torch.full_like(probs, floor))
