"""What an audit tells while it runs: to whoever watches, and to whoever reads ``audit.json``."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, runtime_checkable
from typing import Protocol as Interface

from undistill.audit.judgement import Cell, Outcome
from undistill.audit.trial import Trial
from undistill.files import write_json
from undistill.training import Progress, Recipe

SECONDS_BETWEEN_WRITES = 5.0


@dataclass(frozen=True)
class Stage:
    """Trials that are run together because what comes next depends on all of them.

    Attributes:
        title: what it is for.
        trials: all of them, each once.
        missing: those whose outcomes are not stored yet.
        workers: how many packs of them run at the same time.
    """

    title: str
    trials: tuple[Trial, ...]
    missing: tuple[Trial, ...]
    workers: int

    @property
    def stored(self) -> int:
        """How many of the trials have an outcome already."""
        return len(self.trials) - len(self.missing)


@runtime_checkable
class Watcher(Interface):
    """What an audit tells while it runs."""

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress] | None:
        """A network is about to be trained on so many images; what shows it, if anything."""

    def stage(self, stage: Stage) -> None:
        """A stage begins."""

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """A trial has ended and is stored."""

    def judged(self, teacher: str, cells: Sequence[Cell]) -> None:
        """The cells of a teacher, as they stand after a stage."""

    def note(self, sentence: str) -> None:
        """Something that whoever started the audit should know."""


class SilentWatcher:
    """Says nothing."""

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress] | None:
        return None

    def stage(self, stage: Stage) -> None:
        pass

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        pass

    def judged(self, teacher: str, cells: Sequence[Cell]) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass


class Diary:
    """A watcher that tells another one, and keeps every teacher's ``audit.json`` up to date while trials run.

    The file is whole and valid at any time. Until the audit ends, its ``state`` is ``"running"`` and it holds how far
    the audit is and the cells as they stood after the last stage. Nothing is written where no trial is missing, so that
    a finished result stays where it is. A file that cannot be written does not stop the audit.

    Args:
        watcher: who is told.
        results: what is known of a result beforehand, and the file it goes to, by the teacher's name.
    """

    def __init__(self, watcher: Watcher, results: Mapping[str, tuple[Path, dict[str, Any]]]) -> None:
        self._watcher, self._results = watcher, results
        self._cells: dict[str, list[dict[str, Any]]] = {name: [] for name in results}
        self._stage: Stage | None = None
        self._ended, self._written = 0, 0.0

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress] | None:
        return self._watcher.training(title, recipe, images)

    def stage(self, stage: Stage) -> None:
        self._stage, self._ended = stage, stage.stored
        self._watcher.stage(stage)
        if stage.missing:
            self._write()

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        self._ended += 1
        self._watcher.trial(trial, outcome)
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write()

    def judged(self, teacher: str, cells: Sequence[Cell]) -> None:
        self._cells[teacher] = [
            {"attack": cell.attack, "student": cell.student, "outcome": cell.outcome.value} for cell in cells
        ]
        self._watcher.judged(teacher, cells)

    def note(self, sentence: str) -> None:
        self._watcher.note(sentence)

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._stage is None:
            return
        progress = {"stage": self._stage.title, "trials": len(self._stage.trials), "ended": self._ended}
        for name, (path, known) in self._results.items():
            with suppress(OSError):  # the store will say so, where it matters
                write_json(path, {**known, "state": "running", "progress": progress, "cells": self._cells[name]})


def decided(cells: Sequence[Cell]) -> int:
    """How many cells more seeds would not change."""
    return sum(cell.outcome is not Outcome.INCONCLUSIVE for cell in cells)
