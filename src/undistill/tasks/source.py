"""What every kind of place that data can come from is turned into before it becomes a task."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

# The names under which the parts of a data set are looked for, the usual one first.
PART_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}

Labels = Int64[np.ndarray, " n"]
Rows = Int64[np.ndarray, "_"]
Images = UInt8[np.ndarray, "_ *shape channels"]


@dataclass(frozen=True, eq=False)
class Source:
    """All labels of a data set, and a way to read some of its images.

    The rows of all parts are numbered through, so that one call reads (and checks) whatever rows a task needs, and no
    image is decoded that is not needed.

    Args:
        class_names: The name of each class, in the order of the labels.
        labels: The label of every row of every part, shape (n,).
        parts: The rows of "train" and, where the data set has them, of "validation" and "test".
        read: Takes rows and gives their images, uint8, channels last: shape (rows, height, width, channels) or
            (rows, length, channels).
        test_size: How many rows to split off for test when there is no such part; None for the usual share.
        validation_size: The same for validation.
    """

    class_names: tuple[str, ...]
    labels: Labels
    parts: dict[str, Rows]
    read: Callable[[Rows], Images]
    test_size: int | None = None
    validation_size: int | None = None


def consecutive(lengths: dict[str, int]) -> dict[str, Rows]:
    """The rows of parts that lie one after the other.

    >>> {part: rows.tolist() for part, rows in consecutive({"train": 3, "test": 2}).items()}
    {'train': [0, 1, 2], 'test': [3, 4]}
    """
    ends = np.cumsum(list(lengths.values()), dtype=np.int64)
    return {
        part: np.arange(end - length, end, dtype=np.int64)
        for (part, length), end in zip(lengths.items(), ends, strict=True)
    }


def name_integers(values: Labels) -> tuple[tuple[str, ...], Labels]:
    """Class names and labels for integers that came without names: the sorted values as strings, and places therein.

    >>> names, labels = name_integers(np.array([7, 3, 7]))
    >>> names, labels.tolist()
    (('3', '7'), [1, 0, 1])
    """
    classes, labels = np.unique(values, return_inverse=True)
    return tuple(str(value) for value in classes.tolist()), labels.astype(np.int64)
