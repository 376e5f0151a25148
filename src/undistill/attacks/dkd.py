"""Decoupled knowledge distillation: the label's probability, and the distribution over the other classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from undistill.attacks.base import EXACT_ZEROS, AccessKind, Attack, AttackLoss
from undistill.attacks.checks import check_share, check_temperature, check_weight
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.warmup import WarmUp
from undistill.information import temper

LABEL_APART: Mapping[AccessKind, str] = MappingProxyType(
    {
        **EXACT_ZEROS,
        "decimals": "an entry that is rounded to zero is an exact zero; where it is the label's, labels alone are left",
        "top-k": "hidden classes are exact zeros; where the label is among them, labels alone are left",
        "label": "where the answer is the label, a second cross entropy with it; elsewhere, labels alone",
    }
)
"""What losses do that treat the label's class apart."""


def mask_of(classes: Int64[Tensor, "b"], like: Float[Tensor, "b classes"]) -> Bool[Tensor, "b classes"]:
    """True at one class of each row."""
    return torch.arange(like.shape[1], device=like.device) == classes[:, None]


def one_and_rest(log_probs: Float[Tensor, "b classes"], classes: Int64[Tensor, "b"]) -> Float[Tensor, "b 2"]:
    """Log-probabilities of one class of each row and of all others together."""
    others = log_probs.masked_fill(mask_of(classes, log_probs), -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([log_probs.gather(1, classes[:, None]), others], 1)


def without(log_probs: Float[Tensor, "b classes"], mask: Bool[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
    """The distribution over the classes outside the mask, renormalised; all ``-inf`` where these have no mass."""
    others = log_probs.masked_fill(mask, -torch.inf)
    mass = others.logsumexp(1, keepdim=True)
    return others - torch.where(mass > -torch.inf, mass, 0.0)


def knows(log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]) -> Bool[Tensor, "b"]:
    """Whether the label has a probability above zero."""
    return log_probs.gather(1, labels[:, None])[:, 0] > -torch.inf


def decoupled(
    log_p: Float[Tensor, "b classes"],
    log_q: Float[Tensor, "b classes"],
    labels: Int64[Tensor, "b"],
    alpha: float,
    beta: float,
) -> Float[Tensor, "b"]:
    """alpha * KL((p_y, 1 - p_y) || (q_y, 1 - q_y)) + beta * KL(p-hat || q-hat), hats renormalised over c != y.

    With beta = alpha * (1 - p_y) the sum is alpha * KL(p || q). The second part is 0 where p_y = 1, and both are where
    p_y = 0: an answer that rules out the label would drive the student away from it.

    Args:
        log_p: the answers' log-probabilities, tempered (or standardised) already; constants.
        log_q: the student's, treated in the same way; finite.
        labels: y.
        alpha: weight of the first part.
        beta: weight of the second.

    Returns:
        One value per example, without the factor T^2.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.5, 0.4, 0.1]])
        >>> y = torch.tensor([0])
        >>> decoupled(p.log(), q.log(), y, alpha=1.0, beta=0.5).item(), kl_divergence(p.log(), q.log()).item()
        (0.1115..., 0.1115...)
    """
    target = mask_of(labels, log_p)
    of_label = kl_divergence(one_and_rest(log_p, labels), one_and_rest(log_q, labels))
    of_others = kl_divergence(without(log_p, target), without(log_q, target))
    return torch.where(knows(log_p, labels), alpha * of_label + beta * of_others, 0.0)


@dataclass(frozen=True)
class DKD(Attack):
    """Decoupled knowledge distillation: KD whose two parts have weights of their own.

    Formula, per example: hard * CE(z, y) + ramp * T^2 * [alpha * KL((p_y, 1 - p_y) || (q_y, 1 - q_y)) + beta *
    KL(p-hat || q-hat)], where p and q are at temperature T and hats are renormalised over the classes other than y. The
    ramp rises to 1 in the first ``warmup`` share of the epochs.

    Args:
        temperature: T > 0.
        alpha: weight of the label's probability.
        beta: weight of the distribution over the other classes.
        hard: weight of the labels' cross entropy (a weight, not a share).
        warmup: share of the training in which the soft part is faded in, in [0, 1].

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite, a share
            outside [0, 1].

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> DKD(hard=0.0).loss(log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-4
        True

    Source: Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", arXiv 2203.08679; defaults as in
    megvii-research/mdistiller for CIFAR-100 (T = 4, alpha 1, beta 8, cross entropy 1, 20 of 240 epochs of warm-up).
    Deviation: computed from log-probabilities, where the code takes the logarithm of a softmax and hides the label's
    logit by subtracting 1000; an answer that gives the label no probability leaves the cross entropy alone.
    """

    name: ClassVar[str] = "dkd"
    summary: ClassVar[str] = "decoupled KD: the label's probability and the other classes' weighted apart, plus labels"
    source: ClassVar[str] = "Zhao, Cui, Song, Qiu, Liang 2022, arXiv 2203.08679; megvii-research/mdistiller"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = LABEL_APART
    row_wise: ClassVar[bool] = True

    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0
    hard: float = 1.0
    warmup: float = 20 / 240

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight alpha of the label's probability", self.alpha)
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
        logits = logits.float()
        log_p, log_q = self.tempered(log_probs.detach().float()), self.tempered(logits)
        soft = decoupled(log_p, log_q, labels, self.alpha, self.beta)
        hard = F.cross_entropy(logits, labels, reduction="none")
        return self.hard * hard + ramp * self.temperature**2 * soft

    def tempered(self, values: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
        """Logits or log-probabilities as log-probabilities at the temperature."""
        return temper(values, 1 / self.temperature)

    def start(self, num_classes: int, seed: int) -> AttackLoss:
        return WarmUp(self)

    @classmethod
    def grid(cls) -> "tuple[DKD, ...]":
        return cls(), cls(beta=2.0), cls(temperature=1.0, beta=2.0)
