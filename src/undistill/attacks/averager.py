"""Averaging the answers over images of one class, in a batch or in the whole training set."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import EXACT_ZEROS, AccessKind
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.kd import KD
from undistill.information import temper

TEMPERATURES = (20.0, 4.0)


def class_means(values: Float[Tensor, "n classes"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "n classes"]:
    """In each row, the mean over all rows of its label.

    Example:
        >>> class_means(torch.tensor([[1.0, 0.0], [0.0, 5.0], [0.0, 1.0]]), torch.tensor([0, 1, 0]))
        tensor([[0.5000, 0.5000],
                [0.0000, 5.0000],
                [0.5000, 0.5000]])
    """
    classes = values.shape[1]
    sums = values.new_zeros(classes, classes).index_add(0, labels, values)
    return sums[labels] / torch.bincount(labels, minlength=classes)[labels, None]


def mean_answer(log_p: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]) -> Float[Tensor, "b classes"]:
    """The geometric mean of the answers to images of one label, renormalised; -inf where one of them is.

    Where no class has a probability above zero in all of them, the arithmetic mean stands in.
    """
    geometric = class_means(log_p, labels)
    common = (geometric > -torch.inf).any(1, keepdim=True)
    return torch.where(common, torch.log_softmax(geometric, 1), class_means(log_p.exp(), labels).log())


@dataclass(frozen=True)
class Averager(KD):
    """Each answer is replaced by the mean answer to the images of its class in the batch.

    Formula, per example: hard * CE(z, y) + (1 - hard) * T^2 * KL(m || softmax(z/T)), where m is the mean over the
    batch's images of label y of their logits, at temperature T: the geometric mean of p^(1/T), renormalised. From
    probabilities alone this is exact, as the unknown constant of each image's logits drops out.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].

    Raises:
        InputError: a temperature that is not finite and above 0, a weight outside [0, 1].

    Example:
        >>> log_probs = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log()
        >>> attack = Averager(temperature=1.0, hard=0.0)
        >>> attack.loss(torch.zeros(2, 2), log_probs, torch.tensor([0, 0])).abs().max().item() < 1e-6
        True

    Source: Keser, Toreyin, "Averager Student: Distillation from Undistillable Teacher", ICLR 2023 Tiny Papers, and
    their code, rkevser/AveragerStudent (T = 20, 0.1 and 0.9). Deviations: the code multiplies the soft part by 0.9
    twice, here it counts once; any student will do, where the code takes a network with several exits and uses one.
    """

    name: ClassVar[str] = "averager"
    summary: ClassVar[str] = "KD from the mean answer to the batch's images of each class, plus labels"
    source: ClassVar[str] = "Keser, Toreyin 2023 (ICLR Tiny Papers); rkevser/AveragerStudent"
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            **EXACT_ZEROS,
            "decimals": "a class that is rounded to zero in one answer of a group is an exact zero in its mean",
            "top-k": "a class that is hidden in one answer of a group is an exact zero in its mean; where no class is "
            "left, the mean of the probabilities",
            "label": "the shares of the predicted classes in each group",
        }
    )

    temperature: float = 20.0

    def soft(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        power = 1 / self.temperature
        mean = mean_answer(temper(log_probs.detach().float(), power), labels)
        return self.temperature**2 * kl_divergence(mean, temper(logits.float(), power))

    @classmethod
    def grid(cls) -> "tuple[Averager, ...]":
        return tuple(cls(temperature) for temperature in TEMPERATURES)


@dataclass(frozen=True)
class FullAverager(KD):
    """Each answer is replaced by its class's centroid: the mean answer to all training images of the class.

    Formula, per example: hard * CE(z, y) + (1 - hard) * T^2 * KL(Q_y || softmax(z/T)), where Q_y is the arithmetic mean
    of p^(1/T) over all images of label y in this epoch's views. It is the strongest form of averaging, and all that a
    teacher gives away whose answers depend on the class alone.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].

    Raises:
        InputError: a temperature that is not finite and above 0, a weight outside [0, 1].

    Example:
        >>> log_probs = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]]).log()
        >>> FullAverager(temperature=1.0).prepare(log_probs, torch.tensor([0, 0, 1])).exp()
        tensor([[0.6000, 0.4000],
                [0.6000, 0.4000],
                [0.1000, 0.9000]])

    Source: :class:`Averager`, with the mean over the whole set, which in batches of 128 images of 100 classes is over
    two or three. Deviation from it: the arithmetic mean of probabilities at temperature T, which is what KD from the
    answers one by one would pull a student to that knows the class only; zeros of single answers do no harm to it.
    """

    name: ClassVar[str] = "averager-full"
    summary: ClassVar[str] = "KD from each class's centroid over the whole training set, plus labels"
    source: ClassVar[str] = "after Keser, Toreyin 2023 (ICLR Tiny Papers), with the mean over all images"
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            **EXACT_ZEROS,
            "decimals": "a class that is rounded to zero in all answers of a class is an exact zero in its centroid",
            "top-k": "a class that is hidden in all answers of a class is an exact zero in its centroid",
            "label": "the shares of the predicted classes",
        }
    )
    row_wise: ClassVar[bool] = True

    temperature: float = 20.0

    def prepare(self, log_probs: Float[Tensor, "n classes"], labels: Int64[Tensor, "n"]) -> Float[Tensor, "n classes"]:
        """The centroids at temperature T, taken back to temperature 1, as answers."""
        tempered = temper(log_probs.detach().double(), 1 / self.temperature)
        return temper(class_means(tempered.exp(), labels).log(), self.temperature).float()

    @classmethod
    def grid(cls) -> "tuple[FullAverager, ...]":
        return tuple(cls(temperature) for temperature in TEMPERATURES)
