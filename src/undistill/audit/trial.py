"""One training of one student, and everything that determines it."""

import hashlib
import inspect
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks import Attack
from undistill.blackbox import AnswerCache, BlackBox
from undistill.defences.training import LabelSmoothing
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.settings import settings_of
from undistill.tasks import Task
from undistill.training import FromAnswers, FromLabels, Objective, Recipe, accuracy, classifier_for, fit, predict

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
    """

    task: str
    student: str
    recipe: Recipe
    seed: int
    attack: Attack | None = None
    smoothing: float | None = None
    teacher: str | None = None

    @property
    def role(self) -> Role:
        if self.attack is None:
            return "reference"
        return "placebo" if self.teacher is None else "knockoff"

    def description(self) -> dict[str, Any]:
        """All of it as JSON. The attack's code is part of it: outcomes of a changed attack are not reused."""
        return {
            "undistill": version("undistill"),
            "role": self.role,
            "task": self.task,
            "student": self.student,
            "recipe": settings_of(self.recipe),
            "seed": self.seed,
            "attack": None if self.attack is None else describe_attack(self.attack),
            "smoothing": self.smoothing,
            "teacher": self.teacher,
        }

    @property
    def key(self) -> str:
        """Content hash: the name under which the outcome is stored."""
        return content_hash(self.description())


def describe_attack(attack: Attack) -> dict[str, Any]:
    """An attack's name, settings and the hash of the file that defines it, as JSON."""
    return {"name": attack.name, **settings_of(attack), "code": _code_hash(type(attack))}


@cache  # once per process, so that an edit in mid-audit does not mix two versions under one name
def _code_hash(attack: type[Attack]) -> str:
    return hashlib.sha256(Path(inspect.getfile(attack)).read_bytes()).hexdigest()


def smoothed_one_hot(labels: Int64[Tensor, "n"], classes: int, smoothing: float) -> Float[Tensor, "n classes"]:
    """Log-probabilities of a placebo's teacher: 1 - s + s/C on the label, s/C elsewhere (``-inf`` for s = 0).

    >>> smoothed_one_hot(torch.tensor([1]), 2, 0.5).exp().tolist()
    [[0.25, 0.75]]
    """
    probs = torch.full((len(labels), classes), smoothing / classes)
    probs.scatter_(1, labels[:, None], 1 - smoothing + smoothing / classes)
    return probs.log()


def run_trial(trial: Trial, task: Task, boxes: dict[str, BlackBox], cache: AnswerCache) -> dict[str, Any]:
    """Train and measure; the outcome as JSON.

    Args:
        trial: what to train.
        task: the task whose fingerprint the trial names.
        boxes: black boxes by fingerprint.
        cache: where answers are shared.
    """
    started = time.monotonic()
    box = None if trial.teacher is None else boxes[trial.teacher]
    student = classifier_for(task, trial.student, seed=trial.seed)
    records = fit(student, task, _objective(trial, task, box, cache), trial.recipe, seed=trial.seed)
    test = predict(student, task.test)
    outcome = {
        "accuracy": accuracy(test, task.test),
        "validation_accuracy": accuracy(predict(student, task.validation), task.validation),
        "queries": 0 if box is None else trial.recipe.epochs * len(task.train),
        "seconds": time.monotonic() - started,
        "loss": [record["loss"] for record in records],
        "train_accuracy": [record["train_accuracy"] for record in records],
    }
    if box is not None:
        same = box.answers(task.test).argmax(1) == test.argmax(1)
        outcome["agreement"] = 100 * same.double().mean().item()
    return outcome


def _objective(trial: Trial, task: Task, box: BlackBox | None, cache: AnswerCache) -> Objective:
    if trial.attack is None:
        if trial.smoothing is None:
            raise InputError("a reference trial needs a smoothing (0 is plain cross entropy)")
        defence = LabelSmoothing(trial.smoothing)
        steps = trial.recipe.epochs * trial.recipe.steps_per_epoch(len(task.train))
        return FromLabels(defence.loss(task.num_classes, steps))
    if box is not None:
        return FromAnswers(trial.attack, lambda epoch: cache.get(box, task, trial.seed, epoch))
    if trial.smoothing is None:
        raise InputError("a placebo trial needs a smoothing")
    answers = smoothed_one_hot(task.train.labels, task.num_classes, trial.smoothing)
    return FromAnswers(trial.attack, lambda epoch: answers)
