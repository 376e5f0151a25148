"""Files of saved predictions: the answers of a model that is not here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.blackbox.validate import check_log_probs, check_logits, log_probs_of_probabilities
from undistill.errors import InputError, require
from undistill.files import read_arrays

KINDS = ("log_probs", "probs", "logits")


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
    columns = read_arrays(path, (*KINDS, "labels")) if path.suffix == ".npz" else _read_parquet(path)
    kinds = [kind for kind in KINDS if kind in columns]
    if "labels" not in columns or len(kinds) != 1:
        raise InputError(
            f"{path} holds {sorted(columns)}; a file of predictions holds 'labels' and exactly one of "
            f"{', '.join(KINDS)}"
        )
    answers, labels = columns[kinds[0]], columns["labels"]
    if answers.ndim != 2 or labels.shape != answers.shape[:1] or not len(labels):
        raise InputError(
            f"{path}: {kinds[0]} has shape {answers.shape} and labels {labels.shape}; must be (n, classes) and (n,), "
            "n > 0"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: labels have type {labels.dtype}, must be whole numbers (class indices from 0)")
    if answers.dtype.kind not in "fiu":
        raise InputError(f"{path}: {kinds[0]} have type {answers.dtype}, must be numbers")
    wrong = (labels < 0) | (labels >= answers.shape[1])
    if wrong.any():
        raise InputError(
            f"{path}: {int(wrong.sum())} labels lie outside 0..{answers.shape[1] - 1} (first: {labels[wrong][0]} in "
            f"row {int(wrong.argmax())})"
        )
    rows, whose = torch.from_numpy(answers.astype(np.float64)), str(path)
    if kinds[0] == "probs":
        log_probs = log_probs_of_probabilities(rows, whose)
    else:
        if kinds[0] == "logits":
            check_logits(rows, whose)
        log_probs = torch.log_softmax(rows, 1) if kinds[0] == "logits" else rows
        check_log_probs(log_probs, whose)
    return Predictions(log_probs.float(), torch.from_numpy(labels.astype(np.int64)))


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    parquet = require("pyarrow.parquet", "data")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a parquet file ({error})") from error
    columns = {}
    for name in table.column_names:
        if name in KINDS:
            rows = table[name].to_pylist()
            if not all(isinstance(row, list) for row in rows):
                raise InputError(f"{path}: {name} must be a column of lists, one list of numbers per row")
            lengths = {len(row) for row in rows}
            if len(lengths) > 1:
                raise InputError(f"{path}: rows of {name} have different lengths ({sorted(lengths)[:5]})")
            columns[name] = np.asarray(rows)
        elif name == "labels":
            columns[name] = table[name].to_numpy()
    return columns
