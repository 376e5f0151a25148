"""Logit standardisation: knowledge distillation, and decoupled distillation, of z-scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import AccessKind, Attack
from undistill.attacks.checks import check_temperature, check_weight
from undistill.attacks.divergence import soft_loss
from undistill.attacks.dkd import DKD
from undistill.information import temper

PAPER = "Sun, Ren, Li, Wang, Cao 2024, arXiv 2403.01427; sunshangquan/logit-standardization-KD"

FLAT = 1e-3
"""Smallest standard deviation, in nats, that a row is divided by: what varies less is not stretched to z-scores, since
it is, to float32, next to noise."""

STANDARDISED: Mapping[AccessKind, str] = MappingProxyType(
    {
        "full": "as published",
        "decimals": "entries rounded to zero are exact zeros, and the others are standardised among themselves; the "
        "student over all classes",
        "top-k": "hidden classes are exact zeros, and the others are standardised among themselves; the student over "
        "all classes",
        "top-k-raw": "as top-k: standardisation takes no notice of the missing mass",
        "label": "the standardised one-hot of the predicted class, which is that of every smoothed one, too",
    }
)


def standardise(values: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
    """Z-scores of each row: (u - mean) / std over the classes, with the unbiased std (divisor n - 1), in float32.

    Log-probabilities and logits give the same z-scores. Entries of ``-inf`` (exact zeros of an answer) stay ``-inf``,
    and mean and std are over the others. If there is only one other, the row is the limit of smoothed one-hots, whose
    z-scores are those of the one-hot vector at any smoothing.

    Args:
        values: an answer's log-probabilities, or a student's logits (finite, so standardised over all classes).

    Returns:
        Z-scores, float32; those of a row whose std is below :data:`FLAT` are (u - mean) / FLAT.

    Example:
        >>> standardise(torch.tensor([[3.0, 1.0, 2.0], [0.0, -torch.inf, -2.0]]))
        tensor([[ 1.0000, -1.0000,  0.0000],
                [ 0.7071,    -inf, -0.7071]])
    """
    values = values.float()
    held = values > -torch.inf
    single = held.sum(1, keepdim=True) == 1
    values = torch.where(single, held.float(), values)
    held = held | single
    count = held.sum(1, keepdim=True)
    mean = torch.where(held, values, 0.0).sum(1, keepdim=True) / count
    variance = torch.where(held, values - mean, 0.0).square().sum(1, keepdim=True) / (count - 1)
    return (values - mean) / variance.clamp_min(FLAT**2).sqrt()


@dataclass(frozen=True)
class LSKD(Attack):
    """Logit standardisation on knowledge distillation: z-scores in place of logits, so that the student need not match
    the scale of the teacher's.

    Formula, per example: hard * CE(z, y) + weight * T^2 * KL(softmax(Z(log p)/T) || softmax(Z(z)/T)), where Z is
    :func:`standardise` and the cross entropy sees the student's logits as they are.

    Args:
        temperature: T > 0 of the z-scores.
        weight: of the soft part.
        hard: weight of the labels' cross entropy (a weight, not a share).

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> LSKD(hard=0.0).loss(5 * log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-4
        True

    Source: Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation", arXiv 2403.01427;
    sunshangquan/logit-standardization-KD, whose command line gives the defaults (T = 2, weight 9, cross entropy 0.1).
    The std is unbiased as in the code (divisor C - 1; C in the paper). Deviation: a std below 1e-3 is replaced by 1e-3,
    where the code adds 1e-7 to it, less than a float32 log-probability resolves. With exact zeros in an answer the code
    is not defined: see :func:`standardise`.
    """

    name: ClassVar[str] = "lskd"
    summary: ClassVar[str] = "logit standardisation: KD of z-scores, plus cross entropy with labels"
    source: ClassVar[str] = PAPER
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = STANDARDISED
    row_wise: ClassVar[bool] = True

    temperature: float = 2.0
    weight: float = 9.0
    hard: float = 0.1

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight of the soft part", self.weight)
        check_weight("weight of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return self.hard * hard + self.weight * standardised_loss(logits, log_probs, self.temperature)

    @classmethod
    def grid(cls) -> "tuple[LSKD, ...]":
        return cls(), cls(temperature=3.0), cls(weight=3.0)


def standardised_loss(
    logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], temperature: float
) -> Float[Tensor, "b"]:
    """T^2 KL of tempered z-scores per example."""
    return soft_loss(standardise(logits), standardise(log_probs.detach()), temperature)


@dataclass(frozen=True)
class LSKDWithoutLabels(Attack):
    """Logit standardisation on knowledge distillation by an attacker who has images and no labels.

    Formula, per example: weight * T^2 * KL(softmax(Z(log p)/T) || softmax(Z(z)/T)).

    Nothing in it ties the scale of the student's logits: its classes are ranked as the teacher's, but its confidence
    means nothing.

    Args:
        temperature: T > 0 of the z-scores.
        weight: of the divergence: a factor of the learning rate.

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> LSKDWithoutLabels().loss(5 * log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-4
        True

    Source: as :class:`LSKD`, with no cross entropy.
    """

    name: ClassVar[str] = "lskd-no-labels"
    summary: ClassVar[str] = "logit standardisation: KD of z-scores from the answers alone, no labels"
    source: ClassVar[str] = PAPER
    needs_labels: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = STANDARDISED
    row_wise: ClassVar[bool] = True

    temperature: float = 2.0
    weight: float = 9.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight of the divergence", self.weight)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return self.weight * standardised_loss(logits, log_probs, self.temperature)

    @classmethod
    def grid(cls) -> "tuple[LSKDWithoutLabels, ...]":
        return cls(), cls(temperature=3.0)


@dataclass(frozen=True)
class LSKDWithDKD(DKD):
    """Logit standardisation on decoupled knowledge distillation.

    Formula, per example: hard * CE(z, y) + ramp * T^2 * [alpha * KL((p_y, 1 - p_y) || (q_y, 1 - q_y)) + beta *
    KL(p-hat || q-hat)], where p = softmax(Z(log p)/T), q = softmax(Z(z)/T), Z is :func:`standardise`, and hats are
    renormalised over the classes other than y. The ramp rises to 1 in the first ``warmup`` share of the epochs.

    Args:
        temperature: T > 0 of the z-scores.
        alpha: weight of the label's probability.
        beta: weight of the distribution over the other classes.
        hard: weight of the labels' cross entropy (a weight, not a share).
        warmup: share of the training in which the soft part is faded in, in [0, 1].

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite, a share
            outside [0, 1].

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> LSKDWithDKD(hard=0.0).loss(5 * log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-4
        True

    Source: as :class:`LSKD`; T = 2 and nine times the weights of :class:`undistill.attacks.DKD` (alpha 1, beta 8), as
    its command line gives them. Most of its logs have T = 2, beta 2 and factors of 9 to 18. Deviations as of both.
    """

    name: ClassVar[str] = "lskd-dkd"
    summary: ClassVar[str] = "logit standardisation on decoupled KD, plus cross entropy with labels"
    source: ClassVar[str] = PAPER
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            **STANDARDISED,
            "decimals": STANDARDISED["decimals"] + "; where the label's entry is zero, labels alone are left",
            "top-k": STANDARDISED["top-k"] + "; where the label is hidden, labels alone are left",
        }
    )
    row_wise: ClassVar[bool] = True

    temperature: float = 2.0
    alpha: float = 9.0
    beta: float = 72.0

    def tempered(self, values: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
        return temper(standardise(values), 1 / self.temperature)

    @classmethod
    def grid(cls) -> "tuple[LSKDWithDKD, ...]":
        return cls(), cls(alpha=15.0, beta=30.0)
