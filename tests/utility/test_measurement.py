"""Measuring answers that stream past: as if at once, in any division, with one batch in memory."""

import gc
import json
import weakref

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch
import torch

from undistill.blackbox import Predictions, read_predictions, stream_predictions
from undistill.blackbox import predictions as predictions_module
from undistill.errors import InputError
from undistill.information import answers_per_class, spectrum_compute, spectrum_update
from undistill.utility import join_measurements, load_measurement, measure_answers, save_measurement

CLASSES, ROWS = 5, 403
RNG = np.random.default_rng(1)
LOGITS = 3 * RNG.normal(size=(ROWS, CLASSES))
LABELS = RNG.integers(0, CLASSES, ROWS)


def write(path, rows=slice(None), logits=LOGITS, groups=None):
    if path.suffix == ".npz":
        np.savez(path, logits=logits[rows], labels=LABELS[rows])
    else:
        table = pyarrow.table({"labels": LABELS[rows], "logits": logits[rows].tolist()})
        pyarrow.parquet.write_table(table, path, row_group_size=groups)
    return path


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(predictions_module, "BATCH_NUMBERS", 10 * CLASSES)


def measured(path):
    return measure_answers(stream_predictions(path), path.name, powers=[0.05, 0.25, 1.0, 3.0])


def assert_same(one, other):
    for name in ("counts", "probs", "entropies", "log_norms", "logits", "squares", "zeros"):
        torch.testing.assert_close(getattr(one.sums, name), getattr(other.sums, name), rtol=1e-12, atol=1e-10)
    assert torch.equal(one.right, other.right)
    for name in ("log_probs", "labels", "keys"):
        assert torch.equal(getattr(one.sample, name), getattr(other.sample, name))


@pytest.mark.parametrize("name", ["all.npz", "all.parquet"])
def test_batches_change_nothing(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, groups=37)
    whole = measured(path)
    monkeypatch.setattr(predictions_module, "BATCH_NUMBERS", 10 * CLASSES)
    batches = list(stream_predictions(path))
    assert len(batches) > ROWS / 10 - 1
    assert all(len(batch.labels) <= 10 for batch in batches)
    assert_same(measured(path), whole)
    assert measured(path).sources == whole.sources  # the digest too
    log_probs = torch.log_softmax(torch.from_numpy(LOGITS), 1).float()
    expected = spectrum_compute(spectrum_update(log_probs, torch.from_numpy(LABELS), [0.05, 0.25, 1.0, 3.0]))
    torch.testing.assert_close(whole.spectrum.cmi, expected.cmi)
    assert whole.accuracy == pytest.approx(100 * (LOGITS.argmax(1) == LABELS).mean())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_archive_is_streamed(tmp_path, small_batches, save, order):
    save(tmp_path / "all.npz", logits=np.asarray(LOGITS, order=order), labels=LABELS)
    found = read_predictions(tmp_path / "all.npz")
    torch.testing.assert_close(found.log_probs, torch.log_softmax(torch.from_numpy(LOGITS), 1).float())
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", [pyarrow.list_, pyarrow.large_list, lambda item: pyarrow.list_(item, CLASSES)])
@pytest.mark.parametrize("item", [pyarrow.float16(), pyarrow.float32(), pyarrow.float64()])
def test_every_kind_of_list_is_streamed(tmp_path, small_batches, kind, item):
    numbers = LOGITS.astype(item.to_pandas_dtype())
    table = pyarrow.table({"labels": LABELS, "logits": pyarrow.array(list(numbers), kind(item))})
    pyarrow.parquet.write_table(table, tmp_path / "all.parquet", row_group_size=7)
    found = read_predictions(tmp_path / "all.parquet")
    torch.testing.assert_close(found.log_probs, torch.log_softmax(torch.from_numpy(numbers).double(), 1).float())


@pytest.mark.parametrize("name", ["all.npz", "all.parquet"])
def test_no_more_than_one_batch_is_held(tmp_path, small_batches, name):
    alive, largest, seen = set(), [0], [0]

    def watched(batches):
        for batch in batches:
            for tensor in (batch.log_probs, batch.labels):
                alive.add(id(tensor))
                weakref.finalize(tensor, alive.discard, id(tensor))
            largest[0], seen[0] = max(largest[0], len(alive)), seen[0] + 1
            yield batch
            del batch, tensor

    gc.disable()  # batches go when the last name goes, not when somebody cleans up
    try:
        path = write(tmp_path / name, groups=10)
        found = measure_answers(watched(stream_predictions(path)), name)
    finally:
        gc.enable()
    assert seen[0] > 40
    assert largest[0] == 2  # the answers and the labels of one batch
    assert found.n == ROWS


@pytest.mark.parametrize("groups", [1_000, 30_000])
def test_a_parquet_file_is_not_read_ahead(tmp_path, monkeypatch, groups):
    """Neither many row groups nor a single one stay in memory while they are read."""
    monkeypatch.setattr(predictions_module, "BATCH_NUMBERS", 1_000 * 100)
    numbers = pyarrow.array(np.random.default_rng(0).normal(size=30_000 * 100).astype(np.float32))
    logits = pyarrow.FixedSizeListArray.from_arrays(numbers, 100)
    path = tmp_path / "all.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"labels": np.arange(30_000) % 100, "logits": logits}), path, row_group_size=groups
    )
    del numbers, logits
    before, batches, most = pyarrow.total_allocated_bytes(), 0, 0
    for _ in stream_predictions(path):
        batches, most = batches + 1, max(most, pyarrow.total_allocated_bytes() - before)
    assert batches >= 30
    assert path.stat().st_size > 12e6
    assert most < 8e6


def test_what_is_wrong_is_found_in_a_later_batch(tmp_path, small_batches):
    logits = LOGITS.copy()
    logits[25] = np.nan
    with pytest.raises(InputError, match=r"all.npz, counted from row 20: 1 of 10 rows hold NaN \(first: row 5\)"):
        measured(write(tmp_path / "all.npz", logits=logits))
    np.savez(tmp_path / "all.npz", logits=LOGITS, labels=np.where(np.arange(ROWS) == 33, 7, LABELS))
    with pytest.raises(InputError, match=r"1 labels lie outside 0\.\.4 \(first: 7 in row 33\)"):
        measured(tmp_path / "all.npz")


def test_a_file_that_is_cut_off(tmp_path, small_batches):
    import io
    import zipfile

    with zipfile.ZipFile(tmp_path / "all.npz", "w") as archive:
        for name, array in (("logits", LOGITS), ("labels", LABELS)):
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue()[: -8 * CLASSES if name == "logits" else None])
    with pytest.raises(InputError, match=r"all.npz cannot be read as an .npz file of plain arrays \(it is cut off\)"):
        measured(tmp_path / "all.npz")


@pytest.mark.parametrize("cut", [1, 100, 200, 402])
def test_parts_are_joined_as_if_measured_at_once(tmp_path, cut):
    whole = measured(write(tmp_path / "all.npz"))
    first = measured(write(tmp_path / "first.npz", slice(cut)))
    second = measured(write(tmp_path / "second.parquet", slice(cut, None)))
    for path, part in ((tmp_path / "1.safetensors", first), (tmp_path / "2.safetensors", second)):
        save_measurement(part, path)
    joined = join_measurements(load_measurement(tmp_path / name) for name in ("2.safetensors", "1.safetensors"))
    for name in ("probs", "entropies", "log_norms", "logits", "squares"):
        torch.testing.assert_close(getattr(joined.sums, name), getattr(whole.sums, name), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(joined.spectrum.cmi, whole.spectrum.cmi, rtol=1e-10, atol=1e-12)
    assert torch.equal(joined.right, whole.right)
    assert joined.n == ROWS
    assert joined.name == "second.parquet and 1 more"


def test_the_sample_is_bounded_and_of_each_class(monkeypatch):
    monkeypatch.setattr("undistill.information.sample.MOST", 9)
    log_probs = torch.log_softmax(torch.from_numpy(LOGITS), 1).float()
    labels = torch.where(torch.arange(ROWS) < 4, 4, torch.arange(ROWS) % 4)
    found = measure_answers([Predictions(log_probs, labels)], "answers")
    assert torch.bincount(found.sample.labels).tolist() == [9, 9, 9, 9, 4]
    for row, label in zip(found.sample.log_probs, found.sample.labels, strict=True):
        match = (log_probs == row).all(1).nonzero()[:, 0].tolist()
        assert len(match) == 1  # a real answer,
        assert labels[match[0]] == label  # with its own label


def test_every_answer_is_as_likely_in_the_sample(monkeypatch):
    """Over many data sets of one class, each place is drawn equally often."""
    monkeypatch.setattr("undistill.information.sample.MOST", 5)
    hits = torch.zeros(20)
    for trial in range(200):
        log_probs = torch.log_softmax(torch.randn(20, 2, generator=torch.Generator().manual_seed(trial)), 1)
        batches = [Predictions(part, torch.zeros(len(part), dtype=torch.int64)) for part in log_probs.split(6)]
        sample = measure_answers(batches, "answers", powers=[1.0]).sample
        hits += (log_probs[:, None] == sample.log_probs[None]).all(2).any(1)
    assert hits.sum() == 200 * 5
    # Binomial(200, 1/4): mean 50, deviation 6.1; the largest of 20 places stays within four of them.
    assert (hits - 50).abs().max() < 25


def test_the_sample_of_many_classes_stays_small():
    assert all(answers_per_class(classes) * classes**2 <= 2**20 for classes in range(2, 513))


def parts_of(tmp_path):
    for name, rows in (("first", slice(200)), ("second", slice(200, None))):
        save_measurement(measured(write(tmp_path / f"{name}.npz", rows)), tmp_path / f"{name}.safetensors")
    return load_measurement(tmp_path / "first.safetensors"), load_measurement(tmp_path / "second.safetensors")


def test_what_cannot_be_joined(tmp_path):
    first, second = parts_of(tmp_path)
    with pytest.raises(InputError) as refusal:
        join_measurements([first, second, first])
    assert str(refusal.value) == (
        "first.npz and first.npz hold the same 200 answers to the same labels, which would be counted twice; leave one "
        "of them out"
    )
    other = measure_answers(stream_predictions(tmp_path / "second.npz"), "second.npz", powers=[0.05, 0.25, 1.0, 2.0])
    with pytest.raises(InputError) as refusal:
        join_measurements([first, other])
    assert str(refusal.value) == (
        "first.npz and second.npz cannot be measured together: they were measured at 4 and 4 powers, of which only one "
        "has 2, 3; measure both with the same --powers"
    )
    narrow = measure_answers([Predictions(torch.zeros(2, 3).log_softmax(1), torch.tensor([0, 1]))], "narrow")
    with pytest.raises(InputError, match=r"first.npz and narrow cannot .*: they have 5 and 3 classes; measure each"):
        join_measurements([first, narrow])
    defended = measure_answers(stream_predictions(tmp_path / "second.npz"), "x", output_defences=({"name": "top-k"},))
    plain = measure_answers(stream_predictions(tmp_path / "first.npz"), "y")
    with pytest.raises(InputError, match=r"y and x cannot .* served behind different output defences; measure each"):
        join_measurements([plain, defended])
    with pytest.raises(InputError, match="there is nothing to join; give at least one"):
        join_measurements([])


def test_no_answers():
    with pytest.raises(InputError, match=r"nothing.npz holds no answers; give at least one"):
        measure_answers([], "nothing.npz")


def test_a_partial_result_comes_back_whole(tmp_path):
    found = measured(write(tmp_path / "all.npz"))
    save_measurement(found, tmp_path / "all.safetensors")
    again = load_measurement(tmp_path / "all.safetensors")
    assert again.sources == found.sources
    assert again.sums.powers == found.sums.powers
    assert_same(again, found)


def tampered(path, tensors, change):
    about = json.loads(safetensors.safe_open(path, "pt").metadata()["undistill"])
    change(about, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"undistill": json.dumps(about)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about, tensors: about["sources"][0].update(n=7), "its classes hold 403 answers, its sources 7"),
        (lambda about, tensors: tensors["probs"].mul_(2), "its probabilities do not sum to the number of answers"),
        (lambda about, tensors: tensors["right"].add_(1000), "more answers are right than there are"),
        (lambda about, tensors: tensors.pop("squares"), r"cannot be read as a partial result \('squares'\); make it"),
        (
            lambda about, tensors: about.update(schema="undistill.partial/9"),
            "is no partial result of `undistill measure",
        ),
    ],
)
def test_a_damaged_partial_result_is_refused(tmp_path, change, words):
    path = tmp_path / "all.safetensors"
    save_measurement(measured(write(tmp_path / "all.npz")), path)
    tampered(path, safetensors.torch.load_file(path), change)
    with pytest.raises(InputError, match=words):
        load_measurement(path)


def test_other_files_are_no_partial_results(tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (b"", b"no such file", safetensors.torch.save({"weight": torch.zeros(2)})):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"model.safetensors (is no partial result|cannot be read as a partial)"):
            load_measurement(path)
    with pytest.raises(InputError, match=r"missing.safetensors cannot be read as a partial result"):
        load_measurement(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match=r"'all.json' must end in .safetensors, for a partial result is such a file"):
        save_measurement(measured(write(tmp_path / "all.npz")), tmp_path / "all.json")
