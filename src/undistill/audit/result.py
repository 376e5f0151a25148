"""What an audit found: an object, and the same as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from undistill.audit.flags import Findings, Flag, find_flags
from undistill.audit.judgement import Accuracies, Cell, Outcome, Verdict, verdict_of
from undistill.audit.protocol import Protocol
from undistill.audit.trial import describe_attack
from undistill.settings import settings_of
from undistill.tasks import FreshImages, NoImages, OtherImages, QueryData, Task
from undistill.utility import TeacherFacts, Utility

SCHEMA = "undistill.audit/1"


@dataclass(frozen=True)
class Undefended:
    """The teacher that shows which attacks work at all.

    Args:
        name: what the user calls it.
        utility: what it is worth: what a defence costs is the difference.
        cells: the same attacks and students on it.
    """

    name: str
    utility: Utility
    cells: tuple[Cell, ...] = ()

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
    def flags(self) -> tuple[Flag, ...]:
        """Reasons to doubt this audit, the gravest first."""
        return find_flags(
            Findings(self.task, self.protocol, self.teacher, self.cells, self.undefended.name, self.undefended.cells)
        )

    @property
    def threat_card(self) -> dict[str, Any]:
        """What the attacker was given. The claim holds for this attacker alone."""
        return {
            "access": self.protocol.access.sentence
            + (", as the output defences serve them" if self.teacher.output_defences else ""),
            "output_defences": [defence["words"] for defence in self.teacher.output_defences],
            "data": self.protocol.data.sentence,
            "unseen": _unseen_sentence(self.protocol.data, self.task, self.teacher),
            "labels": _labels_sentence(self.protocol),
            "queries": _queries_sentence(self.protocol),
            "queries_per_knockoff": max(cell.queries for cell in self.cells),
            "tuning": {grid[0].name: len(grid) for grid in self.protocol.attacks},
            "control_tuning": {
                "ls": len(self.protocol.smoothings),
                "placebo": len(self.protocol.placebo_smoothings),
            },
            "tuning_seeds": self.protocol.tuning_seeds,
            "students": list(self.protocol.students),
            "epochs": self.protocol.recipe.epochs,
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
            "teacher": self.teacher.to_json(),
            "undefended": {
                "name": self.undefended.name,
                "accuracy": self.undefended.accuracy,
                "utility": self.undefended.utility.to_json(),
                "cells": [_cell_json(cell) for cell in self.undefended.cells],
            },
            "verdict": self.verdict.value,
            "sentence": self.sentence,
            "detectable": self.detectable,
            "threat_card": self.threat_card,
            "flags": [flag.to_json() for flag in self.flags],
            "protocol": _protocol_json(self.protocol),
            "cells": [_cell_json(cell) for cell in self.cells],
        }


def _unseen_sentence(data: QueryData, task: Task, teacher: TeacherFacts) -> str:
    """Which of the attacker's images the teacher has not seen."""
    match data:
        case OtherImages():
            return f"all {len(data.other.train):,}: they are of another task ({data.other.name})"
        case NoImages():
            return "all: the attack makes them up"
        case FreshImages():
            fresh = data.attackers_task(task).train
            held = f"all {len(fresh):,}: fresh images, which the task keeps from its teachers"
        case _:
            held = (
                "none: this audit holds no image that the teacher has not seen, so it says nothing of an attacker with "
                "images of his own"
            )
    return held + ("" if teacher.says_same_split else "; the teacher does not say what it was trained on")


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
