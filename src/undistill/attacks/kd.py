"""Knowledge distillation (Hinton, Vinyals, Dean), with and without labels."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import Attack
from undistill.attacks.checks import check_share, check_temperature
from undistill.attacks.divergence import soft_loss

TEMPERATURES = (1.0, 4.0, 20.0)


@dataclass(frozen=True)
class KD(Attack):
    """Knowledge distillation with labels.

    Formula, per example: hard * CE(z, y) + (1 - hard) * T^2 * KL(p^(1/T) || softmax(z/T)).

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].

    Example:
        >>> import torch
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> KD(temperature=4.0, hard=0.0).loss(log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-6
        True

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531. Defaults (T = 4,
    0.1 and 0.9) as in the CIFAR-100 benchmark of RepDistiller and mdistiller. No deviation: the KL is summed over
    classes and averaged over examples ("batchmean"), not over classes, and keeps its T^2.
    """

    name: ClassVar[str] = "kd"
    summary: ClassVar[str] = "knowledge distillation: T^2 KL to the tempered answers, plus cross entropy with labels"
    source: ClassVar[str] = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
    needs_labels: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    temperature: float = 4.0
    hard: float = 0.1

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_share("share of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return self.hard * hard + (1 - self.hard) * self.soft(logits, log_probs, labels)

    def soft(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """What the answers teach, with its factor T^2."""
        return soft_loss(logits, log_probs, self.temperature)

    @classmethod
    def grid(cls) -> "tuple[KD, ...]":
        return tuple(cls(temperature) for temperature in TEMPERATURES)


@dataclass(frozen=True)
class KDWithoutLabels(Attack):
    """Knowledge distillation by an attacker who has images and no labels.

    Formula, per example: T^2 * KL(p^(1/T) || softmax(z/T)).

    Args:
        temperature: T > 0.

    Example:
        >>> import torch
        >>> attack = KDWithoutLabels(temperature=1.0)
        >>> attack.loss(torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]]), torch.tensor([1])).exp().item()
        2.0

    Source: as :class:`KD`, with no cross entropy.
    """

    name: ClassVar[str] = "kd-no-labels"
    summary: ClassVar[str] = "knowledge distillation from the answers alone: T^2 KL, no labels"
    source: ClassVar[str] = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
    needs_labels: ClassVar[bool] = False
    row_wise: ClassVar[bool] = True

    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return soft_loss(logits, log_probs, self.temperature)

    @classmethod
    def grid(cls) -> "tuple[KDWithoutLabels, ...]":
        return tuple(cls(temperature) for temperature in TEMPERATURES)
