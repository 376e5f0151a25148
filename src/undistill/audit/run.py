"""The audit: from teachers and a task to verdicts."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias, runtime_checkable
from typing import Protocol as Interface

import numpy as np

from undistill.attacks import Attack
from undistill.audit.beforehand import check_answers, check_split, check_trainings
from undistill.audit.execution import Workers, count_workers
from undistill.audit.judgement import Accuracies, Cell, Measured, Outcome, judge
from undistill.audit.protocol import Protocol
from undistill.audit.result import Audit, Undefended
from undistill.audit.store import Store
from undistill.audit.trial import Trial, unpack_bits
from undistill.audit.versions import quick
from undistill.blackbox import (
    CHECKED_IMAGES,
    PROBE_IMAGES,
    AnswerCache,
    BlackBox,
    LocalBlackBox,
    Steadiness,
    TeacherLike,
    check_black_box,
    open_black_box,
)
from undistill.defences.training import CrossEntropy
from undistill.errors import InputError
from undistill.files import write_json
from undistill.settings import settings_of
from undistill.tasks import QueryData, Task, load_task
from undistill.training import Progress, Recipe, defaults_for, train_teacher
from undistill.utility import ServingTime, TeacherFacts, Utility, kept_serving, measure_teacher, measure_utility

Choice: TypeAlias = tuple[Trial, ...]
"""Settings without a seed, of which one is chosen."""
Read: TypeAlias = Callable[[Trial], dict[str, Any]]
Counts: TypeAlias = "dict[tuple[Place, str], int]"

MARK = "undistill.json"  # in the folder of an audit: whose it is


@runtime_checkable
class Watcher(Interface):
    """What an audit tells while it runs."""

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress] | None:
        """A network is about to be trained on so many images; what shows it, if anything."""

    def stage(self, title: str, trials: int, stored: int) -> None:
        """A stage of ``trials`` trials begins, of which ``stored`` are already in the store."""

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """A trial has ended and is stored."""


class SilentWatcher:
    """Says nothing."""

    def training(self, title: str, recipe: Recipe, images: int) -> Callable[[int], Progress] | None:
        return None

    def stage(self, title: str, trials: int, stored: int) -> None:
        pass

    def trial(self, trial: Trial, outcome: dict[str, Any]) -> None:
        pass


def audit(
    teacher: TeacherLike,
    task: str | Task,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    protocol: Protocol | None = None,
    undefended: TeacherLike | None = None,
    workers: int | None = None,
    trust_import_path: bool = False,
    watcher: Watcher | None = None,
) -> Audit:
    """Audit one teacher: does it leak, through which attack, how sure are we?

    Trains references, placebos and knockoffs with paired seeds, and judges every cell (attack x student). What the
    attacker sees, has and asks is part of the protocol. With ``out``, the result is written to ``out/audit.json`` and
    finished trials are stored in ``out/trials``: the same call again runs only what is missing.

    Args:
        teacher: a checkpoint folder, ``package.module:callable``, a classifier, a black box, or any callable that maps
            raw images in [0, 1] to probabilities or logits.
        task: a task, or the name of one.
        out: folder of stored trials and results. Without one, nothing is kept: a call that is stopped begins anew.
        name: of the teacher in results; by default its folder's, callable's or architecture's name.
        protocol: what to do; by default version ``quick``, see :mod:`undistill.audit.versions`.
        undefended: a teacher of the same task that was trained with cross entropy. An attack that does not leak on it
            is too weak to clear ``teacher``. By default one is trained, with ``teacher``'s architecture and recipe
            where they are known.
        workers: processes; by default as many as cores.
        trust_import_path: let checkpoints import and run the code that they name.
        watcher: told what happens.

    Raises:
        InputError: bad input, a teacher that answers differently to the same image or was trained on another split,
            or a folder that holds another audit; nothing that was finished in ``out`` is lost.

    Example:
        >>> from undistill.attacks import KD
        >>> def api(images):  # a teacher that looks at three pixels
        ...     return images.flatten(1)[:, 20:23].softmax(1)
        >>> protocol = Protocol(("mlp-4",), Recipe(epochs=1), ((KD(4.0),),), seeds=2)
        >>> result = audit(
        ...     api, load_task("digits", classes=3), protocol=protocol, undefended=api, workers=1
        ... )
        >>> result.teacher.name, len(result.cells)
        ('api', 1)
    """
    [result] = audit_all(
        [teacher],
        task,
        out=out,
        names=None if name is None else [name],
        protocol=protocol,
        undefended=undefended,
        workers=workers,
        trust_import_path=trust_import_path,
        watcher=watcher,
    )
    return result


def audit_all(
    teachers: Sequence[TeacherLike],
    task: str | Task,
    *,
    out: str | Path | None = None,
    names: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    undefended: TeacherLike | None = None,
    workers: int | None = None,
    trust_import_path: bool = False,
    watcher: Watcher | None = None,
) -> list[Audit]:
    """Audit several teachers of one task; references and placebos are trained once for all. See :func:`audit`.

    A teacher whose checkpoint says that it was trained on this task with cross entropy serves as the undefended one.
    """
    workers = count_workers(workers)
    task = load_task(task) if isinstance(task, str) else task
    watcher = watcher or SilentWatcher()
    protocol = protocol or quick(task.input_shape)
    probe = task.validation.images[:PROBE_IMAGES].float().div(255)
    open_box = partial(
        open_black_box,
        class_names=task.class_names,
        probe=probe,
        access=protocol.access,
        trust_import_path=trust_import_path,
    )
    if names is not None and len(names) != len(teachers):
        raise InputError(f"there are {len(names)} names for {len(teachers)} teachers; give one each, or none")
    boxes = [open_box(teacher, name=names[i] if names else None) for i, teacher in enumerate(teachers)]
    given = None if undefended is None else open_box(undefended)
    every_setting = [attack for grid in protocol.attacks for attack in grid]
    for data in protocol.regimes(task):
        attackers = data.attackers_task(task)
        check_trainings(attackers, protocol.students, protocol.recipe, every_setting, protocol.queries)
    steadiness = {}
    for box in boxes if given is None else [*boxes, given]:
        check_answers(box, every_setting)
        check_split(box, task)
        steadiness[box.fingerprint] = check_black_box(box, probe[:CHECKED_IMAGES])
    with TemporaryDirectory(prefix="undistill-") if out is None else nullcontext(out) as folder:
        out = Path(folder)
        _claim(out, task, protocol, boxes)
        reference = given
        if reference is None:
            plain_box = _undefended_among(boxes, task) or _train_undefended(boxes, task, out / "undefended", watcher)
            reference = open_box(plain_box)
        everyone = list({box.fingerprint: box for box in (*boxes, reference)}.values())

        store = Store(out / "trials")
        plan = Plan(task, protocol, everyone)
        with Workers(plan.tasks, everyone, store, AnswerCache(out / "answers"), workers) as pool:
            _run_stage("choose settings on validation", plan.tuning(), pool, store, watcher)
            while trials := plan.judging(store):
                _run_stage("judge on test", trials, pool, store, watcher)
        judged = plan.judged(store, reference)
        facts = [_measure(box, task, out, steadiness[box.fingerprint]) for box in boxes]
        worth = {found.fingerprint: found.utility for found in facts}.get(reference.fingerprint)
        plain = Undefended(reference.name, worth or _worth(reference, task, out), judged[reference.fingerprint])
        results = []
        for box, found in zip(boxes, facts, strict=True):
            result = Audit(task, found, plain, protocol, judged[box.fingerprint])
            write_json(audit_path(out, box.name, alone=len(boxes) == 1), result.to_json())
            results.append(result)
        return results


def audit_path(out: Path, name: str, *, alone: bool) -> Path:
    """Where a teacher's ``audit.json`` goes: ``out`` itself when it is audited alone, else a folder of its name."""
    return (out if alone else out / name) / "audit.json"


class Place(NamedTuple):
    """Where a cell stands, beside its teacher: the attack's grid, the student, the images."""

    data: QueryData
    student: str
    grid: tuple[Attack, ...]


class Plan:
    """The flat lists of trials of an audit, and the way back from their outcomes to cells.

    All lists are functions of the stored outcomes alone: a plan keeps nothing, so an audit goes on from its store.

    Args:
        task: the teachers' task.
        protocol: what is done.
        boxes: the teachers, the undefended one among them.

    Attributes:
        tasks: the data of all trials.
    """

    def __init__(self, task: Task, protocol: Protocol, boxes: Sequence[BlackBox]) -> None:
        self.protocol, self.boxes = protocol, boxes
        regimes = protocol.regimes(task)
        self._attackers = {data: data.attackers_task(task) for data in regimes}
        self._controls = {data: data.controls_task(task) for data in regimes}
        self.tasks = list(
            {task.fingerprint: task for task in (*self._attackers.values(), *self._controls.values())}.values()
        )
        self._images = len(task.test)
        self._places = [Place(*place) for place in product(regimes, protocol.students, protocol.attacks)]

    def _references(self, data: QueryData, student: str) -> Choice:
        trial = self._trial(self._controls[data], student)
        return tuple(replace(trial, smoothing=smoothing) for smoothing in self.protocol.smoothings)

    def _placebos(self, place: Place) -> Choice:
        """Empty for an attack that has none, and for an attacker without labels."""
        trial = replace(self._trial(self._controls[place.data], place.student), queries=self.protocol.queries)
        grid = [attack for attack in place.grid if attack.placebo and self._attackers[place.data].labelled]
        settings = self.protocol.placebo_settings(grid)
        return tuple(replace(trial, attack=attack, smoothing=smoothing) for attack, smoothing in settings)

    def _knockoffs(self, place: Place, box: BlackBox) -> Choice:
        trial = replace(self._trial(self._attackers[place.data], place.student), queries=self.protocol.queries)
        return tuple(replace(trial, attack=attack, teacher=box.fingerprint) for attack in place.grid)

    def _trial(self, task: Task, student: str) -> Trial:
        """A trial without a seed or settings, of which the others are made."""
        return Trial(task.fingerprint, student, self.protocol.recipe, seed=-1)

    def _choices(self, cells: Iterable[tuple[Place, BlackBox]]) -> list[Choice]:
        """Lists of settings, of each of which one is chosen, that these cells need; each once."""
        found: dict[Choice, None] = {}
        for place, box in cells:
            lists = (self._references(place.data, place.student), self._placebos(place), self._knockoffs(place, box))
            found |= dict.fromkeys(lists)
        return [choice for choice in found if choice]

    def _cells(self) -> list[tuple[Place, BlackBox]]:
        return list(product(self._places, self.boxes))

    def tuning(self) -> list[Trial]:
        """Every setting on the tuning seeds. A list with one setting leaves nothing to choose."""
        return [
            replace(trial, seed=seed)
            for choice in self._choices(self._cells())
            if len(choice) > 1
            for trial in choice
            for seed in self.protocol.chosen_seeds
        ]

    def judging(self, store: Store) -> list[Trial]:
        """The chosen settings on the judged seeds: all that the next look at undecided cells needs, some of which may
        be stored; empty when every cell is decided or has come to its last look."""
        return self._look(cache(store.read), store)[1]

    def smallest(self) -> list[Trial]:
        """As many trials as are judged if the first look decides all; each choice by its first setting, as the real one
        is not known yet."""
        return self._sketch(self.protocol.all_looks[0])

    def largest(self) -> list[Trial]:
        """The same if every cell gets all of its seeds."""
        return self._sketch(self.protocol.seeds)

    def _sketch(self, count: int) -> list[Trial]:
        return self._seeded([choice[0] for choice in self._choices(self._cells())], count)

    def _seeded(self, trials: Iterable[Trial], count: int) -> list[Trial]:
        return [replace(trial, seed=seed) for trial in trials for seed in self.protocol.judged_seeds[:count]]

    def judged(self, store: Store, reference: BlackBox) -> dict[str, tuple[Cell, ...]]:
        """The cells of every box by fingerprint, when all that they need is stored.

        Args:
            store: with all outcomes.
            reference: the undefended one of the boxes: attacks that do not leak on it are too weak.
        """
        read = cache(store.read)
        counts, missing = self._look(read, store)
        if missing:
            raise ValueError(f"{len(missing)} trials have not been run")
        plain = self._judge(reference, counts, read)
        weak = frozenset(cell.key for cell in plain if cell.outcome is not Outcome.LEAKS)
        return {box.fingerprint: self._judge(box, counts, read, weak) for box in self.boxes}

    def _look(self, read: Read, store: Store) -> tuple[Counts, list[Trial]]:
        """How many seeds each cell has come to, look by look, and what the next look needs; nothing if none is due."""
        counts: Counts = {}
        undecided = self._cells()
        for size in self.protocol.all_looks:
            chosen = [self._choose(choice, read)[0] for choice in self._choices(undecided)]
            trials = self._seeded(chosen, size)
            if not all(trial in store for trial in trials):
                return counts, trials
            counts |= {(place, box.fingerprint): size for place, box in undecided}
            open_places = {
                (place, box.fingerprint)
                for box in self.boxes
                for place, cell in zip(self._places, self._judge(box, counts, read), strict=True)
                if cell.outcome is Outcome.INCONCLUSIVE
            }
            undecided = [(place, box) for place, box in undecided if (place, box.fingerprint) in open_places]
            if not undecided:
                break
        return counts, []

    def _judge(
        self, box: BlackBox, counts: Counts, read: Read, weak: frozenset[tuple[str, str, str]] = frozenset()
    ) -> tuple[Cell, ...]:
        measured = [self._measured(place, box, counts[place, box.fingerprint], read) for place in self._places]
        protocol = self.protocol
        return judge(measured, margin=protocol.margin, alpha=protocol.alpha, weak=weak, looks=protocol.all_looks)

    def _choose(self, choice: Choice, read: Read) -> tuple[Trial, float | None]:
        """The setting with the best mean accuracy on the validation split, the first of equals, and that accuracy; a
        single one is not measured."""
        if len(choice) == 1:
            return choice[0], None

        def validation(trial: Trial) -> float:
            outcomes = [read(replace(trial, seed=seed)) for seed in self.protocol.chosen_seeds]
            return math.fsum(outcome["validation_accuracy"] for outcome in outcomes) / len(outcomes)

        best = max(choice, key=validation)
        return best, validation(best)

    def _measured(self, place: Place, box: BlackBox, count: int, read: Read) -> Measured:
        """The accuracies of a cell over its first ``count`` seeds."""
        ls, _ = self._accuracies(self._references(place.data, place.student), count, read)
        placebos = self._placebos(place)
        placebo, controls = self._accuracies(placebos, count, read) if placebos else (None, [])
        knockoff, outcomes = self._accuracies(self._knockoffs(place, box), count, read)
        flags = Counter(
            whose + name
            for whose, trials in (("", outcomes), ("placebo_", controls))
            for outcome in trials
            for name, note in outcome["notes"].items()
            if note is True or name == "diverged"
        )
        return Measured(
            place.grid[0].name,
            place.student,
            knockoff,
            ls,
            placebo,
            agreement=math.fsum(outcome["agreement"] for outcome in outcomes) / len(outcomes),
            queries=max(outcome["queries"] for outcome in outcomes),
            flags=dict(flags),
            data=str(place.data),
        )

    def _accuracies(self, choice: Choice, count: int, read: Read) -> tuple[Accuracies, list[dict[str, Any]]]:
        trial, tuning = self._choose(choice, read)
        outcomes = [read(seeded) for seeded in self._seeded([trial], count)]
        validation = math.fsum(outcome["validation_accuracy"] for outcome in outcomes) / len(outcomes)
        seeds = tuple(outcome["accuracy"] for outcome in outcomes)
        correct = np.stack([unpack_bits(outcome["correct"], self._images) for outcome in outcomes])
        found = Accuracies(trial.setting, seeds, validation, tuning=tuning, correct=correct, smoothing=trial.smoothing)
        return found, outcomes


def _run_stage(title: str, trials: list[Trial], pool: Workers, store: Store, watcher: Watcher) -> None:
    watcher.stage(title, len(trials), sum(trial in store for trial in trials))
    pool.run(trials, watcher.trial)


def _claim(out: Path, task: Task, protocol: Protocol, boxes: Sequence[BlackBox]) -> None:
    """Refuse a folder that holds another audit, or results that are not of this folder; mark it as this one's."""
    names = [box.name for box in boxes]
    if len(set(names)) < len(names):
        raise InputError(f"teachers {names} share a name; give each folder or callable a name of its own")
    path = out / MARK
    marks = {box.name: box.unlimited.fingerprint for box in boxes}
    attacker = {
        "access": str(protocol.access),
        "data": [data.description() for data in protocol.data],
        "queries": settings_of(protocol.queries),
    }
    alone = names[0] if len(names) == 1 else None  # whose audit.json stands in ``out`` itself
    for result in (audit_path(out, name, alone=len(names) == 1) for name in names):
        own = path.exists() and (result.parent == out or not (result.parent / MARK).exists())
        if result.exists() and not own:
            raise InputError(f"{result} is another audit's result; choose another folder for this one, or move it away")
    if path.exists():
        try:
            held = json.loads(path.read_bytes())
            held_task, held_marks, held_alone = held["task"], dict(held["teachers"]), held["alone"]
            held_attacker = {name: held["attacker"][name] for name in attacker}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged or of an earlier version ({error!r}); choose another folder, or delete this one"
            ) from error
        changed = [name for name, mark in marks.items() if held_marks.get(name, mark) != mark]
        problems = [
            (held_task != task.fingerprint, "another task"),
            (held_attacker != attacker, "another attacker (access, data or queries)"),
            (
                bool(changed),
                f"another teacher, or one of another output defence, named {', '.join(map(repr, changed))}",
            ),
            (alone and held_alone and alone != held_alone, f"the teacher {held_alone!r}"),
        ]
        for wrong, what in problems:
            if wrong:
                raise InputError(f"{out} holds an audit of {what}; choose another folder for this one")
        marks, alone = held_marks | marks, alone or held_alone
    write_json(path, {"task": task.fingerprint, "attacker": attacker, "teachers": marks, "alone": alone})


def _undefended_among(boxes: Sequence[BlackBox], task: Task) -> BlackBox | None:
    """The first teacher that was trained with cross entropy, without its output defences, if it has any."""
    for box in boxes:
        whole = box.undefended
        made = whole.classifier.provenance if isinstance(whole, LocalBlackBox) else {}
        defence = made.get("defence")  # any JSON: a provenance may be the user's own
        plain = isinstance(defence, dict) and defence.get("name") == CrossEntropy.name and "start" not in made
        if plain and made.get("task_fingerprint") == task.fingerprint:
            return whole
    return None


def _train_undefended(boxes: Sequence[BlackBox], task: Task, folder: Path, watcher: Watcher) -> BlackBox:
    """Train a cross-entropy teacher like the first audited one of which architecture and recipe are known."""
    defaults = defaults_for(task.input_shape)
    architecture, recipe = defaults.teacher, defaults.recipe
    for box in boxes:
        whole = box.undefended
        if isinstance(whole, LocalBlackBox):
            architecture = whole.classifier.architecture
            said = whole.classifier.provenance
            start = said.get("start")  # a fine-tuned teacher's own recipe is a short one
            made = start.get("recipe") if isinstance(start, dict) else said.get("recipe")
            if isinstance(made, dict):
                recipe = Recipe(**made | {"milestones": tuple(made["milestones"])})
            break
    classifier = train_teacher(
        task, architecture, CrossEntropy(), recipe, seed=0, folder=folder, progress=watcher.training
    )
    return LocalBlackBox("undefended", classifier)


def _measure(box: BlackBox, task: Task, out: Path, steadiness: Steadiness) -> TeacherFacts:
    return measure_teacher(box, task, serving=_serving(box, task, out), steadiness=steadiness)


def _worth(box: BlackBox, task: Task, out: Path) -> Utility:
    return measure_utility(box, task, box.answers(task.test), serving=_serving(box, task, out))


def _serving(box: BlackBox, task: Task, out: Path) -> ServingTime:
    """Measured once, so that an audit that runs again writes the same ``audit.json``."""
    return kept_serving(out / "serving" / f"{box.fingerprint[:16]}.json", box, task.test)
