"""From paired accuracies to outcomes, and from outcomes to a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from undistill.statistics import holm_adjust, holm_levels, paired_difference, smallest_detectable


class Outcome(Enum):
    """What a cell (attack and student) shows. The value is the word, ``sentence`` says what it means."""

    LEAKS = "leaks"
    NO_LEAK_FOUND = "no leak found"
    INCONCLUSIVE = "inconclusive"
    TOO_WEAK = "attack too weak"

    @property
    def sentence(self) -> str:
        return {
            Outcome.LEAKS: "knockoffs beat every student without the teacher: its answers taught them something",
            Outcome.NO_LEAK_FOUND: "knockoffs are not better, within the margin, than students without the teacher",
            Outcome.INCONCLUSIVE: "the interval holds both zero and the margin: more seeds are needed",
            Outcome.TOO_WEAK: "the attack gains nothing from an undefended teacher either: its silence proves nothing",
        }[self]


class Verdict(Enum):
    """What an audit shows."""

    LEAKS = "leaks"
    NO_LEAK_FOUND = "no leak found"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Accuracies:
    """Test accuracies of one kind of student, one per seed, in percent.

    Args:
        setting: the chosen hyper-parameters, in words.
        seeds: accuracy on the test split per judged seed.
        validation: mean accuracy on the validation split over the judged seeds.
        smoothing: of a reference's or placebo's labels; None for knockoffs.
    """

    setting: str
    seeds: tuple[float, ...]
    validation: float
    smoothing: float | None = None

    @property
    def mean(self) -> float:
        return math.fsum(self.seeds) / len(self.seeds)


@dataclass(frozen=True)
class Leak:
    """Knockoff accuracy minus control accuracy, in points, paired by seed.

    Args:
        mean: over seeds.
        low: one-sided lower bound at the cell's level under Holm: above 0 exactly when the cell leaks.
        high: one-sided upper bound at alpha.
        p: Holm-adjusted p-value against "no leak".
        detectable: smallest true leak that the cell would find with probability 0.8.
    """

    mean: float
    low: float
    high: float
    p: float
    detectable: float


@dataclass(frozen=True)
class Measured:
    """One attack on one student architecture, before judgement.

    Args:
        attack: name.
        student: architecture.
        knockoff: students that learnt from the teacher.
        ls: label-smoothed students.
        placebo: students of the attack without the teacher; None if the attack has none, or the attacker no labels.
        agreement: share of test images on which knockoff and teacher give the same class, in percent.
        queries: the most images that one knockoff asked about.
        flags: what some of the judged knockoffs noted, and how many did: ``"diverged"``, ``"temperature_collapsed"``;
            the same of its placebos, with ``"placebo_"`` in front.
    """

    attack: str
    student: str
    knockoff: Accuracies
    ls: Accuracies
    placebo: Accuracies | None
    agreement: float
    queries: int
    flags: dict[str, int] = field(default_factory=dict, kw_only=True)

    @property
    def control(self) -> Literal["ls", "placebo"]:
        """The better of the two controls, chosen on validation data."""
        return "placebo" if self.placebo is not None and self.placebo.validation > self.ls.validation else "ls"

    @property
    def best_control(self) -> Accuracies:
        """The accuracies of the control with which knockoffs are compared."""
        return self.placebo if self.placebo is not None and self.control == "placebo" else self.ls


@dataclass(frozen=True)
class Cell(Measured):
    """One attack on one student architecture, judged."""

    leak: Leak
    outcome: Outcome


def judge(
    cells: Sequence[Measured], *, margin: float, alpha: float, weak: frozenset[tuple[str, str]] = frozenset()
) -> tuple[Cell, ...]:
    """Judge all cells of an audit together.

    *leaks* if Holm's procedure over the cells rejects "no leak" (one-sided paired t-test at ``alpha``); else *attack
    too weak* if (attack, student) is in ``weak``; else *no leak found* if the upper bound lies below ``margin``; else
    *inconclusive*.

    Args:
        cells: accuracies, paired by seed.
        margin: in points.
        alpha: of each one-sided decision.
        weak: the (attack, student) pairs that do not leak on an undefended teacher of the same task.

    Example:
        >>> ls = Accuracies("0", (90.0, 91.0, 90.0), 90.0)
        >>> knockoff = Accuracies("T=4", (93.1, 94.0, 92.9), 93.0)
        >>> judge([Measured("kd", "mlp", knockoff, ls, ls, 95.0, 1)], margin=0.5, alpha=0.025)[0].outcome
        <Outcome.LEAKS: 'leaks'>
    """
    differences = [paired_difference(cell.knockoff.seeds, cell.best_control.seeds) for cell in cells]
    p_values = [difference.p_value for difference in differences]
    levels, adjusted = holm_levels(p_values, alpha), holm_adjust(p_values)
    judged = []
    for cell, difference, level, p in zip(cells, differences, levels, adjusted, strict=True):
        low, high = difference.lower(level), difference.upper(alpha)
        if low > 0:
            outcome = Outcome.LEAKS
        elif (cell.attack, cell.student) in weak:
            outcome = Outcome.TOO_WEAK
        elif high < margin:
            outcome = Outcome.NO_LEAK_FOUND
        else:
            outcome = Outcome.INCONCLUSIVE
        detectable = smallest_detectable(difference.standard_deviation, difference.n, alpha=alpha)
        leak = Leak(difference.mean, low, high, p, detectable)
        judged.append(Cell(**vars(cell), leak=leak, outcome=outcome))
    return tuple(judged)


def verdict_of(cells: Sequence[Cell]) -> Verdict:
    """*leaks* if any cell leaks; *no leak found* only if every cell says so; else *inconclusive*."""
    outcomes = {cell.outcome for cell in cells}
    if Outcome.LEAKS in outcomes:
        return Verdict.LEAKS
    return Verdict.NO_LEAK_FOUND if outcomes == {Outcome.NO_LEAK_FOUND} else Verdict.INCONCLUSIVE
