"""From a name to a task."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from undistill.errors import InputError, unknown_name
from undistill.tasks.arrays import read_npz
from undistill.tasks.digits import read_digits
from undistill.tasks.folders import read_images
from undistill.tasks.mnist1d import read_mnist1d
from undistill.tasks.source import Rows, Source
from undistill.tasks.stratify import stratified
from undistill.tasks.tables import parquet_files, read_hub, read_parquet
from undistill.tasks.task import Split, Task, first_few, label_problems
from undistill.tasks.view import default_augmentation

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1

Reader = Callable[[str | None, str | None], Source]  # takes the names of the image and the label column, if given


@dataclass(frozen=True)
class TaskInfo:
    """A task that has a name of its own.

    Args:
        description: One line, for lists.
        read: Takes the names of the image column and the label column (or None) and gives the data.
    """

    description: str
    read: Reader


def _without_columns(name: str, read: Callable[[], Source]) -> Reader:
    def reader(image_column: str | None, label_column: str | None) -> Source:
        if image_column is not None or label_column is not None:
            raise InputError(
                f"the task {name!r} has no columns to choose from; leave image_column and label_column out"
            )
        return read()

    return reader


def _on_hub(name: str, label: str) -> Reader:
    return lambda image_column, label_column: read_hub(name, image_column, label_column or label)


TASKS: dict[str, TaskInfo] = {
    "digits": TaskInfo(
        "handwritten digits, 8x8 gray, 10 classes, 500 / 297 / 1,000 images; comes with the package",
        _without_columns("digits", read_digits),
    ),
    "mnist1d": TaskInfo(
        "MNIST-1D, signals of 40 points, 10 classes, 4,000 / 1,000 / 1,000 signals; made on the spot",
        _without_columns("mnist1d", read_mnist1d),
    ),
    "cifar10": TaskInfo(
        "CIFAR-10, 32x32 colour, 10 classes, 45,000 / 5,000 / 10,000 images; from the hub (uoft-cs/cifar10)",
        _on_hub("uoft-cs/cifar10", "label"),
    ),
    "cifar100": TaskInfo(
        "CIFAR-100, 32x32 colour, 100 fine classes, 45,000 / 5,000 / 10,000 images; from the hub (uoft-cs/cifar100)",
        _on_hub("uoft-cs/cifar100", "fine_label"),
    ),
}


def load_task(
    name: str,
    *,
    classes: int | Sequence[str | int] | None = None,
    fraction: float = 1.0,
    validation: float | None = None,
    fresh: float = 0.0,
    seed: int = 0,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Task:
    """Load a data set, split it, and hold it in memory.

    What ``name`` means is decided in this order:

    1. a name in :data:`TASKS`: ``digits``, ``mnist1d``, ``cifar10``, ``cifar100``;
    2. ``hub:<name>``: a data set of the Hugging Face hub;
    3. an existing folder with parquet files (itself or in its subfolder ``data``) named train*, test*, validation*;
    4. an existing folder of images: ``<class>/<image>``, or ``train/<class>/<image>`` and so on;
    5. an existing ``.npz`` file with the arrays ``images`` and ``labels``, or ``train_images`` and so on;
    6. ``<owner>/<name>``: a data set of the hub.

    Parts are called train, test, and validation, valid or val. Without a test part, a validation part serves as test;
    without both, 20% of the training part are split off for test. Without a validation part (left), 10% of the training
    part are split off for validation. On the hub, a test or validation part without labels counts as absent. From what
    is left for training, fresh images are reserved on request. All choices keep the shares of the classes, and depend
    on the data and ``seed`` alone. Then classes are selected, and last the fraction of the training data; so a task
    with fewer classes or training images is a part of the whole one, with the same images in test.

    The image column and the label column of a table are found by their types, if there is only one of each. Label
    columns are those with class names; without any, an only column of integers is taken.

    Args:
        name: Which data set.
        classes: An int N for the first N classes in class order, or the names or places of the classes to keep. Labels
            are renumbered in the given order.
        fraction: How much of the training data to keep, in (0, 1].
        validation: The share of the training part to split off for validation, in (0, 1).
        fresh: The share of the training images to reserve as :attr:`Task.fresh`, in [0, 1): images of the same task
            that no teacher sees, for an attacker. 0 reserves none.
        seed: Fixes every choice.
        image_column: The column of the images, for parquet files and the hub.
        label_column: The column of the labels, for parquet files and the hub.

    Returns:
        The task, with the augmentation that :func:`default_augmentation` gives for its images.

    Raises:
        InputError: there is no such data set, it cannot be read, an argument does not fit it, or too little of it is
            left: one sentence says what and why.
        MissingExtraError: the packages for images or tables are not installed.

    Example:
        >>> task = load_task("digits", classes=["3", "8"], fraction=0.5)
        >>> task.class_names, task.input_shape
        (('3', '8'), (1, 8, 8))
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}, but must be above 0 and at most 1")
    if validation is not None and not 0 < validation < 1:
        raise InputError(f"validation is {validation}, but must be a share between 0 and 1")
    if not 0 <= fresh < 1:
        raise InputError(f"fresh is {fresh}, but must be a share of at least 0 and below 1")
    title, read = _find(name)
    source = read(image_column, label_column)
    wrong = [
        problem
        for part, rows in source.parts.items()
        for problem in label_problems(part, torch.from_numpy(source.labels[rows]), len(source.class_names))
    ]
    if wrong:
        raise InputError(f"the data set {name!r} cannot be used: " + "; ".join(wrong))

    parts = _split(name, source, validation, fresh, seed)
    kept = _select_classes(classes, source.class_names)
    new_labels = np.full(len(source.class_names), -1)
    new_labels[kept] = np.arange(len(kept))
    labels = new_labels[source.labels]
    parts = {part: rows[labels[rows] >= 0] for part, rows in parts.items()}
    if fraction < 1:
        train = parts["train"]
        parts["train"] = train[stratified(labels[train], round(fraction * len(train)), seed=seed, purpose="fraction")]

    images = torch.from_numpy(source.read(np.concatenate(list(parts.values())))).movedim(-1, 1)
    pieces = images.split([len(rows) for rows in parts.values()])
    splits = {
        part: Split(piece, torch.from_numpy(labels[rows]))
        for (part, rows), piece in zip(parts.items(), pieces, strict=True)
    }
    return Task(
        name=title,
        class_names=tuple(source.class_names[place] for place in kept),
        **splits,  # type: ignore[arg-type]  # train, validation, test, and fresh if there is any
        augmentation=default_augmentation(tuple(images.shape[1:])),
        source={
            "name": name,
            "classes": list(classes) if isinstance(classes, Sequence) else classes,
            "fraction": fraction,
            "validation": validation,
            "seed": seed,
            "image_column": image_column,
            "label_column": label_column,
        }
        | ({"fresh": fresh} if fresh else {}),  # what is made of it does not change where there is none
    )


def _find(name: str) -> tuple[str, Reader]:
    """A short title for the data set called ``name``, and what reads it."""
    path = Path(name).expanduser()
    if name in TASKS:
        return name, TASKS[name].read
    if name.startswith("hub:"):
        return name.removeprefix("hub:"), partial(read_hub, name.removeprefix("hub:"))
    if path.is_dir() and parquet_files(path):
        return path.resolve().name, partial(read_parquet, path)
    if path.is_dir():
        return path.resolve().name, _without_columns(name, partial(read_images, path))
    if path.is_file() and path.suffix == ".npz":
        return path.stem, _without_columns(name, partial(read_npz, path))
    if path.exists():
        raise InputError(
            f"{name!r} is neither a folder nor an .npz file; give the folder of the parquet or image files"
        )
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) and path.suffix not in (".npz", ".parquet"):
        return name, partial(read_hub, name)
    if path.name != name or path.suffix in (".npz", ".parquet"):
        raise InputError(f"there is no file or folder {name!r}; check the path")
    raise unknown_name("task", name, TASKS)


def _split(name: str, source: Source, validation: float | None, fresh: float, seed: int) -> dict[str, Rows]:
    """The rows of train, validation, test and fresh, splitting off from train what the source does not have."""
    parts = dict(source.parts)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    if "validation" in parts and validation is not None:
        raise InputError(f"the data set {name!r} has a validation part of its own; leave validation out")

    def split_off(part: str, size: int) -> None:
        train = parts["train"]
        chosen = stratified(source.labels[train], size, seed=seed, purpose=part)
        parts[part], parts["train"] = train[chosen], np.delete(train, chosen)

    if "test" not in parts:
        split_off("test", source.test_size or round(TEST_SHARE * len(parts["train"])))
    if "validation" not in parts:
        share = VALIDATION_SHARE if validation is None else validation
        size = source.validation_size if validation is None else None
        split_off("validation", size or round(share * len(parts["train"])))
    if fresh > 0:
        split_off("fresh", round(fresh * len(parts["train"])))
    return parts


def _select_classes(classes: int | Sequence[str | int] | None, names: tuple[str, ...]) -> list[int]:
    """The places of the classes to keep, in the order of their new labels."""
    if classes is None:
        return list(range(len(names)))
    if isinstance(classes, int):
        if not 2 <= classes <= len(names):
            raise InputError(f"classes is {classes}, but must be 2 to {len(names)}, the number of classes")
        return list(range(classes))
    places: list[int] = []
    for wanted in classes:
        if isinstance(wanted, str):
            if wanted not in names:
                raise unknown_name("class", wanted, names)
            places.append(names.index(wanted))
        elif 0 <= wanted < len(names):
            places.append(wanted)
        else:
            raise InputError(f"there is no class {wanted}; classes are numbered 0 to {len(names) - 1}")
    twice = [names[place] for place in dict.fromkeys(places) if places.count(place) > 1]
    if twice or len(places) < 2:
        what = f"names {first_few(twice)} more than once" if twice else f"names {len(places)} class"
        raise InputError(f"classes {what}; give at least 2 different ones")
    return places
