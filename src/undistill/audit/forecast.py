"""What an audit would take, before anything is trained."""

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.attacks import Attack
from undistill.audit.cluster import RayCluster
from undistill.audit.execution import count_workers, one_thread
from undistill.audit.packing import pack
from undistill.audit.protocol import Protocol
from undistill.audit.run import UNDEFENDED, Plan, open_all, undefended_among, undefended_training
from undistill.audit.store import Store
from undistill.audit.trial import Trial, run_pack
from undistill.blackbox import (
    ANSWER_SPACE,
    BlackBox,
    LocalBlackBox,
    Page,
    QueryPlan,
    SharedAnswers,
    TeacherLike,
)
from undistill.blackbox.box import QUERY_BATCH
from undistill.errors import InputError
from undistill.models import load_checkpoint
from undistill.tasks import Split, Task
from undistill.training import Recipe

CALIBRATION_SECONDS = 1.0  # of each measurement, after a first time that is not counted
REPETITIONS = 5  # at most
CALIBRATION_STEPS = 8  # of a training, or as many as an epoch has


@dataclass(frozen=True)
class Range:
    """What is known of a number beforehand.

    Attributes:
        smallest: if the first look decides every cell.
        largest: if every cell gets all of its seeds.
    """

    smallest: int | float
    largest: int | float


@dataclass(frozen=True)
class Forecast:
    """What an audit would take; made by :func:`forecast_audit`.

    Attributes:
        trials: how many, by role (``"reference"``, ``"placebo"``, ``"knockoff"``), stored ones among them.
        stored: how many of these are known to be stored.
        queries: images that teachers are asked about; an answer that is used again counts once.
        seconds: wall-clock time of what is not stored yet; on a cluster, if its trials ran one at a time.
        outcome_bytes: disk that outcomes take.
        answer_bytes: disk that teachers' answers take; no more than is allowed.
        workers: how many packs of trials run at the same time; 1 for a cluster, for how many it runs is not known.
        cluster: whether trials run on a cluster.
        undefended_epochs: of the undefended teacher, if one has yet to be trained; else 0.
        step_seconds: measured: one step of one student on labels, by architecture.
        answer_seconds: measured: 1,000 answers, by teacher.
    """

    trials: Mapping[str, Range]
    stored: int
    queries: Range
    seconds: Range
    outcome_bytes: Range
    answer_bytes: Range
    workers: int
    cluster: bool
    undefended_epochs: int
    step_seconds: Mapping[str, float]
    answer_seconds: Mapping[str, float]


class _Untrained(BlackBox):
    """Stands for the undefended teacher that the audit would train; it is counted, and never asked."""

    name, fingerprint = UNDEFENDED, "of a teacher that is not trained yet"

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        raise InputError("the undefended teacher is not trained yet")


def forecast_audit(
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
) -> Forecast:
    """Count what :func:`undistill.audit.audit_all` would do with the same arguments, and estimate how long it takes.

    Nothing is trained and nothing is written. Seconds are measured: some steps of each student, the loss of each
    attack, a batch of answers of each teacher. Networks that an attack trains for itself beside the student are not in
    the estimate, nor is what else may run on the machine later.

    Raises:
        InputError: as the audit would.
    """
    task, protocol, boxes, given, _ = open_all(
        teachers, task, names=names, protocol=protocol, undefended=undefended, trust_import_path=trust_import_path
    )
    found = given or undefended_among(boxes, task) or _trained(out)
    reference = found or _Untrained()
    everyone = list({box.fingerprint: box for box in (*boxes, reference)}.values())
    plan = Plan(task, protocol, everyone)
    held = None if store is None and out is None else Store(store or Path(out or "") / "trials")
    tuning = plan.tuning()
    ends = [list(dict.fromkeys([*tuning, *judged])) for judged in (plan.smallest(held), plan.largest(held))]
    count = count_workers(workers) if not isinstance(workers, RayCluster) else 1
    with one_thread():
        clock = _Clock({each.fingerprint: each for each in plan.tasks})
        answering = {box.name: _seconds_per_answer(box, task) for box in everyone if box is not reference or found}
        sums = [_sum(trials, clock, count) for trials in ends]
        epochs, training = 0, 0.0
        if found is None:
            architecture, recipe = undefended_training(boxes, task)
            epochs = recipe.epochs
            training = epochs * recipe.steps_per_epoch(len(task.train)) * clock.step(task, architecture, recipe, 1)
    stored = 0 if held is None else held.count(ends[1])
    left = [max(0, len(trials) - stored) / len(trials) for trials in ends]
    per_answer = max(answering.values(), default=0.0)
    seconds = [
        training + share * (each.seconds + per_answer * each.queries) / count
        for share, each in zip(left, sums, strict=True)
    ]
    return Forecast(
        trials={role: Range(*(each.roles[role] for each in sums)) for role in ("reference", "placebo", "knockoff")},
        stored=stored,
        queries=Range(*(each.queries for each in sums)),
        seconds=Range(*seconds),
        outcome_bytes=Range(*(each.outcome_bytes for each in sums)),
        answer_bytes=Range(*(min(answer_space, 4 * task.num_classes * each.pages_rows) for each in sums)),
        workers=count,
        cluster=isinstance(workers, RayCluster),
        undefended_epochs=epochs,
        step_seconds=dict(clock.of_references),
        answer_seconds={name: 1000 * each for name, each in answering.items()},
    )


def _trained(out: str | Path | None) -> BlackBox | None:
    """The undefended teacher that an earlier call has trained."""
    folder = None if out is None else Path(out) / UNDEFENDED
    if folder is None or not folder.is_dir():
        return None
    return LocalBlackBox(UNDEFENDED, load_checkpoint(folder, trust_import_path=True))  # as the audit trained it


@dataclass(frozen=True)
class _Sum:
    """What a list of trials takes in all."""

    roles: Counter
    seconds: float
    queries: int
    pages_rows: int
    outcome_bytes: int


def _sum(trials: Sequence[Trial], clock: "_Clock", workers: int) -> _Sum:
    sizes = {trial: len(group) for group in pack(trials, workers) for trial in group}
    seconds = math.fsum(clock.trial(trial, size) for trial, size in sizes.items())
    outcome_bytes = sum(_outcome_bytes(trial, clock.tasks[trial.task]) for trial in trials)
    # Pages are shared by the attacks and students of a teacher and a seed; the longest training needs the most.
    passes: dict[tuple[str | None, str, str, int, int], int] = {}
    own = 0
    for trial in trials:
        if trial.role != "knockoff" or trial.attack is None:
            continue
        images = len(clock.tasks[trial.task].train)
        plan = clock.queries(trial)
        own += trial.attack.own_queries
        if not trial.attack.needs_images:
            continue
        for kind in ("clean",) if plan.clean else ("usual", "strong")[: trial.attack.views]:
            key = trial.teacher, trial.task, kind, 0 if plan.clean else trial.seed, min(images, plan.images)
            passes[key] = max(passes.get(key, 0), plan.passes)
    rows = sum(count * key[-1] for key, count in passes.items())
    teachers = {trial.teacher: clock.tasks[trial.task] for trial in trials if trial.teacher is not None}
    tested = sum(len(task.test) for task in teachers.values())
    return _Sum(Counter(trial.role for trial in trials), seconds, rows + own + tested, rows + tested, outcome_bytes)


def _outcome_bytes(trial: Trial, task: Task) -> int:
    """About what a file takes: the trial, two numbers for each epoch, one digit in six bits for each test image."""
    return 2500 + 50 * trial.recipe.epochs + len(task.test) // 6


class _Clock:
    """Measures what a step takes, each kind once.

    Args:
        tasks: the data of all trials, by fingerprint.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = tasks
        self.of_references: dict[str, float] = {}
        self._steps: dict[tuple[str, str, Recipe, int], float] = {}
        self._losses: dict[tuple[type[Attack], int, int], float] = {}

    def queries(self, trial: Trial) -> QueryPlan:
        """How a trial asks."""
        views = 1 if trial.attack is None else trial.attack.views
        images, recipe = len(self.tasks[trial.task].train), trial.recipe
        return trial.queries.plan(images=images, epochs=recipe.epochs, views=views, batch_size=recipe.batch_size)

    def trial(self, trial: Trial, size: int) -> float:
        """Seconds of a trial in a pack of so many, without those of the teacher."""
        task, recipe = self.tasks[trial.task], trial.recipe
        step = self.step(task, trial.student, recipe, size)
        images = len(task.train)
        evaluating = (len(task.test) + len(task.validation)) / recipe.batch_size * step / 3  # forwards only
        if trial.attack is None:
            return recipe.epochs * recipe.steps_per_epoch(images) * step + evaluating
        if trial.role == "knockoff":
            images = min(images, self.queries(trial).images)
        step = trial.attack.views * step + self._loss(trial.attack, recipe.batch_size, task.num_classes)
        return trial.attack.trainings * recipe.epochs * recipe.steps_per_epoch(images) * step + evaluating

    def step(self, task: Task, student: str, recipe: Recipe, size: int) -> float:
        """Seconds of one step of one student on labels, as one of a pack of so many."""
        key = task.fingerprint, student, recipe, size
        if key not in self._steps:
            steps = min(CALIBRATION_STEPS, recipe.steps_per_epoch(len(task.train)))
            images = min(len(task.train), max(steps * recipe.batch_size, task.num_classes))
            few = Split(task.validation.images[:1], task.validation.labels[:1])
            part = replace(task.with_fewer_images(images, 0), validation=few, test=few)
            trial = Trial(part.fingerprint, student, replace(recipe, epochs=1), seed=0, smoothing=0.0)
            trials = [replace(trial, seed=seed) for seed in range(size)]
            seconds = _measured(partial(run_pack, trials, {part.fingerprint: part}, {}, _NoAnswers()))
            self._steps[key] = seconds / steps / size
            self.of_references[student] = self._steps[key]
        return self._steps[key]

    def _loss(self, attack: Attack, batch: int, classes: int) -> float:
        """Seconds of an attack's loss and its gradient for one batch."""
        key = type(attack), batch, classes
        if key not in self._losses:
            generator = torch.Generator().manual_seed(0)
            logits = torch.randn(attack.blocks * batch, classes, generator=generator).requires_grad_()
            answers = torch.randn(attack.views * batch, classes, generator=generator).log_softmax(1)
            labels = torch.arange(batch) % classes
            self._losses[key] = _measured(lambda: attack.loss(logits, answers, labels).mean().backward(), seconds=0.05)
        return self._losses[key]


class _NoAnswers(SharedAnswers):
    """For trials that ask nobody."""

    def get(self, box: BlackBox, task: Task, page: Page) -> Float[Tensor, "n classes"]:
        raise InputError("a reference asks no teacher")


def _seconds_per_answer(box: BlackBox, task: Task) -> float:
    images = task.validation.images[:QUERY_BATCH].float().div_(255)
    return _measured(lambda: box.log_probs(images)) / len(images)


def _measured(action: Callable[[], object], seconds: float = CALIBRATION_SECONDS) -> float:
    """The median of repetitions within about so many seconds, after a first one that warms up."""
    action()
    times: list[float] = []
    while not times or (math.fsum(times) < seconds and len(times) < REPETITIONS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
