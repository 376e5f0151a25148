"""Parquet folders and the hub, on small data sets made by the library that reads them."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from undistill.errors import InputError, MissingExtraError
from undistill.tasks import load_task

RANDOM = np.random.default_rng(0)
FINE = ["apple", "bear", "cup", "dolphin"]
PIXELS = RANDOM.integers(256, size=(60, 5, 6, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def table(rows: range, **labels: Any) -> datasets.Dataset:
    """Rows of PIXELS, with one column for each keyword: (values, feature)."""
    columns = {name: values for name, (values, _) in labels.items()}
    features = {name: feature for name, (_, feature) in labels.items()}
    images = [{"bytes": png(PIXELS[row]), "path": None} for row in rows]
    features = datasets.Features({"img": datasets.Image(), **features})
    return datasets.Dataset.from_dict({"img": images, **columns}, features=features)


def fine(values: Any) -> tuple[list[int | None], datasets.ClassLabel]:
    return list(values), datasets.ClassLabel(names=FINE)


def coarse(values: Any) -> tuple[list[int], datasets.ClassLabel]:
    return list(values), datasets.ClassLabel(names=["food", "animal"])


def integers(values: Any) -> tuple[list[int], datasets.Value]:
    return list(values), datasets.Value("int32")


def save(folder: Path, **parts: datasets.Dataset) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        part.to_parquet(folder / f"{name}.parquet")
    return str(folder)


LABELS = [row % 4 for row in range(60)]


def test_parquet_folder(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "fruit",
        train=table(range(40), label=fine(LABELS[:40])),
        test=table(range(40, 60), label=fine(LABELS[40:])),
    )
    task = load_task(folder)
    assert (task.name, task.class_names, task.input_shape) == ("fruit", tuple(FINE), (3, 5, 6))
    assert [len(split) for split in task.splits.values()] == [36, 4, 20]
    assert np.array_equal(task.test.images.permute(0, 2, 3, 1), PIXELS[40:])
    assert task.test.labels.tolist() == LABELS[40:]
    for split in (task.train, task.validation):
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            (row,) = np.flatnonzero((image.permute(1, 2, 0).numpy() == PIXELS).all((1, 2, 3)))
            assert row < 40
            assert LABELS[row] == label


def test_files_as_on_the_hub_with_several_shards(tmp_path: Path) -> None:
    shards = {f"train-0000{i}-of-00002": table(range(20 * i, 20 * i + 20), label=fine(LABELS[:20])) for i in (0, 1)}
    validation = {"validation-00000-of-00001": table(range(40, 44), label=fine(LABELS[:4]))}
    test = {"test-00000-of-00001": table(range(44, 48), label=fine(LABELS[:4]))}
    save(tmp_path / "data", **shards, **validation, **test)
    task = load_task(str(tmp_path))
    assert np.array_equal(task.train.images.permute(0, 2, 3, 1), PIXELS[:40])
    assert np.array_equal(task.validation.images.permute(0, 2, 3, 1), PIXELS[40:44])
    assert np.array_equal(task.test.images.permute(0, 2, 3, 1), PIXELS[44:48])


def test_several_label_columns_are_not_guessed(tmp_path: Path) -> None:
    labels = {"fine_label": fine(LABELS), "coarse_label": coarse(row % 2 for row in range(60))}
    folder = save(tmp_path / "two", train=table(range(60), **labels))
    with pytest.raises(InputError, match=r"\['fine_label', 'coarse_label'\]; name the right one with label_column"):
        load_task(folder)
    assert load_task(folder, label_column="coarse_label").class_names == ("food", "animal")
    assert load_task(folder, label_column="fine_label").class_names == tuple(FINE)


def test_integer_labels(tmp_path: Path) -> None:
    tens = [10 * label + 7 for label in LABELS]
    only = save(tmp_path / "only", train=table(range(60), kind=integers(tens)))
    assert load_task(only).class_names == ("7", "17", "27", "37")
    both = save(tmp_path / "both", train=table(range(60), kind=integers(tens), label=fine(LABELS)))
    assert load_task(both).class_names == tuple(FINE)
    assert load_task(both, label_column="kind").class_names == ("7", "17", "27", "37")
    two = save(tmp_path / "two", train=table(range(60), kind=integers(tens), size=integers(range(60))))
    with pytest.raises(InputError, match=r"several columns hold .* integers: \['kind', 'size'\]"):
        load_task(two)


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    words = ["x"] * 60, datasets.Value("string")
    folder = save(tmp_path / "words", train=table(range(60), label=fine(LABELS), word=words))
    for arguments, message in [
        ({"label_column": "lable"}, "unknown label column 'lable'; did you mean 'label'?"),
        (
            {"label_column": "word"},
            r"the column 'word' does not hold class labels or integers \(such columns: \['label'",
        ),
        ({"image_column": "label"}, "the column 'label' does not hold images"),
    ]:
        with pytest.raises(InputError, match=message):
            load_task(folder, **arguments)
    assert load_task(folder, image_column="img", label_column="label").num_classes == 4
    bare = save(tmp_path / "bare", train=table(range(60), word=words))
    with pytest.raises(InputError, match=r"no column of \['img', 'word'\] holds class labels"):
        load_task(bare)


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    outside = datasets.Dataset.from_dict({"label": [5] * 4 + [-1] + LABELS[5:]}).cast_column(
        "label", datasets.Value("int64")
    )
    wrong = table(range(60)).add_column("label", outside["label"])
    wrong = wrong.cast(datasets.Features({**wrong.features, "label": datasets.Value("int64")}))
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=FINE)})
    wrong = datasets.Dataset(wrong.data.table.replace_schema_metadata(features.arrow_schema.metadata))
    with pytest.raises(InputError, match=r"5 train labels are outside 0\.\.3 \(values: -1, 5\)"):
        load_task(save(tmp_path / "outside", train=wrong))
    holes = datasets.Value("int64")
    missing = save(tmp_path / "holes", train=table(range(60), label=([None, *LABELS[1:]], holes)))
    with pytest.raises(InputError, match="1 rows of train have no 'label'"):
        load_task(missing)


def test_parts_with_other_class_names(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "odd",
        train=table(range(40), label=fine(LABELS[:40])),
        test=table(range(20), label=coarse([0, 1] * 10)),
    )
    with pytest.raises(InputError, match="the column 'label' of test is missing or not like that of train"):
        load_task(folder)


def test_broken_rows_are_named(tmp_path: Path) -> None:
    good = table(range(60), label=fine(LABELS))
    cells = [{"bytes": png(PIXELS[row]), "path": None} for row in range(60)]
    cells[3] = {"bytes": b"nothing", "path": None}
    cells[8] = {"bytes": png(PIXELS[8][:4]), "path": None}
    cells[9] = None
    broken = datasets.Dataset.from_dict({"img": cells, "label": LABELS}, features=good.features)
    with pytest.raises(InputError) as caught:
        load_task(save(tmp_path / "broken", train=broken))
    message = str(caught.value)
    assert "train row 3 (cannot identify image file" in message
    assert "train row 9 (there is no image)" in message
    assert "is 6x5 and these are not: train row 8 (6x4)" in message


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    nameless = save(tmp_path / "nameless", part0=table(range(60), label=fine(LABELS)))
    with pytest.raises(InputError, match=r"are named \['part0.parquet'\]; name them train\*"):
        load_task(nameless)
    save(tmp_path / "alone", test=table(range(60), label=fine(LABELS)))
    with pytest.raises(InputError, match=r"has no train split, but only \['test'\]"):
        load_task(str(tmp_path / "alone"))
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "train.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"corrupt' cannot be loaded \("):
        load_task(str(tmp_path / "corrupt"))


class Hub:
    """Stands in for ``datasets.load_dataset``: one data set, and the names that were asked for."""

    def __init__(self, **parts: datasets.Dataset) -> None:
        self.parts = datasets.DatasetDict(parts)
        self.asked: list[str] = []

    def __call__(self, path: str) -> datasets.DatasetDict:
        self.asked.append(path)
        return self.parts


@pytest.mark.parametrize(
    ("name", "asked", "title"),
    [
        ("cifar10", "uoft-cs/cifar10", "cifar10"),
        ("owner/things", "owner/things", "owner/things"),
        ("hub:things", "things", "things"),
    ],
)
def test_names_on_the_hub(name: str, asked: str, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(train=table(range(40), label=fine(LABELS[:40])), test=table(range(40, 60), label=fine(LABELS[40:])))
    monkeypatch.setattr(datasets, "load_dataset", hub)
    task = load_task(name)
    assert (hub.asked, task.name) == ([asked], title)
    assert np.array_equal(task.test.images.permute(0, 2, 3, 1), PIXELS[40:])


def test_cifar100_means_the_fine_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"fine_label": fine(LABELS), "coarse_label": coarse(row % 2 for row in range(60))}
    hub = Hub(train=table(range(60), **labels))
    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert load_task("cifar100").class_names == tuple(FINE)
    assert load_task("cifar100", label_column="coarse_label").class_names == ("food", "animal")
    assert hub.asked == ["uoft-cs/cifar100"] * 2


@pytest.mark.parametrize("unlabelled", [-1, None])
def test_a_test_split_without_labels_counts_as_absent(unlabelled: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(
        train=table(range(40), label=fine(LABELS[:40])),
        valid=table(range(40, 48), label=fine(LABELS[:8])),
        test=table(range(48, 60), label=fine([unlabelled] * 12)),
    )
    monkeypatch.setattr(datasets, "load_dataset", hub)
    task = load_task("owner/things")
    assert np.array_equal(task.test.images.permute(0, 2, 3, 1), PIXELS[40:48])
    assert [len(split) for split in task.splits.values()] == [36, 4, 8]


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'owner/things' doesn't exist\non the Hub"),
        ConnectionError("no route"),
        ValueError("Config name is missing."),
    ],
)
def test_the_hub_fails(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    why = str(error).splitlines()[0]
    with pytest.raises(InputError, match=rf"'owner/things' cannot be loaded \({why}\); check its name"):
        load_task("owner/things")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'undistill\[data\]'"):
        load_task("cifar10")
