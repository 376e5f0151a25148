"""What it gains to train several small students as one program."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import Figure, quotients, stopwatch, take_turns
from undistill.attacks import DKD, KD, Attack
from undistill.defences.training import LabelSmoothing
from undistill.tasks import Task, load_task
from undistill.training import FromAnswers, FromLabels, Recipe, Training, classifier_for, defaults_for, fit, fit_all

SUBJECTS: tuple[tuple[str, str, int], ...] = (("digits", "mlp-64", 10), ("mnist1d", "cnn1d-small", 1))
"""Tasks that come with the package, students, and epochs."""
TO_BEAT = {"mlp-64": 2.8, "cnn1d-small": 1.6}
"""What a sketch with ``torch.func.vmap`` gained."""
LOSSES: dict[str, Attack | None] = {"labels": None, "kd": KD(), "dkd": DKD()}


def packing(
    *, subjects: tuple[tuple[str, str, int], ...] = SUBJECTS, students: int = 8, repeats: int = 3
) -> list[Figure]:
    """Seeds of a small student, one by one by the plain loop against all together: the same work.

    The recipe is the task's own, with fewer epochs. Answers are random and at hand.
    """
    return [figure for subject in subjects for figure in _subject(*subject, students, repeats)]


def _subject(name: str, student: str, epochs: int, students: int, repeats: int) -> list[Figure]:
    task = load_task(name)
    recipe = replace(defaults_for(task.input_shape).recipe, epochs=epochs)
    figures = []
    for loss, attack in LOSSES.items():
        trainings = partial(_trainings, task, student, recipe, attack, students)
        pieces: dict[str, Callable[[], float]] = {
            "one by one": lambda trainings=trainings: _one_by_one(trainings()),
            "alone, stacked": lambda trainings=trainings: _alone(trainings()),
            "as a pack": lambda trainings=trainings: _together(trainings()),
        }
        seconds = take_turns(pieces, repeats=repeats)
        subject = f"{name} {student}, {loss}"
        figures += [
            Figure(f"{subject}: {way}", "ms per student", tuple(1e3 * value / students for value in values))
            for way, values in seconds.items()
        ]
        figures.append(
            Figure(
                f"{subject}: one by one / pack",
                "x",
                quotients(seconds["one by one"], seconds["as a pack"]),
                at_least=TO_BEAT.get(student),
            )
        )
    return figures


def _trainings(task: Task, student: str, recipe: Recipe, attack: Attack | None, students: int) -> list[Training]:
    classes = task.num_classes
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.log_softmax(3 * torch.randn(len(task.train), classes, generator=generator), 1)

    def answers(epoch: int, view: int) -> Tensor:
        return log_probs

    def training(seed: int) -> Training:
        if attack is None:
            objective = FromLabels(LabelSmoothing(0.1).loss(classes, steps=1))
        else:
            objective = FromAnswers(attack, answers, num_classes=classes, seed=seed)
        return Training(classifier_for(task, student, seed=seed), task, objective, recipe, seed)

    return [training(seed) for seed in range(students)]


def _one_by_one(trainings: list[Training]) -> float:
    def train() -> None:
        for one in trainings:
            fit(one.classifier, one.task, one.objective, one.recipe, seed=one.seed)

    return stopwatch(train)()


def _alone(trainings: list[Training]) -> float:
    return stopwatch(lambda: [fit_all([one]) for one in trainings])()


def _together(trainings: list[Training]) -> float:
    return stopwatch(lambda: fit_all(trainings))()
