"""Where the time of a student's step goes."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.material import PARTS, TINY_RATE, Trainee, fresh, random_task, second_epoch
from benchmarks.timing import Figure, milliseconds, stopwatch, take_turns
from undistill.attacks import KD
from undistill.blackbox import AnswerCache, LocalBlackBox, Page
from undistill.training import FromAnswers, Recipe


def step(
    *,
    teacher: str = "resnet20",
    student: str = "resnet8",
    classes: int = 20,
    batch_size: int = 128,
    steps: int = 12,
    repeats: int = 7,
) -> list[Figure]:
    """Where the time of a student's step goes (KD; ms per step).

    The teacher is asked once for an epoch, and every student of that seed then reads its answers from a file; both
    costs are shares of an epoch of ``steps`` steps.
    """
    task = random_task(batch_size * steps, classes)
    recipe = Recipe(epochs=2, batch_size=batch_size, learning_rate=TINY_RATE)
    box = LocalBlackBox("teacher", fresh(teacher, task))
    with tempfile.TemporaryDirectory() as folder:
        cache = AnswerCache(Path(folder))

        def answers(epoch: int, view: int) -> Tensor:
            return cache.get(box, task, Page("usual", 0, epoch))

        answers(0, 0)
        objective = FromAnswers(KD(), answers, num_classes=classes, seed=0)
        objective.begin_epoch(task, 0, 0, recipe.epochs, torch.device("cpu"))
        trainee = Trainee(student, task, recipe)
        parts: dict[str, list[float]] = {part: [] for part in PARTS}

        def ask() -> None:
            with tempfile.TemporaryDirectory() as empty:
                AnswerCache(Path(empty)).get(box, task, Page("usual"))

        def steps_in_parts() -> float:
            taken = [trainee.step(objective) for _ in range(steps)]
            for part in PARTS:
                parts[part].append(sum(seconds[part] for seconds in taken))
            return sum(values[-1] for values in parts.values())

        seconds = take_turns(
            {
                "sum of the parts": steps_in_parts,
                "the same in the loop": lambda: second_epoch(student, task, objective, recipe),
                "teacher, read": stopwatch(lambda: answers(0, 0)),
                "teacher, asked": stopwatch(ask),
            },
            repeats=repeats,
        )
    rows = {**{part: tuple(values[-repeats:]) for part, values in parts.items()}, **seconds}
    return [
        Figure(name, "ms per step", tuple(value / steps for value in milliseconds(values)))
        for name, values in rows.items()
    ]
