"""How a training shows that it advances."""

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from undistill.training.recipe import Recipe


@runtime_checkable
class Progress(Protocol):
    """What the loop tells while it runs. ``with`` brackets a training."""

    def __enter__(self) -> "Progress": ...
    def __exit__(self, *exception: object) -> None: ...
    def step(self, epoch: int, step: int, images: int) -> None:
        """A step has ended: epoch and step are counted from 0, ``images`` were in it."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch has ended."""

    def warn(self, sentence: str) -> None:
        """Something is going wrong that the training can live with."""


ShowTraining = Callable[[str, Recipe, int], Callable[[int], Progress] | None]
"""Given a title, a recipe and a number of images: given the epochs that are already done, what shows the others."""


class SilentProgress:
    """Says nothing (workers)."""

    def __enter__(self) -> "SilentProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def step(self, epoch: int, step: int, images: int) -> None:
        pass

    def epoch(self, record: dict[str, Any]) -> None:
        pass

    def warn(self, sentence: str) -> None:
        pass


class TerminalProgress:
    """A bar with rate and time left on a terminal; one plain line now and then elsewhere.

    Args:
        title: what is being trained.
        epochs: of the whole training.
        steps: of an epoch.
        done: epochs that an earlier run finished.
    """

    SECONDS_BETWEEN_LINES = 20.0

    def __init__(self, title: str, epochs: int, steps: int, done: int = 0, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self.title, self.epochs, self.steps = title, epochs, steps
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=epochs * steps, completed=done * steps, rate="")
        self.images, self.started, self.last_line = 0, 0.0, 0.0

    def __enter__(self) -> "TerminalProgress":
        self.started = self.last_line = time.monotonic()
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def step(self, epoch: int, step: int, images: int) -> None:
        self.images += images
        rate = self.images / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(self.task, advance=1, rate=f"{rate:,.0f} images/s")

    def epoch(self, record: dict[str, Any]) -> None:
        now, done = time.monotonic(), record["epoch"] + 1
        due = now - self.last_line >= self.SECONDS_BETWEEN_LINES or done == self.epochs
        if self.console.is_terminal or not due:
            return
        self.last_line = now
        rate = self.images / max(now - self.started, 1e-9)
        left = (self.epochs - done) * record["images"] / max(rate, 1e-9)
        validation = record.get("validation_accuracy")
        extra = "" if validation is None else f", validation {validation:.2f}%"
        self.console.print(
            f"{self.title}: epoch {done}/{self.epochs}, loss {record['loss']:.4f}{extra}, "
            f"{rate:,.0f} images/s, {left:.0f} s left",
            highlight=False,
        )

    def warn(self, sentence: str) -> None:
        self.console.print(f"{self.title}: {sentence}", style="yellow", highlight=False, markup=False, soft_wrap=True)
