import json

import numpy as np
import pytest
import torch

from undistill.blackbox import LocalBlackBox
from undistill.information import DEFAULT_POWERS, spectrum_compute, spectrum_update
from undistill.models import load_checkpoint
from undistill.tasks import load_task

ON_DIGITS = ("--task", "digits", "--classes", "3")
LABELS = np.arange(40) % 4
LOGITS = np.random.default_rng(0).normal(size=(40, 4))
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "answers.npz", **arrays)
        return tmp_path / "answers.npz"

    return write


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working folder; gives the import path of a function of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "measured_teacher.py").write_text(
        "import torch\n"
        "def soft(images):\n    return images.flatten(1)[:, 20:23] * 3\n"
        "def hard(images):\n    return torch.eye(3)[images.flatten(1)[:, 20:23].argmax(1)]\n"
        "def boom(images):\n    raise RuntimeError('no connection')\n"
        "def wide(images):\n    return images.flatten(1)[:, :4]\n"
        "def nan(images):\n    return images.flatten(1)[:, 20:23] * float('nan')\n"
        "number = 3\n"
    )
    return lambda name: f"measured_teacher:{name}"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_checkpoint_is_measured_on_a_split(run, teacher, split):
    status, out, _ = run("measure", teacher, *ON_DIGITS, "--split", split, "--json")
    found, part = json.loads(out), load_task("digits", classes=3).splits[split]
    answers = LocalBlackBox("ce", load_checkpoint(teacher)).answers(part)
    spectrum = spectrum_compute(spectrum_update(answers, part.labels))
    assert status == 0
    assert found["name"] == f"ce on digits ({split})"
    assert found["n"] == len(part)
    assert found["accuracy"] == pytest.approx(100 * (answers.argmax(1) == part.labels).double().mean().item())
    assert found["powers"] == sorted(DEFAULT_POWERS)
    assert dict(zip(found["powers"], found["cmi"], strict=True)) == pytest.approx(
        dict(zip(spectrum.powers, spectrum.cmi.tolist(), strict=True)), rel=1e-4
    )


def test_a_table_fits_80_columns(run, teacher):
    status, out, _ = run("measure", teacher, *ON_DIGITS)
    assert status == 0
    assert "sup CMI" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_powers_can_be_chosen(run, save):
    path = save(logits=LOGITS, labels=LABELS)
    found = json.loads(run("measure", path, "--powers", "0.5", "--powers", "2", "--json").out)
    assert found["powers"] == [0.05, 0.25, 0.5, 1.0, 2.0]  # with those that the table shows


def brute_force_cmi(probs, labels, power):
    powered = probs**power / (probs**power).sum(1, keepdims=True)
    centroids = np.stack([powered[labels == label].mean(0) for label in range(probs.shape[1])])
    return (powered * np.log(powered / centroids[labels])).sum(1).mean()


def test_predictions_are_measured_alike_in_every_form(run, save, tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"labels": LABELS, "probs": PROBS.tolist()})
    pyarrow.parquet.write_table(table, tmp_path / "answers.parquet")
    texts = [run("measure", tmp_path / "answers.parquet", "--json").out]
    for kind, values in (("logits", LOGITS), ("probs", PROBS), ("log_probs", np.log(PROBS))):
        texts.append(run("measure", save(**{kind: values}, labels=LABELS), "--json").out)
    for found in map(json.loads, texts):
        assert found["accuracy"] == pytest.approx(100 * (LOGITS.argmax(1) == LABELS).mean())
        assert found["cmi"] == pytest.approx([brute_force_cmi(PROBS, LABELS, a) for a in found["powers"]], rel=1e-4)


def test_a_callable_in_the_working_folder_is_measured(run, module):
    status, out, _ = run("measure", module("soft"), *ON_DIGITS, "--json")
    assert status == 0
    assert json.loads(out)["name"] == "measured_teacher:soft on digits (test)"


def test_exact_zeros_are_null_in_json(run, module):
    out = run("measure", module("hard"), *ON_DIGITS, "--json").out
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found["within_class_variance"] is None
    assert run("measure", module("hard"), *ON_DIGITS).status == 0


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_spectrum_is_drawn(run, save, tmp_path, suffix, start):
    path = tmp_path / "plots" / f"spectrum.{suffix}"
    assert run("measure", save(logits=LOGITS, labels=LABELS), "--plot", path).status == 0
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": LABELS + 1, "logits": LOGITS}, "10 labels lie outside 0..3 (first: 4 in row 3)"),
        ({"labels": LABELS, "logits": np.where(LOGITS > 1, np.nan, LOGITS)}, "rows hold NaN"),
        ({"labels": LABELS, "probs": PROBS * 1.1}, "sums to 1.1, off by +0.1"),
        ({"labels": LABELS, "probs": PROBS - 0.5}, "negative probabilities"),
        ({"labels": LABELS[:3], "probs": PROBS}, "must be (n, classes) and (n,)"),
        ({"probs": PROBS}, "a file of predictions holds 'labels' and exactly one of"),
    ],
)
def test_bad_predictions_are_refused(refused, save, arrays, words):
    assert words in refused("measure", save(**arrays))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wide", "one row per image, one column per class of the task"),
        ("nan", "rows hold NaN"),
        ("missing", "has no 'missing'"),
        ("number", "cannot be called"),
        (
            "boom",
            "measured_teacher:boom failed when it was asked about 89 images, with RuntimeError: no connection; mend",
        ),
    ],
)
def test_bad_callables_are_refused(refused, module, name, words):
    assert words in refused("measure", module(name), *ON_DIGITS)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["nowhere", *ON_DIGITS], "nowhere is not a checkpoint"),
        (["no.npz"], "there is no file 'no.npz'; check the path"),
        (["no.parquet", *ON_DIGITS], "there is no file 'no.parquet'"),
        (["TEACHER"], "add --task NAME"),
        (["TEACHER", "--task", "digits", "--classes", "4"], "'ce' has 3 classes, the task has 4"),
        (["TEACHER", "--task", "mnist1d"], "'ce' has 3 classes, the task has 10"),
        (["TEACHER", *ON_DIGITS, "--powers", "0"], "powers must be finite numbers above 0"),
        (["TEACHER", *ON_DIGITS, "--powers", "-1"], "powers must be finite numbers above 0"),
        (["TEACHER", *ON_DIGITS, "--powers", "nan"], "powers must be finite numbers above 0"),
        (["TEACHER", *ON_DIGITS, "--split", "tset"], "tset"),
        (
            ["TEACHER", *ON_DIGITS, "--split-seed", "3"],
            "'ce' was trained on another split of 'digits' (split seed 0, not 3)",
        ),
        (["TEACHER", *ON_DIGITS, "--plot", "p.jpg"], "'p.jpg' must end in one of .png, .svg, .pdf"),
        (["TEACHER", *ON_DIGITS, "--plot", "/dev/null/p.png"], "/dev/null: File exists"),
    ],
)
def test_bad_input_is_one_sentence(refused, teacher, tmp_path, monkeypatch, tokens, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused("measure", *[teacher if token == "TEACHER" else token for token in tokens])


def test_a_maximum_at_the_edge_of_the_powers_is_said(run, save):
    path = save(logits=LOGITS, labels=LABELS)
    assert spectrum_compute(spectrum_update(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))).supremum_at_edge
    assert "at the edge of the powers" in " ".join(run("measure", path).out.split())


def test_where_all_is_zero_there_is_no_maximum_to_look_for(run, save):
    logits = np.zeros((40, 4))
    assert spectrum_compute(spectrum_update(torch.from_numpy(logits), torch.from_numpy(LABELS))).supremum_at_edge
    status, out, _ = run("measure", save(logits=logits, labels=LABELS))
    assert status == 0
    assert "edge of the powers" not in " ".join(out.split())


def test_a_file_of_predictions_takes_no_task(refused, save):
    said = refused("measure", save(logits=LOGITS, labels=LABELS), "--task", "digits")
    assert "answers.npz' is a file of predictions, which holds its own labels and takes no task" in said
    assert said.endswith("leave --task out")
