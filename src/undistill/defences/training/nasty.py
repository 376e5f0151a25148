"""Nasty Teacher: right answers, and wrong second guesses."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.defences.training.defence import Check, Defence, Workshop, nearest_published, problems_of_numbers
from undistill.errors import InputError, unknown_name
from undistill.information import at_least_float32, kl_divergence, temper

DIRECTIONS = ("nasty-to-normal", "normal-to-nasty")
REDUCTIONS = ("batch-mean", "all-mean")
PUBLISHED = {10: (4.0, 0.04), 100: (20.0, 0.005), 200: (20.0, 0.01)}
"""Temperature and weight by number of classes: CIFAR-10, CIFAR-100, Tiny-ImageNet."""


@dataclass(frozen=True)
class Nasty(Defence):
    """Cross entropy, minus the divergence from a normal teacher N at a high temperature.

    ``J = CE - weight * T^2 * mean_i KL(P_i^(1/T) || N_i^(1/T))``, both of the same augmented image, N without gradient.

    Args:
        temperature: T, above 0; None takes the published one for the nearest number of classes (4 for 10 classes, 20
            for 100 and for 200).
        weight: at least 0; None likewise (0.04, 0.005, 0.01). What counts is ``weight * T^2``: 0.64, 2 and 4.
        direction: "nasty-to-normal", KL(P || N), as published: it is bounded, by ``-log min N^(1/T)``.
            "normal-to-nasty", KL(N || P), is not.
        reduction: "batch-mean", as published, sums over classes; "all-mean" also divides by their number C, and is C
            times weaker.

    Raises:
        InputError: a setting out of its range, or an unknown word.

    Reference: Ma, Chen, Hu, You, Xie, Wang, "Undistillable: Making A Nasty Teacher That CANNOT Teach Students", ICLR
    2021, arXiv 2105.07381; code VITA-Group/Nasty-Teacher. The repository of the CMIM paper has direction
    "normal-to-nasty", reduction "all-mean", T = 20 and weights of 0.004 to 0.01.

    >>> defence = Nasty().for_classes(100)
    >>> defence.temperature, defence.weight
    (20.0, 0.005)
    """

    temperature: float | None = None
    weight: float | None = None
    direction: str = "nasty-to-normal"
    reduction: str = "batch-mean"

    name: ClassVar[str] = "nasty"
    summary: ClassVar[str] = "cross entropy minus the divergence from a normal teacher at a high temperature"
    source: ClassVar[str] = "arXiv 2105.07381"
    needs_normal: ClassVar[bool] = True
    runs: ClassVar[str] = "a normal teacher; its answer at each step"

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("direction", self.direction, DIRECTIONS),
            ("reduction", self.reduction, REDUCTIONS),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)
        problems = problems_of_numbers([("weight", 0.0 if self.weight is None else self.weight, 0)])
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            problems.append(f"temperature must be a finite number above 0, got {self.temperature}")
        if problems:
            raise InputError("; ".join(problems) + ".")

    def for_classes(self, num_classes: int) -> "Nasty":
        temperature, weight = self.strength(num_classes)
        return replace(self, temperature=temperature, weight=weight)

    def strength(self, num_classes: int) -> tuple[float, float]:
        """Temperature and weight for so many classes."""
        temperature, weight = nearest_published(num_classes, PUBLISHED)
        return (
            temperature if self.temperature is None else self.temperature,
            weight if self.weight is None else self.weight,
        )

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return _NastyLoss(num_classes, self)

    def beside(
        self, loss: nn.Module, workshop: Workshop, images: Float[Tensor, "b *shape"], indices: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b classes"]:
        return workshop.normal(images)

    def divergence(
        self, logits: Float[Tensor, "b classes"], normal_logits: Float[Tensor, "b classes"]
    ) -> Float[Tensor, " b"]:
        """The divergence in this defence's direction and at its temperature, per example; summed over classes."""
        temperature, _ = self.strength(logits.shape[1])
        nasty, normal = temper(logits, 1 / temperature), temper(normal_logits, 1 / temperature)
        return kl_divergence(nasty, normal) if self.direction == DIRECTIONS[0] else kl_divergence(normal, nasty)

    def check(self, workshop: Workshop) -> Check:
        """Whether the teacher became nasty: whether its answer to an image lies farther from the normal teacher's
        answer to the same image than the normal teacher's answer to another image of the class does, on average over
        the training images. An answer that is replaced by one to another image has nothing of the image left."""
        labels = workshop.labels.cpu()
        logits, normal = workshop.logits(workshop.teacher), workshop.logits(workshop.normal)
        other = normal[another_of_the_class(labels)]
        distance = self.divergence(logits, normal).double().mean().item()
        within = self.divergence(other, normal).double().mean().item()
        agreement = _second_guess_agreement(logits, normal, labels)
        holds = distance > within
        sentence = (
            f"{'became nasty' if holds else 'did NOT become nasty'}: its answers lie {distance:.3g} nats from the "
            f"normal teacher's, whose answers to two images of a class lie {within:.3g} nats apart; the second guesses "
            f"agree on {agreement:.0f}% of the training images ({_second_guess_agreement(other, normal, labels):.0f}% "
            "between two images of a class)"
        )
        numbers = {"divergence": distance, "divergence_within_class": within, "second_guess_agreement": agreement}
        return Check(holds, sentence, numbers)


class _NastyLoss(nn.Module):
    def __init__(self, num_classes: int, defence: Nasty) -> None:
        super().__init__()
        self.defence = defence
        temperature, weight = defence.strength(num_classes)
        self.factor = weight * temperature**2
        if defence.reduction == "all-mean":
            self.factor /= num_classes

    def forward(
        self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"], beside: Float[Tensor, "b classes"]
    ) -> Float[Tensor, " b"]:
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            apart = self.defence.divergence(logits, beside.detach().to(logits.dtype))
            return F.cross_entropy(logits, target, reduction="none") - self.factor * apart


def another_of_the_class(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """For each image the place of the next one of its class, for the last that of the first.

    >>> another_of_the_class(torch.tensor([0, 1, 0, 1, 0]))
    tensor([2, 3, 4, 1, 0])
    """
    others = torch.empty_like(labels)
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        others[places] = places.roll(-1)
    return others


def _second_guess_agreement(
    logits: Float[Tensor, "n classes"], others: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
) -> float:
    """Percent of rows whose likeliest class other than the label is the same in both."""
    first, second = (
        rows.scatter(1, labels[:, None], -torch.inf).argmax(dim=1) for rows in (logits.double(), others.double())
    )
    return 100 * (first == second).double().mean().item()
