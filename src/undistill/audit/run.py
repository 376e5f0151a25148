"""The audit: from teachers and a task to verdicts."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from undistill.attacks import Attack
from undistill.audit.beforehand import check_answers, check_split, check_trainings
from undistill.audit.cluster import RayCluster, RayExecutor
from undistill.audit.execution import Executor, Pool, count_workers
from undistill.audit.judgement import Accuracies, Cell, Measured, Outcome, judge
from undistill.audit.packing import pack
from undistill.audit.places import place_at
from undistill.audit.protocol import Protocol
from undistill.audit.result import Audit, Undefended, head_json
from undistill.audit.store import Store
from undistill.audit.trial import Trial, unpack_bits
from undistill.audit.versions import quick
from undistill.audit.watching import Diary, SilentWatcher, Stage, Watcher
from undistill.blackbox import (
    ANSWER_SPACE,
    CHECKED_IMAGES,
    AnswerCache,
    BlackBox,
    LocalBlackBox,
    Steadiness,
    TeacherLike,
    check_black_box,
    open_black_box,
    probe_of,
)
from undistill.defences.training import CrossEntropy
from undistill.errors import InputError
from undistill.files import write_json
from undistill.settings import settings_of
from undistill.tasks import OtherImages, QueryData, Task, load_task
from undistill.training import Recipe, defaults_for, train_teacher
from undistill.utility import check_other_task, evidence_json, kept_observation

Choice: TypeAlias = tuple[Trial, ...]
"""Settings without a seed, of which one is chosen."""
Read: TypeAlias = Callable[[Trial], dict[str, Any]]
Counts: TypeAlias = "dict[tuple[Place, str], int]"

UNDEFENDED = "undefended"  # the folder, in that of an audit, of the teacher that it trains
MARK = "undistill.json"  # in the folder of an audit: whose it is
USED = "used.json"  # there, too: by teacher, the content hashes of the trials that its result rests on
EVIDENCE = "evidence.json"  # beside audit.json: what pictures need beyond it


def audit(
    teacher: TeacherLike,
    task: str | Task,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    protocol: Protocol | None = None,
    undefended: TeacherLike | None = None,
    workers: int | RayCluster | None = None,
    store: str | Path | None = None,
    answer_space: int = ANSWER_SPACE,
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
        workers: processes of this machine, by default as many as cores; or a Ray cluster, whose machines then run the
            trials. What is found does not depend on it.
        store: folder, or URL of one (``s3://bucket/trials``), of finished trials, which audits can share; by default
            ``out/trials``.
        answer_space: bytes that kept answers of teachers may take; the oldest are asked for again where they do not
            suffice.
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
        store=store,
        answer_space=answer_space,
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
    workers: int | RayCluster | None = None,
    store: str | Path | None = None,
    answer_space: int = ANSWER_SPACE,
    trust_import_path: bool = False,
    watcher: Watcher | None = None,
) -> list[Audit]:
    """Audit several teachers of one task; references and placebos are trained once for all. See :func:`audit`.

    A teacher whose checkpoint says that it was trained on this task with cross entropy serves as the undefended one.
    """
    if not isinstance(workers, RayCluster):
        workers = count_workers(workers)
    outcomes = None if store is None else Store(store)
    watcher = watcher or SilentWatcher()
    task, protocol, boxes, given, steadiness = open_all(
        teachers, task, names=names, protocol=protocol, undefended=undefended, trust_import_path=trust_import_path
    )
    with TemporaryDirectory(prefix="undistill-") if out is None else nullcontext(out) as folder:
        out = Path(folder)
        _claim(out, task, protocol, boxes, store)
        paths = {box.name: audit_path(out, box.name, alone=len(boxes) == 1) for box in boxes}
        diary = Diary(watcher, {paths[box.name]: head_json(task, box, protocol) for box in boxes})
        reference = given
        if reference is None:
            plain_box = undefended_among(boxes, task) or _train_undefended(boxes, task, out / UNDEFENDED, diary)
            reference = open_black_box(
                plain_box, class_names=task.class_names, probe=probe_of(task), access=protocol.access
            )
        known = known_undefended(reference.unlimited, task)
        everyone = list({box.fingerprint: box for box in (*boxes, reference)}.values())

        if outcomes is None:
            outcomes = Store(out / "trials")
        plan = Plan(task, protocol, everyone)
        with open_executor(workers, plan.tasks, everyone, out / "answers", answer_space) as executor:
            _run_stage("choose settings on validation", plan.tuning(), executor, outcomes, diary)
            look = _look(plan, outcomes, diary)
            complete = not look.due
            while look.due:
                _run_stage("judge on test", look.due, executor, outcomes, diary)
                look = _look(plan, outcomes, diary)
            judging = plan.used(look, outcomes)
            if complete:  # says so
                _run_stage("judge on test", judging, executor, outcomes, diary)
        used = sorted({trial.key for trial in (*plan.tuning(), *judging)})
        write_json(out / USED, used_trials(out) | {box.name: used for box in boxes})
        judged = plan.judged(look, outcomes, reference)
        for fingerprint, found_cells in judged.items():
            diary.judged(fingerprint, found_cells)
        other = _foreign_task(protocol, task)
        plain, plain_evidence = kept_observation(out, reference, task, other=other)
        undefended_teacher = Undefended(reference.name, plain.utility, judged[reference.fingerprint], known)
        results = []
        for box in boxes:
            if box.fingerprint == reference.fingerprint:
                found = replace(plain, name=box.name)
                evidence = evidence_json(task.class_names, replace(plain_evidence, name=box.name))
            else:
                found, own = kept_observation(out, box, task, plain_evidence.shown, other=other)
                evidence = evidence_json(task.class_names, own, plain_evidence)
            found = replace(found, steadiness=steadiness[box.fingerprint])
            result = Audit(task, found, undefended_teacher, protocol, judged[box.fingerprint])
            write_json(paths[box.name].with_name(EVIDENCE), evidence, compact=True)
            write_json(paths[box.name], result.to_json())
            results.append(result)
        return results


class Opened(NamedTuple):
    """What an audit begins with.

    Attributes:
        task: the data.
        protocol: what is done.
        boxes: the teachers.
        given: the undefended one, if it is given.
        steadiness: by how much the answers of each differ, by fingerprint.
    """

    task: Task
    protocol: Protocol
    boxes: list[BlackBox]
    given: BlackBox | None
    steadiness: dict[str, Steadiness]


def open_all(
    teachers: Sequence[TeacherLike],
    task: str | Task,
    *,
    names: Sequence[str] | None,
    protocol: Protocol | None,
    undefended: TeacherLike | None,
    trust_import_path: bool,
) -> Opened:
    """What an audit begins with; arguments as of :func:`audit_all`.

    Raises:
        InputError: whatever can be refused before anything is trained.
    """
    task = load_task(task) if isinstance(task, str) else task
    protocol = protocol or quick(task.input_shape)
    probe = probe_of(task)
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
    return Opened(task, protocol, boxes, given, steadiness)


def audit_path(out: Path, name: str, *, alone: bool) -> Path:
    """Where a teacher's ``audit.json`` goes: ``out`` itself when it is audited alone, else a folder of its name."""
    return (out if alone else out / name) / "audit.json"


def used_trials(out: Path) -> dict[str, list[str]]:
    """The content hashes of the trials that the results in an audit's folder rest on, by teacher.

    Raises:
        InputError: the file that says so is damaged.
    """
    path = out / USED
    if not path.exists():
        return {}
    try:
        return {str(name): [str(key) for key in keys] for name, keys in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run the audit again") from error


class Place(NamedTuple):
    """Where a cell stands, beside its teacher: the attack's grid, the student, the images."""

    data: QueryData
    student: str
    grid: tuple[Attack, ...]


class Look(NamedTuple):
    """How far the stored outcomes carry an audit.

    Attributes:
        counts: how many seeds each cell has come to, by its place and its teacher's fingerprint; empty before the first
            look.
        cells: the cells of every box by fingerprint, as they stand with these seeds; empty before the first look. No
            attack counts as too weak yet.
        due: all trials that the next look at undecided cells needs, some of which may be stored; empty when every cell
            is decided or has come to its last look.
    """

    counts: Counts
    cells: dict[str, tuple[Cell, ...]]
    due: list[Trial]


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
        # Outcomes in two precisions may not share a name: that of this machine holds wherever a trial runs.
        self._recipe = protocol.recipe.resolved(task.input_shape)
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
        return Trial(task.fingerprint, student, self._recipe, seed=-1)

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

    def smallest(self, store: Store | None = None) -> list[Trial]:
        """As many trials as are judged if the first look decides all. Each choice is shown by the setting that is
        chosen as far as the store knows it, else by its first."""
        return self._sketch(self.protocol.all_looks[0], store)

    def largest(self, store: Store | None = None) -> list[Trial]:
        """The same if every cell gets all of its seeds."""
        return self._sketch(self.protocol.seeds, store)

    def _sketch(self, count: int, store: Store | None) -> list[Trial]:
        return self._seeded([self._likely(choice, store) for choice in self._choices(self._cells())], count)

    def _likely(self, choice: Choice, store: Store | None) -> Trial:
        tried = [replace(trial, seed=seed) for trial in choice for seed in self.protocol.chosen_seeds]
        known = len(choice) > 1 and store is not None and all(trial in store for trial in tried)
        return self._choose(choice, store.read)[0] if known and store is not None else choice[0]

    def _seeded(self, trials: Iterable[Trial], count: int) -> list[Trial]:
        return [replace(trial, seed=seed) for trial in trials for seed in self.protocol.judged_seeds[:count]]

    def look(self, store: Store) -> Look:
        """Look at the stored outcomes, look by look, as far as they go."""
        read = cache(store.read)
        counts: Counts = {}
        cells: dict[str, tuple[Cell, ...]] = {}
        undecided = self._cells()
        for size in self.protocol.all_looks:
            chosen = [self._choose(choice, read)[0] for choice in self._choices(undecided)]
            trials = self._seeded(chosen, size)
            store.fetch(trials)
            if not all(trial in store for trial in trials):
                return Look(counts, cells, trials)
            counts |= {(place, box.fingerprint): size for place, box in undecided}
            cells = {box.fingerprint: self._judge(box, counts, read) for box in self.boxes}
            open_places = {
                (place, fingerprint)
                for fingerprint, of_box in cells.items()
                for place, cell in zip(self._places, of_box, strict=True)
                if cell.outcome is Outcome.INCONCLUSIVE
            }
            undecided = [(place, box) for place, box in undecided if (place, box.fingerprint) in open_places]
            if not undecided:
                break
        return Look(counts, cells, [])

    def judged(self, look: Look, store: Store, reference: BlackBox) -> dict[str, tuple[Cell, ...]]:
        """The cells of every box by fingerprint, once nothing is due.

        Args:
            look: the last one.
            store: at which it looked.
            reference: the undefended one of the boxes: attacks that do not leak on it are too weak.
        """
        if look.due:
            raise ValueError(f"{len(look.due)} trials are due before anything is judged")
        read = cache(store.read)
        weak = frozenset(cell.key for cell in look.cells[reference.fingerprint] if cell.outcome is not Outcome.LEAKS)
        return {box.fingerprint: self._judge(box, look.counts, read, weak) for box in self.boxes}

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

    def used(self, look: Look, store: Store) -> list[Trial]:
        """The trials on the judged seeds that the cells of a look at the store rest on, each once."""
        read = cache(store.read)
        boxes = {box.fingerprint: box for box in self.boxes}
        trials = (
            trial
            for (place, fingerprint), size in look.counts.items()
            for choice in self._choices([(place, boxes[fingerprint])])
            for trial in self._seeded([self._choose(choice, read)[0]], size)
        )
        return list(dict.fromkeys(trials))

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


def open_executor(
    workers: int | RayCluster | None,
    tasks: Sequence[Task],
    boxes: Sequence[BlackBox],
    answers: Path,
    answer_space: int,
) -> Executor:
    """What runs trials: processes of this machine, or a cluster.

    Args:
        workers: as of :func:`audit`.
        tasks: the data of all trials.
        boxes: the black boxes that knockoffs ask.
        answers: folder of answers; a cluster keeps them in its memory.
        answer_space: bytes that they may take.
    """
    if isinstance(workers, RayCluster):
        return RayExecutor(workers, tasks, boxes, answer_space=answer_space)
    cache = AnswerCache(answers, answer_space, count_workers(workers))
    return Pool(tasks, boxes, cache, workers)


def _foreign_task(protocol: Protocol, task: Task) -> Task | None:
    """The attacker's other task, by whose images confidence is measured; None without one of other classes."""
    for data in protocol.regimes(task):
        if isinstance(data, OtherImages):
            with suppress(InputError):  # images of the task's own classes: an attacker may, but some answer is right
                check_other_task(data.other, task)
                return data.other
    return None


def _look(plan: Plan, store: Store, watcher: Watcher) -> Look:
    """Look at the stored outcomes, and tell the cells of every teacher as far as they are judged."""
    look = plan.look(store)
    for fingerprint, cells in look.cells.items():
        watcher.judged(fingerprint, cells)
    return look


def _run_stage(title: str, trials: list[Trial], executor: Executor, store: Store, watcher: Watcher) -> None:
    """Run the trials that the store lacks, and store each outcome as soon as its trial ends."""
    wanted = {trial.key: trial for trial in trials}
    missing = store.missing(wanted.values(), watcher.note)

    def done(trial: Trial, outcome: dict[str, Any]) -> None:
        store.write(trial, outcome)
        watcher.trial(trial, outcome)

    packs = pack(missing, executor.workers)
    watcher.stage(Stage(title, tuple(wanted.values()), tuple(packs), executor.workers))
    executor.run(packs, done)


def _claim(out: Path, task: Task, protocol: Protocol, boxes: Sequence[BlackBox], store: str | Path | None) -> None:
    """Refuse a folder that holds another audit, or results that are not of this folder; mark it as this one's.

    The mark says where the trials are, as of this call: null for ``out/trials``, which can be moved with ``out``.
    """
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
    place = None if store is None else place_at(store).address
    mark = {"task": task.fingerprint, "attacker": attacker, "teachers": marks, "alone": alone, "store": place}
    write_json(path, mark)


def undefended_among(boxes: Sequence[BlackBox], task: Task) -> BlackBox | None:
    """The first teacher that is known to be undefended, without its output defences, if it has any."""
    return next((box.undefended for box in boxes if known_undefended(box.undefended, task)), None)


def known_undefended(box: BlackBox, task: Task) -> bool:
    """Whether a teacher's checkpoint says that it was trained on ``task`` with cross entropy, and nothing changes its
    answers."""
    made = box.classifier.provenance if isinstance(box, LocalBlackBox) else {}
    defence = made.get("defence")  # any JSON: a provenance may be the user's own
    plain = isinstance(defence, dict) and defence.get("name") == CrossEntropy.name and "start" not in made
    return plain and made.get("task_fingerprint") == task.fingerprint


def undefended_training(boxes: Sequence[BlackBox], task: Task) -> tuple[str, Recipe]:
    """Architecture and recipe of a cross-entropy teacher like the first audited one of which they are known."""
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
    return architecture, recipe


def _train_undefended(boxes: Sequence[BlackBox], task: Task, folder: Path, watcher: Watcher) -> BlackBox:
    architecture, recipe = undefended_training(boxes, task)
    classifier = train_teacher(
        task, architecture, CrossEntropy(), recipe, seed=0, folder=folder, progress=watcher.training
    )
    return LocalBlackBox("undefended", classifier)
