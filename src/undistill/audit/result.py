"""What an audit found: an object, and the same as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from undistill.audit.judgement import Accuracies, Cell, Outcome, Verdict, verdict_of
from undistill.audit.protocol import Protocol
from undistill.audit.trial import describe_attack
from undistill.blackbox import BlackBox
from undistill.settings import settings_of
from undistill.tasks import Task
from undistill.utility import TeacherFacts, Utility

SCHEMA = "undistill.audit/1"


@dataclass(frozen=True)
class Undefended:
    """The teacher that shows which attacks work at all.

    Args:
        name: what the user calls it.
        utility: what it is worth: what a defence costs is the difference.
    """

    name: str
    utility: Utility

    @property
    def accuracy(self) -> float:
        """On the test split, in percent."""
        return self.utility.quality.accuracy


@dataclass(frozen=True)
class Audit:
    """An audit of one teacher.

    Args:
        task: the data.
        teacher: the audited black box, as the attacker sees it: through the protocol's access.
        undefended: the teacher that shows which attacks work at all, seen in the same way.
        protocol: what was done.
        cells: one per attack and student.
    """

    task: Task
    teacher: TeacherFacts
    undefended: Undefended
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
            "access": self.protocol.access.sentence
            + (", as the output defences serve them" if self.teacher.output_defences else ""),
            "output_defences": [defence["words"] for defence in self.teacher.output_defences],
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
            "state": "finished",
            "task": _task_json(self.task),
            "teacher": self.teacher.to_json(),
            "undefended": {
                "name": self.undefended.name,
                "accuracy": self.undefended.accuracy,
                "utility": self.undefended.utility.to_json(),
            },
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "detectable": self.detectable,
            "threat_card": self.threat_card,
            "protocol": _protocol_json(self.protocol),
            "cells": [_cell_json(cell) for cell in self.cells],
        }


def head_json(task: Task, box: BlackBox, protocol: Protocol) -> dict[str, Any]:
    """What ``audit.json`` says while an audit runs and its result is not known."""
    return {
        "schema": SCHEMA,
        "task": _task_json(task),
        "teacher": {"name": box.name, "fingerprint": box.fingerprint},
        "protocol": _protocol_json(protocol),
    }


def _task_json(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "fingerprint": task.fingerprint,
        "source": task.source,
        "train": len(task.train),
        "validation": len(task.validation),
        "test": len(task.test),
        "fresh": 0 if task.fresh is None else len(task.fresh),
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
        "first_seed": protocol.first_seed,
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
