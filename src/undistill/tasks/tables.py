"""Data sets with an image column and a label column: local parquet files and the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from undistill.errors import InputError, require, unknown_name
from undistill.tasks.pictures import decode
from undistill.tasks.source import PART_NAMES, Images, Labels, Rows, Source, consecutive, name_integers

BATCH = 1000  # rows taken from a table at once


def read_hub(name: str, image_column: str | None, label_column: str | None) -> Source:
    """A data set of the Hugging Face hub, by its name there, such as "uoft-cs/cifar10"."""
    return _source(name, _load(name, path=name), image_column, label_column)


def parquet_files(folder: Path) -> dict[str, list[str]]:
    """The parquet files in a folder, or in its subfolder "data", by part; files of no part are under "".

    A file belongs to a part if its name begins with the part's name: "train.parquet", "test-00000-of-00001.parquet".
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet")):
        parts = [part for part, names in PART_NAMES.items() if path.name.startswith(names)]
        found.setdefault(parts[0] if parts else "", []).append(str(path))
    return found


def read_parquet(folder: Path, image_column: str | None, label_column: str | None) -> Source:
    """A folder of parquet files, with the class names from their schema where it has them."""
    files = parquet_files(folder)
    strangers = [Path(file).name for file in files.pop("", [])]
    if strangers and "train" not in files:
        raise InputError(f"the parquet files in {str(folder)!r} are named {strangers}; name them train*, test*.parquet")
    # Each part by itself: loaded together, all parts would be given the class names of the first file.
    tables = {
        part: _load(str(folder), path="parquet", data_files={part: own})[part] for part, own in sorted(files.items())
    }
    return _source(str(folder), tables, image_column, label_column)


def _load(place: str, **arguments: Any) -> dict[str, Any]:
    datasets = require("datasets", "data")
    try:
        return datasets.load_dataset(**arguments)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        why = str(error).strip().splitlines()
        raise InputError(
            f"the data set {place!r} cannot be loaded ({why[0] if why else type(error).__name__}); "
            "check its name, its files and the connection"
        ) from error


def _source(place: str, tables: dict[str, Any], image_column: str | None, label_column: str | None) -> Source:
    datasets = require("datasets", "data")
    parts = {part: tables[name] for part, names in PART_NAMES.items() for name in reversed(names) if name in tables}
    if "train" not in parts:
        raise InputError(f"the data set {place!r} has no train split, but only {list(tables)}; rename one of them")
    features = parts["train"].features
    image = _find_image_column(place, features, image_column)
    label = _find_label_column(place, features, label_column)
    for part, table in parts.items():
        differing = [name for name in (image, label) if table.features.get(name) != features[name]]
        if differing:
            raise InputError(f"in {place!r} the column {differing[0]!r} of {part} is missing or not like that of train")

    named = isinstance(features[label], datasets.ClassLabel)
    values = {part: _integers(place, part, table, label, named) for part, table in parts.items()}
    if named:
        # The hub marks images without a label by -1; a part where all are so marked cannot serve.
        values = {part: column for part, column in values.items() if part == "train" or (column != -1).any()}
    labels = np.concatenate(list(values.values()))
    class_names, labels = (tuple(features[label].names), labels) if named else name_integers(labels)
    rows = consecutive({part: len(column) for part, column in values.items()})

    encoded = datasets.concatenate_datasets(
        [parts[part].select_columns([image]).cast_column(image, datasets.Image(decode=False)) for part in rows]
    )

    def read(chosen: Rows) -> Images:
        return decode(repr(place), _pictures(encoded.select(chosen), image, _row_names(rows, chosen)), len(chosen))

    return Source(class_names, labels, rows, read)


def _row_names(rows: dict[str, Rows], chosen: Rows) -> list[str]:
    names = [f"{part} row {place}" for part, own in rows.items() for place in range(len(own))]
    return [names[row] for row in chosen]


def _pictures(encoded: Any, image: str, names: list[str]) -> Iterator[tuple[str, Path | bytes | None]]:
    for start in range(0, len(names), BATCH):
        cells = encoded[start : start + BATCH][image]
        for name, cell in zip(names[start : start + BATCH], cells, strict=True):
            if cell is None:
                yield name, None
            else:
                yield name, cell["bytes"] or (Path(cell["path"]) if cell["path"] else None)


def _integers(place: str, part: str, table: Any, label: str, named: bool) -> Labels:
    column = table.with_format("arrow")[:].column(label)
    if column.null_count and not named:
        raise InputError(f"in {place!r} {column.null_count} rows of {part} have no {label!r}; remove or label them")
    return column.fill_null(-1).to_numpy().astype(np.int64)


def _find_image_column(place: str, features: dict[str, Any], wanted: str | None) -> str:
    datasets = require("datasets", "data")
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    return _choose(place, "image", "images", list(features), images, wanted)


def _find_label_column(place: str, features: dict[str, Any], wanted: str | None) -> str:
    datasets = require("datasets", "data")
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    integers = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint"))
    ]
    candidates = named + integers if wanted is not None or not named else named
    return _choose(place, "label", "class labels or integers", list(features), candidates, wanted)


def _choose(place: str, kind: str, content: str, columns: list[str], candidates: list[str], wanted: str | None) -> str:
    """The column that is wanted, or else the only candidate."""
    if wanted is not None and wanted not in columns:
        raise unknown_name(f"{kind} column", wanted, columns)
    if wanted is not None and wanted not in candidates:
        raise InputError(f"in {place!r} the column {wanted!r} does not hold {content} (such columns: {candidates})")
    if wanted is None and len(candidates) != 1:
        found = (
            f"several columns hold {content}: {candidates}" if candidates else f"no column of {columns} holds {content}"
        )
        raise InputError(f"in {place!r} {found}; name the right one with {kind}_column")
    return wanted if wanted is not None else candidates[0]
