"""What an audit found: an object, and the same as JSON."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from undistill.audit.judgement import Accuracies, Cell, Outcome, Verdict, verdict_of
from undistill.audit.protocol import Protocol
from undistill.audit.trial import describe_attack
from undistill.information import Spectrum
from undistill.settings import settings_of
from undistill.tasks import Task

SCHEMA = "undistill.audit/1"


@dataclass(frozen=True)
class TeacherFacts:
    """The audited black box, measured on clean images, as the attacker sees it: through the protocol's access.

    Args:
        name: what the user calls it.
        fingerprint: of its weights or answers.
        accuracy: on the test split, in percent.
        train_accuracy: on the training split, in percent.
        test: spectrum of its answers on the test split.
        train: spectrum of its answers on the training split.
    """

    name: str
    fingerprint: str
    accuracy: float
    train_accuracy: float
    test: Spectrum
    train: Spectrum


@dataclass(frozen=True)
class Audit:
    """An audit of one teacher.

    Args:
        task: the data.
        teacher: the black box.
        undefended: name and test accuracy of the undefended teacher that shows which attacks work at all.
        protocol: what was done.
        cells: one per attack and student.
    """

    task: Task
    teacher: TeacherFacts
    undefended: tuple[str, float]
    protocol: Protocol
    cells: tuple[Cell, ...]

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.cells)

    @property
    def detectable(self) -> float:
        """The largest of the cells' smallest detectable leaks, in points: what the audit could have missed."""
        return max(cell.leak.detectable for cell in self.cells)

    @property
    def sentence(self) -> str:
        """The verdict in plain English."""
        cells = len(self.cells)
        count = {outcome: sum(cell.outcome is outcome for cell in self.cells) for outcome in Outcome}
        scope = f"{cells} {'cell' if cells == 1 else 'cells'} (attack x student), {self.protocol.seeds} seeds"
        match self.verdict:
            case Verdict.LEAKS:
                worst = max(
                    (cell for cell in self.cells if cell.outcome is Outcome.LEAKS), key=lambda cell: cell.leak.mean
                )
                return (
                    f"{self.teacher.name} leaks: {count[Outcome.LEAKS]} of {scope}; the largest leak is "
                    f"{worst.leak.mean:+.2f} points of accuracy (at least {worst.leak.low:+.2f}), through "
                    f"{worst.attack} with student {worst.student}."
                )
            case Verdict.NO_LEAK_FOUND:
                return (
                    f"No leak was found in {self.teacher.name}: in none of {scope} do its answers gain a student "
                    f"{self.protocol.margin:g} points; a leak of {self.detectable:.2f} points would have been found "
                    "with probability 0.8 in every cell. This holds for these attacks, students, data and access."
                )
            case Verdict.INCONCLUSIVE:
                return (
                    f"The audit of {self.teacher.name} is inconclusive: of {scope}, {count[Outcome.INCONCLUSIVE]} are "
                    f"inconclusive, {count[Outcome.TOO_WEAK]} used an attack too weak to tell, and in "
                    f"{count[Outcome.NO_LEAK_FOUND]} no leak was found; add seeds."
                )

    @property
    def threat_card(self) -> dict[str, Any]:
        """What the attacker was given. The claim holds for this attacker alone."""
        return {
            "access": self.protocol.access.sentence,
            "data": self.protocol.data.sentence,
            "labels": _labels_sentence(self.protocol),
            "queries": _queries_sentence(self.protocol),
            "queries_per_knockoff": max(cell.queries for cell in self.cells),
            "tuning": {grid[0].name: len(grid) for grid in self.protocol.attacks},
            "students": list(self.protocol.students),
        }

    def to_json(self) -> dict[str, Any]:
        """The content of ``audit.json``; its schema is documented in ``docs/audit-json.md``."""
        return {
            "schema": SCHEMA,
            "task": {
                "name": self.task.name,
                "fingerprint": self.task.fingerprint,
                "source": self.task.source,
                "train": len(self.task.train),
                "validation": len(self.task.validation),
                "test": len(self.task.test),
                "fresh": 0 if self.task.fresh is None else len(self.task.fresh),
            },
            "teacher": {
                "name": self.teacher.name,
                "fingerprint": self.teacher.fingerprint,
                "accuracy": self.teacher.accuracy,
                "train_accuracy": self.teacher.train_accuracy,
                "spectrum": {"train": spectrum_json(self.teacher.train), "test": spectrum_json(self.teacher.test)},
            },
            "undefended": {"name": self.undefended[0], "accuracy": self.undefended[1]},
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "detectable": self.detectable,
            "threat_card": self.threat_card,
            "protocol": _protocol_json(self.protocol),
            "cells": [_cell_json(cell) for cell in self.cells],
        }


def spectrum_json(spectrum: Spectrum) -> dict[str, Any]:
    """A spectrum's numbers as JSON; null where there is no finite number (exact zeros have no finite logarithm)."""
    return {
        "powers": list(spectrum.powers),
        "cmi": spectrum.cmi.tolist(),
        "ncmi": [_finite(value) for value in spectrum.ncmi.tolist()],
        "supremum": spectrum.supremum,
        "supremum_power": spectrum.supremum_power,
        "within_class_variance": _finite(spectrum.within_variance),
        "residual_T4": spectrum.residual(4.0),
        "residual_T20": spectrum.residual(20.0),
        "absent_classes": list(spectrum.absent),
    }


def _queries_sentence(protocol: Protocol) -> str:
    queries = protocol.queries
    how = {
        "fresh-views": "about a new augmented view of every image in every epoch",
        "cached-views": f"about {queries.views} augmented views of every image",
        "clean": "about every image once, as it is",
    }[queries.mode]
    if not protocol.data.has_images:
        how = "about images that the attack makes up"
    return how if queries.budget is None else f"{how}; at most {queries.budget} queries"


def _labels_sentence(protocol: Protocol) -> str:
    if not protocol.data.labelled:
        return "unknown"
    reading = [grid[0].name for grid in protocol.attacks if any(attack.needs_labels for attack in grid)]
    others = [grid[0].name for grid in protocol.attacks if grid[0].name not in reading]
    if not others:
        return "known"
    return f"known; not used by {', '.join(others)}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _protocol_json(protocol: Protocol) -> dict[str, Any]:
    return {
        "students": list(protocol.students),
        "recipe": settings_of(protocol.recipe),
        "access": str(protocol.access),
        "data": protocol.data.description(),
        "queries": settings_of(protocol.queries),
        "attacks": [[describe_attack(attack) for attack in grid] for grid in protocol.attacks],
        "smoothings": list(protocol.smoothings),
        "placebo_smoothings": list(protocol.placebo_smoothings),
        "seeds": protocol.seeds,
        "tuning_seeds": protocol.tuning_seeds,
        "margin": protocol.margin,
        "alpha": protocol.alpha,
    }


def _accuracies_json(accuracies: Accuracies) -> dict[str, Any]:
    return {
        "mean": accuracies.mean,
        "seeds": list(accuracies.seeds),
        "setting": accuracies.setting,
        "validation": accuracies.validation,
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "attack": cell.attack,
        "student": cell.student,
        "outcome": cell.outcome.value,
        "knockoff": _accuracies_json(cell.knockoff),
        "ls": _accuracies_json(cell.ls),
        "placebo": None if cell.placebo is None else _accuracies_json(cell.placebo),
        "control": cell.control,
        "leak": asdict(cell.leak),
        "knockoff_minus_ls": cell.knockoff.mean - cell.ls.mean,
        "agreement": cell.agreement,
        "queries": cell.queries,
        "flags": cell.flags,
    }
