"""What the terminal shows while a command works: a live line, or plain lines when piped into a file."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from undistill.audit import Trial
from undistill.training import Progress, Recipe, TerminalProgress

SECONDS_BETWEEN_LINES = 20.0


def show_training(title: str, recipe: Recipe, images: int) -> Callable[[int], Progress]:
    """What shows a training on so many images, given the number of epochs that are already done."""
    steps = recipe.steps_per_epoch(images)
    return lambda done: TerminalProgress(title, recipe.epochs, steps, done)


class TerminalWatcher:
    """Shows an audit's stages and trials on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("trials, left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.row = self.bar.add_task("prepare", total=None, visible=False)

    def __enter__(self) -> "TerminalWatcher":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress]:
        self.bar.stop()
        return show_training(title, recipe, images)

    def stage(self, title: str, trials: int, stored: int) -> None:
        self.title, self.total, self.stored, self.ended = title, trials, stored, stored
        self.started = self.last_line = time.monotonic()
        self.bar.start()
        self.bar.reset(self.row, description=title, total=trials, completed=stored, visible=True)
        if not self.console.is_terminal:
            self.console.print(f"{title}: {trials} trials, {stored} stored", highlight=False)

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        self.ended += 1
        self.bar.update(self.row, completed=self.ended)
        now = time.monotonic()
        due = now - self.last_line >= SECONDS_BETWEEN_LINES or self.ended == self.total
        if self.console.is_terminal or not due:
            return
        self.last_line = now
        left = (now - self.started) / (self.ended - self.stored) * (self.total - self.ended)
        self.console.print(f"{self.title}: {self.ended}/{self.total} trials, {left:.0f} s left", highlight=False)
