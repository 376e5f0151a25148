"""Centroid serving: every image of a predicted class has the same answer, the mean of that class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.defences.output.decision import first, probabilities
from undistill.defences.output.defence import OutputDefence, OwnData, Transform


@dataclass(frozen=True)
class CentroidServing(OutputDefence):
    """Serves the mean of the teacher's answers to the owner's training images of which it predicted the same class.

        p'(x) = mean of p(x') over { x' : argmax p(x') = argmax p(x) }

    It tells of an image what its label tells, so CMI given the prediction is 0 at every power; what it adds to the
    label is how alike the classes are, C x C numbers that are the same for all. The predicted class stays, since it is
    the largest in every row of the mean. A class that is never predicted on the training images has no mean: it is
    served alone, as probability 1 (a report names such classes).

    Raises:
        InputError: when it is set up, without any answers.

    Example:
        >>> rows = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]).log()
        >>> own = OwnData(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), rows, torch.tensor([0, 1, 1]))
        >>> CentroidServing().set_up(own).apply(torch.tensor([[0.9, 0.1]]).log(), torch.zeros(1, 1, 2, 2)).exp()
        tensor([[0.7000, 0.3000]])

    Source: ours. It bounds what per-image probabilities are worth: what a student gains from it over the label alone is
    the value of class similarity.
    """

    name: ClassVar[str] = "centroid"
    summary: ClassVar[str] = "the mean answer of the predicted class: nothing about the image beyond its label"
    source: ClassVar[str] = "ours"
    keeps_top1 = True
    idempotent = True

    def set_up(self, own: OwnData) -> Transform:
        own.check_enough(self.name)
        classes = own.log_probs.shape[1]
        predicted = own.log_probs.argmax(1)
        counts = torch.bincount(predicted, minlength=classes)[:, None]
        probs = probabilities(own.log_probs)
        means = torch.zeros(classes, classes, dtype=probs.dtype).index_add_(0, predicted, probs) / counts
        means = torch.where(counts == 0, torch.eye(classes, dtype=probs.dtype), means)
        return _OfPredictedClass(
            first(means.log().float(), torch.arange(classes)), tuple((counts[:, 0] == 0).nonzero()[:, 0].tolist())
        )

    def restore(self, state: Mapping[str, Tensor]) -> Transform:
        return _OfPredictedClass(state["centroids"], tuple(state["never_predicted"].tolist()))


@dataclass(frozen=True, eq=False)
class _OfPredictedClass(Transform):
    centroids: Float[Tensor, "classes classes"]
    never_predicted: tuple[int, ...]

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return self.centroids.to(log_probs.device)[log_probs.argmax(1)]

    def facts(self) -> dict[str, Any]:
        return {"never_predicted": list(self.never_predicted)} if self.never_predicted else {}

    def state(self) -> dict[str, Tensor]:
        return {"centroids": self.centroids, "never_predicted": torch.tensor(self.never_predicted, dtype=torch.int64)}
