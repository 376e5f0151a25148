"""From paired accuracies to outcomes, and from outcomes to a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np
from jaxtyping import Bool

from undistill.statistics import (
    Interval,
    SequentialDifference,
    example_interval,
    holm_adjust,
    holm_levels,
    look_shares,
    sequential_difference,
    smallest_detectable,
)

RULE = 2
"""The number of the rule by which cells are judged, a part of every protocol: it rises with each change that can turn
one outcome into another. 1 chose a control for each cell; 2 takes the smaller of the leaks against both."""


class Outcome(Enum):
    """What a cell (attack, student and data) shows. The value is the word, ``sentence`` says what it means."""

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
            Outcome.TOO_WEAK: "knockoffs are not better, within the margin, but those of an undefended teacher are not "
            "either: the silence of this attack proves nothing",
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
        tuning: mean accuracy on the validation split over the tuning seeds, on which the setting was chosen; None if
            there was nothing to choose.
        correct: whether each student was right on each test image; None if it is not known.
        smoothing: of a reference's or placebo's labels; None for knockoffs.
    """

    setting: str
    seeds: tuple[float, ...]
    validation: float
    tuning: float | None = field(default=None, kw_only=True)
    correct: Bool[np.ndarray, "seeds images"] | None = field(default=None, kw_only=True, compare=False, repr=False)
    smoothing: float | None = field(default=None, kw_only=True)

    @property
    def mean(self) -> float:
        return math.fsum(self.seeds) / len(self.seeds)


@dataclass(frozen=True)
class Leak:
    """Knockoff accuracy minus that of the better control, in points, paired by seed.

    Which control is the better one is not known, only measured, so nothing is chosen: mean and bounds are the smaller
    ones of those against the LS students and against the placebos, the p-value the larger one.

    ``low`` and ``high`` are about the randomness of training (initial weights, order, augmentation) on these test
    images, and decide the outcome. ``test_low`` and ``test_high`` are about the choice of the test images, with these
    trained students.

    Args:
        mean: over seeds. As the smaller of two noisy means it lies, on average, a little below the truth.
        low: one-sided lower bound at the cell's level under Holm: above 0 exactly when the cell leaks.
        high: one-sided upper bound at alpha, which two controls share equally: below the margin where no leak is found.
        p: Holm-adjusted p-value against "no leak".
        detectable: smallest true leak that the cell, at the most seeds, would find with probability 0.8.
        test_low: lower end of the two-sided interval over test images, at alpha on each side; None if the students'
            answers are not known image by image.
        test_high: its upper end.
    """

    mean: float
    low: float
    high: float
    p: float
    detectable: float
    test_low: float | None = None
    test_high: float | None = None

    def __str__(self) -> str:
        """Mean and bounds, with signs and two decimals."""
        return f"{Interval(self.mean, self.low, self.high):+z.2f}"


@dataclass(frozen=True)
class Measured:
    """One attack on one student architecture with one kind of images, before judgement.

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
        data: which images the attacker has, in the words of the command line.
    """

    attack: str
    student: str
    knockoff: Accuracies
    ls: Accuracies
    placebo: Accuracies | None
    agreement: float
    queries: int
    flags: dict[str, int] = field(default_factory=dict, kw_only=True)
    data: str = field(default="train", kw_only=True)

    @property
    def key(self) -> tuple[str, str, str]:
        """Attack, student and data: what tells the cells of an audit apart."""
        return self.attack, self.student, self.data

    @property
    def controls(self) -> dict[Literal["ls", "placebo"], Accuracies]:
        """What knockoffs are compared with, by kind."""
        return {"ls": self.ls} if self.placebo is None else {"ls": self.ls, "placebo": self.placebo}

    @property
    def control(self) -> Literal["ls", "placebo"]:
        """The control that was better on the judged seeds, in which the leak's mean is measured. It decides nothing."""
        return max(self.controls, key=lambda kind: self.controls[kind].mean)


@dataclass(frozen=True)
class Cell(Measured):
    """One attack on one student architecture with one kind of images, judged."""

    leak: Leak
    outcome: Outcome


def judge(
    cells: Sequence[Measured],
    *,
    margin: float,
    alpha: float,
    weak: frozenset[tuple[str, str, str]] = frozenset(),
    looks: Sequence[int] | None = None,
) -> tuple[Cell, ...]:
    """Judge all cells of an audit together, after any of the planned looks.

    *leaks* if Holm's procedure over the cells rejects "no leak" at ``alpha``, where a cell's p-value is the larger of
    those against its two controls (one-sided sequential paired t-tests): a leak must beat both. Else *inconclusive*
    unless the upper bound against either control, at half of ``alpha``, lies below ``margin``; then *attack too weak*
    if the cell is in ``weak``, else *no leak found*.

    Args:
        cells: accuracies, paired by seed. Each may have come to another look.
        margin: in points.
        alpha: of each one-sided decision.
        weak: keys of the cells that do not leak on an undefended teacher of the same task.
        looks: numbers of seeds at which cells are judged, as planned; by default once, with all their seeds.

    Example:
        >>> ls = Accuracies("0", (90.0, 91.0, 90.0), 90.0)
        >>> knockoff = Accuracies("T=4", (93.1, 94.0, 92.9), 93.0)
        >>> judge([Measured("kd", "mlp", knockoff, ls, ls, 95.0, 1)], margin=0.5, alpha=0.025)[0].outcome
        <Outcome.LEAKS: 'leaks'>
    """
    differences = [_differences(cell, looks) for cell in cells]
    p_values = [max(difference.p_value for difference in both) for both in differences]
    levels, adjusted = holm_levels(p_values, alpha), holm_adjust(p_values)
    judged = []
    for cell, both, level, p in zip(cells, differences, levels, adjusted, strict=True):
        low = min(difference.lower(level) for difference in both)
        high = min(difference.upper(alpha / len(both)) for difference in both)
        if low > 0:
            outcome = Outcome.LEAKS
        elif not high < margin:
            outcome = Outcome.INCONCLUSIVE
        else:
            outcome = Outcome.TOO_WEAK if cell.key in weak else Outcome.NO_LEAK_FOUND
        detectable = _detectable(both, looks or (len(cell.knockoff.seeds),), alpha / len(cells))
        mean = min(difference.mean for difference in both)
        leak = Leak(mean, low, high, p, detectable, *_over_images(cell, alpha))
        judged.append(Cell(**vars(cell), leak=leak, outcome=outcome))
    return tuple(judged)


def _differences(cell: Measured, looks: Sequence[int] | None) -> list[SequentialDifference]:
    """Knockoffs less each of the controls."""
    seeds = cell.knockoff.seeds
    looks = looks or (len(seeds),)
    return [sequential_difference(seeds, control.seeds, looks=looks) for control in cell.controls.values()]


def _detectable(both: Sequence[SequentialDifference], looks: Sequence[int], level: float) -> float:
    """What the last look alone, at the level at which Holm's procedure begins, would find in one leaking cell."""
    deviation = max(difference.standard_deviation for difference in both)
    return smallest_detectable(deviation, looks[-1], alpha=level * look_shares(looks)[-1])


def _over_images(cell: Measured, alpha: float) -> tuple[float | None, float | None]:
    knockoff = cell.knockoff.correct
    controls = [control.correct for control in cell.controls.values() if control.correct is not None]
    if knockoff is None or len(controls) < len(cell.controls):
        return None, None
    low = min(example_interval(knockoff, control, alpha=alpha)[1] for control in controls)
    high = min(example_interval(knockoff, control, alpha=alpha / len(controls))[2] for control in controls)
    return low, high


def verdict_of(cells: Sequence[Cell]) -> Verdict:
    """*leaks* if any cell leaks; *inconclusive* if any cell is, or if no attack at all could have found a leak with one
    of the students and kinds of images; else *no leak found*.

    So behind *no leak found* stand a bound for every cell, and for every student and kind of images at least one attack
    that does find a leak in an undefended teacher.
    """
    outcomes = {cell.outcome for cell in cells}
    if Outcome.LEAKS in outcomes:
        return Verdict.LEAKS
    places = {(cell.student, cell.data) for cell in cells}
    able = {(cell.student, cell.data) for cell in cells if cell.outcome is Outcome.NO_LEAK_FOUND}
    return (
        Verdict.NO_LEAK_FOUND
        if cells and able == places and Outcome.INCONCLUSIVE not in outcomes
        else Verdict.INCONCLUSIVE
    )
