"""Distillation by centred logits: the mean squared error, and the limit of KD at infinite temperature."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from undistill.attacks.base import AccessKind, Attack
from undistill.attacks.checks import check_weight
from undistill.errors import InputError

RETURNED_CLASSES: Mapping[AccessKind, str] = MappingProxyType(
    {
        "full": "as published, up to a constant per image that no probability depends on",
        "decimals": "compared over the classes that are not rounded to zero; the others are left free",
        "top-k": "compared over the returned classes; the others are left free, and with k = 1 nothing is learnt",
        "top-k-raw": "as top-k: centring takes no notice of how the answer is normalised",
    }
)
"""No ``"label"``: the answer then has one entry, and one entry has no difference to compare."""


def centred_gap(
    logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"]
) -> tuple[Float[Tensor, "b classes"], Bool[Tensor, "b classes"]]:
    """The student's logits minus the teacher's, each centred over the support S of the answer, and S itself.

    The teacher's centred logits are its centred log-probabilities. Outside S (``-inf``) the gap is an exact zero.
    """
    log_probs = log_probs.detach().float()
    support = log_probs > -torch.inf
    gap = torch.where(support, logits.float() - log_probs, 0.0)
    mean = gap.sum(1, keepdim=True) / support.sum(1, keepdim=True)
    return torch.where(support, gap - mean, 0.0), support


@dataclass(frozen=True)
class KDMSE(Attack):
    """Distillation by the mean squared error of centred logits, from the answers alone.

    Formula, per example: 1/(size of S) * sum over c in S of (z_c - mean z - log p_c + mean log p)^2, where S are the
    classes with p_c > 0 (all C of them for full answers) and means are over S.

    Args:
        huber: gap, in nats, from which the loss grows linearly: SmoothL1, g^2 / (2 huber) below it and
            g - huber/2 above. None: squares throughout.

    Raises:
        InputError: ``huber`` is not finite and above 0.

    Example:
        >>> log_probs = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> attack = KDMSE()
        >>> attack.loss(log_probs + 7, log_probs, torch.tensor([0])).item() < 1e-9
        True
        >>> attack.loss(log_probs + torch.tensor([1.0, -1.0, 0.0]), log_probs, torch.tensor([0])).item()
        0.666...

    Source: Kim, Oh, Kim, Cho, Yun, "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
    Distillation", arXiv 2105.08919; code jhoon-oh/kd_data, ``mse_logit`` and ``smooth_logit``. Deviation: both logits
    are centred, because probabilities determine a teacher's logits up to a constant per image. The mean over classes
    belongs to the published loss.
    """

    name: ClassVar[str] = "kd-mse"
    summary: ClassVar[str] = "mean squared error of centred logits, no labels"
    source: ClassVar[str] = "Kim, Oh, Kim, Cho, Yun 2021, arXiv 2105.08919"
    needs_labels: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = RETURNED_CLASSES
    row_wise: ClassVar[bool] = True

    huber: float | None = None

    def __post_init__(self) -> None:
        if self.huber is not None and not 0 < self.huber < torch.inf:
            raise InputError(
                f"the bend of the Huber loss is {self.huber}, must be finite and above 0 (usual value: 1), or left out"
            )

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        gap, support = centred_gap(logits, log_probs)
        if self.huber is None:
            cost = gap.square()
        else:
            cost = F.smooth_l1_loss(gap, torch.zeros_like(gap), reduction="none", beta=self.huber)
        return cost.sum(1) / support.sum(1)

    @classmethod
    def grid(cls) -> "tuple[KDMSE, ...]":
        return cls(), cls(huber=1.0)


@dataclass(frozen=True)
class KDInfinite(Attack):
    """The limit of knowledge distillation without labels as T goes to infinity.

    Formula, per example: weight / (2 * size of S) * sum over c in S of (z_c - mean z - log p_c + mean log p)^2,
    S and means as in :class:`KDMSE`. For full answers and weight 1 it is the limit of T^2 KL(p^(1/T) || softmax(z/T)).

    Args:
        weight: of the loss; 1 is the scale of KD.

    Raises:
        InputError: ``weight`` is negative or not finite.

    Example:
        >>> from undistill.attacks import KDWithoutLabels
        >>> log_probs = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> logits, labels = torch.tensor([[0.0, 4.0, 1.0]]), torch.tensor([0])
        >>> [round(KDWithoutLabels(T).loss(logits, log_probs, labels).item(), 2) for T in (1.0, 10.0, 100.0)]
        [1.78, 1.93, 1.89]
        >>> round(KDInfinite().loss(logits, log_probs, labels).item(), 2)
        1.88

    Source: Hinton, Vinyals, Dean, arXiv 1503.02531, section 2.1; Kim, Oh, Kim, Cho, Yun, arXiv 2105.08919; code
    jhoon-oh/kd_data, which uses the gradient of this loss for temperatures above 150. Deviation: no assumption that
    logits are centred already, as in the former. Where an answer has exact zeros KD has no finite limit, and this is
    the limit of KD between p and q, both restricted to S.
    """

    name: ClassVar[str] = "kd-infinite"
    summary: ClassVar[str] = "knowledge distillation in the limit of infinite temperature, no labels"
    source: ClassVar[str] = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531; Kim et al. 2021, arXiv 2105.08919"
    needs_labels: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = RETURNED_CLASSES
    row_wise: ClassVar[bool] = True

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight("weight of the loss", self.weight)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        gap, support = centred_gap(logits, log_probs)
        return self.weight / 2 * gap.square().sum(1) / support.sum(1)

    @classmethod
    def grid(cls) -> "tuple[KDInfinite, ...]":
        return cls(), cls(weight=4.0)
