"""What an audit does: attacks, controls, students, seeds, margins; and what the attacker has."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from typing import Any, NamedTuple

from undistill.attacks import AS_RELEASED, ATTACKS, Attack
from undistill.audit.beforehand import misfit, refusals
from undistill.audit.judgement import RULE
from undistill.audit.trial import FRESH_VIEWS
from undistill.blackbox import FULL, Access, Queries
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.settings import settings_as_json, settings_of
from undistill.tasks import TRAINING_IMAGES, QueryData, Task
from undistill.training import Recipe, classifier_for


def battery(
    task: Task | None = None,
    students: Sequence[str] = (),
    *,
    access: Access = FULL,
    data: QueryData = TRAINING_IMAGES,
    queries: Queries = FRESH_VIEWS,
    slow: bool = False,
) -> tuple[tuple[Attack, ...], ...]:
    """Every attack that can do something with this access, these images and these queries, each with its grid.

    Args:
        task: with ``students``, to leave out attacks that cannot use one of them.
        students: architectures.
        access: what the black box lets through.
        data: what the attacker has.
        queries: how he asks.
        slow: take attacks that are too long for most audits, too.

    Example:
        >>> from undistill.blackbox import LabelAccess
        >>> names = [grid[0].name for grid in battery(access=LabelAccess())]
        >>> "kd" in names, "kd-mse" in names, "dfme" in names
        (True, False, False)
    """
    grids = [kind.grid() for kind in ATTACKS.values() if slow or not kind.slow]
    return usable(grids, task, students, access=access, data=[data], queries=queries)


def usable(
    grids: Iterable[Sequence[Attack]],
    task: Task | None,
    students: Sequence[str],
    *,
    access: Access,
    data: Sequence[QueryData],
    queries: Queries,
) -> tuple[tuple[Attack, ...], ...]:
    """What of these grids can be used with this access, all of these images and these queries; as :func:`battery`."""
    networks = [] if task is None else [classifier_for(task, student, seed=0) for student in students]

    def can_run(attack: Attack) -> bool:
        fit = all(misfit(attack, network) is None for network in networks)
        return fit and not any(refusals([attack], access, images, queries) for images in data)

    kept = [tuple(attack for attack in grid if can_run(attack)) for grid in grids]
    return tuple(grid for grid in kept if grid)


class Origin(NamedTuple):
    """The frozen version that a protocol was made from: its name, and the hash of its content."""

    name: str
    hash: str


@dataclass(frozen=True)
class Protocol:
    """Everything that determines an audit, apart from the teacher and the task.

    Settings of attacks, placebos and label smoothing are chosen by mean accuracy on the validation split over
    ``tuning_seeds`` seeds, and judged on the test split over up to ``seeds`` other seeds.

    Args:
        students: architectures.
        recipe: how every student is trained.
        attacks: one grid per attack: settings of one attack, among which the audit chooses. By default the whole
            :func:`battery`, for full access and the teacher's training images.
        smoothings: label smoothing of the reference students; 0 is plain cross entropy.
        placebo_smoothings: smoothing of the one-hot labels that stand in for a teacher; tried with each setting of
            an attack's grid, unless ``tries`` says otherwise.
        tries: settings that are tried for each knockoff, for each placebo and for the references alike: the length of
            ``smoothings`` and of every grid; a placebo tries each setting of its attack once, with
            ``placebo_smoothings`` in turn. None: as many as there are.
        seeds: the most paired seeds on which a cell is judged.
        looks: smaller numbers of seeds at which cells are judged as well; only those that are still inconclusive
            get the seeds of the next look.
        first_seed: the first of them; another one repeats an audit with other students.
        tuning_seeds: seeds on which settings are chosen.
        margin: largest leak, in points of accuracy, that still counts as none.
        alpha: error rate of each one-sided decision; 0.025 is a two-sided 95% interval.
        access: what the teacher lets through of its answers.
        data: which images the attackers may ask about: cells of their own for each.
        queries: how he asks.
        origin: the frozen version that this was made from, if any; see :mod:`undistill.audit.versions`.

    Raises:
        InputError: a value is out of range, or attacks cannot be run with this access or these images; the message
            names every one.

    Example:
        >>> protocol = Protocol(students=("mlp-16",), recipe=Recipe(epochs=60, batch_size=50))
        >>> [grid[0].name for grid in protocol.attacks[:2]]
        ['kd', 'kd-no-labels']
    """

    students: tuple[str, ...]
    recipe: Recipe
    attacks: tuple[tuple[Attack, ...], ...] = field(default_factory=battery)
    smoothings: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4)
    placebo_smoothings: tuple[float, ...] = (0.01, 0.1, 0.3)
    seeds: int = 5
    first_seed: int = field(default=0, kw_only=True)
    looks: tuple[int, ...] = field(default=(), kw_only=True)
    tries: int | None = field(default=None, kw_only=True)
    tuning_seeds: int = 1
    margin: float = 0.5
    alpha: float = 0.025
    access: Access = FULL
    data: tuple[QueryData, ...] = (TRAINING_IMAGES,)
    queries: Queries = FRESH_VIEWS
    origin: Origin | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        names = [grid[0].name for grid in self.attacks if grid]
        grids_hold = all(len({type(attack) for attack in grid}) == 1 for grid in self.attacks)
        entries = [attack for grid in self.attacks for attack in grid]
        bases = [base for attack in entries if (base := getattr(attack, "base", None)) is not None]
        weakened = sorted({attack.name for attack in (*entries, *bases)} & AS_RELEASED.keys())
        rules = [
            (bool(self.students), "no student is named; name at least one architecture"),
            (bool(self.attacks) and grids_hold, "attacks must be grids of one attack each, and at least one"),
            (not weakened, f"{', '.join(weakened)} are weakened variants: no verdict may rest on them"),
            (len(set(names)) == len(names), f"attacks {names} name one attack twice; put its settings into one grid"),
            (len(set(self.students)) == len(self.students), f"students {self.students} name one twice"),
            (bool(self.smoothings), "smoothings is empty; 0 is plain cross entropy"),
            (bool(self.placebo_smoothings), "placebo_smoothings is empty; a placebo needs at least one"),
            (
                all(0 <= value < 1 for value in (*self.smoothings, *self.placebo_smoothings)),
                f"smoothings are {self.smoothings} and {self.placebo_smoothings}, must lie in [0, 1)",
            ),
            (self.seeds >= 2, f"seeds is {self.seeds}, must be at least 2 (an interval needs two)"),
            (
                0 <= self.first_seed <= TUNING_SEED - self.seeds,
                f"first_seed is {self.first_seed}, must be 0 to {TUNING_SEED:,} less the number of seeds (settings are "
                "chosen on those above)",
            ),
            (
                all(1 < size < self.seeds for size in self.looks) and sorted(set(self.looks)) == list(self.looks),
                f"looks are {self.looks}, must rise from at least 2 to less than seeds ({self.seeds})",
            ),
            (
                self.tries is None or {len(grid) for grid in (self.smoothings, *self.attacks)} == {self.tries},
                f"tries is {self.tries}, so smoothings and each grid of attacks must hold as many settings",
            ),
            (
                bool(self.data) and len({str(data) for data in self.data}) == len(self.data),
                f"data are {tuple(map(str, self.data))}, must be at least one kind of images, each once",
            ),
            (self.tuning_seeds >= 1, f"tuning_seeds is {self.tuning_seeds}, must be at least 1"),
            (0 < self.margin < math.inf, f"margin is {self.margin}, must be finite and above 0 points"),
            (0 < self.alpha < 0.5, f"alpha is {self.alpha}, must lie between 0 and 0.5"),
        ]
        problems = [words for holds, words in rules if not holds]
        problems += dict.fromkeys(
            words for data in self.data for words in refusals(entries, self.access, data, self.queries)
        )
        if problems:
            raise InputError(f"protocol: {'; '.join(problems)}")

    @property
    def judged_seeds(self) -> tuple[int, ...]:
        """Seeds of the test, as many as a cell may get: 0, 1, ..., unless another is the first."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        """Seeds of the choice of settings; never those of the test."""
        return tuple(range(TUNING_SEED, TUNING_SEED + self.tuning_seeds))

    @property
    def all_looks(self) -> tuple[int, ...]:
        """Every number of seeds at which cells are judged."""
        return (*self.looks, self.seeds)

    def placebo_settings(self, grid: Sequence[Attack]) -> list[tuple[Attack, float]]:
        """The attack settings and smoothings that a placebo tries.

        >>> from undistill.attacks import KD
        >>> protocol = Protocol(("mlp-16",), Recipe(), (KD.grid(),), (0.0, 0.1, 0.2), (0.1, 0.3), tries=3)
        >>> [(attack.temperature, smoothing) for attack, smoothing in protocol.placebo_settings(KD.grid())]
        [(1.0, 0.1), (4.0, 0.3), (20.0, 0.1)]
        """
        if self.tries is None:
            return list(product(grid, self.placebo_smoothings))
        return list(zip(grid, cycle(self.placebo_smoothings), strict=False))

    def regimes(self, task: Task) -> tuple[QueryData, ...]:
        """The kinds of images that a task has for attackers; those that it lacks are left out, unless none is there."""
        return tuple(data for data in self.data if data.in_task(task)) or self.data

    def left_out(self, task: Task) -> tuple[QueryData, ...]:
        """The kinds of images that are planned, but that the task does not have."""
        there = self.regimes(task)
        return tuple(data for data in self.data if data not in there)

    def content(self) -> dict[str, Any]:
        """All of it as JSON, but for the origin; with the number of the rule by which cells are judged."""
        return {
            "rule": RULE,
            "students": list(self.students),
            "recipe": settings_of(self.recipe),
            "access": str(self.access),
            "data": [data.description() for data in self.data],
            "queries": settings_of(self.queries),
            "attacks": [
                [{"name": attack.name, **settings_as_json(attack)} for attack in grid] for grid in self.attacks
            ],
            "smoothings": list(self.smoothings),
            "placebo_smoothings": list(self.placebo_smoothings),
            "tries": self.tries,
            "seeds": self.seeds,
            "looks": list(self.looks),
            "first_seed": self.first_seed,
            "tuning_seeds": self.tuning_seeds,
            "margin": self.margin,
            "alpha": self.alpha,
        }

    @property
    def hash(self) -> str:
        """Of the content: two audits with one hash did the same. The code of attacks is not in it, but in trials."""
        return content_hash(self.content())

    @property
    def version(self) -> str:
        """The name of the frozen version that this is, or ``custom``, and what it was made from.

        >>> Protocol(("mlp-16",), Recipe()).version
        'custom'
        """
        if self.origin is None:
            return "custom"
        return self.origin.name if self.hash == self.origin.hash else f"custom (from {self.origin.name})"


TUNING_SEED = 1_000_000
