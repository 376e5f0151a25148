"""Concentration and separation of the outputs at temperature 1, beside cross entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.defences.training.centroids import OneBankLoss, centroids_of_start, log_of_share, problems_of_bank
from undistill.defences.training.defence import Defence, Workshop, problems_of_numbers
from undistill.errors import InputError
from undistill.information import kl_divergence


@dataclass(frozen=True)
class CMICDL(Defence):
    """Cross entropy, plus CMI at temperature 1, minus how far the outputs of different classes lie apart.

    ``J = CE + weight * mean_i KL(P_i || Q_{y_i}) - separation * Gamma``, with
    ``Gamma = (1 / B^2) sum over pairs i, j of the batch with y_i != y_j of H(P_i, P_j)``,
    ``H(P_i, P_j) = -sum_c P_ic log max(P_jc, floor / C)``.

    Q_y is the running class mean of P, without gradient. Gamma's gradient flows through both outputs of a pair. Under
    several processes a pair is two images of one process.

    Args:
        weight: of the CMI term (lambda in the paper), at least 0.
        separation: weight of Gamma (beta in the paper), at least 0.
        floor: least probability that H counts, as a share of 1/C, in [0, 1): a pair lies at most ``log(C / floor)``
            nats apart. 0 is as published: H then grows with the scale of the logits without bound, and so does what is
            gained by it.
        decay: weight that a centroid keeps of its past at each batch that holds its class, in [0, 1).

    Raises:
        InputError: a setting out of its range.

    Reference: Yang, Hamidi, Ye, Tan, Yang, "Conditional Mutual Information Constrained Deep Learning for
    Classification", arXiv 2309.09123. Deviations: centroids are running sums over batches, not means of 8 extra images
    per class and step; the floor; the paper's weights could not be recovered, and the defaults are ours.

    >>> CMICDL(separation=0.0).loss(num_classes=3, steps=1)(torch.zeros(2, 3), torch.tensor([0, 1]))
    tensor([1.0986, 1.0986])
    """

    weight: float = 0.3
    separation: float = 0.01
    floor: float = 0.001
    decay: float = 0.9

    name: ClassVar[str] = "cmic-dl"
    summary: ClassVar[str] = "cross entropy, plus CMI at temperature 1, minus the separation of classes"
    source: ClassVar[str] = "arXiv 2309.09123"

    def __post_init__(self) -> None:
        problems = problems_of_numbers([("weight", self.weight, 0), ("separation", self.separation, 0)])
        problems += problems_of_bank(self.floor, self.decay)
        if problems:
            raise InputError("; ".join(problems) + ".")

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return _CMICDLLoss(num_classes, self)

    def prepare(self, loss: nn.Module, workshop: Workshop) -> None:
        centroids_of_start(loss, workshop)


class _CMICDLLoss(OneBankLoss):
    def __init__(self, num_classes: int, defence: CMICDL) -> None:
        super().__init__(num_classes, defence.decay)
        self.defence = defence
        self.lowest = log_of_share(defence.floor, num_classes)

    def forward(self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(self.centroids.sums.dtype)
            if self.training:
                self.centroids.take(logits, target)
            else:
                self.centroids.require_seen(target)
            log_probs = torch.log_softmax(logits, dim=1)
            concentration = kl_divergence(log_probs, self.centroids.rows(0, target).log_())
            apart = -(log_probs.exp() @ log_probs.clamp_min(self.lowest).T)
            different = target[:, None] != target
            return (
                F.cross_entropy(logits, target, reduction="none")
                + self.defence.weight * concentration
                - self.defence.separation * (apart * different).mean(dim=1)
            )
