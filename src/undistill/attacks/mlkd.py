"""Multi-level logit distillation: two views of each image, five temperatures, three levels; and on z-scores."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import EXACT_ZEROS, AccessKind, Attack
from undistill.attacks.checks import check_share, check_temperature, check_weight
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.lskd import STANDARDISED, standardise
from undistill.errors import InputError
from undistill.information import temper

PER_CLASS = 0.64  # images per class in the official batches, 64 of 100 classes (ImageNet: 512 of 1,000)
USUAL_SHARE = 0.5  # what the confidence masks of the official code come to


def gram_distances(log_q: Float[Tensor, "b classes"], log_p: Float[Tensor, "b classes"]) -> Float[Tensor, "b"]:
    """s ||P P' - Q Q'||^2 / b + s^2 ||P' P - Q' Q||^2 / C of a batch's tempered probabilities, s = 0.64 C / b.

    The first part is split by rows, the second the same for every example; the mean is that of the formula. Without
    their factors the first would grow with the number of images per class, and the second with its square.

    Args:
        log_q: the student's, tempered.
        log_p: the answers, tempered.
    """
    count, classes = log_q.shape
    p, q = log_p.exp(), log_q.exp()
    between_images = (p @ p.T - q @ q.T).square().sum(1)
    between_classes = (p.T @ p - q.T @ q).square().sum() / classes
    scale = PER_CLASS * classes / count
    return scale * between_images + scale**2 * between_classes


def check_temperatures(temperatures: tuple[float, ...]) -> None:
    """Refuse no temperature at all, or one that is not finite and above 0."""
    if not temperatures:
        raise InputError("at least one temperature is needed, and none was given (official: 4, 3, 5, 2, 6)")
    for temperature in temperatures:
        check_temperature(temperature)


@dataclass(frozen=True)
class MLKD(Attack):
    """Multi-level logit distillation: two views, five temperatures, and three levels: image, batch and class.

    Formula, w the usual view, s the strong one: hard * [CE(w) + CE(s)] + weight * sum over T of {T^2 KL(s) + 0.5 *
    [T^2 KL(w) + r ||P P' - Q Q'||^2 / B + r^2 ||P' P - Q' Q||^2 / C]}, where P and Q, of shape (B, C), are the answers
    and the student's probabilities at temperature T for the usual views of a batch, and r = 0.64 C / B.

    Args:
        temperatures: the pool of T.
        hard: weight of the labels' cross entropies, in [0, 1].
        weight: of all the rest.

    Raises:
        InputError: no temperature, or one that is not finite and above 0; a weight outside its range.

    Example:
        >>> log_probs = torch.log_softmax(torch.randn(8, 3), 1)  # four images, two views of each
        >>> MLKD(hard=0.0).loss(log_probs, log_probs, torch.zeros(4, dtype=torch.int64)).abs().max().item() < 1e-3
        True

    Source: Jin, Wang, Lin, "Multi-level Logit Distillation", CVPR 2023; weights and pool as in
    Jin-Ying/Multi-Level-Logit-Distillation. Deviations, where that code does not do what it says: its masks by
    confidence select nothing (they multiply scalars, by one half at the median), so the half is kept and the masks are
    not; its strong view's divergence at T = 2 and 6 is that of the usual view, here it is the strong view's; its Gram
    terms have no factor r, and so grow with the images per class, here they count as in its batches of 64 of 100
    classes. As in the code, Gram matrices are those of the usual view alone, and have no T^2.
    """

    name: ClassVar[str] = "mlkd"
    summary: ClassVar[str] = (
        "multi-level distillation: usual and strong views, five temperatures, Gram matrices, labels"
    )
    source: ClassVar[str] = "Jin, Wang, Lin 2023 (CVPR); Jin-Ying/Multi-Level-Logit-Distillation"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {**EXACT_ZEROS, "label": "the answers are the predicted classes of the two views"}
    )
    placebo: ClassVar[str] = (
        "the same loss on smoothed one-hot labels: the same two views of each image, the same schedule"
    )
    views: ClassVar[int] = 2
    blocks: ClassVar[int] = 2

    temperatures: tuple[float, ...] = (4.0, 3.0, 5.0, 2.0, 6.0)
    hard: float = 0.1
    weight: float = 0.9

    def __post_init__(self) -> None:
        check_temperatures(self.temperatures)
        check_share("weight of hard labels", self.hard)
        check_weight("weight of the soft part", self.weight)

    def loss(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "v classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        count = len(labels)
        logits, log_probs = logits.float(), log_probs.detach().float()
        hard = F.cross_entropy(logits, labels.repeat(2), reduction="none").view(2, count).sum(0)
        seen, said = self.scores(logits), self.scores(log_probs)
        soft = torch.zeros_like(hard)
        for temperature, times in Counter(self.temperatures).items():
            power = 1 / temperature
            log_q, log_p = temper(seen, power), temper(said, power)
            usual, strong = (temperature**2 * kl_divergence(log_p, log_q)).split(count)
            if seen is not logits:
                log_q, log_p = temper(logits[:count], power), temper(log_probs[:count], power)
            gram = gram_distances(log_q[:count], log_p[:count])
            soft = soft + times * (USUAL_SHARE * (usual + gram) + strong)
        return self.hard * hard + self.weight * soft

    def scores(self, values: Float[Tensor, "m classes"]) -> Float[Tensor, "m classes"]:
        """What the divergences see of logits and answers, in float32: here both as they are."""
        return values

    @classmethod
    def grid(cls) -> "tuple[MLKD, ...]":
        return cls(), cls(hard=0.025, weight=0.225)


@dataclass(frozen=True)
class LSKDWithMLKD(MLKD):
    """Logit standardisation on multi-level logit distillation.

    Formula: that of :class:`MLKD`, with z-scores (:func:`undistill.attacks.lskd.standardise`) of logits and answers in
    the divergences; cross entropies and Gram matrices see both as they are.

    Args:
        temperatures: the pool of T.
        hard: weight of the labels' cross entropies, in [0, 1].
        weight: of all the rest.

    Raises:
        InputError: no temperature, or one that is not finite and above 0; a weight outside its range.

    Example:
        >>> log_probs = torch.log_softmax(torch.randn(8, 3), 1)  # four images, two views of each
        >>> attack = LSKDWithMLKD(hard=0.0)
        >>> attack.loss(log_probs, log_probs, torch.zeros(4, dtype=torch.int64)).abs().max().item() < 1e-3
        True

    Source: Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation", arXiv 2403.01427; as its command
    line gives them, weight 9 (6 in some of its logs) and a pool whose first temperature is 2, so that 2 counts twice.
    Deviations as of :class:`MLKD` (whose code it contains) and of :class:`undistill.attacks.LSKD`.
    """

    name: ClassVar[str] = "lskd-mlkd"
    summary: ClassVar[str] = "logit standardisation on multi-level distillation of two views, plus labels"
    source: ClassVar[str] = "Sun, Ren, Li, Wang, Cao 2024, arXiv 2403.01427; sunshangquan/logit-standardization-KD"
    access: ClassVar[Mapping[AccessKind, str]] = STANDARDISED

    temperatures: tuple[float, ...] = (2.0, 3.0, 5.0, 2.0, 6.0)
    weight: float = 9.0

    def scores(self, values: Float[Tensor, "m classes"]) -> Float[Tensor, "m classes"]:
        return standardise(values)

    @classmethod
    def grid(cls) -> "tuple[LSKDWithMLKD, ...]":
        return cls(), cls(weight=3.0)
