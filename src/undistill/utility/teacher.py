"""What is measured of one teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.blackbox import AnswerFacts, BlackBox, Steadiness, answer_facts
from undistill.errors import InputError
from undistill.files import json_number
from undistill.information import Spectrum, spectrum_compute, spectrum_json, spectrum_update
from undistill.tasks import Split, Task, check_same_shape
from undistill.training import accuracy
from undistill.utility.evidence import Evidence, evidence_of
from undistill.utility.origin import origin_of
from undistill.utility.quality import Quality, auroc, confidence, quality
from undistill.utility.serving import ServingTime, measure_serving


@dataclass(frozen=True)
class OtherTask:
    """How well confidence tells the task's test images from those of another task.

    Attributes:
        name: of the other task.
        fingerprint: of its data.
        n: number of its images, its test split.
        auroc: the probability that a test image gets more confidence than one of those, ties counting half.
    """

    name: str
    fingerprint: str
    n: int
    auroc: float


@dataclass(frozen=True)
class Utility:
    """What a teacher is worth on the test split, and what it takes to have and to ask it.

    Attributes:
        quality: of its answers.
        serving: how long an answer takes.
        training_seconds: what its own epochs took; nan if its checkpoint does not say.
        other: how it meets another task's images; None if it was not shown any.
        needed_seconds: what the trainings took which it was built on (its start, a normal teacher that it needed); nan
            if that is not known.
    """

    quality: Quality
    serving: ServingTime
    training_seconds: float
    other: OtherTask | None = None
    needed_seconds: float = 0.0

    @property
    def total_seconds(self) -> float:
        """What it takes to train it from nothing; nan if a part of it is not known."""
        return self.training_seconds + self.needed_seconds

    def to_json(self) -> dict[str, Any]:
        """As JSON; a figure that is no finite number is null, and ``undefined`` says why."""
        return {
            **{name: json_number(value) for name, value in asdict(self.quality).items()},
            "undefined": self.quality.undefined,
            "other_task": None if self.other is None else asdict(self.other),
            "training_seconds": json_number(self.training_seconds),
            "needed_seconds": json_number(self.needed_seconds),
            "serving": asdict(self.serving),
        }


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher as it was measured, on clean images, with all that is done to its answers.

    Attributes:
        name: what the user calls it.
        fingerprint: of its weights or answers.
        train_accuracy: on the training split, in percent.
        test: spectrum of its answers on the test split.
        train: spectrum of its answers on the training split.
        utility: what it is worth.
        output_defences: that are set around it (see :attr:`undistill.blackbox.BlackBox.defences`).
        validation_accuracy: on the validation split, in percent; None if it was not measured.
        answers: how fine its answers to validation and test images are; None if nobody looked.
        steadiness: by how much its answers to the same image differ; None if that was not tried.
        says_same_split: whether its checkpoint says that it was trained on this very split of the task.
    """

    name: str
    fingerprint: str
    train_accuracy: float
    test: Spectrum
    train: Spectrum
    utility: Utility
    output_defences: tuple[dict[str, Any], ...] = ()
    validation_accuracy: float | None = None
    answers: AnswerFacts | None = None
    steadiness: Steadiness | None = None
    says_same_split: bool = False

    @property
    def accuracy(self) -> float:
        """On the test split, in percent."""
        return self.utility.quality.accuracy

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "output_defences": list(self.output_defences),
            "accuracy": self.accuracy,
            "train_accuracy": self.train_accuracy,
            "validation_accuracy": self.validation_accuracy,
            "says_same_split": self.says_same_split,
            "answers": None if self.answers is None else self.answers.to_json(),
            "utility": self.utility.to_json(),
            "spectrum": {"train": spectrum_json(self.train), "test": spectrum_json(self.test)},
        }


def measure_teacher(
    box: BlackBox,
    task: Task,
    *,
    other: Task | None = None,
    serving: ServingTime | None = None,
    steadiness: Steadiness | None = None,
) -> TeacherFacts:
    """Measure a teacher: its answers to all clean images of the three splits, and what they are worth.

    Args:
        box: the teacher, with whatever is done to its answers.
        task: what it is for.
        other: another task with images of the same shape, to which no answer is right.
        serving: how long its answers take, if that was measured before.
        steadiness: what :func:`undistill.blackbox.check_black_box` found, if it was asked.

    Raises:
        InputError: answers that are no distributions, or another task that does not fit.

    >>> from undistill.blackbox import CallableBlackBox
    >>> from undistill.tasks import load_task
    >>> def api(images):
    ...     return images.flatten(1)[:, 20:23].softmax(1)
    >>> task = load_task("digits", classes=3)
    >>> facts = measure_teacher(CallableBlackBox("api", api, 3, torch.rand(4, 1, 8, 8)), task)
    >>> facts.name, facts.utility.quality.n
    ('api', 298)
    """
    if other is not None:
        check_other_task(other, task)
    return _facts(
        box, task, {name: box.answers(split) for name, split in _splits(task).items()}, other, serving, steadiness
    )


def observe(
    box: BlackBox,
    task: Task,
    *,
    other: Task | None = None,
    shown: Sequence[int] | None = None,
    serving: ServingTime | None = None,
) -> tuple[TeacherFacts, Evidence]:
    """Measure a teacher as :func:`measure_teacher` does, and keep of the same answers what pictures need.

    Args:
        box: the teacher, with whatever is done to its answers.
        task: what it is for.
        other: another task with images of the same shape, to which no answer is right.
        shown: classes of which clusters are kept; by default those that this teacher spreads most.
        serving: how long its answers take, if that was measured before.
    """
    answers = {name: box.answers(split) for name, split in _splits(task).items()}
    facts = _facts(box, task, answers, other, serving, None)
    evidence = evidence_of(
        box.name,
        box.fingerprint,
        {name: answers[name] for name in ("train", "test")},
        {"train": task.train.labels, "test": task.test.labels},
        {"train": facts.train, "test": facts.test},
        shown=shown,
    )
    return facts, evidence


def _splits(task: Task) -> dict[str, Split]:
    return {"train": task.train, "validation": task.validation, "test": task.test}


def _facts(
    box: BlackBox,
    task: Task,
    answers: Mapping[str, Float[Tensor, "_ classes"]],
    other: Task | None,
    serving: ServingTime | None,
    steadiness: Steadiness | None,
) -> TeacherFacts:
    train, validation, test = answers["train"], answers["validation"], answers["test"]
    return TeacherFacts(
        name=box.name,
        fingerprint=box.fingerprint,
        train_accuracy=accuracy(train, task.train),
        test=spectrum_compute(spectrum_update(test, task.test.labels)),
        train=spectrum_compute(spectrum_update(train, task.train.labels)),
        utility=measure_utility(box, task, test, other=other, serving=serving),
        output_defences=box.defences,
        validation_accuracy=accuracy(validation, task.validation),
        answers=answer_facts(torch.cat([validation, test]), box.policy),
        steadiness=steadiness,
        says_same_split=origin_of(box).training.get("task_fingerprint") == task.fingerprint,
    )


def measure_utility(
    box: BlackBox,
    task: Task,
    test: Float[Tensor, "n classes"],
    *,
    other: Task | None = None,
    serving: ServingTime | None = None,
) -> Utility:
    """The part of :func:`measure_teacher` that needs no answers to training images.

    Args:
        box: the teacher.
        task: what it is for.
        test: its answers to the test split.
        other: as there.
        serving: as there.
    """
    shown = None
    if other is not None:
        answers = box.answers(other.test)
        area = auroc(confidence(test), confidence(answers))
        shown = OtherTask(other.name, other.fingerprint, len(answers), area)
    origin = origin_of(box)
    return Utility(
        quality(test, task.test.labels),
        measure_serving(box, task.test) if serving is None else serving,
        origin.training_seconds,
        shown,
        origin.needed_seconds,
    )


def check_other_task(other: Task, task: Task) -> None:
    """Refuse another task that cannot stand for images to which no answer is right.

    Raises:
        InputError: its images have another shape, or are of the task's own classes.
    """
    check_same_shape(other, task)
    shared = [name for name in other.class_names if name in task.class_names]
    same_data = other.source.get("name") is not None and other.source.get("name") == task.source.get("name")
    if other.fingerprint == task.fingerprint or (same_data and shared):
        raise InputError(
            f"the other task holds images of {len(shared)} classes of {task.name!r} itself (first: {shared[0]!r}), to "
            "which some answer is right; name other data, or other classes of the same"
        )
