"""A folder of image files."""

from pathlib import Path

import numpy as np

from undistill.errors import InputError, require
from undistill.tasks.pictures import decode
from undistill.tasks.source import PART_NAMES, Images, Rows, Source, consecutive


def read_images(folder: Path) -> Source:
    """A folder with one subfolder of images for each class, or with such folders in "train", "test", "validation".

    Classes are in the order of their sorted names; class subfolders are searched in depth. Files whose ending is not
    that of an image format, and those whose name begins with a dot, are not looked at.
    """
    parts = {
        part: next((folder / name for name in names if (folder / name).is_dir()), None)
        for part, names in PART_NAMES.items()
    }
    if parts["train"] is None:
        parts = {"train": folder}
    folders = {part: path for part, path in parts.items() if path is not None}
    class_names = sorted({path.name for part in folders.values() for path in part.iterdir() if _is_class(path)})
    endings = require("PIL.Image", "data").registered_extensions()
    files: list[Path] = []
    labels: list[int] = []
    lengths: dict[str, int] = {}
    for part, path in folders.items():
        before = len(files)
        for label, name in enumerate(class_names):
            own = [file for file in sorted((path / name).rglob("[!.]*")) if file.suffix.lower() in endings]
            files += own
            labels += [label] * len(own)
        lengths[part] = len(files) - before
    if not files:
        raise InputError(
            f"the folder {str(folder)!r} holds neither parquet files nor a subfolder of images for each class; "
            "arrange the images as <class>/<image> or train/<class>/<image>"
        )

    def read(rows: Rows) -> Images:
        return decode(repr(str(folder)), ((str(files[row].relative_to(folder)), files[row]) for row in rows), len(rows))

    return Source(tuple(class_names), np.array(labels, dtype=np.int64), consecutive(lengths), read)


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
