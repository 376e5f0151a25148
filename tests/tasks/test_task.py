"""Tasks made by hand: what they tell about themselves, and what they refuse."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from undistill.errors import InputError
from undistill.tasks import Augmentation, Split, Task


def split(count: int, shape: tuple[int, ...] = (3, 6, 5), seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3)


def make(**changes: Any) -> Task:
    arguments: dict[str, Any] = {
        "name": "noise",
        "class_names": ("a", "b", "c"),
        "train": split(12),
        "validation": split(6, seed=1),
        "test": split(9, seed=2),
    }
    return Task(**(arguments | changes))


def test_what_a_task_tells() -> None:
    task = make()
    assert (task.num_classes, task.input_shape, len(task.train), len(task.test)) == (3, (3, 6, 5), 12, 9)
    assert task.train.images.is_contiguous(memory_format=torch.channels_last)
    pixels = task.train.images.numpy() / 255
    np.testing.assert_allclose(task.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(task.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_moments_of_signals_and_of_a_constant_channel() -> None:
    images = torch.randint(256, (12, 2, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 51
    signals = Split(images, torch.arange(12) % 3)
    task = make(train=signals, validation=signals, test=signals)
    pixels = images.numpy() / 255
    np.testing.assert_allclose(task.mean, pixels.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(task.std, (pixels[:, 0].std(), 1.0), rtol=1e-12)


def test_fingerprint_follows_the_content() -> None:
    fingerprint = make().fingerprint
    assert len(fingerprint) == 64
    assert make(name="other", source={"name": "other"}).fingerprint == fingerprint
    contiguous = Split(split(12).images.contiguous(), split(12).labels.clone())
    assert make(train=contiguous).fingerprint == fingerprint

    images, labels = split(12).images.clone(), split(12).labels.clone()
    images[0, 0, 0, 0] ^= 1
    labels[[0, 1]] = labels[[1, 0]]
    changed = [
        make(train=Split(images, split(12).labels)),
        make(train=Split(split(12).images, labels)),
        make(test=split(9, seed=3)),
        make(class_names=("a", "c", "b")),
        make(augmentation=Augmentation(pad=1)),
    ]
    assert len({task.fingerprint for task in changed} | {fingerprint}) == len(changed) + 1


def test_a_task_pickles_without_its_copies_on_devices() -> None:
    task = make(augmentation=Augmentation(pad=1, flip=True))
    size = len(pickle.dumps(task))
    seen = task.view(0, 0).images(torch.arange(12))
    assert len(pickle.dumps(task)) == size
    again = pickle.loads(pickle.dumps(task))
    assert again.fingerprint == task.fingerprint
    assert again.train.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(again.view(0, 0).images(torch.arange(12)), seen)


def with_labels(*labels: int) -> Split:
    return replace(split(len(labels)), labels=torch.tensor(labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a",)}, "it has 1 class, but a classifier needs at least 2"),
        ({"class_names": ("a", "b", "a")}, "several classes have the same name: a"),
        ({"test": split(0), "validation": split(0)}, "it has no validation and no test images"),
        ({"test": split(9, shape=(3, 6, 6))}, r"different shapes \(train \(3, 6, 5\), .*test \(3, 6, 6\)\)"),
        ({"test": with_labels(0, 1, 2, 3, 3, -1)}, r"3 test labels are outside 0\.\.2 \(values: -1, 3\)"),
        ({"train": with_labels(0, 0, 1, 1, 2)}, "at least 2 training images, but 'c' has 1; give more data"),
        ({"train": with_labels(0, 0, 2)}, "but 'b' has 0, 'c' has 1"),
        ({"train": split(0)}, "it has no train images"),
        ({"augmentation": Augmentation(pad=-1)}, r"pad is -1, but images of size \(6, 5\) allow 0 to 5"),
        ({"augmentation": Augmentation(pad=6)}, "pad is 6"),
    ],
)
def test_what_a_task_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_signals_are_not_mirrored() -> None:
    signals = split(12, shape=(1, 40))
    with pytest.raises(InputError, match="only images can be mirrored"):
        make(train=signals, validation=signals, test=signals, augmentation=Augmentation(flip=True))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(
        InputError, match=r"no validation images.*outside 0\.\.2 \(values: 3, 4, 5, 6, 7, \.\.\. \(6 in"
    ):
        make(validation=split(0), test=with_labels(*range(9)))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.arange(2), "images are torch.float32 .* must be torch.uint8"),
        (torch.zeros(2, 4, dtype=torch.uint8), torch.arange(2), r"of shape \(2, 4\), but must be"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(2).int(), "labels are torch.int32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(3), "there are 2 images but 3 labels"),
    ],
)
def test_what_a_split_refuses(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    # Made in two steps, because the array types that the tests switch on would refuse these arguments first.
    split = object.__new__(Split)
    object.__setattr__(split, "images", images)
    object.__setattr__(split, "labels", labels)
    with pytest.raises(InputError, match=message):
        split.__post_init__()
