"""What every defence by training is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

SECOND_VIEWS = ("none", "strong", "mixed")
"""No second view; a strongly augmented one; one in which each image is mixed with another of its class."""

Published = TypeVar("Published")


@dataclass(frozen=True)
class FineTuning:
    """How much less a defence trains that starts from a trained network.

    Args:
        epochs: share of the recipe's epochs (at least one is trained).
        rate: share of the recipe's highest learning rate.
    """

    epochs: float
    rate: float


@dataclass(frozen=True)
class Check:
    """Whether a trained teacher became what its defence wants.

    Args:
        holds: whether it did.
        sentence: what was found, with its numbers.
        numbers: the same by name.
    """

    holds: bool
    sentence: str
    numbers: dict[str, float]


class Workshop(ABC):
    """What a defence has at hand while its teacher is trained. Made by the training, handed to the defence.

    Attributes:
        images: training images, (n, ...), not augmented.
        labels: their classes, (n,).
        teacher: the network in training, images in [0, 1] in, logits out.
        started: whether it starts from a trained network and not from fresh weights.
    """

    images: UInt8[Tensor, "n *shape"]
    labels: Int64[Tensor, " n"]
    teacher: nn.Module
    started: bool

    @property
    @abstractmethod
    def normal(self) -> nn.Module:
        """The normal teacher, frozen and in evaluation mode; for defences with ``needs_normal``."""

    @abstractmethod
    def logits(self, network: nn.Module) -> Float[Tensor, "n classes"]:
        """A network's logits for all training images, in evaluation mode."""

    @abstractmethod
    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives, made once for a training: after a kill it is read again. For what takes long to make."""


class Defence(ABC):
    """A loss that a teacher is trained with; a frozen dataclass whose fields are its settings.

    A plain defence is its ``loss``. What needs more overrides one of the other members, each of which has a default
    that does nothing: ``needs_normal`` and ``fine_tuning`` (a normal teacher), ``for_classes`` (settings that depend on
    the number of classes), ``second_view`` (another view of each image), ``prepare`` (passes before the first step),
    ``beside`` (answers of other networks, or to other images), ``check`` (after the training).

    Attributes:
        name: its name on the command line.
        summary: one line on what it does.
        source: paper and, where there is one, official code.
        needs_normal: whether it needs a *normal* teacher, trained with cross entropy: the same architecture, recipe
            and seed, unless one is given.
        runs: which other networks and passes it runs itself, in words.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_normal: ClassVar[bool] = False
    runs: ClassVar[str] = "nothing beside its own steps"

    @property
    def fine_tuning(self) -> FineTuning | None:
        """Set by a defence that starts from the weights of the normal teacher."""
        return None

    @property
    def second_view(self) -> str:
        """Which view of each image the network sees beside the usual one: a word of :data:`SECOND_VIEWS`. The loss then
        gets two rows per image, those of the second view below the others."""
        return "none"

    def for_classes(self, num_classes: int) -> "Defence":
        """The same defence with every setting known that its authors chose by the number of classes.

        Raises:
            InputError: a setting that does not fit the number of classes.
        """
        return self

    @abstractmethod
    def loss(self, num_classes: int, steps: int) -> nn.Module:
        """The loss of one training.

        Args:
            num_classes: number of classes C.
            steps: number of optimiser steps of the whole training; schedules inside the loss are fractions of it.

        Returns:
            A module that maps logits [b, C] and integer targets [b] (and what ``beside`` gives, where that is anything)
            to one loss per example [b], in nats. Its buffers, if any, belong into a checkpoint from which training
            resumes.
        """

    def prepare(self, loss: nn.Module, workshop: Workshop) -> None:  # noqa: B027 (most need nothing)
        """Passes before the first step, which leave their results in buffers of ``loss``. A training that resumes runs
        this too, before its state is restored, so it must not depend on chance."""

    def beside(
        self, loss: nn.Module, workshop: Workshop, images: Float[Tensor, "m *shape"], indices: Int64[Tensor, " b"]
    ) -> Float[Tensor, "m *classes"] | None:
        """What the loss takes as its third argument: logits, or one number per row. Called at each step, without
        gradients.

        Args:
            loss: of this training.
            workshop: likewise.
            images: the step's augmented images in [0, 1], of both views where there are two.
            indices: their places in the training split.
        """
        return None

    def check(self, workshop: Workshop) -> Check | None:
        """Whether ``workshop.teacher``, now trained, became what it should; None where there is nothing to check."""
        return None


def nearest_published(num_classes: int, published: dict[int, Published]) -> Published:
    """The settings that were published for the number of classes nearest to ``num_classes``, by their ratio.

    >>> nearest_published(20, {10: "as on CIFAR-10", 100: "as on CIFAR-100"})
    'as on CIFAR-10'
    """
    return published[min(published, key=lambda known: abs(math.log(known / num_classes)))]


def problems_of_numbers(rules: Iterable[tuple[str, float, int]]) -> list[str]:
    """What is wrong with settings that must be finite and not below a least value: name, value, least value.

    >>> problems_of_numbers([("weight", -1.0, 0)])
    ['weight must be a finite number of at least 0, got -1.0']
    """
    return [
        f"{name} must be a finite number of at least {least}, got {value}"
        for name, value, least in rules
        if not (math.isfinite(value) and value >= least)
    ]
