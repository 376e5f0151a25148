"""Refined logit distillation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import AccessKind, Attack, AttackLoss
from undistill.attacks.checks import check_share, check_temperature, check_weight
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.dkd import LABEL_APART, knows, one_and_rest, without
from undistill.attacks.warmup import WarmUp
from undistill.information import temper


@dataclass(frozen=True)
class RLD(Attack):
    """Refined logit distillation: decoupled KD that does not follow the teacher where it errs.

    Formula, per example: hard * CE(z, y) + ramp * [alpha * Ta^2 * KL((p_m, 1 - p_m) || (q_y, 1 - q_y)) + beta * T^2 *
    KL(p-hat || q-hat)]. The first pair is at temperature Ta, and m = argmax p: the student is to be as sure of the
    label as the teacher is of its own choice. Hats are at temperature T, renormalised over the classes with p_c < p_y:
    those that the teacher puts above the label are not taught.

    Where m = y, and Ta = T, this is :class:`DKD`.

    Args:
        temperature: T > 0, of the other classes.
        alpha_temperature: Ta > 0, of the confidence.
        alpha: weight of the confidence.
        beta: weight of the other classes.
        hard: weight of the labels' cross entropy (a weight, not a share).
        warmup: share of the training in which the soft part is faded in, in [0, 1].

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite, a share
            outside [0, 1].

    Example:
        >>> p, label = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([1])
        >>> swapped = torch.tensor([[0.3, 0.6, 0.1]])  # as sure of the label as the teacher is of the wrong class
        >>> RLD(hard=0.0).loss(swapped.log(), p.log(), label).abs().item() < 1e-5
        True

    Source: Sun, Chen, Lyu, Chen, Chen, Wang, "Knowledge Distillation with Refined Logits", arXiv 2408.07703; defaults
    as in zju-SWJ/RLD for CIFAR-100 (T = 4, Ta = 1, alpha 1, beta 8, cross entropy 1, 20 of 240 epochs of warm-up); its
    README runs with Ta = T (``--same-t``). Deviation: computed from log-probabilities; an answer that gives the label
    no probability leaves the cross entropy alone.
    """

    name: ClassVar[str] = "rld"
    summary: ClassVar[str] = "refined logits: decoupled KD without the classes that the teacher puts above the label"
    source: ClassVar[str] = "Sun, Chen, Lyu, Chen, Chen, Wang 2024, arXiv 2408.07703; zju-SWJ/RLD"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = LABEL_APART
    row_wise: ClassVar[bool] = True

    temperature: float = 4.0
    alpha_temperature: float = 1.0
    alpha: float = 1.0
    beta: float = 8.0
    hard: float = 1.0
    warmup: float = 20 / 240

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_temperature(self.alpha_temperature)
        check_weight("weight alpha of the confidence", self.alpha)
        check_weight("weight beta of the other classes", self.beta)
        check_weight("weight of hard labels", self.hard)
        check_share("share of the warm-up", self.warmup)

    def loss(
        self,
        logits: Float[Tensor, "b classes"],
        log_probs: Float[Tensor, "b classes"],
        labels: Int64[Tensor, "b"],
        ramp: float = 1.0,
    ) -> Float[Tensor, "b"]:
        logits, log_probs = logits.float(), log_probs.detach().float()
        power = 1 / self.alpha_temperature
        confidence = kl_divergence(
            one_and_rest(temper(log_probs, power), log_probs.argmax(1)), one_and_rest(temper(logits, power), labels)
        )
        power = 1 / self.temperature
        not_below = log_probs >= log_probs.gather(1, labels[:, None])
        of_others = kl_divergence(
            without(temper(log_probs, power), not_below), without(temper(logits, power), not_below)
        )
        soft = self.alpha * self.alpha_temperature**2 * confidence + self.beta * self.temperature**2 * of_others
        hard = F.cross_entropy(logits, labels, reduction="none")
        return self.hard * hard + ramp * torch.where(knows(log_probs, labels), soft, 0.0)

    def start(self, num_classes: int, seed: int) -> AttackLoss:
        return WarmUp(self)

    @classmethod
    def grid(cls) -> "tuple[RLD, ...]":
        return cls(), cls(alpha_temperature=4.0), cls(alpha_temperature=4.0, beta=2.0)
