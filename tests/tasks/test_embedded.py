"""The tasks that come with the package."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from undistill.errors import InputError
from undistill.tasks import TASKS, Augmentation, Task, load_task
from undistill.tasks.mnist1d import TEMPLATES, mnist1d_signals


def rows_of(task: Task) -> list[bytes]:
    return [
        image.numpy().tobytes() + bytes([label])
        for split in task.splits.values()
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    ]


def test_digits_are_those_of_scikit_learn() -> None:
    task = load_task("digits")
    assert [len(split) for split in task.splits.values()] == [500, 297, 1000]
    assert (task.input_shape, task.class_names) == ((1, 8, 8), tuple("0123456789"))
    assert task.augmentation == Augmentation(pad=1)
    theirs = load_digits()
    pixels = np.round(theirs.images * 255 / 16).astype(np.uint8)
    expected = [image.tobytes() + bytes([label]) for image, label in zip(pixels, theirs.target, strict=True)]
    assert sorted(rows_of(task)) == sorted(expected)


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_classes_keep_their_shares(name: str) -> None:
    task = load_task(name)
    total = sum(torch.bincount(split.labels) for split in task.splits.values())
    for split in task.splits.values():
        quota = total * len(split) / total.sum()
        assert torch.all((torch.bincount(split.labels) - quota).abs() <= 1.5)  # two roundings


def test_mnist1d_is_a_task() -> None:
    task = load_task("mnist1d")
    assert [len(split) for split in task.splits.values()] == [4000, 1000, 1000]
    assert (task.input_shape, task.num_classes) == ((1, 40), 10)
    assert task.augmentation == Augmentation()
    assert len(set(rows_of(task))) == 6000
    pixels = task.train.images
    assert ((pixels == 0) | (pixels == 255)).double().mean() < 0.002  # next to nothing is clipped


def test_mnist1d_can_be_learned() -> None:
    task = load_task("mnist1d")
    knn = KNeighborsClassifier(5).fit(task.train.images[:, 0].numpy(), task.train.labels.numpy())
    accuracy = knn.score(task.test.images[:, 0].numpy(), task.test.labels.numpy())
    assert 0.4 < accuracy < 0.8  # chance 0.1; the shifts and shears keep neighbours from solving it


def test_mnist1d_signals_are_standardised_and_the_same_every_time() -> None:
    signals = mnist1d_signals(50, seed=1)
    assert signals.shape == (500, 40)
    np.testing.assert_allclose(signals.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(signals.std(0), 1, atol=1e-12)
    assert np.array_equal(signals, mnist1d_signals(50, seed=1))
    assert not np.array_equal(signals, mnist1d_signals(50, seed=2))


def one_signal(
    label: int, zeros: int, scale: float, shift: int, noise: np.ndarray, white: np.ndarray, slope: float
) -> np.ndarray:
    """The paper's procedure step by step for one signal, before standardising."""
    templates = np.array(TEMPLATES)
    template = templates[label] - templates[label].mean()
    template = template / template.std()
    signal = np.concatenate([(template - template[0]) / 6 + 1e-9, np.zeros(zeros)])
    signal = np.interp(np.linspace(0, 1, 72), np.linspace(0, 1, len(signal)), signal) * scale
    signal = np.roll(signal, shift)
    signal = np.where(signal != 0, signal, gaussian_filter1d(0.25 * noise, 2))
    signal = signal + 0.02 * white - slope * np.linspace(-0.5, 0.5, 72)
    return np.interp(np.linspace(0, 1, 40), np.linspace(0, 1, 72), signal)


def test_mnist1d_follows_the_paper_step_by_step() -> None:
    random = np.random.RandomState(7)
    zeros = random.randint(36, 61, size=20)
    scales = 1 + 0.4 * (random.random_sample(20) - 0.5)
    shifts = random.randint(48, size=20)
    noise, white = random.standard_normal((20, 72)), random.standard_normal((20, 72))
    slopes = 0.75 * (random.random_sample(20) - 0.5)
    draws = zip(zeros, scales, shifts, noise, white, slopes, strict=True)
    signals = np.stack([one_signal(place // 2, *draw) for place, draw in enumerate(draws)])
    expected = (signals - signals.mean(0)) / signals.std(0)
    np.testing.assert_allclose(mnist1d_signals(2, seed=7), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "3fdcba63a59f9571"),
        ("mnist1d", "22c07b1746e54d11"),
    ],
)
def test_the_data_never_change(name: str, expected: str) -> None:
    """Stored results refer to these data."""
    task = load_task(name)
    content = b"".join(
        split.images.contiguous().numpy().tobytes() + split.labels.numpy().tobytes() for split in task.splits.values()
    )
    assert hashlib.sha256(content).hexdigest()[:16] == expected


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_embedded_tasks_have_no_columns(name: str) -> None:
    with pytest.raises(InputError, match=f"the task '{name}' has no columns to choose from"):
        load_task(name, label_column="label")


def test_named_tasks_are_described() -> None:
    assert {"digits", "mnist1d", "cifar10", "cifar100"} <= set(TASKS)
    assert all(info.description and "\n" not in info.description for info in TASKS.values())
