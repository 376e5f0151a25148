"""The audit: from teachers and a task to verdicts."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, runtime_checkable
from typing import Protocol as Interface

from undistill.attacks import Attack
from undistill.audit.beforehand import check_answers, check_split, check_trainings
from undistill.audit.execution import Workers, count_workers
from undistill.audit.judgement import Accuracies, Measured, Outcome, judge
from undistill.audit.protocol import Protocol, battery
from undistill.audit.result import Audit, Undefended
from undistill.audit.store import Store
from undistill.audit.trial import Trial
from undistill.blackbox import (
    CHECKED_IMAGES,
    PROBE_IMAGES,
    AnswerCache,
    BlackBox,
    LocalBlackBox,
    TeacherLike,
    check_black_box,
    open_black_box,
)
from undistill.defences.training import CrossEntropy
from undistill.errors import InputError
from undistill.files import write_json
from undistill.settings import settings_of
from undistill.tasks import Task, load_task
from undistill.training import Progress, Recipe, defaults_for, train_teacher
from undistill.utility import Evidence, ServingTime, TeacherFacts, evidence_json, kept_serving, observe

MARK = "undistill.json"  # in the folder of an audit: whose it is
EVIDENCE = "evidence.json"  # beside audit.json: what pictures need beyond it


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
        protocol: what to do; by default :class:`Protocol` with the default student and recipe of the task's inputs,
            and every attack that can use that student.
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
    defaults = defaults_for(task.input_shape)
    if protocol is None:
        students = (defaults.student,)
        protocol = Protocol(students, defaults.recipe, battery(task, students))
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
    attackers = protocol.data.attackers_task(task)
    check_trainings(attackers, protocol.students, protocol.recipe, every_setting, protocol.queries)
    for box in boxes if given is None else [*boxes, given]:
        check_answers(box, every_setting)
        check_split(box, task)
        check_black_box(box, probe[:CHECKED_IMAGES])
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
        with Workers([plan.attackers, plan.controls], everyone, store, AnswerCache(out / "answers"), workers) as pool:
            _run_stage("choose settings on validation", plan.tuning(), pool, store, watcher)
            _run_stage("judge on test", plan.judging(store), pool, store, watcher)
        too_weak = frozenset(
            (cell.attack, cell.student)
            for cell in judge(plan.measured(reference, store), margin=protocol.margin, alpha=protocol.alpha)
            if cell.outcome is not Outcome.LEAKS
        )
        plain_facts, plain_evidence = _observe(reference, task, out)
        plain = Undefended(reference.name, plain_facts.utility)
        results = []
        for box in boxes:
            if box.fingerprint == reference.fingerprint:
                found = replace(plain_facts, name=box.name)
                evidence = evidence_json(task.class_names, replace(plain_evidence, name=box.name))
            else:
                found, own = _observe(box, task, out, shown=plain_evidence.shown)
                evidence = evidence_json(task.class_names, own, plain_evidence)
            cells = judge(plan.measured(box, store), margin=protocol.margin, alpha=protocol.alpha, weak=too_weak)
            result = Audit(task, found, plain, protocol, cells)
            path = audit_path(out, box.name, alone=len(boxes) == 1)
            write_json(path.with_name(EVIDENCE), evidence, compact=True)
            write_json(path, result.to_json())
            results.append(result)
        return results


def audit_path(out: Path, name: str, *, alone: bool) -> Path:
    """Where a teacher's ``audit.json`` goes: ``out`` itself when it is audited alone, else a folder of its name."""
    return (out if alone else out / name) / "audit.json"


class Plan:
    """The flat lists of trials of an audit, and the way back from their outcomes to cells.

    Args:
        task: the teachers' task.
        protocol: what is done.
        boxes: the teachers, the undefended one among them.

    Attributes:
        attackers: the task with the attacker's images, of which knockoffs ask.
        controls: the task that references and placebos learn.
    """

    def __init__(self, task: Task, protocol: Protocol, boxes: Sequence[BlackBox]) -> None:
        self.protocol, self.boxes = protocol, boxes
        self.attackers, self.controls = protocol.data.attackers_task(task), protocol.data.controls_task(task)

    def _references(self, student: str) -> list[Trial]:
        trial = self._trial(self.controls, student)
        return [replace(trial, smoothing=smoothing) for smoothing in self.protocol.smoothings]

    def _placebos(self, student: str, grid: Sequence[Attack]) -> list[Trial]:
        """Empty for an attack that has none, and for an attacker without labels."""
        trial = replace(self._trial(self.controls, student), queries=self.protocol.queries)
        grid = [attack for attack in grid if attack.placebo and self.attackers.labelled]
        pairs = product(grid, self.protocol.placebo_smoothings)
        return [replace(trial, attack=attack, smoothing=smoothing) for attack, smoothing in pairs]

    def _knockoffs(self, student: str, grid: Sequence[Attack], box: BlackBox) -> list[Trial]:
        trial = replace(self._trial(self.attackers, student), queries=self.protocol.queries)
        return [replace(trial, attack=attack, teacher=box.fingerprint) for attack in grid]

    def _trial(self, task: Task, student: str) -> Trial:
        """A trial without a seed or settings, of which the others are made."""
        return Trial(task.fingerprint, student, self.protocol.recipe, seed=-1)

    def _choices(self, boxes: Sequence[BlackBox]) -> list[list[Trial]]:
        """Lists of settings, of each of which one is chosen."""
        choices = []
        for student in self.protocol.students:
            choices.append(self._references(student))
            for grid in self.protocol.attacks:
                choices.append(self._placebos(student, grid))
                choices.extend(self._knockoffs(student, grid, box) for box in boxes)
        return [choice for choice in choices if choice]

    def tuning(self) -> list[Trial]:
        """Every setting on the tuning seeds. A list with one setting leaves nothing to choose."""
        return [
            replace(trial, seed=seed)
            for choice in self._choices(self.boxes)
            if len(choice) > 1
            for trial in choice
            for seed in self.protocol.chosen_seeds
        ]

    def judging(self, store: Store) -> list[Trial]:
        """The chosen settings on the judged seeds."""
        chosen = [self._choose(choice, store) for choice in self._choices(self.boxes)]
        return [replace(trial, seed=seed) for trial in chosen for seed in self.protocol.judged_seeds]

    def _choose(self, choice: Sequence[Trial], store: Store) -> Trial:
        """The setting with the best mean accuracy on the validation split; the first of equals."""
        if len(choice) == 1:
            return choice[0]

        def validation(trial: Trial) -> float:
            outcomes = [store.read(replace(trial, seed=seed)) for seed in self.protocol.chosen_seeds]
            return math.fsum(outcome["validation_accuracy"] for outcome in outcomes)

        return max(choice, key=validation)

    def measured(self, box: BlackBox, store: Store) -> list[Measured]:
        """The accuracies of every cell of ``box``."""
        cells = []
        for student in self.protocol.students:
            ls, _ = self._accuracies(self._references(student), store)
            for grid in self.protocol.attacks:
                placebos = self._placebos(student, grid)
                placebo = self._accuracies(placebos, store)[0] if placebos else None
                knockoff, outcomes = self._accuracies(self._knockoffs(student, grid, box), store)
                agreement = math.fsum(outcome["agreement"] for outcome in outcomes) / len(outcomes)
                queries = max(outcome["queries"] for outcome in outcomes)
                flags = Counter(
                    name
                    for outcome in outcomes
                    for name, note in outcome["notes"].items()
                    if note is True or name == "diverged"
                )
                cells.append(
                    Measured(grid[0].name, student, knockoff, ls, placebo, agreement, queries, flags=dict(flags))
                )
        return cells

    def _accuracies(self, choice: Sequence[Trial], store: Store) -> tuple[Accuracies, list[dict[str, Any]]]:
        trial = self._choose(choice, store)
        outcomes = [store.read(replace(trial, seed=seed)) for seed in self.protocol.judged_seeds]
        validation = math.fsum(outcome["validation_accuracy"] for outcome in outcomes) / len(outcomes)
        return Accuracies(trial.setting, tuple(outcome["accuracy"] for outcome in outcomes), validation), outcomes


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
        "data": protocol.data.description(),
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


def _observe(box: BlackBox, task: Task, out: Path, shown: Sequence[int] | None = None) -> tuple[TeacherFacts, Evidence]:
    return observe(box, task, shown=shown, serving=_serving(box, task, out))


def _serving(box: BlackBox, task: Task, out: Path) -> ServingTime:
    """Measured once, so that an audit that runs again writes the same ``audit.json``."""
    return kept_serving(out / "serving" / f"{box.fingerprint[:16]}.json", box, task.test)
