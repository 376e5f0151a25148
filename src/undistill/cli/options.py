"""Options that several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from undistill.settings import settings_of
from undistill.tasks import Task, load_task
from undistill.training import Recipe
from undistill.training.recipe import Precision, Schedule

TASK_GROUP = Group("Task", sort_key=10)
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
    split_seed: Whole = 0
    "Seed of the splits and of the subset."

    def load(self) -> Task:
        classes: int | list[str] | None = None
        if self.classes is not None:
            classes = int(self.classes) if self.classes.isdecimal() else self.classes.split(",")
        return load_task(
            self.task,
            classes=classes,
            fraction=self.fraction,
            validation=self.validation,
            seed=self.split_seed,
            image_column=self.image_column,
            label_column=self.label_column,
        )


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
