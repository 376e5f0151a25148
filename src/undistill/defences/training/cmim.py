"""The defence this package is about: cross entropy plus CMI at several powers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from undistill.defences.training.centroids import centroids_of_start
from undistill.defences.training.cmim_loss import CMIM_POWERS, CMIMLoss, check_settings
from undistill.defences.training.defence import SECOND_VIEWS, Defence, Workshop
from undistill.errors import InputError, unknown_name
from undistill.information import check_powers


@dataclass(frozen=True)
class CMIM(Defence):
    """CMI minimised at several powers beside cross entropy, so that each class's outputs collapse to one point.

    The formula and the meaning of each field are those of :class:`CMIMLoss`. A training that starts from a trained
    network begins with the exact class means of all its training images as centroids.

    Args:
        weight: weight of the CMI term, at least 0.
        powers: powers a = 1/T, each above 0.
        weighting: weight of each power: "inverse-square", "log-uniform" or "none".
        aggregation: over powers: "mean", "maximum" or "power-mean".
        exponent: exponent of the power mean.
        centroids: "free" or "symmetric".
        decay: weight that a centroid keeps of its past at each batch that holds its class, in [0, 1).
        ramp: share of the training, in [0, 1], over which the weight grows linearly from 0.
        second_view: a second view of each image, which the CMI term alone sees, so that clusters collapse on other
            images as well: "strong" (augmented strongly) or "mixed" (with another image of its class). Up to twice
            the time.
        held_out: share of each class's training images, in [0, 1), that the CMI term alone sees.

    Raises:
        InputError: a field out of its range, or an unknown word.

    >>> CMIM(weight=0.3).loss(num_classes=10, steps=1000).ramp_steps
    100
    """

    weight: float = 1.0
    powers: tuple[float, ...] = CMIM_POWERS
    weighting: str = "inverse-square"
    aggregation: str = "mean"
    exponent: float = 4.0
    centroids: str = "free"
    decay: float = 0.9
    ramp: float = 0.1
    second_view: str = "none"
    held_out: float = 0.0

    name: ClassVar[str] = "cmim"
    summary: ClassVar[str] = (
        "cross entropy plus the conditional mutual information of each class's outputs at several powers"
    )

    source: ClassVar[str] = "arXiv 2507.00012, in our reading"
    runs: ClassVar[str] = "nothing beside its own steps, of twice as many images with a second view"

    def __post_init__(self) -> None:
        check_settings(
            weight=self.weight,
            weighting=self.weighting,
            aggregation=self.aggregation,
            exponent=self.exponent,
            centroids=self.centroids,
            decay=self.decay,
        )
        object.__setattr__(self, "powers", check_powers(self.powers))
        if not 0 <= self.ramp <= 1:
            raise InputError(f"ramp is a share of the training and must lie in [0, 1], got {self.ramp}.")
        if self.second_view not in SECOND_VIEWS:
            raise unknown_name("second view", self.second_view, SECOND_VIEWS)
        if not 0 <= self.held_out < 1:
            raise InputError(
                f"held_out is the share of the training images without cross entropy and must lie in [0, 1), got "
                f"{self.held_out}."
            )

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return CMIMLoss(
            num_classes,
            self.weight,
            powers=self.powers,
            weighting=self.weighting,
            aggregation=self.aggregation,
            exponent=self.exponent,
            centroids=self.centroids,
            decay=self.decay,
            ramp_steps=round(self.ramp * steps),
            reduction="none",
        )

    def prepare(self, loss: nn.Module, workshop: Workshop) -> None:
        centroids_of_start(loss, workshop)
        if self.held_out:
            loss.register_buffer("labelled", ~fold(workshop.labels, self.held_out), persistent=False)

    def beside(
        self, loss: nn.Module, workshop: Workshop, images: Float[Tensor, "m *shape"], indices: Int64[Tensor, " b"]
    ) -> Float[Tensor, " m"] | None:
        """Each row's weight of its cross entropy, 1 in the mean over an epoch's rows; None where all have 1."""
        if not self.held_out and self.second_view == "none":
            return None
        weights = torch.zeros(len(images), device=indices.device)
        usual = weights[: len(indices)].fill_(len(images) / len(indices))
        if self.held_out:
            labelled = loss.get_buffer("labelled")
            usual.mul_(labelled[indices] / labelled.float().mean())
        return weights


def fold(labels: Int64[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """A fixed random choice of ``floor(share * n_y)`` images of each class y.

    >>> fold(torch.tensor([0, 0, 0, 0, 1, 1]), 0.5).sum().item()
    3
    """
    drawn = torch.rand(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        chosen[members[drawn[members].argsort()][: int(share * len(members))]] = True
    return chosen
