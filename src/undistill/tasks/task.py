"""A data set that is split, prepared and held in memory."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from undistill.errors import InputError
from undistill.files import content_hash
from undistill.tasks.mixed import MixedView
from undistill.tasks.stratify import stratified
from undistill.tasks.strong import StrongView
from undistill.tasks.view import Augmentation, View, pad_images

SHOWN = 5  # how many of several wrong things a message names before it only counts them


def first_few(items: list[str]) -> str:
    """The first of several wrong things, and how many there are when not all are named.

    >>> first_few(["a", "b"])
    'a, b'
    >>> first_few(["1", "2", "3", "4", "5", "6"])
    '1, 2, 3, 4, 5, ... (6 in all)'
    """
    return ", ".join(items) if len(items) <= SHOWN else f"{', '.join(items[:SHOWN])}, ... ({len(items)} in all)"


def label_problems(place: str, labels: Int64[Tensor, " n"], num_classes: int) -> list[str]:
    """What is wrong with labels that should lie in 0..num_classes-1: nothing, or one phrase that names the values.

    >>> label_problems("train", torch.tensor([0, 1, 7, 7]), 2)
    ['2 train labels are outside 0..1 (values: 7)']
    """
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if not len(wrong):
        return []
    values = first_few([str(value) for value in wrong.unique().tolist()])
    return [f"{len(wrong)} {place} labels are outside 0..{num_classes - 1} (values: {values})"]


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images, held in memory.

    Args:
        images: uint8, shape (n, channels, height, width), or (n, channels, length) for 1-D signals. Images are kept in
            channels_last memory whatever the memory format they come in.
        labels: int64, shape (n,): places in the task's ``class_names``.

    Raises:
        InputError: the images are not uint8 of 3 or 4 dimensions, the labels are not int64 of 1 dimension, or there
            are not as many labels as images.

    Example:
        >>> split = Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
        >>> len(split)
        4
    """

    images: UInt8[Tensor, "n *shape"]
    labels: Int64[Tensor, " n"]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        problems = []
        if images.dtype != torch.uint8 or images.ndim not in (3, 4):
            problems.append(
                f"images are {images.dtype} of shape {tuple(images.shape)}, but must be torch.uint8 of shape "
                "(n, channels, height, width) or (n, channels, length)"
            )
        if labels.dtype != torch.int64 or labels.ndim != 1:
            problems.append(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, but must be torch.int64 of shape (n,)"
            )
        if not problems and len(images) != len(labels):
            problems.append(f"there are {len(images)} images but {len(labels)} labels")
        if problems:
            raise InputError("a split cannot be made: " + "; ".join(problems))
        if images.ndim == 4:
            object.__setattr__(self, "images", images.contiguous(memory_format=torch.channels_last))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Task:
    """A data set split into train, validation and test, with everything that training and judging need to know of it.

    Choices are made on ``validation``, never on ``test``. A task pickles, so it can be sent to worker processes.

    Args:
        name: A short name, for reports.
        class_names: The name of each class, in the order of the labels.
        train: What teachers and students are trained on.
        validation: What every choice (of a hyper-parameter, of an epoch) is made on.
        test: What is reported, and nothing else.
        augmentation: How training images are varied.
        source: The arguments of :func:`load_task` that made the task, as JSON values; empty for a task made by hand.
        labelled: Whether the labels of the training images mean anything. They do not for another task's images.
        fresh: Labelled images that no teacher is trained on, for attackers who have images of their own; None if none
            are reserved.

    Raises:
        InputError: there are fewer than two classes or two with one name, a split is empty, the splits hold images of
            different shapes, a label is outside 0..C-1, a class has fewer than two training images, or the augmentation
            does not fit the images.

    Example:
        >>> def split(n):
        ...     return Split(torch.zeros(n, 1, 8, 8, dtype=torch.uint8), torch.arange(n) % 2)
        >>> task = Task("blank", ("even", "odd"), split(6), split(2), split(4))
        >>> task.num_classes, task.input_shape, len(task.train)
        (2, (1, 8, 8), 6)
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation = Augmentation()
    source: dict[str, Any] = field(default_factory=dict)
    labelled: bool = True
    fresh: Split | None = None

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise InputError(f"the task {self.name!r} cannot be used: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        problems = []
        if self.num_classes < 2:
            problems.append(f"it has {self.num_classes} class, but a classifier needs at least 2")
        twice = [name for name in dict.fromkeys(self.class_names) if self.class_names.count(name) > 1]
        if twice:
            problems.append(f"several classes have the same name: {first_few(twice)}; give each its own")
        parts = self._parts
        empty = [place for place, split in parts.items() if not len(split)]
        if empty:
            problems.append(f"it has no {' and no '.join(empty)} images; give more data or a larger share of it")
        shapes = {place: tuple(split.images.shape[1:]) for place, split in parts.items() if len(split)}
        if len(set(shapes.values())) > 1:
            named = ", ".join(f"{place} {shape}" for place, shape in shapes.items())
            problems.append(f"its splits hold images of different shapes ({named}); bring them to one size")
        wrong_labels = []
        for place, split in parts.items():
            wrong_labels += label_problems(place, split.labels, self.num_classes)
        problems += wrong_labels
        if not wrong_labels and len(self.train):
            counts = torch.bincount(self.train.labels, minlength=self.num_classes).tolist()
            few = [f"{name!r} has {n}" for name, n in zip(self.class_names, counts, strict=True) if n < 2]
            if few:
                problems.append(
                    f"every class needs at least 2 training images, but {first_few(few)}; "
                    "give more data, a larger fraction of it, or leave such classes out"
                )
        pad, size = self.augmentation.pad, self.input_shape[1:]
        if not 0 <= pad <= min(size):
            problems.append(f"the augmentation's pad is {pad}, but images of size {size} allow 0 to {min(size)}")
        if self.augmentation.flip and len(size) == 1:
            problems.append("the augmentation's flip is set, but only images can be mirrored, not 1-D signals")
        return problems

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name: "train", "validation", "test"."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def _parts(self) -> dict[str, Split]:
        """The three splits, and the fresh images where there are any."""
        return self.splits | ({} if self.fresh is None else {"fresh": self.fresh})

    def with_fewer_images(self, count: int, seed: int) -> "Task":
        """The same task with a stratified part of its training images.

        Args:
            count: how many to keep.
            seed: fixes which.
        """
        kept = torch.from_numpy(stratified(self.train.labels.numpy(), count, seed=seed, purpose="fewer"))
        return replace(self, train=Split(self.train.images[kept], self.train.labels[kept]))

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image: (channels, height, width), or (channels, length)."""
        return tuple(self.train.images.shape[1:])

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each channel over the training images, in units where 255 is 1."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation (over all pixels, divided by n) of each channel, in units where 255 is 1.

        A constant channel gets 1, so that normalising it gives zeros.
        """
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        means, stds = [], []
        levels = torch.arange(256, dtype=torch.float64) / 255
        for channel in self.train.images.unbind(1):
            # A histogram loses nothing of uint8 values, and needs no floating-point copy of the images.
            shares = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            mean = (shares * levels).sum()
            variance = (shares * (levels - mean).square()).sum().item()
            constant = bool(shares.max() == 1)
            means.append(mean.item())
            stds.append(1.0 if constant else variance**0.5)
        return tuple(means), tuple(stds)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images, labels and their order in all splits, the class names and the augmentation.

        64 hexadecimal digits. Fresh images count where there are any. The task's name and source have no part in it:
        equal data have equal fingerprints.
        """
        header = {
            "class_names": self.class_names,
            "augmentation": asdict(self.augmentation),
            "shapes": {place: list(split.images.shape) for place, split in self._parts.items()},
        }
        digest = hashlib.sha256(content_hash(header).encode())
        for split in self._parts.values():
            digest.update(split.images.movedim(1, -1).contiguous().numpy().data)
            digest.update(split.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def view(self, seed: int, epoch: int, device: str | torch.device = "cpu", *, crops: int | None = None) -> View:
        """What training epoch ``epoch`` of a run with seed ``seed`` sees.

        Args:
            seed: The seed of the run.
            epoch: The epoch, counted from 0.
            device: Where batches are wanted. The training images are copied there once, and kept as long as the task.
            crops: The epoch of which crops and mirroring are taken, where that is another one: an epoch can show the
                same images as an earlier one, in an order of its own.

        Returns:
            A :class:`View`, the same for the same task, seed and epoch on every device.

        Example:
            >>> from undistill.tasks import load_task
            >>> task = load_task("digits")
            >>> torch.equal(task.view(0, 1).order, task.view(0, 1).order)
            True
        """
        return View(**self._seen(seed, epoch, device, crops))

    def strong_view(
        self, seed: int, epoch: int, device: str | torch.device = "cpu", *, crops: int | None = None
    ) -> StrongView:
        """What an attack with two views of each image sees beside :meth:`view`: the same order, but other crops,
        strongly augmented. Arguments as of :meth:`view`.

        Returns:
            A :class:`StrongView`, the same for the same task, seed, epoch and crops on every device.

        Example:
            >>> from undistill.tasks import load_task
            >>> task = load_task("digits")
            >>> usual, strong = task.view(0, 1), task.strong_view(0, 1)
            >>> torch.equal(usual.order, strong.order)
            True
            >>> torch.equal(usual.images(usual.order), strong.images(strong.order))
            False
        """
        return StrongView(**self._seen(seed, epoch, device, crops), fill=tuple(round(255 * mean) for mean in self.mean))

    def mixed_view(
        self, seed: int, epoch: int, device: str | torch.device = "cpu", *, crops: int | None = None
    ) -> MixedView:
        """The same order as :meth:`view`, but other crops, each mixed with one of its class. Arguments as there.

        Returns:
            A :class:`MixedView`, the same for the same task, seed, epoch and crops on every device.

        Example:
            >>> from undistill.tasks import load_task
            >>> task = load_task("digits")
            >>> mixed = task.mixed_view(0, 1)
            >>> mixed.images(mixed.order[:50]).shape
            torch.Size([50, 1, 8, 8])
        """
        return MixedView(**self._seen(seed, epoch, device, crops), labels=self.train.labels)

    def _seen(self, seed: int, epoch: int, device: str | torch.device, crops: int | None) -> dict[str, Any]:
        """What every kind of view is made of."""
        return {
            "padded": self._padded_on(device),
            "input_shape": self.input_shape,
            "augmentation": self.augmentation,
            "seed": seed,
            "epoch": epoch,
            "crops": epoch if crops is None else crops,
        }

    def _padded_on(self, device: str | torch.device) -> UInt8[Tensor, "n height width channels"]:
        device = torch.device(device)
        if device not in self._padded:
            self._padded[device] = pad_images(self.train.images.to(device), self.augmentation.pad)
        return self._padded[device]

    @cached_property
    def _padded(self) -> dict[torch.device, Tensor]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        # The padded copies are on devices of this process, and cheap to make again.
        return {name: value for name, value in self.__dict__.items() if name != "_padded"}
