"""What every source goes through: names, splits, class subsets, fractions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from undistill.errors import InputError
from undistill.tasks import Task, load_task


def images(count: int, start: int = 0) -> np.ndarray:
    """Gray images that can be told apart: the first two pixels hold a number."""
    pixels = np.zeros((count, 4, 5), dtype=np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(start, start + count), 256)
    return pixels


def numbers(task: Task, part: str) -> list[int]:
    pixels = task.splits[part].images[:, 0, 0].long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """600 images: 300, 200 and 100 of three classes."""
    path = tmp_path / "shapes.npz"
    labels = np.tile([0, 0, 0, 1, 1, 2], 100)
    np.savez(path, images=images(600), labels=labels, class_names=np.array(["disc", "square", "star"]))
    return str(path)


def test_parts_are_split_off_train(archive: str) -> None:
    task = load_task(archive)
    assert task.name == "shapes"
    assert [len(split) for split in task.splits.values()] == [432, 48, 120]
    for split, scale in zip(task.splits.values(), (72, 8, 20), strict=True):
        assert torch.bincount(split.labels).tolist() == [3 * scale, 2 * scale, scale]
    everything = [number for part in task.splits for number in numbers(task, part)]
    assert sorted(everything) == list(range(600))
    for part, split in task.splits.items():
        expected = [[0, 0, 0, 1, 1, 2][number % 6] for number in numbers(task, part)]
        assert split.labels.tolist() == expected


def test_the_seed_fixes_the_split(archive: str) -> None:
    assert load_task(archive, seed=1).fingerprint == load_task(archive, seed=1).fingerprint
    assert numbers(load_task(archive, seed=1), "test") != numbers(load_task(archive, seed=2), "test")


def test_validation_overrides_the_share(archive: str) -> None:
    task = load_task(archive, validation=0.25)
    assert [len(split) for split in task.splits.values()] == [360, 120, 120]
    assert numbers(task, "test") == numbers(load_task(archive), "test")
    assert [len(split) for split in load_task("digits", validation=0.5).splits.values()] == [399, 398, 1000]


def test_less_is_a_part_of_the_whole(archive: str) -> None:
    whole = load_task(archive)
    part = load_task(archive, classes=["star", "disc"], fraction=0.25)
    assert part.class_names == ("star", "disc")
    assert torch.bincount(part.train.labels).tolist() == [18, 54]
    wanted = {"star": 2, "disc": 0}
    for place in ("validation", "test"):
        expected = [n for n in numbers(whole, place) if [0, 0, 0, 1, 1, 2][n % 6] in wanted.values()]
        assert numbers(part, place) == expected
    assert set(numbers(part, "train")) < set(numbers(whole, "train"))
    assert [n % 6 == 5 for n in numbers(part, "train")] == [label == 0 for label in part.train.labels.tolist()]


@pytest.mark.parametrize(
    ("classes", "names"),
    [(2, ("disc", "square")), (3, ("disc", "square", "star")), ([2, "square"], ("star", "square"))],
)
def test_classes_are_chosen(archive: str, classes: int | Sequence[int | str], names: tuple[str, ...]) -> None:
    assert load_task(archive, classes=classes).class_names == names


def test_the_source_makes_the_task_again(archive: str) -> None:
    task = load_task(archive, classes=("star", 0), fraction=0.5, validation=0.2, seed=3)
    source = json.loads(json.dumps(task.source))
    assert load_task(**source).fingerprint == task.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes is 1, but must be 2 to 3, the number of classes"),
        ({"classes": 4}, "classes is 4, but must be 2 to 3"),
        ({"classes": ["disc", "squares"]}, "unknown class 'squares'; did you mean 'square'?"),
        ({"classes": [0, 3]}, "there is no class 3; classes are numbered 0 to 2"),
        ({"classes": ["disc", -1]}, "there is no class -1"),
        ({"classes": ["disc", 0]}, "names disc more than once"),
        ({"classes": ["disc"]}, "names 1 class; give at least 2"),
        ({"fraction": 0.0}, "fraction is 0.0, but must be above 0 and at most 1"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"fraction": 0.01}, "at least 2 training images, but 'square' has 1, 'star' has 1; .* a larger fraction"),
        ({"validation": 0.0}, "validation is 0.0, but must be a share between 0 and 1"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"validation": 0.001}, "it has no validation images"),
        ({"image_column": "img"}, "has no columns to choose from"),
    ],
)
def test_arguments_that_do_not_fit(archive: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_task(archive, **arguments)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown task 'digit'; did you mean 'digits'?"),
        ("./digits", "there is no file or folder './digits'; check the path"),
        ("/no/such/place", "there is no file or folder '/no/such/place'"),
        ("data.npz", "there is no file or folder 'data.npz'"),
        ("owner/data.npz", "there is no file or folder 'owner/data.npz'"),
    ],
)
def test_names_of_nothing(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_task(name)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    with pytest.raises(InputError, match=r"is neither a folder nor an \.npz file"):
        load_task(str(tmp_path / "data.csv"))


def write(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def test_npz_with_parts_of_its_own(tmp_path: Path) -> None:
    labels = np.array([30, 10, 20] * 4, dtype=np.uint8)
    path = write(
        tmp_path,
        train_images=images(12),
        train_labels=labels,
        val_images=images(6, start=12),
        val_labels=labels[:6],
        test_images=images(9, start=18),
        test_labels=labels[:9],
    )
    task = load_task(path)
    assert task.class_names == ("10", "20", "30")
    assert [numbers(task, part) for part in task.splits] == [list(range(12)), list(range(12, 18)), list(range(18, 27))]
    assert task.test.labels.tolist() == [2, 0, 1] * 3
    with pytest.raises(InputError, match="has a validation part of its own; leave validation out"):
        load_task(path, validation=0.1)


def test_a_validation_part_serves_as_test(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    path = write(
        tmp_path,
        train_images=images(40),
        train_labels=labels,
        validation_images=images(4, 40),
        validation_labels=labels[:4],
    )
    task = load_task(path)
    assert numbers(task, "test") == [40, 41, 42, 43]
    assert [len(split) for split in task.splits.values()] == [36, 4, 4]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((9,), (1, 9)), ((4, 5), (1, 4, 5)), ((4, 5, 1), (1, 4, 5)), ((4, 5, 3), (3, 4, 5))],
)
def test_npz_shapes(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(40, *shape), dtype=np.uint8)
    task = load_task(write(tmp_path, images=pixels, labels=np.arange(40) % 2))
    assert task.input_shape == expected
    channels_last = task.test.images.movedim(1, -1).numpy().reshape(-1, *shape)
    assert all(any(np.array_equal(image, own) for own in pixels) for image in channels_last)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(2, int)}, "there are neither 'images' nor 'train_images'"),
        ({"images": images(4)}, r"'labels' is float64 of shape \(0,\), but must be integers of shape \(4,\)"),
        ({"images": images(4), "labels": np.zeros(3, int)}, r"of shape \(3,\), but must be integers of shape \(4,\)"),
        ({"images": images(4) / 255, "labels": np.zeros(4, int)}, "'images' is float64 .* must be uint8"),
        ({"images": np.zeros((4, 3, 9, 9), np.uint8), "labels": np.zeros(4, int)}, r"\(n, height, width, channels\)"),
        ({"images": images(4), "labels": np.zeros(4, int), "dev_images": images(4)}, r"\['dev_images'\] are not under"),
        ({"images": images(4), "labels": np.zeros(4, int), "class_names": np.arange(2)}, "must be one row of strings"),
        (
            {"images": images(4), "labels": np.array([0, 1, 2, -1]), "class_names": np.array(["a", "b"])},
            r"2 train labels are outside 0\.\.1 \(values: -1, 2\)",
        ),
        (
            {
                "images": images(4),
                "labels": np.zeros(4, int),
                "test_images": images(4)[:, :3],
                "test_labels": np.zeros(4, int),
            },
            r"images of different shapes \(test \(3, 5\), train \(4, 5\)\)",
        ),
        (
            {"images": images(4), "labels": np.array([0, -1, 1, -2])},
            r"'labels' holds 2 negative labels \(first: -1\), but classes have numbers from 0; leave images without a",
        ),
        (
            {"images": images(4), "labels": np.arange(4), "test_images": images(2), "test_labels": np.array([0, -1])},
            r"'test_labels' holds 1 negative labels \(first: -1\)",
        ),
        ({"images": images(4), "labels": np.array(["a", "b", "a", "b"])}, "'labels' is <U1 .* must be integers"),
        (
            {"images": np.array([None, {}]), "labels": np.zeros(2, int)},
            r"cannot be read as an \.npz file of plain arrays \(it holds Python objects; save numbers or strings\)",
        ),
    ],
)
def test_npz_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_task(write(tmp_path, **arrays))


def test_npz_that_is_none(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04 not really", b"a text\n", b"\x93NUMPY"):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"plain arrays \(it is no such archive; write it with numpy\.savez\)"):
            load_task(str(tmp_path / "data.npz"))
