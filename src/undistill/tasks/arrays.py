"""An ``.npz`` file of arrays."""

from pathlib import Path

import numpy as np

from undistill.errors import InputError
from undistill.files import read_arrays
from undistill.tasks.source import PART_NAMES, Source, consecutive, name_integers


def read_npz(path: Path) -> Source:
    """A file that :func:`numpy.savez` wrote, with these arrays:

    - ``images`` and ``labels``; or ``train_images`` and ``train_labels``, and the same for test and validation;
    - ``class_names``, if the classes have names; without them the sorted labels are the names, and none may be
      negative.

    Images are uint8 of shape (n, height, width) for gray images, (n, height, width, channels) with 1 to 4 channels, or
    (n, length) for 1-D signals of one channel. Labels are integers of shape (n,); with ``class_names`` they are places
    therein.
    """
    arrays = read_arrays(path)
    class_names = arrays.pop("class_names", None)
    images, labels, problems = {}, {}, []
    for part, names in PART_NAMES.items():
        prefixes = [f"{name}_" for name in names] + ([""] if part == "train" else [])
        prefix = next((prefix for prefix in prefixes if f"{prefix}images" in arrays), None)
        if prefix is None:
            continue
        images[part] = arrays.pop(f"{prefix}images")
        labels[part] = arrays.pop(f"{prefix}labels", np.empty(0))
        problems += _problems(prefix, images[part], labels[part])
        # With names, labels are held against their number when the task is made.
        if class_names is None and labels[part].dtype.kind == "i" and (labels[part] < 0).any():
            negative = labels[part][labels[part] < 0]
            problems.append(
                f"'{prefix}labels' holds {len(negative)} negative labels (first: {negative[0]}), but classes have "
                "numbers from 0; leave images without a label out"
            )
    if "train" not in images:
        problems.append("there are neither 'images' nor 'train_images'")
    if arrays:
        problems.append(f"the arrays {sorted(arrays)} are not understood (or given twice)")
    if class_names is not None and (class_names.ndim != 1 or class_names.dtype.kind != "U"):
        problems.append("'class_names' must be one row of strings")
    shapes = {f"{part} {array.shape[1:]}" for part, array in images.items()}
    if len({array.shape[1:] for array in images.values()}) > 1:
        problems.append(f"the parts hold images of different shapes ({', '.join(sorted(shapes))})")
    if problems:
        raise InputError(f"{str(path)!r} cannot be used: " + "; ".join(problems))

    all_images, all_labels = np.concatenate(list(images.values())), np.concatenate(list(labels.values()))
    all_labels = all_labels.astype(np.int64)
    if class_names is None:
        names, all_labels = name_integers(all_labels)
    else:
        names = tuple(class_names.tolist())
    if all_images.ndim < 4:
        all_images = all_images[..., None]
    rows = consecutive({part: len(array) for part, array in images.items()})
    return Source(names, all_labels, rows, lambda chosen: all_images[chosen])


def _problems(prefix: str, images: np.ndarray, labels: np.ndarray) -> list[str]:
    problems = []
    if images.dtype != np.uint8 or images.ndim not in (2, 3, 4) or (images.ndim == 4 and not 1 <= images.shape[3] <= 4):
        problems.append(
            f"'{prefix}images' is {images.dtype} of shape {images.shape}, but must be uint8 of shape (n, length), "
            "(n, height, width) or (n, height, width, channels)"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        problems.append(
            f"'{prefix}labels' is {labels.dtype} of shape {labels.shape}, but must be integers of shape "
            f"{images.shape[:1]}"
        )
    return problems
