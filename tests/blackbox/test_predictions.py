"""Saved predictions: what is read, and the words for what is not."""

import math
from functools import partial

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from undistill.blackbox import check_log_probs, is_predictions_file, log_probs_of_probabilities, read_predictions
from undistill.errors import InputError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3))
LOG_PROBS = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
PROBS = np.exp(LOG_PROBS)
LABELS = np.array([0, 1, 2, 2, 1, 0])
KINDS = {"logits": LOGITS, "log_probs": LOG_PROBS, "probs": PROBS}


def write_npz(folder, **arrays):
    np.savez(folder / "answers.npz", **arrays)
    return folder / "answers.npz"


def write_parquet(folder, **arrays):
    columns = {name: array.tolist() for name, array in arrays.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "answers.parquet")
    return folder / "answers.parquet"


@pytest.fixture(params=[write_npz, write_parquet])
def write(request, tmp_path):
    return partial(request.param, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(write, kind):
    predictions = read_predictions(write(**{kind: KINDS[kind], "labels": LABELS}))
    assert predictions.log_probs.dtype == torch.float32
    np.testing.assert_allclose(predictions.log_probs.numpy(), LOG_PROBS, rtol=1e-5, atol=1e-6)
    assert predictions.labels.dtype == torch.int64
    assert predictions.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("answers", [np.float32, np.float16, ">f8"])
@pytest.mark.parametrize("labels", [np.uint8, np.int32, np.uint64, ">i4"])
def test_every_numeric_type_is_read(tmp_path, answers, labels):
    path = write_npz(tmp_path, logits=LOGITS.astype(answers), labels=LABELS.astype(labels))
    predictions = read_predictions(path)
    np.testing.assert_allclose(predictions.log_probs.numpy(), LOG_PROBS, atol=2e-3)
    assert predictions.labels.tolist() == LABELS.tolist()


def test_other_columns_do_not_matter(write):
    assert read_predictions(write(probs=PROBS, labels=LABELS, seconds=np.arange(6))).labels.shape == (6,)


def test_exact_zeros_are_exact(write):
    one_hot = np.eye(3)[LABELS]
    with np.errstate(divide="ignore"):
        for arrays in ({"probs": one_hot}, {"probs": np.eye(3, dtype=int)[LABELS]}, {"log_probs": np.log(one_hot)}):
            log_probs = read_predictions(write(**arrays, labels=LABELS)).log_probs
            assert torch.equal(log_probs, torch.from_numpy(one_hot).float().log())


def test_which_files_are_files_of_predictions(write, tmp_path):
    path = write(probs=PROBS, labels=LABELS)
    assert is_predictions_file(path)
    assert not is_predictions_file(path.with_name("other" + path.suffix))
    assert not is_predictions_file(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not is_predictions_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "arrays",
    [
        {"probs": PROBS},
        {"labels": LABELS},
        {"probs": PROBS, "logits": LOGITS, "labels": LABELS},
        {"prob": PROBS, "labels": LABELS},
    ],
)
def test_missing_and_doubled_arrays(write, arrays):
    path = write(**arrays)
    held = sorted(arrays.keys() & {"labels", *KINDS})
    with pytest.raises(InputError) as refusal:
        read_predictions(path)
    assert str(refusal.value) == (
        f"{path} holds {held}; a file of predictions holds 'labels' and exactly one of log_probs, probs, logits"
    )


def test_shapes_that_do_not_match(write, tmp_path):
    with pytest.raises(InputError, match=r"probs has shape \(6, 3\) and labels \(6, 1\); must be \(n, classes\) and"):
        read_predictions(write_npz(tmp_path, probs=PROBS, labels=LABELS[:, None]))
    with pytest.raises(InputError, match=r"probs has shape \(6, 3\) and labels \(5,\)"):
        read_predictions(write_npz(tmp_path, probs=PROBS, labels=LABELS[:5]))
    with pytest.raises(InputError, match=r"probs has shape \(6,\) and labels \(6,\)"):
        read_predictions(write_npz(tmp_path, probs=PROBS[:, 0], labels=LABELS))
    with pytest.raises(InputError, match=r"labels \(0,\); must be \(n, classes\) and \(n,\), n > 0"):
        read_predictions(write(probs=PROBS[:0], labels=LABELS[:0]))


@pytest.mark.parametrize(
    ("labels", "refusal"),
    [
        ([0, 1, 2, 3, -1, 7], r"3 labels lie outside 0\.\.2 \(first: 3 in row 3\)"),
        ([0.0, 1.0, 2.0, 2.0, 1.0, 0.0], r"labels have type float64, must be whole numbers \(class indices from 0\)"),
        ([True, False, True, True, True, True], "labels have type bool, must be whole numbers"),
    ],
)
def test_wrong_labels(write, labels, refusal):
    with pytest.raises(InputError, match=refusal):
        read_predictions(write(probs=PROBS, labels=np.array(labels)))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_nan(write, kind):
    answers = KINDS[kind].copy()
    answers[2, 1] = answers[4] = math.nan
    with pytest.raises(
        InputError, match=r"answers\.\w+: 2 of 6 rows hold NaN \(first: row 2\); a model that gives NaN"
    ):
        read_predictions(write(**{kind: answers, "labels": LABELS}))


def test_rows_without_a_finite_largest_logit(write):
    answers = LOGITS.copy()
    answers[0, 0] = -math.inf  # a class of probability 0
    assert read_predictions(write(logits=answers, labels=LABELS)).log_probs[0, 0] == -math.inf
    answers[3, 1] = math.inf
    answers[4] = -math.inf
    with pytest.raises(InputError) as refusal:
        read_predictions(write(logits=answers, labels=LABELS))
    assert str(refusal.value).endswith(
        ": 2 of 6 rows have no finite largest logit (first: row 3 with +inf); give finite logits, with -inf only for "
        "classes of probability 0"
    )


def test_sums_say_by_how_much_they_are_off(write):
    answers = PROBS.copy()
    answers[1] *= 1.01
    answers[3] *= 0.95
    with pytest.raises(InputError) as refusal:
        read_predictions(write(probs=answers, labels=LABELS))
    assert "probabilities of 2 of 6 rows do not sum to 1 (row 3 sums to 0.95, off by -0.05); give" in str(refusal.value)
    with pytest.raises(InputError, match=r"do not sum to 1 \(row 3 sums to 0\.95, off by -0\.05\)"):
        read_predictions(write(log_probs=np.log(answers), labels=LABELS))


def test_logits_under_another_name(write):
    with pytest.raises(InputError, match=r"\d of 6 rows hold negative probabilities .*name them so"):
        read_predictions(write(probs=LOGITS, labels=LABELS))
    with pytest.raises(InputError, match=r"of 6 rows do not sum to 1 .* logits under the name that says which"):
        read_predictions(write(log_probs=LOGITS, labels=LABELS))
    with pytest.raises(InputError, match="sums to inf"):
        read_predictions(write(log_probs=LOGITS + 1000, labels=LABELS))


def test_a_row_of_zeros(write):
    answers = PROBS.copy()
    answers[5] = 0
    with pytest.raises(InputError, match=r"1 of 6 rows do not sum to 1 \(row 5 sums to 0, off by -1\)"):
        read_predictions(write(probs=answers, labels=LABELS))


def test_words_are_no_numbers(write):
    with pytest.raises(InputError, match=r"probs have type .*, must be numbers"):
        read_predictions(write(probs=PROBS.astype(str), labels=LABELS))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"no such file", b"PK\x03\x04 cut off"])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"answers{suffix}"
    path.write_bytes(content)
    kind = {".npz": "an .npz", ".parquet": "a parquet"}[suffix]
    with pytest.raises(InputError, match=f"answers{suffix} cannot be read as {kind} file"):
        read_predictions(path)


def test_a_cut_off_archive(tmp_path):
    path = tmp_path / "answers.npz"
    np.savez_compressed(path, probs=np.tile(PROBS, (100, 1)), labels=np.tile(LABELS, 100))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as an \.npz file"):
        read_predictions(path)


def test_pickles_and_bare_arrays_are_refused(tmp_path):
    path = write_npz(tmp_path, probs=np.array([[0.5, 0.5], None], dtype=object), labels=LABELS[:2])
    with pytest.raises(InputError, match=r"file of plain arrays \(it holds Python objects; save numbers or"):
        read_predictions(path)
    with path.open("wb") as file:
        np.save(file, PROBS)
    for content in (path.read_bytes(), b"label,probability\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"plain arrays \(it is no such archive; write it with numpy\.savez\)"):
            read_predictions(path)


@pytest.mark.parametrize(
    ("probs", "refusal"),
    [
        ([[0.5, 0.5], [1.0]], r"rows of probs have different lengths \(\[1, 2\]\)"),
        ([0.5, 0.5], "probs must be a column of lists, one list of numbers per row"),
        ([[0.5, 0.5], None], r"probs must be a column of lists, but 1 rows hold none \(null\)"),
        ([[0.5, 0.5], [0.5, None]], r"probs must be numbers, but 1 are missing \(null\)"),
    ],
)
def test_parquet_columns_of_another_form(tmp_path, probs, refusal):
    path = tmp_path / "answers.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"probs": probs, "labels": [0, 1]}), path)
    with pytest.raises(InputError, match=refusal):
        read_predictions(path)


def test_missing_parquet_labels(tmp_path):
    path = tmp_path / "answers.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"probs": [[0.5, 0.5], [0.5, 0.5]], "labels": [0, None]}), path)
    with pytest.raises(InputError, match=r"1 rows have no label \(null\); label them or leave them out"):
        read_predictions(path)


def test_sums_within_the_tolerance_pass():
    rows = torch.tensor([[0.5, 0.4995], [0.5, 0.5005], [1.0, 0.0]])
    check_log_probs(log_probs_of_probabilities(rows, "rows"), "rows")
    with pytest.raises(InputError, match="1 of 1 rows do not sum to 1"):
        check_log_probs(torch.tensor([[0.5, 0.4985]]).log(), "rows")


def test_four_decimals_of_twenty_classes_pass():
    rows = np.random.default_rng(0).dirichlet(np.full(20, 0.3), size=1000).round(4)
    check_log_probs(log_probs_of_probabilities(torch.from_numpy(rows), "rows"), "rows")
