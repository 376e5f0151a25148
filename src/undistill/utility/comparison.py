"""Teachers side by side: seeds in one row, the difference to cross entropy, and the trade-off over the weight."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undistill.blackbox import BlackBox
from undistill.defences.training import CrossEntropy
from undistill.errors import InputError
from undistill.files import json_number
from undistill.statistics import Interval, interval, unpaired_interval
from undistill.tasks import Task
from undistill.utility.origin import Origin, origin_of
from undistill.utility.teacher import TeacherFacts, check_other_task, measure_teacher

SCHEMA = "undistill.utility/1"
CONFIDENCE = 0.95

FIGURES: dict[str, Callable[[TeacherFacts], float]] = {
    "accuracy": lambda facts: facts.accuracy,
    "train_accuracy": lambda facts: facts.train_accuracy,
    "nll": lambda facts: facts.utility.quality.nll,
    "ece": lambda facts: facts.utility.quality.ece,
    "brier": lambda facts: facts.utility.quality.brier,
    "auroc": lambda facts: facts.utility.quality.auroc,
    "aurc": lambda facts: facts.utility.quality.aurc,
    "other_auroc": lambda facts: math.nan if facts.utility.other is None else facts.utility.other.auroc,
    "training_seconds": lambda facts: facts.utility.training_seconds,
    "total_seconds": lambda facts: facts.utility.total_seconds,
    "serving_seconds": lambda facts: facts.utility.serving.seconds_per_1000,
    "train_cmi_1": lambda facts: facts.train.at(1.0),
    "train_supremum": lambda facts: facts.train.supremum,
    "train_residual_T4": lambda facts: facts.train.residual(4.0),
    "train_residual_T20": lambda facts: facts.train.residual(20.0),
    "train_within_class_variance": lambda facts: facts.train.within_variance,
    "test_cmi_1": lambda facts: facts.test.at(1.0),
    "test_supremum": lambda facts: facts.test.supremum,
    "test_residual_T4": lambda facts: facts.test.residual(4.0),
    "test_residual_T20": lambda facts: facts.test.residual(20.0),
    "test_within_class_variance": lambda facts: facts.test.within_variance,
}
"""Every number that is compared, by its name in JSON."""


@dataclass(frozen=True)
class Row:
    """Teachers that differ by their seed only, before anything is measured.

    Attributes:
        label: what the row is called.
        boxes: the teachers.
        origins: where each comes from.
    """

    label: str
    boxes: tuple[BlackBox, ...]
    origins: tuple[Origin, ...]

    @property
    def origin(self) -> Origin:
        """What all of them have in common; the name and the seed are the first one's."""
        return self.origins[0]


@dataclass(frozen=True)
class Plan:
    """What is compared with what; made by :func:`plan_comparison`.

    Attributes:
        rows: the teachers, those that the others are compared with first.
        against: the place of the row that the others are compared with; None if there is none.
    """

    rows: tuple[Row, ...]
    against: int | None

    @property
    def curves(self) -> dict[str, tuple[int, ...]]:
        """Places of rows that differ by their defence's weight only, two or more, in its order; by the defence."""
        families: dict[str, list[int]] = {}
        for place, row in enumerate(self.rows):
            if row.origin.weight is not None:
                families.setdefault(row.origin.family, []).append(place)
        found = [sorted(places, key=self._weight) for places in families.values()]
        curves = {places[0]: tuple(places) for places in found if len(places) > 1}
        names = _told_apart(
            [self.rows[first].origin.label_without_weight for first in curves],
            [self.rows[first].label for first in curves],
        )
        return dict(zip(names, curves.values(), strict=True))

    def _weight(self, place: int) -> float:
        return self.rows[place].origin.weight or 0.0


@dataclass(frozen=True)
class Group:
    """A row that was measured.

    Attributes:
        label: what it is called.
        origins: where each teacher comes from.
        teachers: what was measured of each.
    """

    label: str
    origins: tuple[Origin, ...]
    teachers: tuple[TeacherFacts, ...]

    def values(self, figure: str) -> list[float]:
        """A figure of each teacher."""
        return [FIGURES[figure](facts) for facts in self.teachers]

    def summary(self, figure: str) -> Interval:
        """The mean of a figure and its 95% t-interval, whose ends are infinite for one teacher.

        Where a teacher's figure is infinite or not defined, so is the mean, and its ends are nan.
        """
        values = self.values(figure)
        if all(map(math.isfinite, values)):
            return interval(values, CONFIDENCE)
        return Interval(sum(values) / len(values), math.nan, math.nan)


@dataclass(frozen=True)
class Difference:
    """A figure of one group less that of another.

    Attributes:
        interval: mean and 95% t-interval, whose ends are infinite where there are too few seeds for one.
        seeds: the seeds by which the two are paired; empty if they are not paired.
    """

    interval: Interval
    seeds: tuple[int, ...]


def difference(group: Group, against: Group, figure: str) -> Difference | None:
    """What ``group`` has more of than ``against``.

    Paired by the seeds that both have, if these are two or more, or if there is one teacher on either side; then
    teachers of other seeds are left out. Otherwise unpaired (Welch).

    Args:
        group: any group.
        against: another one.
        figure: a name of :data:`FIGURES`.

    Returns:
        None where a figure is not finite.
    """
    values, others = group.values(figure), against.values(figure)
    if not all(map(math.isfinite, values + others)):
        return None
    ours = {origin.seed: value for origin, value in zip(group.origins, values, strict=True)}
    theirs = {origin.seed: value for origin, value in zip(against.origins, others, strict=True)}
    shared = tuple(sorted(seed for seed in ours.keys() & theirs.keys() if seed is not None))
    if len(shared) >= 2 or (shared and len(values) == len(others) == 1):
        return Difference(interval([ours[seed] - theirs[seed] for seed in shared], CONFIDENCE), shared)
    return Difference(unpaired_interval(values, others, CONFIDENCE), ())


@dataclass(frozen=True)
class Comparison:
    """Teachers of a task side by side; made by :func:`compare`.

    Attributes:
        task: what they are for.
        plan: what is compared with what.
        groups: what was measured, in the plan's order.
    """

    task: Task
    plan: Plan
    groups: tuple[Group, ...]

    @cached_property
    def reference(self) -> Group | None:
        """The group that the others are compared with."""
        return None if self.plan.against is None else self.groups[self.plan.against]

    @property
    def curves(self) -> dict[str, list[tuple[float, Group]]]:
        """Weights and groups that differ by their defence's weight only, in its order, by the defence."""
        return {
            name: [(self.groups[place].origins[0].weight or 0.0, self.groups[place]) for place in places]
            for name, places in self.plan.curves.items()
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON; its schema is documented in ``docs/utility.md``."""
        return {
            "schema": SCHEMA,
            "task": {
                "name": self.task.name,
                "fingerprint": self.task.fingerprint,
                "source": self.task.source,
                "train": len(self.task.train),
                "test": len(self.task.test),
            },
            "confidence": CONFIDENCE,
            "against": None if self.reference is None else self.reference.label,
            "groups": [self._group_json(group) for group in self.groups],
            "curves": [
                {
                    "defence": name,
                    "weights": [weight for weight, _ in line],
                    "groups": [group.label for _, group in line],
                }
                for name, line in self.curves.items()
            ],
        }

    def _group_json(self, group: Group) -> dict[str, Any]:
        origin = group.origins[0]
        against = self.reference
        differences = (
            {} if against is None or against is group else {name: difference(group, against, name) for name in FIGURES}
        )
        return {
            "label": group.label,
            "architecture": origin.architecture,
            "training": origin.training,
            "served": list(origin.served),
            "teachers": [
                {"seed": origin.seed} | facts.to_json()
                for origin, facts in zip(group.origins, group.teachers, strict=True)
            ],
            "figures": {name: _interval_json(group.summary(name)) for name in FIGURES},
            "differences": {
                name: None if found is None else _interval_json(found.interval) | {"paired_by_seeds": list(found.seeds)}
                for name, found in differences.items()
            },
        }


def _interval_json(found: Interval) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in found._asdict().items()}


def plan_comparison(teachers: Sequence[BlackBox], *, against: Sequence[BlackBox] = ()) -> Plan:
    """Put teachers that differ by their seed only into one row, and find those that the others are compared with.

    Args:
        teachers: any of one task.
        against: what they are compared with: one teacher, or seeds of one training. By default those of ``teachers``
            that say they were trained with cross entropy and whose answers are served as they are, if all of these
            differ by their seed only.

    Raises:
        InputError: no teacher, one that is given twice, two trainings of the same seed, or ``against`` that are more
            than one row.
    """
    if not teachers:
        raise InputError("there is no teacher to measure; name at least one")
    references = {box.fingerprint for box in against}
    boxes = [*against, *(box for box in teachers if box.fingerprint not in references)]
    twice = [box.name for box, count in ((box, _count(box, boxes)) for box in boxes) if count > 1]
    if twice:
        raise InputError(f"teachers {', '.join(map(repr, twice))} answer alike; give each once")
    origins = [origin_of(box) for box in boxes]
    kinds: dict[str, list[int]] = {}
    for place, origin in enumerate(origins):
        kinds.setdefault(origin.kind, []).append(place)
    for places in kinds.values():
        _check_seeds([origins[place] for place in places])
    labels = _told_apart(
        [origins[places[0]].label for places in kinds.values()],
        [", ".join(origins[place].name for place in places) for places in kinds.values()],
    )
    rows = tuple(
        Row(label, tuple(boxes[place] for place in places), tuple(origins[place] for place in places))
        for label, places in zip(labels, kinds.values(), strict=True)
    )
    if against:
        mixed = [row.label for row in rows if any(box.fingerprint in references for box in row.boxes)]
        if len(mixed) > 1:
            raise InputError(
                f"the teachers to compare with are of {len(mixed)} kinds ({', '.join(mixed)}); name one, or "
                "seeds of one training"
            )
        return Plan(rows, 0)
    plain = [
        place
        for place, row in enumerate(rows)
        if row.origin.defence.get("name") == CrossEntropy.name and not row.origin.served
    ]
    return Plan(rows, plain[0] if len(plain) == 1 else None)


def _count(box: BlackBox, boxes: Sequence[BlackBox]) -> int:
    return sum(other.fingerprint == box.fingerprint for other in boxes)


def _check_seeds(origins: Sequence[Origin]) -> None:
    counts = Counter(origin.seed for origin in origins)
    for seed, count in counts.items():
        if count > 1:
            names = ", ".join(repr(origin.name) for origin in origins if origin.seed == seed)
            raise InputError(
                f"teachers {names} cannot be told apart: they have one name or training, and "
                + ("do not say their seed" if seed is None else f"the same seed ({seed})")
                + "; give one of them, or each folder or callable a name of its own"
            )


def _told_apart(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Labels with the names added where a label occurs more than once.

    >>> _told_apart(["ce", "ce", "cmim"], ["a", "b", "c"])
    ['ce (a)', 'ce (b)', 'cmim']
    """
    counts = Counter(labels)
    return [f"{label} ({name})" if counts[label] > 1 else label for label, name in zip(labels, names, strict=True)]


def compare(
    plan: Plan, task: Task, *, other: Task | None = None, watch: Callable[[str], None] = lambda name: None
) -> Comparison:
    """Measure all teachers of a plan.

    Args:
        plan: what is compared with what.
        task: what the teachers are for.
        other: another task with images of the same shape, to which no answer is right.
        watch: told each teacher's name before it is measured.

    Raises:
        InputError: answers that are no distributions, or another task that does not fit.

    >>> import torch
    >>> from undistill.blackbox import CallableBlackBox
    >>> from undistill.tasks import load_task
    >>> def api(images):
    ...     return images.flatten(1)[:, 20:23].softmax(1)
    >>> task = load_task("digits", classes=3)
    >>> box = CallableBlackBox("api", api, 3, torch.rand(4, 1, 8, 8))
    >>> [group] = compare(plan_comparison([box]), task).groups
    >>> group.label, len(group.teachers)
    ('api', 1)
    """
    if other is not None:
        check_other_task(other, task)
    groups = []
    for row in plan.rows:
        facts = []
        for box in row.boxes:
            watch(box.name)
            facts.append(measure_teacher(box, task, other=other))
        groups.append(Group(row.label, row.origins, tuple(facts)))
    return Comparison(task, plan, tuple(groups))
