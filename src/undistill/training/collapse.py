"""Whether a training collapses: a watch on its validation accuracy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from undistill.tasks import Task
from undistill.training.loop import EpochRecord
from undistill.training.progress import Progress

COLLAPSED = 0.5  # share of the expected accuracy
UNWATCHED = 0.1  # share of the epochs that a training may need to rise above guessing
GUESSES = 4.0  # a teacher is expected to be right that many times as often as one who guesses


@dataclass(frozen=True)
class CollapseWatch:
    """What validation accuracy is expected of a training; less than half of it is a collapse.

    Args:
        expected: after each epoch, in percent; the last one stands for all later epochs. Nothing is watched while it is
            0.
        source: whose accuracy that is, in words.
        weaker: no other network is known to compare with; where more is expected than 0, the training's own best epoch
            so far is, too.
    """

    expected: tuple[float, ...]
    source: str
    weaker: bool = False

    def collapsed(self, records: Sequence[EpochRecord]) -> bool:
        """Whether the validation accuracy of the last of these epochs is under half of what is expected.

        Args:
            records: of all epochs so far; none are no collapse.

        >>> reached = [{"epoch": epoch, "validation_accuracy": value} for epoch, value in enumerate((30.0, 90.0, 43.0))]
        >>> watch = CollapseWatch((40.0, 80.0), "")
        >>> [watch.collapsed(reached[:epochs]) for epochs in (1, 2, 3)]
        [False, False, False]
        >>> CollapseWatch((40.0, 80.0), "", weaker=True).collapsed(reached)
        True
        """
        return bool(records) and records[-1]["validation_accuracy"] < COLLAPSED * self._expected(records)

    def sentence(self, records: Sequence[EpochRecord]) -> str:
        """What is said of a collapse when it begins with the last of these epochs."""
        epoch, reached = records[-1]["epoch"], records[-1]["validation_accuracy"]
        return (
            f"collapse{' by the weaker watch' if self.weaker else ''}: after epoch {epoch + 1} the validation accuracy "
            f"is {reached:.2f}%, under half of {self._expected(records):.2f}%, that of {self.source}"
        )

    def facts(self, records: Sequence[EpochRecord]) -> dict[str, Any]:
        """The collapsed epochs, as JSON: for a provenance."""
        return {
            "against": self.source,
            "weaker": self.weaker,
            "epochs": [record["epoch"] for place, record in enumerate(records) if self.collapsed(records[: place + 1])],
        }

    def over(self, progress: Progress, done: Sequence[EpochRecord] = ()) -> Progress:
        """``progress``, which is also told when a collapse begins and ends.

        Args:
            progress: what is told of the training.
            done: the epochs that an earlier run finished; if these end inside a collapse, that is told first.
        """
        return _Watched(self, progress, done)

    def _expected(self, records: Sequence[EpochRecord]) -> float:
        bar = self.expected[min(records[-1]["epoch"], len(self.expected) - 1)]
        if self.weaker and bar:
            return max(bar, *(record["validation_accuracy"] for record in records))
        return bar


def weaker_watch(task: Task, epochs: int) -> CollapseWatch:
    """The watch over a training from fresh weights where no network is known to compare with.

    Args:
        task: whose validation images say what guessing reaches: the share of the commonest class.
        epochs: of the training. The first tenth of them is not watched, but the last epoch is, always.
    """
    guess = 100 * torch.bincount(task.validation.labels).max().item() / len(task.validation)
    unwatched = min(math.ceil(UNWATCHED * epochs), epochs - 1)
    return CollapseWatch(
        (0.0,) * unwatched + (min(100.0, GUESSES * guess),),
        f"its own best epoch or {GUESSES:g} times that of guessing, whichever is more",
        weaker=True,
    )


class _Watched:
    def __init__(self, watch: CollapseWatch, progress: Progress, done: Sequence[EpochRecord]) -> None:
        self.watch, self.progress, self.records = watch, progress, list(done)
        self.collapsed = watch.collapsed(self.records)

    def __enter__(self) -> Progress:
        self.progress.__enter__()
        if self.collapsed:
            self.progress.warn(self.watch.sentence(self.records))
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.__exit__(*exception)

    def step(self, epoch: int, step: int, images: int) -> None:
        self.progress.step(epoch, step, images)

    def epoch(self, record: Any) -> None:
        self.progress.epoch(record)
        self.records.append(record)
        before, self.collapsed = self.collapsed, self.watch.collapsed(self.records)
        if self.collapsed and not before:
            self.progress.warn(self.watch.sentence(self.records))
        elif before and not self.collapsed:
            self.progress.warn(f"out of the collapse after epoch {record['epoch'] + 1}")

    def warn(self, sentence: str) -> None:
        self.progress.warn(sentence)
