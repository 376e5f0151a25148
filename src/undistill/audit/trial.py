"""One training of one student, and everything that determines it."""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from undistill.attacks import Attack
from undistill.audit.lab import AuditLab, Fit
from undistill.audit.turns import in_turns
from undistill.blackbox import BlackBox, Page, Queries, SharedAnswers
from undistill.defences.training import LabelSmoothing
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.models import Classifier, architecture_code
from undistill.settings import settings_in_words, settings_of
from undistill.source import code_hash
from undistill.tasks import Task
from undistill.training import (
    EpochRecord,
    FromLabels,
    NonFiniteLossError,
    Progress,
    Recipe,
    Training,
    accuracy,
    classifier_for,
    fit_all,
    fit_one,
    predict,
)

# 2: with a checksum and "correct"; 3: small CNNs are stacked, whose last digits differ. It is part of the key, so an
# outcome of an earlier format is not reused.
OUTCOME_FORMAT = 3
FRESH_VIEWS = Queries()
Role = Literal["reference", "placebo", "knockoff"]


@dataclass(frozen=True)
class Trial:
    """A reference (labels, smoothed by ``smoothing``), a placebo (``attack`` on one-hot labels smoothed by
    ``smoothing``) or a knockoff (``attack`` on the answers of ``teacher``).

    Args:
        task: fingerprint of the task.
        student: architecture.
        recipe: of the training.
        seed: of initial weights, order and augmentation.
        attack: None for a reference.
        smoothing: None for a knockoff.
        teacher: fingerprint of the black box; None for references and placebos.
        queries: how a knockoff asks; a placebo sees the same views.
    """

    task: str
    student: str
    recipe: Recipe
    seed: int
    attack: Attack | None = None
    smoothing: float | None = None
    teacher: str | None = None
    queries: Queries = FRESH_VIEWS

    @property
    def role(self) -> Role:
        if self.attack is None:
            return "reference"
        return "placebo" if self.teacher is None else "knockoff"

    @property
    def setting(self) -> str:
        """What is chosen on validation, in words."""
        settings = [] if self.attack is None else [settings_in_words(self.attack)]
        if self.smoothing is not None:
            settings.append(f"smoothing={self.smoothing}")
        return ", ".join(filter(None, settings))

    @property
    def title(self) -> str:
        """What messages call it."""
        attack = "" if self.attack is None else f" of {self.attack.name}"
        return (
            f"{self.role}{attack} with {self.student} ({', '.join(filter(None, [self.setting, f'seed {self.seed}']))})"
        )

    def description(self) -> dict[str, Any]:
        """All of it as JSON. The code of the attack, and of a student of one's own, is part of it: outcomes of changed
        code are not reused."""
        code = architecture_code(self.student)
        return {
            "format": OUTCOME_FORMAT,
            "undistill": _version(),
            "role": self.role,
            "task": self.task,
            "student": self.student,
            **({} if code is None else {"student_code": code}),
            "recipe": settings_of(self.recipe),
            "seed": self.seed,
            "attack": None if self.attack is None else describe_attack(self.attack),
            "smoothing": self.smoothing,
            "teacher": self.teacher,
            "queries": None if self.attack is None else settings_of(self.queries),
        }

    @cached_property
    def key(self) -> str:
        """Content hash: the name under which the outcome is stored."""
        return content_hash(self.description())


@cache
def _version() -> str:
    return version("undistill")


def describe_attack(attack: Attack) -> dict[str, Any]:
    """An attack's name, settings and the hash of the code that defines it, as JSON.

    Raises:
        InputError: that code has no file.
    """
    settings = {
        name: describe_attack(value) if isinstance(value, Attack) else value
        for name, value in settings_of(attack).items()
    }
    return {"name": attack.name, **settings, "code": code_hash(type(attack).__module__)}


def smoothed_one_hot(labels: Int64[Tensor, "n"], classes: int, smoothing: float) -> Float[Tensor, "n classes"]:
    """Log-probabilities of a placebo's teacher: 1 - s + s/C on the label, s/C elsewhere (``-inf`` for s = 0).

    >>> smoothed_one_hot(torch.tensor([1]), 2, 0.5).exp().tolist()
    [[0.25, 0.75]]
    """
    probs = torch.full((len(labels), classes), smoothing / classes)
    probs.scatter_(1, labels[:, None], 1 - smoothing + smoothing / classes)
    return probs.log()


def run_trial(
    trial: Trial, tasks: Mapping[str, Task], boxes: Mapping[str, BlackBox], cache: SharedAnswers
) -> dict[str, Any]:
    """Train and measure; the outcome as JSON. Arguments as of :func:`train_student`."""
    return train_student(trial, tasks, boxes, cache)[1]


def run_pack(
    trials: Sequence[Trial], tasks: Mapping[str, Task], boxes: Mapping[str, BlackBox], cache: SharedAnswers
) -> list[dict[str, Any] | Exception]:
    """Train and measure the students of several trials, together where that is possible.

    Each trial goes its own way up to a training, and waits there for the others; then all trainings are run at once
    (:func:`undistill.training.fit_all`). The outcomes are those of :func:`run_trial`, to the bit, but for the seconds:
    each trial is given an equal share of the whole.

    Args:
        trials: of any kind; those that :func:`undistill.audit.packing.pack` puts together gain by it.
        tasks: tasks by fingerprint.
        boxes: black boxes by fingerprint.
        cache: where answers are shared.

    Returns:
        For each trial its outcome as JSON, or what it raised when it ran alone. An ``InputError`` names the trial.
    """
    if len(trials) == 1:
        return [_outcome_or_error(trials[0], tasks, boxes, cache)]
    started = time.monotonic()

    def train(trial: Trial, ask: Callable[[Training], list[EpochRecord] | NonFiniteLossError]) -> dict[str, Any]:
        return train_student(trial, tasks, boxes, cache, fit=partial(_or_raise, ask))[1]

    found = in_turns([partial(train, trial) for trial in trials], fit_all)
    seconds = (time.monotonic() - started) / len(trials)
    # What failed may have been drawn into it by another trial: alone, each answers for itself.
    return [
        _outcome_or_error(trial, tasks, boxes, cache)
        if isinstance(result, Exception)
        else result | {"seconds": seconds}
        for trial, result in zip(trials, found, strict=True)
    ]


def _or_raise(
    ask: Callable[[Training], list[EpochRecord] | NonFiniteLossError], training: Training
) -> list[EpochRecord]:
    reply = ask(training)
    if isinstance(reply, NonFiniteLossError):
        raise reply
    return reply


def _outcome_or_error(
    trial: Trial, tasks: Mapping[str, Task], boxes: Mapping[str, BlackBox], cache: SharedAnswers
) -> dict[str, Any] | Exception:
    try:
        return run_trial(trial, tasks, boxes, cache)
    except InputError as error:
        named = InputError(f"{trial.title}: {error}")
        named.__cause__ = error
        return named
    except Exception as error:
        return error


def train_student(
    trial: Trial,
    tasks: Mapping[str, Task],
    boxes: Mapping[str, BlackBox],
    cache: SharedAnswers,
    progress: Callable[[int], Progress] | None = None,
    fit: Fit = fit_one,
) -> tuple[Classifier, dict[str, Any]]:
    """Train and measure; the student, and the outcome as JSON.

    Args:
        trial: what to train.
        tasks: tasks by fingerprint.
        boxes: black boxes by fingerprint.
        cache: where answers are shared.
        progress: shows the trainings.
        fit: runs them.
    """
    started = time.monotonic()
    task = tasks[trial.task]
    box = None if trial.teacher is None else boxes[trial.teacher]
    notes: dict[str, Any] = {}
    queries = 0
    if trial.attack is None:
        student = classifier_for(task, trial.student, seed=trial.seed)
        records = fit(Training(student, task, _labels(trial, task), trial.recipe, trial.seed, progress))
    else:
        lab = AuditLab(
            task,
            trial.student,
            trial.recipe,
            trial.seed,
            trial.queries,
            trial.attack,
            cache=cache,
            box=box,
            stand_in=None if box is not None else _stand_in(trial, task),
            progress=progress,
            fit=fit,
        )
        trained = trial.attack.train(lab)
        if not isinstance(trained, Classifier):
            raise TypeError(f"attack {trial.attack.name} returned a {type(trained).__name__}, not a student of its lab")
        student = trained
        records, notes, queries = lab.records, lab.notes, lab.queries
    test = predict(student, task.test)
    outcome = {
        "accuracy": accuracy(test, task.test),
        "correct": pack_bits((test.argmax(1) == task.test.labels).numpy()),
        "validation_accuracy": accuracy(predict(student, task.validation), task.validation),
        "queries": queries,
        "seconds": time.monotonic() - started,
        "loss": [record["loss"] for record in records],
        "train_accuracy": [record["train_accuracy"] for record in records],
        "notes": notes,
    }
    if box is not None:
        same = cache.get(box, task, Page("test")).argmax(1) == test.argmax(1)
        outcome["agreement"] = 100 * same.double().mean().item()
    return student, outcome


def pack_bits(flags: Bool[np.ndarray, "n"]) -> str:
    """Flags as text, eight to a byte, six bits to a letter.

    >>> unpack_bits(pack_bits(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(flags).tobytes()).decode()


def unpack_bits(text: str, count: int) -> Bool[np.ndarray, "count"]:
    """``count`` flags from what :func:`pack_bits` gave."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def _labels(trial: Trial, task: Task) -> FromLabels:
    if trial.smoothing is None:
        raise InputError("a reference trial needs a smoothing (0 is plain cross entropy)")
    steps = trial.recipe.epochs * trial.recipe.steps_per_epoch(len(task.train))
    return FromLabels(LabelSmoothing(trial.smoothing).loss(task.num_classes, steps))


def _stand_in(trial: Trial, task: Task) -> Float[Tensor, "n classes"]:
    if trial.smoothing is None:
        raise InputError("a placebo trial needs a smoothing")
    return smoothed_one_hot(task.train.labels, task.num_classes, trial.smoothing)
