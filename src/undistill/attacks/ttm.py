"""Transformed teacher matching and its weighted form, with and without labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import EXACT_ZEROS, AccessKind, Attack
from undistill.attacks.checks import check_positive, check_weight
from undistill.attacks.divergence import kl_divergence
from undistill.information import temper

PAPER = "Zheng, Yang 2024, arXiv 2402.11148; zkxufo/TTM"

WEIGHT_OF_ZEROS: Mapping[AccessKind, str] = MappingProxyType(
    {
        **EXACT_ZEROS,
        "decimals": "an entry that is rounded to zero is an exact zero, and an answer with many of them weighs little",
        "top-k": "hidden classes are exact zeros; the weight is that of the returned classes, between 1 and k^(1 - g)",
        "label": "the answer is the predicted class with probability 1, and its weight is 1",
    }
)
"""What exact zeros do to the weight of an answer."""


def matching(
    logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], power: float
) -> Float[Tensor, "b"]:
    """KL(p^(g) || q) per example: the answers' power transform against the student at temperature 1, in float32."""
    return kl_divergence(temper(log_probs.detach().float(), power), temper(logits.float(), 1.0))


def power_sum(log_probs: Float[Tensor, "b classes"], power: float) -> Float[Tensor, "b"]:
    """U = sum over classes of p_c^g: 1 for a one-hot answer, C^(1 - g) for a uniform one (g < 1).

    Answers that do not sum to 1 are renormalised first.

    Example:
        >>> import torch
        >>> power_sum(torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log(), 0.5)
        tensor([2.])
    """
    return (power * temper(log_probs.detach().float(), 1.0)).logsumexp(1).exp()


@dataclass(frozen=True)
class TTMWithoutLabels(Attack):
    """Transformed teacher matching by an attacker who has images and no labels.

    Formula, per example: beta * KL(p^(g) || q), with p^(g) = p^g / sum of p_c^g.

    Args:
        power: g = 1/T > 0 of the answers.
        beta: weight of the divergence: a factor of the learning rate.

    Raises:
        InputError: a power that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> import torch
        >>> attack = TTMWithoutLabels()
        >>> attack.loss(torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]]), torch.tensor([1])).exp().item()
        2.0

    Source: as :class:`TTM`, with no cross entropy. The power is the middle of those that the paper gives for weighted
    matching without labels (0.2 to 0.6); it gives none for this form.
    """

    name: ClassVar[str] = "ttm-no-labels"
    summary: ClassVar[str] = "KD that tempers the answers and not the student, from the answers alone, no labels"
    source: ClassVar[str] = PAPER
    needs_labels: ClassVar[bool] = False
    row_wise: ClassVar[bool] = True

    power: float = 0.4
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_positive("power", self.power)
        check_weight("weight beta of the divergence", self.beta)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return self.beta * self.soft(logits, log_probs)

    def soft(self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"]) -> Float[Tensor, "b"]:
        """The divergence per example, without beta."""
        return matching(logits, log_probs, self.power)

    @classmethod
    def grid(cls) -> "tuple[TTMWithoutLabels, ...]":
        return cls(), cls(power=0.2), cls(power=0.6)


@dataclass(frozen=True)
class TTM(TTMWithoutLabels):
    """Transformed teacher matching: knowledge distillation that tempers the teacher alone.

    Formula, per example: hard * CE(z, y) + beta * KL(p^(g) || q), with p^(g) = p^g / sum of p_c^g, and no factor T^2.

    It is KD at T = 1/g less a Renyi entropy of the student: KL(p^(g) || q) = T KL(p^(g) || q^(g)) - (T - 1) H_g(q) +
    (T - 1) H(p^(g)), so it also rewards students that spread their probability. The optimum is q = p^(g), not q = p.

    Args:
        power: g = 1/T > 0 of the answers.
        beta: weight of the divergence.
        hard: weight of the labels' cross entropy (a weight, not a share).

    Raises:
        InputError: a power that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> import torch
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> attack = TTM(power=0.5, beta=1.0, hard=0.0)
        >>> attack.loss(0.5 * log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-6
        True

    Source: Zheng, Yang, "Knowledge Distillation Based on Transformed Teacher Matching", arXiv 2402.11148; zkxufo/TTM.
    The paper tunes both settings per pair of networks, with beta from 7 to 101; the defaults are those of ResNet-56 to
    ResNet-20 on CIFAR-100, and the README's (g = 0.1, beta = 45) are in the grid. Deviation: exp(g log p), where the
    code takes a power of a softmax, which loses what underflows.
    """

    name: ClassVar[str] = "ttm"
    summary: ClassVar[str] = "KD that tempers the answers and not the student, plus cross entropy with labels"
    needs_labels: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    power: float = 0.3
    beta: float = 7.0
    hard: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("weight of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return self.hard * hard + super().loss(logits, log_probs, labels)

    @classmethod
    def grid(cls) -> "tuple[TTM, ...]":
        return cls(), cls(power=0.2, beta=8.0), cls(power=0.1, beta=45.0)


@dataclass(frozen=True)
class WTTM(TTM):
    """Weighted transformed teacher matching: each answer weighs the more, the less certain it is.

    Formula, per example: hard * CE(z, y) + beta * U * KL(p^(g) || q), with U = sum of p_c^g and p^(g) = p^g / U.

    Args:
        power: g = 1/T > 0 of the answers.
        beta: weight of the divergence.
        hard: weight of the labels' cross entropy (a weight, not a share).

    Raises:
        InputError: a power that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> import torch
        >>> half = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log()
        >>> attack = WTTM(power=0.5, beta=1.0, hard=0.0)
        >>> attack.loss(torch.zeros(1, 4), half, torch.tensor([0])).item()  # U = sqrt 2, and the divergence is log 2
        0.980...

    Source: as :class:`TTM`; defaults (g = 0.1, beta = 2.25) are the paper's for VGG13 to VGG8 on CIFAR-100. Deviation:
    both the power and U are taken in the log domain.
    """

    name: ClassVar[str] = "wttm"
    summary: ClassVar[str] = "as ttm, with more weight on uncertain answers, plus cross entropy with labels"
    access: ClassVar[Mapping[AccessKind, str]] = WEIGHT_OF_ZEROS
    row_wise: ClassVar[bool] = True

    power: float = 0.1
    beta: float = 2.25

    def soft(self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"]) -> Float[Tensor, "b"]:
        return power_sum(log_probs, self.power) * matching(logits, log_probs, self.power)

    @classmethod
    def grid(cls) -> "tuple[WTTM, ...]":
        return cls(), cls(power=0.2, beta=3.0), cls(power=0.3, beta=1.5)


@dataclass(frozen=True)
class WTTMWithoutLabels(TTMWithoutLabels):
    """Weighted transformed teacher matching by an attacker who has images and no labels.

    Formula, per example: beta * U * KL(p^(g) || q), with U = sum of p_c^g and p^(g) = p^g / U.

    Args:
        power: g = 1/T > 0 of the answers.
        beta: weight of the divergence: a factor of the learning rate.

    Raises:
        InputError: a power that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> import torch
        >>> attack = WTTMWithoutLabels()
        >>> attack.loss(torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]]), torch.tensor([1])).exp().item()
        2.0

    Source: as :class:`WTTM`, with no cross entropy; powers from the paper's experiments without labels (0.2 to 0.6).
    """

    name: ClassVar[str] = "wttm-no-labels"
    summary: ClassVar[str] = "as ttm-no-labels, with more weight on uncertain answers"
    access: ClassVar[Mapping[AccessKind, str]] = WEIGHT_OF_ZEROS
    row_wise: ClassVar[bool] = True

    def soft(self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"]) -> Float[Tensor, "b"]:
        return power_sum(log_probs, self.power) * matching(logits, log_probs, self.power)

    @classmethod
    def grid(cls) -> "tuple[WTTMWithoutLabels, ...]":
        return cls(), cls(power=0.2), cls(power=0.6)
