"""Learning from answers at temperature 1: Knockoff Nets, with soft and hard answers, and hard answers beside labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import ACCESS_KINDS, AccessKind, Attack
from undistill.attacks.checks import check_share

HARD: Mapping[AccessKind, str] = MappingProxyType(
    dict.fromkeys(ACCESS_KINDS, "the predicted class is all that is used (the first one, where several are largest)")
)


@dataclass(frozen=True)
class Knockoff(Attack):
    """Knockoff Nets: cross entropy with the answers, and nothing else.

    Formula, per example: - sum over classes of p_c log softmax(z)_c.

    There is nothing to set. What distinguishes the paper is how it asks: every image of a pool (possibly of another
    task) once, clean. That is a setting of the audit, not of the loss.

    Example:
        >>> Knockoff().loss(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]]).log(), torch.tensor([0])).exp().item()
        2.0

    Source: Orekondy, Schiele, Fritz, "Knockoff Nets: Stealing Functionality of Black-Box Models", CVPR 2019, arXiv
    1812.02766. As its code does, answers that keep less mass than 1 are not renormalised: they weigh less. No
    deviation in the loss; the knockoff's optimiser is the audit's.
    """

    name: ClassVar[str] = "knockoff"
    summary: ClassVar[str] = "Knockoff Nets: cross entropy with the answers at T = 1, no labels"
    source: ClassVar[str] = "Orekondy, Schiele, Fritz, CVPR 2019, arXiv 1812.02766"
    needs_labels: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            "full": "as published",
            "decimals": "an entry that is rounded to zero is an exact zero",
            "top-k": "hidden classes are exact zeros",
            "top-k-raw": "as published: not renormalised, so an image weighs as much as the mass that it returned",
            "label": "cross entropy with the predicted class",
        }
    )
    row_wise: ClassVar[bool] = True

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return -(log_probs.detach().float().exp() * torch.log_softmax(logits.float(), 1)).sum(1)

    @classmethod
    def grid(cls) -> "tuple[Knockoff, ...]":
        return (cls(),)


@dataclass(frozen=True)
class KnockoffHard(Attack):
    """Knockoff Nets that keep only the predicted class of an answer.

    Formula, per example: CE(z, argmax p), with label smoothing.

    No defence that keeps the predicted class can weaken it. On the teacher's own training images the predicted class
    is nearly always the label, so there it is a reference without labels; it says something on other images.

    Args:
        smoothing: of the predicted class, in [0, 1]: 1 - s + s/C on it, s/C elsewhere.

    Example:
        >>> attack = KnockoffHard(smoothing=0.0)
        >>> attack.loss(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]]).log(), torch.tensor([0])).exp().item()
        2.0

    Source: as :class:`Knockoff`, whose code has it as ``--argmaxed``. The smoothing is ours: the label-smoothed
    student that a knockoff must beat has it too.
    """

    name: ClassVar[str] = "knockoff-hard"
    summary: ClassVar[str] = "Knockoff Nets with the predicted class alone, no labels"
    source: ClassVar[str] = "Orekondy, Schiele, Fritz, CVPR 2019, arXiv 1812.02766"
    needs_labels: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = HARD
    label_only: ClassVar[bool] = True
    placebo: ClassVar[str] = "the same attack with the labels as predicted classes"
    row_wise: ClassVar[bool] = True

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("smoothing", self.smoothing)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return _towards(log_probs.argmax(1), logits, self.smoothing)

    @classmethod
    def grid(cls) -> "tuple[KnockoffHard, ...]":
        return tuple(cls(smoothing) for smoothing in (0.0, 0.1, 0.3))


@dataclass(frozen=True)
class LabelOnly(Attack):
    """Hard-label distillation: the labels, and the predicted class of the answers.

    Formula, per example: hard * CE(z, y) + (1 - hard) * CE(z, argmax p), the second with label smoothing.

    Args:
        hard: weight of the labels' cross entropy, in [0, 1].
        smoothing: of the predicted class, in [0, 1]: 1 - s + s/C on it, s/C elsewhere.

    Example:
        >>> LabelOnly().loss(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]]).log(), torch.tensor([0])).exp().item()
        2.0

    Source: Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
    arXiv 2012.12877 (0.5 and 0.5). Deviation: the student has one head, not a second one for the answers.
    """

    name: ClassVar[str] = "label-only"
    summary: ClassVar[str] = "hard-label distillation: half the labels, half the predicted classes"
    source: ClassVar[str] = "Touvron et al., ICML 2021, arXiv 2012.12877"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = HARD
    label_only: ClassVar[bool] = True
    placebo: ClassVar[str] = "the same attack with the labels as predicted classes"
    row_wise: ClassVar[bool] = True

    hard: float = 0.5
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("share of hard labels", self.hard)
        check_share("smoothing", self.smoothing)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        predicted = _towards(log_probs.argmax(1), logits, self.smoothing)
        return self.hard * _towards(labels, logits, 0.0) + (1 - self.hard) * predicted

    @classmethod
    def grid(cls) -> "tuple[LabelOnly, ...]":
        return cls(), cls(smoothing=0.1)


def _towards(targets: Int64[Tensor, "b"], logits: Float[Tensor, "b classes"], smoothing: float) -> Float[Tensor, "b"]:
    return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)
