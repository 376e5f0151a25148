"""Distillation from a stronger teacher: correlations in place of divergences, with and without labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import EXACT_ZEROS, AccessKind, Attack
from undistill.attacks.checks import check_temperature, check_weight
from undistill.information import temper

FLOOR = 1e-8
"""Added to a product of norms, as in the official code."""

ROUNDING = 1e-6
"""Numbers that differ from their mean by less than this share of themselves are equal, but for float32's rounding."""

CORRELATED: Mapping[AccessKind, str] = MappingProxyType(
    {
        **EXACT_ZEROS,
        "decimals": "an entry that is rounded to zero is a zero, which a correlation takes as any other number",
        "top-k": "hidden classes are zeros, which a correlation takes as any other number",
    }
)


def correlation(a: Float[Tensor, "n numbers"], b: Float[Tensor, "n numbers"]) -> Float[Tensor, "n"]:
    """Pearson's correlation of each row of a with that of b.

    A row that is constant, but for rounding, is correlated with nothing: 0, and no gradient.

    Example:
        >>> a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
        >>> correlation(a, torch.tensor([[9.0, 7.0, 5.0], [0.1, 0.1, 0.1]])).round(decimals=4)
        tensor([-1.,  0.])
    """
    centred = [rows - rows.mean(1, keepdim=True) for rows in (a, b)]
    norms = [rows.norm(dim=1) for rows in centred]
    varies = (norms[0] > ROUNDING * a.norm(dim=1)) & (norms[1] > ROUNDING * b.norm(dim=1))
    cosine = (centred[0] * centred[1]).sum(1) / (norms[0] * norms[1] + FLOOR)
    return torch.where(varies, cosine, 0.0)


def relations(
    logits: Float[Tensor, "b classes"],
    log_probs: Float[Tensor, "b classes"],
    temperature: float,
    beta: float,
    gamma: float,
) -> Float[Tensor, "b"]:
    """T^2 * [beta * (1 - correlation of the example's row) + gamma * (1 - mean correlation of the columns)].

    Rows and columns are those of the batch's tempered probabilities, (b, classes). The second part is the same for all
    examples of a batch.
    """
    power = 1 / temperature
    p, q = temper(log_probs.detach().float(), power).exp(), temper(logits.float(), power).exp()
    rows = 1 - correlation(q, p)
    columns = 1 - correlation(q.T, p.T).mean()
    return temperature**2 * (beta * rows + gamma * columns)


@dataclass(frozen=True)
class DIST(Attack):
    """Distillation by Pearson correlations: of an image's probabilities over classes, and of a class's probabilities
    over the images of a batch.

    Formula, per example b: hard * CE(z, y) + weight * T^2 * [beta * (1 - rho(Q[b, :], P[b, :])) + gamma * (1 - mean
    over c of rho(Q[:, c], P[:, c]))], where P and Q are the batch's probabilities at temperature T.

    Args:
        temperature: T > 0.
        weight: of both correlations.
        beta: of the rows.
        gamma: of the columns.
        hard: weight of the labels' cross entropy (a weight, not a share).

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]), 1)
        >>> DIST(hard=0.0).loss(log_probs, log_probs, torch.tensor([0, 1])).abs().max().item() < 1e-3
        True

    Source: Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536; defaults as
    in hunto/image_classification_sota for CIFAR-100 (T = 4, weight 2, beta = gamma = 1, cross entropy 1). It has the
    factor T^2 of the code, which the paper's appendix lacks. Deviation: a row or column that is constant in float32 is
    given no gradient, where the code correlates rounding errors.
    """

    name: ClassVar[str] = "dist"
    summary: ClassVar[str] = "correlations with the answers, image by image and class by class, plus labels"
    source: ClassVar[str] = "Huang, You, Wang, Qian, Xu 2022, arXiv 2205.10536; hunto/image_classification_sota"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = CORRELATED

    temperature: float = 4.0
    weight: float = 2.0
    beta: float = 1.0
    gamma: float = 1.0
    hard: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight of the correlations", self.weight)
        check_weight("weight beta of the rows", self.beta)
        check_weight("weight gamma of the columns", self.gamma)
        check_weight("weight of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        soft = relations(logits, log_probs, self.temperature, self.beta, self.gamma)
        return self.hard * hard + self.weight * soft

    @classmethod
    def grid(cls) -> "tuple[DIST, ...]":
        return cls(), cls(temperature=1.0)


@dataclass(frozen=True)
class DISTWithoutLabels(Attack):
    """Distillation by Pearson correlations, by an attacker who has images and no labels.

    Formula, per example: that of :class:`DIST` without the cross entropy.

    Args:
        temperature: T > 0.
        weight: of both correlations.
        beta: of the rows.
        gamma: of the columns.

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> p = torch.tensor([[0.5, 0.3, 0.2]])
        >>> attack = DISTWithoutLabels(temperature=1.0, gamma=0.0)
        >>> attack.loss((p / 2 + 0.1).log(), p.log(), torch.tensor([0])).abs().item() < 1e-5  # any linear map of p
        True

    Source: as :class:`DIST`.
    """

    name: ClassVar[str] = "dist-no-labels"
    summary: ClassVar[str] = "correlations with the answers, image by image and class by class, no labels"
    source: ClassVar[str] = DIST.source
    needs_labels: ClassVar[bool] = False
    access: ClassVar[Mapping[AccessKind, str]] = CORRELATED

    temperature: float = 4.0
    weight: float = 2.0
    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight of the correlations", self.weight)
        check_weight("weight beta of the rows", self.beta)
        check_weight("weight gamma of the columns", self.gamma)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return self.weight * relations(logits, log_probs, self.temperature, self.beta, self.gamma)

    @classmethod
    def grid(cls) -> "tuple[DISTWithoutLabels, ...]":
        return cls(), cls(temperature=1.0)
