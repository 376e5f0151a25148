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
        packs: those whose outcomes are not stored yet, as workers take them.
        workers: how many packs run at the same time.
    """

    title: str
    trials: tuple[Trial, ...]
    packs: tuple[tuple[Trial, ...], ...]
    workers: int

    @property
    def missing(self) -> tuple[Trial, ...]:
        """The trials whose outcomes are not stored yet."""
        return tuple(trial for pack in self.packs for trial in pack)

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
        """The cells of a teacher, the undefended one included, as they stand after a stage.

        Args:
            teacher: its fingerprint, for two teachers can share a name with the undefended one.
            cells: all of them.
        """

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
    the audit is and the cells as they stood after the last stage. Nothing is written where nothing has to be trained,
    so that a finished result stays where it is. A file that cannot be written does not stop the audit.

    Args:
        watcher: who is told.
        results: what is known of each audited teacher's result beforehand (:func:`undistill.audit.result.head_json`),
            by the file it goes to.
    """

    def __init__(self, watcher: Watcher, results: Mapping[Path, dict[str, Any]]) -> None:
        self._watcher, self._results = watcher, results
        self._cells: dict[str, list[dict[str, Any]]] = {}  # by the teacher's fingerprint
        self._progress: dict[str, Any] = {}
        self._written = 0.0

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress] | None:
        shown = self._watcher.training(title, recipe, images)
        self._progress = {"stage": f"train {title}", "trials": 0, "ended": 0}
        self._write()
        return shown

    def stage(self, stage: Stage) -> None:
        self._progress = {"stage": stage.title, "trials": len(stage.trials), "ended": stage.stored}
        self._watcher.stage(stage)
        if stage.packs:
            self._write()

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        self._progress["ended"] += 1
        self._watcher.trial(trial, outcome)
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write()

    def judged(self, teacher: str, cells: Sequence[Cell]) -> None:
        self._cells[teacher] = [
            {"attack": cell.attack, "student": cell.student, "data": cell.data, "outcome": cell.outcome.value}
            for cell in cells
        ]
        self._watcher.judged(teacher, cells)

    def note(self, sentence: str) -> None:
        self._watcher.note(sentence)

    def _write(self) -> None:
        self._written = time.monotonic()
        for path, known in self._results.items():
            cells = self._cells.get(known["teacher"]["fingerprint"], [])
            with suppress(OSError):  # the store will say so, where it matters
                write_json(path, {**known, "state": "running", "progress": self._progress, "cells": cells})


def decided(cells: Sequence[Cell]) -> int:
    """How many cells more seeds would not change."""
    return sum(cell.outcome is not Outcome.INCONCLUSIVE for cell in cells)
