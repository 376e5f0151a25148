"""Normalised knowledge distillation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import AccessKind, Attack
from undistill.attacks.checks import check_temperature, check_weight
from undistill.attacks.dkd import LABEL_APART, knows, mask_of, without
from undistill.information import temper


@dataclass(frozen=True)
class NKD(Attack):
    """Normalised knowledge distillation: the label's cross entropy weighted by the teacher's confidence in it, and the
    cross entropy of the distributions over the other classes.

    Formula, per example: hard * CE(z, y) - p_y log q_y - gamma * T^2 * sum over c != y of p-hat_c log q-hat_c, where
    p_y and q_y are at temperature 1 and hats are at temperature T, renormalised over the classes other than y.

    The last sum is that of :class:`DKD` plus the entropy of p-hat, so the loss does not fall to 0. The term in p_y has
    no part that stops at q_y = p_y, so the student that copies the teacher is not its minimum.

    Args:
        temperature: T > 0, of the other classes.
        gamma: weight of the other classes.
        hard: weight of the labels' cross entropy (a weight, not a share).

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> p = torch.tensor([[0.5, 0.25, 0.25]])
        >>> attack = NKD(temperature=1.0, gamma=2.0, hard=0.0)
        >>> attack.loss(p.log(), p.log(), torch.tensor([0])).item()  # (0.5 for the label + 2 for the others) * log 2
        1.732...

    Source: Yang, Zeng, Li, Zhang, Yuan, Li, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels", arXiv 2303.13005; defaults as in yzd-v/cls_KD for
    CIFAR-100 (T = 3, gamma 3.5). Deviation: computed from log-probabilities; an answer that gives the label no
    probability leaves the cross entropy alone.
    """

    name: ClassVar[str] = "nkd"
    summary: ClassVar[str] = "normalised KD: labels weighted by the teacher's confidence, and the other classes apart"
    source: ClassVar[str] = "Yang, Zeng, Li, Zhang, Yuan, Li 2023, arXiv 2303.13005; yzd-v/cls_KD"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = LABEL_APART
    row_wise: ClassVar[bool] = True

    temperature: float = 3.0
    gamma: float = 3.5
    hard: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight gamma of the other classes", self.gamma)
        check_weight("weight of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        logits, log_probs = logits.float(), log_probs.detach().float()
        hard = F.cross_entropy(logits, labels, reduction="none")
        confidence = torch.log_softmax(log_probs, 1).gather(1, labels[:, None])[:, 0].exp()
        power = 1 / self.temperature
        target = mask_of(labels, logits)
        p_hat, q_hat = (without(temper(rows, power), target) for rows in (log_probs, logits))
        of_others = -(p_hat.exp() * torch.where(p_hat > -torch.inf, q_hat, 0.0)).sum(1)
        soft = confidence * hard + self.gamma * self.temperature**2 * of_others
        return self.hard * hard + torch.where(knows(log_probs, labels), soft, 0.0)

    @classmethod
    def grid(cls) -> "tuple[NKD, ...]":
        return cls(), cls(temperature=1.0, gamma=1.5)
