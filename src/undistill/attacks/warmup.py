"""A soft loss that is faded in."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import AttackLoss


@runtime_checkable
class Faded(Protocol):
    """An attack whose loss takes the weight of its soft part, and whose ``warmup`` is the share of the training in
    which this weight rises to 1."""

    warmup: float

    def loss(
        self,
        logits: Float[Tensor, "m classes"],
        log_probs: Float[Tensor, "v classes"],
        labels: Int64[Tensor, "b"],
        ramp: float = 1.0,
    ) -> Float[Tensor, "b"]: ...


class WarmUp(AttackLoss):
    """The loss of an attack with a field ``warmup`` (share of the epochs) and a ``loss`` that takes ``ramp``.

    In epoch e (counted from 1) of E the ramp is min(1, e / (warmup * E)), as in mdistiller, where warmup * E is 20 of
    240 epochs.
    """

    attack: Faded  # type: ignore[assignment]
    ramp = 1.0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        rise = self.attack.warmup * epochs
        self.ramp = min(1.0, (epoch + 1) / rise) if rise > 0 else 1.0

    def forward(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "v classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return self.attack.loss(logits, log_probs, labels, self.ramp)
