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


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Predictions divided over three files in the working folder, and all of them in `all.npz`."""
    monkeypatch.chdir(tmp_path)
    np.savez("all.npz", logits=LOGITS, labels=LABELS)
    for index, rows in enumerate((slice(0, 10), slice(10, 25), slice(25, 40))):
        np.savez(f"part-{index}.npz", logits=LOGITS[rows], labels=LABELS[rows])
    return tmp_path


def numbers(text):
    """What does not depend on how the answers were divided."""
    found = json.loads(text)
    return {name: pytest.approx(found[name], rel=1e-9) for name in ("accuracy", "n", "cmi", "within_class_variance")}


def test_many_files_are_measured_together(run, parts):
    whole = run("measure", "all.npz", "--json").out
    for names in (["part-0.npz", "part-1.npz", "part-2.npz"], ["part-*.npz"], ["part-[01].npz", "part-2.npz"]):
        status, out, _ = run("measure", *names, "--json")
        assert status == 0
        found = json.loads(out)
        assert found["name"] == "part-0.npz and 2 more"
        assert [source["n"] for source in found["sources"]] == [10, 15, 15]
        assert {name: found[name] for name in numbers(whole)} == numbers(whole)
    assert "40 answers of 3 sources." in run("measure", "part-*.npz").out


def test_partial_results_of_several_machines_are_joined(run, parts):
    assert run("measure", "part-0.npz", "part-1.npz", "--save", "here.safetensors").status == 0
    assert run("measure", "part-2.npz", "--save", "there.safetensors").status == 0
    whole = run("measure", "all.npz", "--json").out
    for names in (["here.safetensors", "there.safetensors"], ["there.safetensors", "part-0.npz", "part-1.npz"]):
        found = json.loads(run("measure", *names, "--json").out)
        assert {name: found[name] for name in numbers(whole)} == numbers(whole)
        assert len(found["sources"]) == 3


def test_partial_results_keep_their_powers(run, refused, parts):
    run("measure", "part-0.npz", "--powers", "0.5", "--save", "here.safetensors")
    found = json.loads(run("measure", "part-1.npz", "here.safetensors", "--json").out)
    assert found["powers"] == [0.05, 0.25, 0.5, 1.0]
    said = refused("measure", "here.safetensors", "part-1.npz", "--powers", "2")
    assert "measured at 4 and 4 powers, of which only one has 0.5, 2; measure both with the same --powers" in said


def test_a_teacher_is_saved_with_its_output_defences(run, teacher, tmp_path):
    path, answers = tmp_path / "teacher.safetensors", ("measure", teacher, *ON_DIGITS, "--output-defence", "top-k:k=2")
    assert run(*answers, "--save", path).status == 0
    assert json.loads(run("measure", path, "--json").out) == json.loads(run(*answers, "--json").out)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["*.parquet"], "no file fits the pattern '*.parquet'; check the path"),
        (["all.npz", "all.npz"], "hold the same 40 answers to the same labels, which would be counted twice"),
        (
            ["all.npz", "teachers/ce"],
            "'teachers/ce' is not a file of answers (.npz, .parquet, or .safetensors of --save)",
        ),
        (
            ["teachers/a", "teachers/b", *ON_DIGITS],
            "2 teachers are named (teachers/a, teachers/b), but one is measured",
        ),
        (["all.npz", "no.safetensors"], "there is no file 'no.safetensors'"),
        (["all.npz", "--save", "all.json"], "'all.json' must end in .safetensors"),
        (["all.npz", "--save", "/dev/null/all.safetensors"], "/dev/null"),
        (["all.npz", "--html", "all.pdf"], "'all.pdf' must end in .html"),
        (["all.npz", "--plot", "all.jpg"], "'all.jpg' must end in one of .png, .svg, .pdf"),
        (["all.npz", "wide.npz"], "all.npz and wide.npz cannot be measured together: they have 4 and 5 classes"),
    ],
)
def test_files_that_cannot_be_measured_together(refused, parts, tokens, words):
    np.savez("wide.npz", logits=np.zeros((2, 5)), labels=np.array([0, 1]))
    assert words in refused("measure", *tokens)


def test_a_checkpoint_is_named_by_its_folder(refused, teacher):
    said = refused("measure", teacher / "model.safetensors")
    assert "is no partial result of `undistill measure --save` (undistill.partial/1); of a checkpoint, name the" in said


def test_a_page_is_written(run, parts):
    assert run("measure", "part-*.npz", "--html", "spectrum.html").status == 0
    assert "Spectrum of part-0.npz and 2 more" in (parts / "spectrum.html").read_text()
