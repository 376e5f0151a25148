"""What the terminal shows while a command works: a live line, or plain lines when piped into a file."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from undistill.audit import Cell, Stage, Trial, decided
from undistill.report import duration
from undistill.training import Progress, Recipe, TerminalProgress

SECONDS_BETWEEN_LINES = 20.0


def show_training(title: str, recipe: Recipe, images: int) -> Callable[[int], Progress]:
    """What shows a training on so many images, given the number of epochs that are already done."""
    steps = recipe.steps_per_epoch(images)
    return lambda done: TerminalProgress(title, recipe.epochs, steps, done)


class TerminalWatcher:
    """Shows an audit's stages and trials on standard error.

    A cell (attack x student x images, of a teacher, the undefended one included) is done when its last knockoff of the
    stage has ended. A stage judges undecided cells alone, so there can be more decided cells than a stage has.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("trials{task.fields[cells]}, left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.row = self.bar.add_task("prepare", total=None, visible=False, cells="")
        self.judgements: dict[str, Sequence[Cell]] = {}  # by the teacher's fingerprint

    def __enter__(self) -> "TerminalWatcher":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress]:
        self.bar.stop()
        return show_training(title, recipe, images)

    def stage(self, stage: Stage) -> None:
        self.current, self.ended = stage, stage.stored
        cells = {_cell(trial) for trial in stage.trials} - {None}
        self.cells = dict.fromkeys(cells, 0)  # how many knockoffs each has yet to train
        for trial in stage.missing:
            if trial.role == "knockoff":
                self.cells[_cell(trial)] += 1
        self.pack_of = {trial: number for number, pack in enumerate(stage.packs) for trial in pack}
        self.packs = Counter(self.pack_of.values())  # how many trials of each have yet to end
        self.started = self.last_line = time.monotonic()
        total = len(stage.trials)
        self.bar.start()
        self.bar.reset(self.row, description=stage.title, total=total, completed=self.ended, visible=True)
        self.bar.update(self.row, cells=self._cells())
        if not self.console.is_terminal:
            self._line(f"{stage.title}: {total} trials, {self.ended} stored")

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        self.ended += 1
        if trial.role == "knockoff":
            self.cells[_cell(trial)] -= 1
        self.packs[self.pack_of[trial]] -= 1
        total = len(self.current.trials)
        self.bar.update(self.row, completed=self.ended, cells=self._cells())
        now = time.monotonic()
        due = now - self.last_line >= SECONDS_BETWEEN_LINES or self.ended == total
        if self.console.is_terminal or not due:
            return
        self.last_line = now
        left = (now - self.started) / (self.ended - self.current.stored) * (total - self.ended)
        self._line(f"{self.current.title}: {self.ended}/{total} trials{self._cells()}, {duration(left)} left")

    def judged(self, teacher: str, cells: Sequence[Cell]) -> None:
        self.judgements[teacher] = cells

    def note(self, sentence: str) -> None:
        self._line(sentence, "yellow")

    def _line(self, words: str, style: str = "") -> None:
        self.console.print(words, highlight=False, markup=False, soft_wrap=True, style=style)

    def _cells(self) -> str:
        """Cells in words; nothing for a stage without knockoffs."""
        if not self.cells:
            return ""
        done = sum(left == 0 for left in self.cells.values())
        words = [f"{done}/{len(self.cells)} cells done"]
        busy = min(self.current.workers, sum(left > 0 for left in self.packs.values()))
        if busy:
            words.append(f"{busy} {'worker' if busy == 1 else 'workers'} busy")
        if self.judgements:
            judged = [cell for cells in self.judgements.values() for cell in cells]
            words.append(f"{decided(judged)} of {len(judged)} cells decided")
        return f" ({', '.join(words)})"


def _cell(trial: Trial) -> tuple[str, str, str, str] | None:
    """The cell of a knockoff, whose task holds the attacker's images; None for a trial that several cells share."""
    if trial.attack is None or trial.teacher is None:
        return None
    return trial.attack.name, trial.student, trial.task, trial.teacher
