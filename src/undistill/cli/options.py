"""Options that several commands share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token

from undistill.audit import RayCluster
from undistill.blackbox import (
    ANSWER_SPACE,
    Access,
    Queries,
    TeacherLike,
    defend,
    is_defended,
    is_url,
    open_black_box,
    parse_access,
    probe_of,
)
from undistill.blackbox.queries import QueryMode
from undistill.cli.methods import parse_data, parse_method
from undistill.defences.output import OUTPUT_DEFENCES
from undistill.errors import InputError
from undistill.settings import settings_of
from undistill.tasks import TRAINING_IMAGES, QueryData, Task, load_task
from undistill.training import Recipe
from undistill.training.recipe import Precision, Schedule

TASK_GROUP = Group("Task", sort_key=10)
ATTACKER_GROUP = Group("Attacker", sort_key=15)
DEFENCES_GROUP = Group("Output defences", sort_key=12)
OTHER_GROUP = Group("Another task", sort_key=13)
RUNNING_GROUP = Group("Running", sort_key=18)
RECIPE_GROUP = Group("Training (defaults depend on the task's inputs)", sort_key=20)


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """Cyclopts by itself would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


Whole = Annotated[int, Parameter(converter=_whole)]


@Parameter(name="*", group=TASK_GROUP)
@dataclass(frozen=True)
class TaskOptions:
    """Data and how they are split."""

    task: Annotated[str, Parameter(name=["--task", "-t"])]
    "A name (see: undistill list tasks), a folder of images or parquet files, an .npz file, or OWNER/NAME on the hub."
    classes: str | None = None
    "Class subset: a number N for the first N, or names separated by commas."
    fraction: float = 1.0
    "Stratified share of the training images to keep."
    validation: float | None = None
    "Share of the training images to hold out for validation, where the data bring no such split (default 0.1)."
    image_column: str | None = None
    "Column of the images; found by its type when not named."
    label_column: str | None = None
    "Column of the labels; found by its type when not named."
    fresh: float = 0.0
    "Stratified share of the training images to keep from every teacher, for attackers with --data fresh."
    split_seed: Whole = 0
    "Seed of the splits and of the subset."

    def load(self) -> Task:
        return load_task(
            self.task,
            classes=_classes(self.classes),
            fraction=self.fraction,
            validation=self.validation,
            fresh=self.fresh,
            seed=self.split_seed,
            image_column=self.image_column,
            label_column=self.label_column,
        )


def _classes(text: str | None) -> int | list[str] | None:
    if text is None:
        return None
    return int(text) if text.isdecimal() else text.split(",")


@Parameter(name="*", group=DEFENCES_GROUP)
@dataclass(frozen=True)
class OutputDefenceOptions:
    """What is done to a teacher's answers before they are served."""

    output_defence: list[str] | None = None
    "NAME or NAME:FIELD=VALUE,... (see: undistill list defences); repeat for a stack, applied in this order."
    surrogate: str | None = None
    "Checkpoint that stands for the attacker's student, for the defences that can make use of one."

    def around(self, teacher: TeacherLike, task: Task, *, trust_import_path: bool) -> TeacherLike:
        """The teacher behind the defences; without any, one that may limit its answers by itself is opened, all others
        are as they are."""
        texts = self.output_defence or []
        if not texts:
            if self.surrogate is not None:
                raise InputError("--surrogate is for an output defence; add --output-defence NAME, or leave it out")
            if isinstance(teacher, str) and (is_url(teacher) or is_defended(teacher)):
                return open_black_box(
                    teacher,
                    class_names=task.class_names,
                    probe=probe_of(task),
                    trust_import_path=trust_import_path,
                )
            return teacher
        defences = [parse_method("output defence", OUTPUT_DEFENCES, text) for text in texts]
        return defend(teacher, defences, task, surrogate=self.surrogate, trust_import_path=trust_import_path)


@Parameter(name="*", group=OTHER_GROUP)
@dataclass(frozen=True)
class OtherTaskOptions:
    """Another task, whose images are of no class of this one."""

    other_task: str | None = None
    "Another task, named as with --task, whose images are asked about (by an attacker: with --data other)."
    other_classes: str | None = None
    "Class subset of the other task."
    other_fraction: float = 1.0
    "Stratified share of the other task's training images."
    other_image_column: str | None = None
    "Column of the other task's images."
    other_label_column: str | None = None
    "Column of the other task's labels, by which its parts are drawn."

    def load_other(self) -> Task | None:
        if self.other_task is None:
            return None
        return load_task(
            self.other_task,
            classes=_classes(self.other_classes),
            fraction=self.other_fraction,
            image_column=self.other_image_column,
            label_column=self.other_label_column,
        )


@Parameter(name="*", group=ATTACKER_GROUP)
@dataclass(frozen=True)
class AttackerOptions(OtherTaskOptions):
    """What the attacker sees, has, and asks."""

    access: str = "full"
    "What the teacher lets through: full, decimals:D, top-k:K (renormalised), top-k-raw:K (as they are), or label."
    data: list[str] | None = None
    "Images to ask about: train, train:SHARE, fresh (see --fresh), other (see --other-task), or none. An audit takes \
several, with cells for each; by default those of its protocol. An attack takes one, by default train."
    query_mode: QueryMode = "fresh-views"
    "Ask about a new view of every image in every epoch, about --views views of each, or about clean images once."
    views: Whole = 8
    "Views of each image, for cached-views."
    budget: Whole | None = None
    "Largest number of images to ask about; every view counts."

    def policy(self) -> Access:
        return parse_access(self.access)

    def images(self, default: tuple[QueryData, ...] = (TRAINING_IMAGES,)) -> tuple[QueryData, ...]:
        """What ``--data`` names, or the default."""
        named = self.data or []
        if self.other_task is not None and "other" not in named:
            said = ", ".join(named or map(str, default))
            raise InputError(f"--other-task is for --data other, not for --data {said}; leave one of them out")
        return tuple(parse_data(text, self._needed_other) for text in named) or default

    def queries(self) -> Queries:
        return Queries(self.query_mode, self.views, self.budget)

    def _needed_other(self) -> Task:
        other = self.load_other()
        if other is None:
            raise InputError("--data other needs the other task; add --other-task NAME")
        return other


@Parameter(name="*", group=RECIPE_GROUP)
@dataclass(frozen=True)
class RecipeOptions:
    """SGD with Nesterov momentum, and everything that shapes it."""

    epochs: Whole | None = None
    "Passes over the training images."
    batch_size: Whole | None = None
    "Images per step, over all processes."
    learning_rate: float | None = None
    "The schedule's highest learning rate."
    momentum: float | None = None
    "Nesterov momentum."
    weight_decay: float | None = None
    "L2 penalty."
    schedule: Schedule | None = None
    "Learning rate over time."
    warmup: float | None = None
    "Share of the steps in which one-cycle rises."
    milestones: tuple[float, ...] | None = None
    "Shares of the training at which 'step' decays."
    decay: float | None = None
    "Factor of 'step'."
    clip_norm: float | None = None
    "Largest norm of the gradient; 0 turns clipping off."
    precision: Precision | None = None
    "Precision of the network; auto takes bfloat16 where it pays."

    def over(self, recipe: Recipe) -> Recipe:
        """``recipe`` with the options that were given."""
        given = {name: value for name, value in settings_of(self).items() if value is not None}
        return Recipe(**settings_of(recipe) | given)


@Parameter(name="*", group=RUNNING_GROUP)
@dataclass(frozen=True)
class RunningOptions:
    """Where trials run, and where their outcomes and the teachers' answers are kept."""

    executor: Literal["pool", "ray"] = "pool"
    "Processes of this machine, or a Ray cluster (extra `ray`). What is found does not depend on it."
    workers: Whole | None = None
    "Processes of the pool; by default as many as cores."
    address: str | None = None
    "Of the Ray cluster, as `ray start` says it, or `auto`. By default one is started on this machine."
    cpus_per_trial: float | None = None
    "CPUs of the Ray cluster that a trial takes, or a fraction of one (default 1)."
    gpus_per_trial: float | None = None
    "GPUs likewise (default 0); 0.25 lets four trials share one."
    store: str | None = None
    "Folder, or URL of one (s3://bucket/trials), of finished trials, which audits can share; by default OUT/trials."
    answers_gb: float = ANSWER_SPACE / 2**30
    "Largest size of the kept answers of teachers in gigabytes; what was not used for longest is asked for again."

    def where(self) -> int | RayCluster | None:
        """Where trials run."""
        of_ray = {
            "address": self.address,
            "cpus_per_trial": self.cpus_per_trial,
            "gpus_per_trial": self.gpus_per_trial,
        }
        given = {name: value for name, value in of_ray.items() if value is not None}
        if self.executor == "ray":
            if self.workers is not None:
                raise InputError(
                    f"--workers {self.workers} is for the pool of this machine; on a Ray cluster as many trials run as "
                    "it has room for, see --cpus-per-trial"
                )
            return RayCluster(**given)  # type: ignore[arg-type]
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{names}: only for a Ray cluster; add --executor ray, or leave it out")
        return self.workers

    def answer_space(self) -> int:
        """Bytes of kept answers."""
        if not 0 < self.answers_gb < math.inf:
            raise InputError(f"--answers-gb is {self.answers_gb}, must be above 0")
        return int(self.answers_gb * 2**30)
