"""Files of saved predictions: the answers of a model that is not here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.blackbox.validate import check_log_probs, check_logits, log_probs_of_probabilities
from undistill.errors import InputError, require
from undistill.files import StoredArray, open_arrays

KINDS = ("log_probs", "probs", "logits")
BATCH_NUMBERS = 2**21  # rows times classes of a batch: 16 MB in float64, whatever the size of the file


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers with labels.

    Args:
        log_probs: (n, classes) natural log-probabilities, float32.
        labels: (n,) true classes.
    """

    log_probs: Float[Tensor, "n classes"]
    labels: Int64[Tensor, "n"]


def is_predictions_file(path: Path) -> bool:
    """Whether ``path`` names a file that :func:`read_predictions` reads."""
    return path.suffix in (".npz", ".parquet") and path.is_file()


def read_predictions(path: Path) -> Predictions:
    """Read an ``.npz`` or parquet file with ``labels`` and one of ``log_probs``, ``probs``, ``logits``.

    In an ``.npz`` the answers are one array (n, classes); in a parquet file a column of equally long lists.

    Raises:
        InputError: an array is missing, shapes do not match, labels are out of range, rows hold NaN, logits have no
            finite maximum, or probabilities do not sum to 1.
    """
    batches = list(stream_predictions(path))
    return Predictions(torch.cat([one.log_probs for one in batches]), torch.cat([one.labels for one in batches]))


def stream_predictions(path: Path) -> Iterator[Predictions]:
    """The same file batch by batch, in order: memory for one batch is enough, however large the file is.

    A batch has about two million numbers, rows times classes. Of an ``.npz`` whose array was stored by columns (Fortran
    order) the file is read whole.

    Raises:
        InputError: as :func:`read_predictions`, when the batch that is wrong is reached.
    """
    start = 0
    for kind, answers, labels in _npz(path) if path.suffix == ".npz" else _parquet(path):
        batch = _checked(path, start, kind, answers, labels)
        start += len(labels)
        del answers, labels  # nothing of this batch is held while the next one is read
        yield batch
        del batch


def _checked(path: Path, start: int, kind: str, answers: np.ndarray, labels: np.ndarray) -> Predictions:
    wrong = (labels < 0) | (labels >= answers.shape[1])
    if wrong.any():
        raise InputError(
            f"{path}: {int(wrong.sum())} labels lie outside 0..{answers.shape[1] - 1} (first: {labels[wrong][0]} in "
            f"row {start + int(wrong.argmax())})"
        )
    rows = torch.from_numpy(answers.astype(np.float64, order="C"))
    whose = f"{path}, counted from row {start}" if start else str(path)
    if kind == "probs":
        log_probs = log_probs_of_probabilities(rows, whose)
    else:
        if kind == "logits":
            check_logits(rows, whose)
        log_probs = torch.log_softmax(rows, 1) if kind == "logits" else rows
        check_log_probs(log_probs, whose)
    return Predictions(log_probs.float(), torch.from_numpy(labels.astype(np.int64)))


def _npz(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    with open_arrays(path, (*KINDS, "labels")) as arrays:
        kind = _kind(path, list(arrays))
        answers, labels = arrays[kind], arrays["labels"]
        _check_form(path, kind, answers, labels)
        step = _batch_rows(answers.shape[1])
        for start in range(0, len(answers), step):
            rows = min(step, len(answers) - start)
            yield kind, answers.read(rows), labels.read(rows)


def _parquet(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    parquet = require("pyarrow.parquet", "data")
    try:
        # With a buffer, a row group that is larger than memory is read in pieces, too. Reading ahead (pre_buffer) would
        # keep all that was read.
        with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            kind = _kind(path, file.schema_arrow.names)
            first = next((batch for batch in file.iter_batches(1, columns=[kind]) if len(batch)), None)
            classes = 0 if first is None else _matrix(path, kind, first.column(0)).shape[1]
            if first is None:
                _check_form(path, kind, np.empty((0, 0)), np.empty(0, int))
            for batch in file.iter_batches(_batch_rows(classes), columns=[kind, "labels"]):
                answers, labels = (
                    _matrix(path, kind, batch.column(kind), classes),
                    _classes(path, batch.column("labels")),
                )
                del batch
                _check_form(path, kind, answers, labels)
                yield kind, answers, labels
                del answers, labels
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read as a parquet file ({error})") from error


def _batch_rows(classes: int) -> int:
    return max(1, BATCH_NUMBERS // max(1, classes))


def _kind(path: Path, names: list[str]) -> str:
    held = sorted({*KINDS, "labels"}.intersection(names))
    kinds = [kind for kind in KINDS if kind in held]
    if "labels" not in held or len(kinds) != 1:
        raise InputError(
            f"{path} holds {held}; a file of predictions holds 'labels' and exactly one of {', '.join(KINDS)}"
        )
    return kinds[0]


def _check_form(path: Path, kind: str, answers: np.ndarray | StoredArray, labels: np.ndarray | StoredArray) -> None:
    """Refuse shapes and types that are not of predictions."""
    if len(answers.shape) != 2 or labels.shape != answers.shape[:1] or not labels.shape[0]:
        raise InputError(
            f"{path}: {kind} has shape {answers.shape} and labels {labels.shape}; must be (n, classes) and (n,), n > 0"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: labels have type {labels.dtype}, must be whole numbers (class indices from 0)")
    if answers.dtype.kind not in "fiu":
        raise InputError(f"{path}: {kind} have type {answers.dtype}, must be numbers")


def _matrix(path: Path, kind: str, column: Any, classes: int | None = None) -> np.ndarray:
    """A column of equally long lists as an array; of length ``classes``, if that is known."""
    types = require("pyarrow", "data").types
    if not any(is_lists(column.type) for is_lists in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        raise InputError(f"{path}: {kind} must be a column of lists, one list of numbers per row")
    if column.null_count:
        raise InputError(f"{path}: {kind} must be a column of lists, but {column.null_count} rows hold none (null)")
    lengths = {int(length) for length in column.value_lengths().unique().to_pylist()}
    if classes is not None:
        lengths.add(classes)
    if len(lengths) != 1:
        raise InputError(f"{path}: rows of {kind} have different lengths ({sorted(lengths)[:5]})")
    numbers = column.flatten()
    if numbers.null_count:
        raise InputError(f"{path}: {kind} must be numbers, but {numbers.null_count} are missing (null)")
    return numbers.to_numpy(zero_copy_only=False).reshape(len(column), lengths.pop())


def _classes(path: Path, column: Any) -> np.ndarray:
    if column.null_count:
        raise InputError(f"{path}: {column.null_count} rows have no label (null); label them or leave them out")
    return column.to_numpy(zero_copy_only=False)
