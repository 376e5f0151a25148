"""Which images an attacker may ask about, and which students are a fair comparison."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from undistill.errors import InputError
from undistill.tasks.stratify import stratified
from undistill.tasks.task import Split, Task


class QueryData(ABC):
    """Which images an attacker has. ``str`` gives the words by which the command line knows it.

    Attributes:
        labelled: whether the attacker knows the true classes of his images.
        has_images: whether he has any.
    """

    labelled: ClassVar[bool]
    has_images: ClassVar[bool] = True

    @abstractmethod
    def attackers_task(self, task: Task) -> Task:
        """The task with the attacker's images in the place of the teacher's training images.

        Validation and test stay as they are: there students are chosen and judged.

        Raises:
            InputError: the task does not have such images, or too few.
        """

    def in_task(self, task: Task) -> bool:
        """Whether the task has such images."""
        return True

    def controls_task(self, task: Task) -> Task:
        """What students without the teacher are trained on.

        The attacker's own labelled images, for what he could have reached without the teacher. Where he has none, the
        teacher's training images with their labels: no attacker could reach that, so it is a bar that favours the
        teacher. (There are no placebos then: an attack without labels has nothing to smooth.)
        """
        return self.attackers_task(task) if self.labelled else task

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What the attacker has, in words."""

    def description(self) -> dict[str, Any]:
        """All of it as JSON."""
        controls = "the attacker's images" if self.labelled else "the teacher's training images"
        return {"name": str(self), "sentence": self.sentence, "controls": controls}


@dataclass(frozen=True)
class TrainingImages(QueryData):
    """The images that the teacher was trained on, with labels, or a stratified share of them.

    Args:
        share: in (0, 1]; the published studies take 0.05, 0.1, 0.25 and 0.5.

    Example:
        >>> from undistill.tasks import load_task
        >>> len(TrainingImages(0.1).attackers_task(load_task("digits")).train)
        50
    """

    labelled: ClassVar[bool] = True

    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(
                f"the attacker's share of the training images is {self.share}, must be above 0 and at most 1"
            )

    def attackers_task(self, task: Task) -> Task:
        if self.share == 1:
            return task
        size = round(self.share * len(task.train))
        kept = torch.from_numpy(stratified(task.train.labels.numpy(), size, seed=0, purpose="query data"))
        part = Split(task.train.images[kept], task.train.labels[kept])
        return replace(task, name=f"{task.name} ({self.share:.0%} of its training images)", train=part, fresh=None)

    @property
    def sentence(self) -> str:
        if self.share == 1:
            return "the teacher's training images, with labels"
        return f"a stratified {self.share:.0%} of the teacher's training images, with labels"

    def __str__(self) -> str:
        return "train" if self.share == 1 else f"train:{self.share:g}"


@dataclass(frozen=True)
class FreshImages(QueryData):
    """Labelled images of the same task that the teacher never saw: those that :func:`load_task` reserved.

    Example:
        >>> from undistill.tasks import load_task
        >>> len(FreshImages().attackers_task(load_task("digits", fresh=0.2)).train)
        100
    """

    labelled: ClassVar[bool] = True

    def in_task(self, task: Task) -> bool:
        return task.fresh is not None

    def attackers_task(self, task: Task) -> Task:
        if task.fresh is None:
            raise InputError(
                f"the task {task.name!r} has no fresh images; reserve a share of its training images for them (fresh, "
                "such as 0.2) when it is loaded, for the training of the teacher as well"
            )
        return replace(task, name=f"{task.name} (fresh images)", train=task.fresh, fresh=None)

    @property
    def sentence(self) -> str:
        return "fresh images of the task that the teacher never saw, with labels"

    def __str__(self) -> str:
        return "fresh"


@dataclass(frozen=True)
class OtherImages(QueryData):
    """Images of another task, of the same shape; their labels mean nothing to the teacher.

    Args:
        other: the other task, whose training images are taken.
    """

    labelled: ClassVar[bool] = False

    other: Task

    def attackers_task(self, task: Task) -> Task:
        images = self.other.train.images
        check_same_shape(self.other, task)
        if len(images) < 2 * task.num_classes:
            raise InputError(
                f"{self.other.name!r} has {len(images)} training images, must have {2 * task.num_classes} to stand in "
                f"for the {task.num_classes} classes of {task.name!r}; take more of it"
            )
        return _unlabelled(task, f"{self.other.name} for {task.name}", Split(images, _in_turn(len(images), task)))

    @property
    def sentence(self) -> str:
        return f"images of another task ({self.other.name}), without labels"

    def description(self) -> dict[str, Any]:
        other = {"name": self.other.name, "fingerprint": self.other.fingerprint, "source": self.other.source}
        return super().description() | {"other": other}

    def __str__(self) -> str:
        return "other"


def check_same_shape(other: Task, task: Task) -> None:
    """Refuse another task whose images a teacher of this one cannot be asked about.

    Raises:
        InputError: they have another shape. Images are never resized in secret: that would change what they are.
    """
    if other.input_shape != task.input_shape:
        raise InputError(
            f"the images of {other.name!r} have shape {other.input_shape}, those of {task.name!r} have "
            f"{task.input_shape}; bring them to one size and number of channels"
        )


@dataclass(frozen=True)
class NoImages(QueryData):
    """No images at all: for attacks that make their own.

    The derived task's training images are as many black as white ones, so that a student scales images in [0, 1] to
    [-1, 1], as one does who knows nothing of the data.
    """

    labelled: ClassVar[bool] = False
    has_images: ClassVar[bool] = False

    def attackers_task(self, task: Task) -> Task:
        images = torch.zeros(2 * task.num_classes, *task.input_shape, dtype=torch.uint8)
        images[: task.num_classes] = 255
        return _unlabelled(task, f"no images for {task.name}", Split(images, _in_turn(len(images), task)))

    @property
    def sentence(self) -> str:
        return "no images: the attacker makes his own"

    def __str__(self) -> str:
        return "none"


def _in_turn(count: int, task: Task) -> torch.Tensor:
    """Labels that mean nothing, for what has none: 0, 1, ..., C - 1, 0, 1, ..."""
    return torch.arange(count) % task.num_classes


def _unlabelled(task: Task, name: str, train: Split) -> Task:
    return replace(task, name=name, train=train, fresh=None, labelled=False)


TRAINING_IMAGES = TrainingImages()
