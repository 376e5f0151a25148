"""Which precision and memory layout train which network fastest."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.material import TINY_RATE, Trainee, random_task
from benchmarks.timing import Figure, milliseconds, quotients, take_turns
from undistill.training import FromLabels, Objective, Recipe
from undistill.training.recipe import Precision

SUBJECTS: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("resnet20", (3, 32, 32), 128),
    ("resnet8", (3, 32, 32), 128),
    ("resnet20", (1, 28, 28), 128),
    ("cnn", (1, 8, 8), 50),
    ("mlp-16", (1, 8, 8), 50),
)
"""Networks, shapes of their images and batch sizes, on both sides of the size from which bfloat16 is the default."""
SETTINGS: dict[str, tuple[Precision, torch.memory_format]] = {
    "float32, channels first": ("float32", torch.contiguous_format),
    "float32, channels last": ("float32", torch.channels_last),
    "bfloat16, channels first": ("bfloat16", torch.contiguous_format),
    "bfloat16, channels last": ("bfloat16", torch.channels_last),
}


def precision(
    *, subjects: tuple[tuple[str, tuple[int, ...], int], ...] = SUBJECTS, classes: int = 10, repeats: int = 30
) -> list[Figure]:
    """A training step without its data, in float32 and bfloat16, channels first and last.

    It backs the defaults of ``Recipe``: the layout is channels-last, and bfloat16 is used from 1,024 values per input.
    """
    return [
        figure
        for architecture, shape, batch_size in subjects
        for figure in _subject(architecture, shape, batch_size, classes, repeats)
    ]


def _subject(architecture: str, shape: tuple[int, ...], batch_size: int, classes: int, repeats: int) -> list[Figure]:
    task = random_task(max(2 * batch_size, 2 * classes), classes, shape)
    objective = FromLabels(nn.CrossEntropyLoss(reduction="none"))
    pieces: dict[str, Callable[[], float]] = {}
    for name, (kind, memory_format) in SETTINGS.items():
        recipe = Recipe(batch_size=batch_size, learning_rate=TINY_RATE, precision=kind)
        pieces[name] = partial(_step_without_data, Trainee(architecture, task, recipe, memory_format), objective)
    seconds = take_turns(pieces, repeats=repeats, warmups=3)
    subject = f"{architecture} {'x'.join(map(str, shape))}"
    gains = {
        "gain of channels last, float32": ("float32, channels first", "float32, channels last"),
        "gain of bfloat16, channels last": ("float32, channels last", "bfloat16, channels last"),
    }
    return [
        *(Figure(f"{subject}: {name}", "ms", milliseconds(values)) for name, values in seconds.items()),
        *(
            Figure(f"{subject}: {name}", "x", quotients(seconds[slow], seconds[fast]))
            for name, (slow, fast) in gains.items()
        ),
    ]


def _step_without_data(trainee: Trainee, objective: Objective) -> float:
    seconds = trainee.step(objective)
    return sum(seconds.values()) - seconds["data"]
