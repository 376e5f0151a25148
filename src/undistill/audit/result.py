"""What an audit found: an object, and the same as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from undistill.audit.flags import Findings, Flag, find_flags
from undistill.audit.judgement import Accuracies, Cell, Outcome, Verdict, verdict_of
from undistill.audit.protocol import Protocol
from undistill.audit.trial import describe_attack
from undistill.blackbox import BlackBox
from undistill.tasks import FreshImages, OtherImages, QueryData, Task, TrainingImages
from undistill.utility import TeacherFacts, Utility

SCHEMA = "undistill.audit/1"


@dataclass(frozen=True)
class Undefended:
    """The teacher that shows which attacks work at all.

    Args:
        name: what the user calls it.
        utility: what it is worth: what a defence costs is the difference.
        cells: the same attacks and students on it.
        known: whether its checkpoint says that it was trained on this task with cross entropy.
    """

    name: str
    utility: Utility
    cells: tuple[Cell, ...] = ()
    known: bool = True

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
        cells: one per attack, student and kind of images.
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
    def regimes(self) -> tuple[QueryData, ...]:
        """The kinds of images of the attackers that were audited."""
        return self.protocol.regimes(self.task)

    @property
    def largest(self) -> Cell:
        """The cell with the largest leak: of those that leak if any does, else of all."""
        leaking = [cell for cell in self.cells if cell.outcome is Outcome.LEAKS]
        return max(leaking or self.cells, key=lambda cell: cell.leak.mean)

    @property
    def sentence(self) -> str:
        """The verdict in one plain sentence: protocol, task, attacker, cells, largest leak, margin, detectable leak."""
        count = {outcome: sum(cell.outcome is outcome for cell in self.cells) for outcome in Outcome}
        clear, undecided = count[Outcome.NO_LEAK_FOUND], count[Outcome.INCONCLUSIVE]
        cells = f"{len(self.cells)} {'cell' if len(self.cells) == 1 else 'cells'} (attack x student x data)"
        margin = f"{self.protocol.margin:g} {'point' if self.protocol.margin == 1 else 'points'}"
        where = f"on {self.task.name} ({len(self.task.test):,} test images)"
        attacker = (
            f"to an attacker who sees {self.protocol.access.sentence}, and has "
            f"{', or '.join(data.sentence for data in self.regimes)}"
        )
        numbers = (
            f"the largest leak is {self._largest_in_words}, the margin is {margin}, and a true leak of "
            f"{self.detectable:.2f} points would have been found with probability 0.8 in any cell"
        )
        match self.verdict:
            case Verdict.LEAKS:
                said = (
                    f"{self.teacher.name} leaks {where}: {attacker}, its answers are worth more than labels in "
                    f"{count[Outcome.LEAKS]} of {cells}; {numbers}"
                )
            case Verdict.NO_LEAK_FOUND:
                said = (
                    f"no leak was found in {self.teacher.name} {where}: {attacker}, its answers are in none of {cells} "
                    f"worth {margin} of test accuracy more than labels, and {clear} of them "
                    f"{'uses' if clear == 1 else 'use'} an attack that does find a leak in an undefended teacher; "
                    f"{numbers}; this holds for these attacks, students, data and this access alone"
                )
            case Verdict.INCONCLUSIVE:
                said = (
                    f"the audit of {self.teacher.name} {where} is inconclusive: {attacker}, of {cells}, {undecided} "
                    f"{'is' if undecided == 1 else 'are'} inconclusive, in {clear} no leak was found, and in "
                    f"{count[Outcome.TOO_WEAK]} neither, but by an attack too weak to tell; {numbers}"
                )
        under = self.protocol.version.replace("custom", "a custom protocol")
        return f"Under {under}, {said}."

    @property
    def _largest_in_words(self) -> str:
        cell, leak = self.largest, self.largest.leak
        words = f"{leak.mean:+z.2f} points of test accuracy ({leak.low:+z.2f} to {leak.high:+z.2f} over seeds"
        if leak.test_low is not None:
            words += f", {leak.test_low:+z.2f} to {leak.test_high:+z.2f} over test images"
        return f"{words}; {cell.attack} with student {cell.student}, data {cell.data})"

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Reasons to doubt this audit, the gravest first."""
        return find_flags(
            Findings(
                self.task,
                self.protocol,
                self.teacher,
                self.cells,
                self.undefended.name,
                self.undefended.cells,
                self.undefended.known,
            )
        )

    @property
    def threat_card(self) -> dict[str, Any]:
        """What the attacker was given. The claim holds for this attacker alone."""
        return {
            "access": self.protocol.access.sentence
            + (", as the output defences serve them" if self.teacher.output_defences else ""),
            "output_defences": [defence["words"] for defence in self.teacher.output_defences],
            "data": "; and apart from it ".join(data.sentence for data in self.regimes),
            "left_out": [f"{data.sentence}: the task has none" for data in self.protocol.left_out(self.task)],
            "unseen": _unseen_sentence(self.regimes, self.task, self.teacher),
            "labels": _labels_sentence(self.protocol, self.regimes),
            "queries": _queries_sentence(self.protocol, self.regimes),
            "queries_per_knockoff": max(cell.queries for cell in self.cells),
            "tuning": {grid[0].name: len(grid) for grid in self.protocol.attacks},
            "control_tuning": {
                "ls": len(self.protocol.smoothings),
                "placebo": {
                    grid[0].name: len(self.protocol.placebo_settings(grid))
                    for grid in self.protocol.attacks
                    if any(cell.attack == grid[0].name and cell.placebo is not None for cell in self.cells)
                },
            },
            "tuning_seeds": self.protocol.tuning_seeds,
            "students": list(self.protocol.students),
            "epochs": self.protocol.recipe.epochs,
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
                "known": self.undefended.known,
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


def _unseen_sentence(regimes: Sequence[QueryData], task: Task, teacher: TeacherFacts) -> str:
    """Which of the attackers' images the teacher has not seen."""
    kinds = []
    for data in regimes:
        if isinstance(data, FreshImages):
            kinds.append(f"the {len(data.attackers_task(task).train):,} fresh images, which its task keeps from it")
        elif isinstance(data, OtherImages):
            kinds.append(f"the {len(data.other.train):,} images of another task ({data.other.name})")
        elif not data.has_images:
            kinds.append("the images that the attack makes up")
    words = ", and ".join(kinds) or "none: this audit holds no image that the teacher has not seen"
    of_task = any(isinstance(data, TrainingImages | FreshImages) for data in regimes)
    trust = "; the teacher does not say what it was trained on"
    return words + (trust if of_task and not teacher.says_same_split else "")


def _queries_sentence(protocol: Protocol, regimes: Sequence[QueryData]) -> str:
    queries = protocol.queries
    how = {
        "fresh-views": "about a new augmented view of every image in every epoch",
        "cached-views": f"about {queries.views} augmented views of every image",
        "clean": "about every image once, as it is",
    }[queries.mode]
    kinds = dict.fromkeys(how if data.has_images else "about images that the attack makes up" for data in regimes)
    how = ", or ".join(kinds)
    return how if queries.budget is None else f"{how}; at most {queries.budget} queries"


def _labels_sentence(protocol: Protocol, regimes: Sequence[QueryData]) -> str:
    without = [str(data) for data in regimes if not data.labelled]
    if len(without) == len(regimes):
        return "unknown"
    reading = [grid[0].name for grid in protocol.attacks if any(attack.needs_labels for attack in grid)]
    others = [grid[0].name for grid in protocol.attacks if grid[0].name not in reading]
    words = f"known, but for data {', '.join(without)}" if without else "known"
    return f"{words}; not used by {', '.join(others)}" if others else words


def _protocol_json(protocol: Protocol) -> dict[str, Any]:
    """Its name, the hash of its content, and the content with the hash of each attack's code."""
    attacks = [[describe_attack(attack) for attack in grid] for grid in protocol.attacks]
    return {"version": protocol.version, "hash": protocol.hash, **protocol.content(), "attacks": attacks}


def _accuracies_json(accuracies: Accuracies) -> dict[str, Any]:
    return {
        "mean": accuracies.mean,
        "seeds": list(accuracies.seeds),
        "setting": accuracies.setting,
        "validation": accuracies.validation,
        "tuning": accuracies.tuning,
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "attack": cell.attack,
        "student": cell.student,
        "data": cell.data,
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
