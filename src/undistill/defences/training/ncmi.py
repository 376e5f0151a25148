"""Concentration over separation, in place of cross entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.defences.training.centroids import OneBankLoss, centroids_of_start, log_of_share, problems_of_bank
from undistill.defences.training.defence import Defence, Workshop
from undistill.errors import InputError

SMALLEST_SEPARATION = 0.01
"""Nats added to the separation. An output that sits on every other class's centroid (with two classes, a wrong one that
is sure of itself) would be divided by zero."""


@dataclass(frozen=True)
class NCMI(Defence):
    """The ratio of concentration to separation, per example, in place of cross entropy.

    ``J = mean_i [ KL(P_i || Q_{y_i}) / (Gamma_i + 0.01) ]``,
    ``Gamma_i = (1 / C) sum over c != y_i of sum_k Q_ck log (Q_ck / max(P_ik, floor / C))``.

    Q_y is the running class mean of the softmax outputs, without gradient. The ratio does not know which logit belongs
    to which class: renaming them changes nothing. So each centroid starts as an *anchor*, a smoothed one-hot of its
    class with the weight of ``images`` images, which fades as images come in.

    Args:
        anchor: probability of the class in its anchor, in (0, 1); the rest is spread over the other classes.
        images: weight of the anchor, in images, above 0.
        floor: least probability that Gamma counts, as a share of 1/C, in [0, 1). At 0 Gamma is the divergence
            KL(Q_c || P_i), and an example in the wrong class can make its loss small by growing its logits.
        decay: weight that a centroid keeps of its past at each batch that holds its class, in [0, 1).

    Raises:
        InputError: a setting out of its range.

    Reference: Ye, Chi, Plataniotis, Yang, arXiv 2601.02543. This is our reading as a loss on outputs. Deviation: the
    released code has no head. It takes the normalised features (a sigmoid of them, scaled to sum to 1) for P, predicts
    by the nearest centroid, and by its own logs does not train with softmax. Anchor and floor, without which softmax
    outputs do not train here either, and the constant in the denominator are ours.

    >>> loss = NCMI().loss(num_classes=2, steps=1)
    >>> loss(torch.tensor([[4.0, 0.0]]), torch.tensor([0])) < loss(torch.tensor([[0.0, 4.0]]), torch.tensor([0]))
    tensor([True])
    """

    anchor: float = 0.9
    images: float = 300.0
    floor: float = 0.1
    decay: float = 0.999

    name: ClassVar[str] = "ncmi"
    summary: ClassVar[str] = "the ratio of CMI at temperature 1 to the separation of classes, without cross entropy"
    source: ClassVar[str] = "arXiv 2601.02543, in our reading"

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.anchor < 1:
            problems.append(f"anchor is a probability and must lie in (0, 1), got {self.anchor}")
        if not 0 < self.images < float("inf"):
            problems.append(f"images must be a finite number above 0, got {self.images}")
        problems += problems_of_bank(self.floor, self.decay)
        if problems:
            raise InputError("; ".join(problems) + ".")

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return _NCMILoss(num_classes, self)

    def prepare(self, loss: nn.Module, workshop: Workshop) -> None:
        centroids_of_start(loss, workshop)


class _NCMILoss(OneBankLoss):
    def __init__(self, num_classes: int, defence: NCMI) -> None:
        super().__init__(num_classes, defence.decay)
        self.lowest = log_of_share(defence.floor, num_classes)
        rest = (1 - defence.anchor) / (num_classes - 1)
        anchors = torch.full((num_classes, num_classes), rest).fill_diagonal_(defence.anchor)
        self.centroids.sums[0] = defence.images * anchors
        self.centroids.counts.fill_(defence.images)
        self.register_buffer("classes", torch.arange(num_classes), persistent=False)

    classes: Tensor

    def forward(self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(self.centroids.sums.dtype)
            if self.training:
                self.centroids.take(logits, target)
            log_probs = torch.log_softmax(logits, dim=1)
            rows = self.centroids.rows(0, self.classes)
            log_rows = rows.log()
            probs = log_probs.exp()
            concentration = (probs * (log_probs - log_rows[target])).sum(dim=1)
            distances = (rows * log_rows).sum(dim=1) - log_probs.clamp_min(self.lowest) @ rows.T
            others = 1 - F.one_hot(target, len(rows))
            separation = (distances * others).sum(dim=1).clamp_min(0.0) / len(rows)
            return concentration / (separation + SMALLEST_SEPARATION)
