"""What an audit does: attacks, controls, students, seeds, margins; and what the attacker has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from undistill.attacks import AS_RELEASED, ATTACKS, Attack
from undistill.audit.beforehand import misfit, refusals
from undistill.audit.trial import FRESH_VIEWS
from undistill.blackbox import FULL, Access, Queries
from undistill.errors import InputError
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

    networks = [] if task is None else [classifier_for(task, student, seed=0) for student in students]

    def can_run(attack: Attack) -> bool:
        fit = all(misfit(attack, network) is None for network in networks)
        return fit and not refusals([attack], access, data, queries)

    kinds = [kind for kind in ATTACKS.values() if slow or not kind.slow]
    grids = [tuple(attack for attack in kind.grid() if can_run(attack)) for kind in kinds]
    return tuple(grid for grid in grids if grid)


@dataclass(frozen=True)
class Protocol:
    """Everything that determines an audit, apart from the teacher and the task.

    Settings of attacks, placebos and label smoothing are chosen by mean accuracy on the validation split over
    ``tuning_seeds`` seeds, and judged on the test split over ``seeds`` other seeds.

    Args:
        students: architectures.
        recipe: how every student is trained.
        attacks: one grid per attack: settings of one attack, among which the audit chooses. By default the whole
            :func:`battery`, for full access and the teacher's training images.
        smoothings: label smoothing of the reference students; 0 is plain cross entropy.
        placebo_smoothings: smoothing of the one-hot labels that stand in for a teacher; tried with each setting of
            an attack's grid.
        seeds: paired seeds on which cells are judged.
        first_seed: the first of them; another one repeats an audit with other students.
        tuning_seeds: seeds on which settings are chosen.
        margin: largest leak, in points of accuracy, that still counts as none.
        alpha: error rate of each one-sided decision; 0.025 is a two-sided 95% interval.
        access: what the teacher lets through of its answers.
        data: which images the attacker may ask about.
        queries: how he asks.

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
    tuning_seeds: int = 1
    margin: float = 0.5
    alpha: float = 0.025
    access: Access = FULL
    data: QueryData = TRAINING_IMAGES
    queries: Queries = FRESH_VIEWS

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
            (self.tuning_seeds >= 1, f"tuning_seeds is {self.tuning_seeds}, must be at least 1"),
            (0 < self.margin < math.inf, f"margin is {self.margin}, must be finite and above 0 points"),
            (0 < self.alpha < 0.5, f"alpha is {self.alpha}, must lie between 0 and 0.5"),
        ]
        problems = [words for holds, words in rules if not holds]
        problems += refusals(entries, self.access, self.data, self.queries)
        if problems:
            raise InputError(f"protocol: {'; '.join(problems)}")

    @property
    def judged_seeds(self) -> tuple[int, ...]:
        """Seeds of the test: 0, 1, ..., unless another is the first."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def chosen_seeds(self) -> tuple[int, ...]:
        """Seeds of the choice of settings; never those of the test."""
        return tuple(range(TUNING_SEED, TUNING_SEED + self.tuning_seeds))


TUNING_SEED = 1_000_000
