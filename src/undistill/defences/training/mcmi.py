"""MCMI: the opposite pole, a teacher that is easier to distil."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.defences.training.defence import Check, Defence, FineTuning, Workshop, problems_of_numbers
from undistill.errors import InputError
from undistill.information import cmi, kl_divergence


@dataclass(frozen=True)
class MCMI(Defence):
    """CMI made large: no defence but its opposite, whose teacher by theory leaks more.

    ``J = CE - weight * mean_i KL(P_i || Q_{y_i})``.

    Q_y is the class mean of the normal teacher's answers to all training images, computed once and frozen. Training
    starts from the normal teacher's weights. The divergence is bounded by ``-log min Q_y``.

    Args:
        weight: at least 0. The paper's experiments use 0.1 to 0.25; small teachers are broken from 1 on.
        epochs: share of the recipe's epochs that are trained after the normal teacher's, in (0, 1].
        rate: share of the recipe's highest learning rate, in (0, 1].

    Raises:
        InputError: a setting out of its range.

    Reference: Ye, Mohajer Hamidi, Tan, Yang, "Bayes Conditional Distribution Estimation for Knowledge Distillation
    Based on Conditional Mutual Information", ICLR 2024, arXiv 2401.08732; code iclr2024mcmi/ICLRMCMI. The defaults are
    its 20 of 200 epochs, at a learning rate of 0.05 after 0.1. Deviations: the class means are taken in evaluation
    mode, without augmentation (the released code leaves the network in training mode), and the schedule is the
    recipe's.

    >>> MCMI().fine_tuning
    FineTuning(epochs=0.1, rate=0.5)
    """

    weight: float = 0.25
    epochs: float = 0.1
    rate: float = 0.5

    name: ClassVar[str] = "mcmi"
    summary: ClassVar[str] = "no defence but its opposite: CMI at temperature 1 made large"
    source: ClassVar[str] = "arXiv 2401.08732"
    needs_normal: ClassVar[bool] = True
    runs: ClassVar[str] = "a normal teacher, from which it starts; its class means"

    def __post_init__(self) -> None:
        problems = problems_of_numbers([("weight", self.weight, 0)])
        for name, value in (("epochs", self.epochs), ("rate", self.rate)):
            if not 0 < value <= 1:
                problems.append(f"{name} is a share of the recipe's and must lie in (0, 1], got {value}")
        if problems:
            raise InputError("; ".join(problems) + ".")

    @property
    def fine_tuning(self) -> FineTuning:
        return FineTuning(self.epochs, self.rate)

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return _MCMILoss(num_classes, self.weight)

    def prepare(self, loss: nn.Module, workshop: Workshop) -> None:
        centroids = log_class_means(workshop.logits(workshop.normal), workshop.labels.cpu())
        loss.get_buffer("log_centroids").copy_(centroids)

    def check(self, workshop: Workshop) -> Check:
        """Whether CMI on the training images is larger than the normal teacher's."""
        labels = workshop.labels.cpu()
        made, normal = (cmi(workshop.logits(network), labels) for network in (workshop.teacher, workshop.normal))
        sentence = (
            f"CMI at temperature 1 on the training images {'rose' if made > normal else 'did NOT rise'}: "
            f"{made:.3g} nats, after {normal:.3g} of the normal teacher"
        )
        return Check(made > normal, sentence, {"cmi": made, "cmi_of_normal": normal})


class _MCMILoss(nn.Module):
    log_centroids: Tensor

    def __init__(self, num_classes: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("log_centroids", torch.full((num_classes, num_classes), torch.nan))

    def forward(self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        if self.log_centroids.device.type == "cpu" and self.log_centroids[0, 0].isnan():  # else it would hold up a step
            raise InputError("the centroids of MCMI are not set; call prepare with the normal teacher before training.")
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(self.log_centroids.dtype)
            log_probs = torch.log_softmax(logits, dim=1)
            spread = kl_divergence(log_probs, self.log_centroids[target])
            return F.cross_entropy(logits, target, reduction="none") - self.weight * spread


def log_class_means(
    logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, "classes classes"]:
    """log of each class's mean output, in float64. Summed in the log domain, so that no entry underflows to zero.

    Raises:
        InputError: a class without a sample.

    >>> log_class_means(torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]]).log(), torch.tensor([0, 0, 1])).exp()
    tensor([[0.7000, 0.3000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    num_classes = logits.shape[1]
    log_probs = torch.log_softmax(logits.double(), dim=1)
    counts = torch.bincount(labels, minlength=num_classes)
    absent = (counts == 0).nonzero()[:, 0].tolist()
    if absent:
        raise InputError(f"{len(absent)} class(es) have no sample, and so no mean (first: {absent[0]}).")
    clusters = log_probs[labels.argsort()].split(counts.tolist())
    return torch.stack([cluster.logsumexp(dim=0) for cluster in clusters]) - counts.double().log()[:, None]
