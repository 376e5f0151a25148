"""``python -m benchmarks.calibration``: does the rule that judges an audit err as seldom as it says?

``run`` lets the real judgement decide simulated audits, of which the truth is known, and writes one record; ``page``
turns it into the table of the documentation. No network is trained.
"""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import App
from scipy import stats

from benchmarks.__main__ import describe_setting
from undistill.audit import VERSIONS, Accuracies, Cell, Measured, Outcome, Protocol, Verdict, judge, verdict_of
from undistill.cli.options import Whole
from undistill.files import write_json

RECORDS = Path(__file__).parents[1] / "docs" / "results" / "calibration"
SHAPE = (1, 8, 8)  # numbers of cells are the same for every shape

app = App(name="python -m benchmarks.calibration", help="Simulate the rule that judges an audit.", version_flags=[])


@dataclass(frozen=True)
class World:
    """Where simulated accuracies come from, in points.

    An accuracy is its kind's true mean, plus what the seed does to all students alike, plus noise of its own.

    Args:
        leaks: true leak of every cell: knockoff mean less the better control's mean.
        paired: standard deviation of the difference between two students of one seed.
        correlation: of two students of one seed.
        gap: standard deviation, over cells, of placebo mean less LS mean; 0 is the worst case, where it is hardest to
            tell which control is the better one.
        cells_per_reference: cells that share their label-smoothing students: the attacks of one student and regime.
    """

    leaks: tuple[float, ...]
    paired: float = 0.6
    correlation: float = 0.35
    gap: float = 0.0
    cells_per_reference: int = 10

    def audit(self, protocol: Protocol, draws: np.random.Generator) -> "SimulatedAudit":
        """Draw the means, and the accuracies of all seeds that could be asked for."""
        cells, n = len(self.leaks), protocol.seeds
        spread = self.paired / sqrt(2 * (1 - self.correlation))
        shared = draws.normal(0, spread * sqrt(self.correlation), n)
        own = spread * sqrt(1 - self.correlation)

        def students(means: np.ndarray) -> np.ndarray:
            return 90 + means[:, None] + shared + draws.normal(0, own, (len(means), n))

        groups = np.arange(cells) // self.cells_per_reference
        ls, placebo = np.zeros(groups[-1] + 1), draws.normal(0, self.gap, cells)
        knockoff = np.maximum(ls[groups], placebo) + np.array(self.leaks)
        return SimulatedAudit(students(knockoff), students(ls)[groups], students(placebo))


@dataclass(frozen=True)
class SimulatedAudit:
    """Accuracies of every cell at every seed (cells, seeds)."""

    knockoff: np.ndarray
    ls: np.ndarray
    placebo: np.ndarray

    def measured(self, cell: int, count: int) -> Measured:
        """A cell after its first ``count`` seeds."""

        kinds = self.knockoff, self.ls, self.placebo
        students = [Accuracies("", tuple(values[cell, :count].tolist()), 90.0) for values in kinds]
        return Measured(f"attack {cell}", "student", *students, 90.0, 1)

    def judged(self, protocol: Protocol) -> tuple[Cell, ...]:
        """Seeds are added to inconclusive cells, look by look, as :meth:`undistill.audit.run.Plan.look` does."""
        counts = [protocol.all_looks[0]] * len(self.knockoff)
        for size in protocol.all_looks:
            cells = judge(
                [self.measured(cell, count) for cell, count in enumerate(counts)],
                margin=protocol.margin,
                alpha=protocol.alpha,
                looks=protocol.all_looks,
            )
            undecided = {cell for cell, found in enumerate(cells) if found.outcome is Outcome.INCONCLUSIVE}
            later = [look for look in protocol.all_looks if look > size]
            counts = [later[0] if cell in undecided and later else count for cell, count in enumerate(counts)]
            if not undecided:
                break
        return cells


@dataclass(frozen=True)
class Question:
    """One target: how often something happens in a world.

    Args:
        words: what is asked.
        protocol: the version whose rule is asked.
        world: as a function of the number of cells and the margin.
        happened: in an audit's cells, to be counted.
        at_most: True if the share must not exceed the bound, False if it must reach it.
        bound: the target; None if none was set.
    """

    words: str
    protocol: str
    world: Callable[[int, float], World]
    happened: Callable[[tuple[Cell, ...]], bool]
    at_most: bool
    bound: float | None


def number_of_cells(protocol: Protocol) -> int:
    """With both kinds of images."""
    return len(protocol.attacks) * len(protocol.students) * len(protocol.data)


def ask(question: Question, audits: int, seed: int = 0) -> dict[str, Any]:
    """The share of simulated audits in which it happened, with an exact 95% interval, and the mean number of seeds."""
    protocol = VERSIONS[question.protocol](SHAPE)
    world = question.world(number_of_cells(protocol), protocol.margin)
    world = replace(world, cells_per_reference=len(protocol.attacks))
    happened, seeds = 0, 0.0
    for number in range(audits):
        cells = world.audit(protocol, np.random.default_rng((seed, number))).judged(protocol)
        happened += question.happened(cells)
        seeds += sum(len(cell.knockoff.seeds) for cell in cells) / len(cells)
    exact = stats.binomtest(happened, audits).proportion_ci(0.95)
    return {
        "question": question.words,
        "protocol": protocol.version,
        "cells": number_of_cells(protocol),
        "paired": world.paired,
        "audits": audits,
        "share": happened / audits,
        "low": float(exact.low),
        "high": float(exact.high),
        "bound": question.bound,
        "at_most": question.at_most,
        "mean_seeds": seeds / audits,
    }


def leaks(cells: tuple[Cell, ...]) -> bool:
    return verdict_of(cells) is Verdict.LEAKS


def clears(cells: tuple[Cell, ...]) -> bool:
    return verdict_of(cells) is Verdict.NO_LEAK_FOUND


def first_leaks(cells: tuple[Cell, ...]) -> bool:
    return cells[0].outcome is Outcome.LEAKS


def everywhere(leak: float, **about: float) -> Callable[[int, float], World]:
    return lambda cells, margin: World((leak,) * cells, **about)


def in_one_cell(leak: float, others: float, **about: float) -> Callable[[int, float], World]:
    return lambda cells, margin: World((leak,) + (others,) * (cells - 1), **about)


def margin_in_one_cell(**about: float) -> Callable[[int, float], World]:
    """The other cells are far from leaking, so that all hangs on one: the worst case."""
    return lambda cells, margin: World((margin,) + (-3.0,) * (cells - 1), **about)


NULL = "no cell leaks (true leak 0): the audit says *leaks*"
POWER = "one cell leaks by 1 point, the others 0: that cell is found"
EQUIVALENCE = "one cell leaks by exactly the margin, the others far less: the audit says *no leak found*"
CLEARANCE = "no cell leaks (true leak {}): the audit says *no leak found*"


def questions() -> list[Question]:
    """All of them; the spread of paired differences is that of the recorded self-check on digits."""
    found = [Question(NULL, name, everywhere(0.0), leaks, True, 0.05) for name in VERSIONS]
    found.append(
        Question(f"{NULL} (controls some 0.5 points apart)", "standard", everywhere(0.0, gap=0.5), leaks, True, 0.05)
    )
    found += [Question(EQUIVALENCE, name, margin_in_one_cell(), clears, True, 0.05) for name in VERSIONS]
    for spread in (0.4, 0.5, 0.6):
        found.append(Question(POWER, "standard", in_one_cell(1.0, 0.0, paired=spread), first_leaks, False, 0.9))
    found.append(Question(POWER, "quick", in_one_cell(1.0, 0.0), first_leaks, False, None))
    for leak in (0.0, -0.3):
        found.append(Question(CLEARANCE.format(leak), "standard", everywhere(leak), clears, False, None))
    return found


@app.command
def run(*, record: str = "simulated", audits: Whole = 400) -> None:
    """Simulate every question and write ``docs/results/calibration/RECORD.json``.

    Args:
        record: name of the record.
        audits: simulated audits per question.
    """
    answers = []
    for question in questions():
        answers.append(ask(question, audits))
        print(row(answers[-1]), flush=True)
    setting = describe_setting() | {"command": shlex.join(["python", "-m", "benchmarks.calibration", *sys.argv[1:]])}
    write_json(RECORDS / f"{record}.json", {"setting": setting, "answers": answers})


def row(answer: dict[str, Any]) -> str:
    """One line of the table."""
    bound = answer["bound"]
    target = "" if bound is None else f"at {'most' if answer['at_most'] else 'least'} {bound:.0%}"
    return (
        f"| {answer['question']} | {answer['protocol']} ({answer['cells']} cells) | {answer['paired']:g} | "
        f"{answer['share']:.1%} [{answer['low']:.1%}, {answer['high']:.1%}] | {target} | {answer['mean_seeds']:.1f} |"
    )


HEAD = (
    "| what is true: what is counted | rule | paired SD | share of audits [95% interval] | target | seeds per cell |\n"
    "|---|---|---|---|---|---|"
)


def table(record: dict[str, Any]) -> str:
    """All answers, and how they were got."""
    setting = record["setting"]
    source = (
        f"n = {record['answers'][0]['audits']:,} simulated audits per line. {setting['date']}; {setting['processor']}; "
        f"{setting['versions']}.\n\n```console\n$ {setting['command']}\n```"
    )
    return "\n".join([HEAD, *map(row, record["answers"]), "", source, ""])


@app.command
def page() -> None:
    """Write the tables of all records into ``docs/results/calibration``."""
    for file in sorted(RECORDS.glob("*.json")):
        (RECORDS / f"{file.stem}.md").write_text(table(json.loads(file.read_text())))


if __name__ == "__main__":
    app()
