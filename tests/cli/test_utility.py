import json

import pytest

from undistill.blackbox import LocalBlackBox
from undistill.cli import main
from undistill.models import load_checkpoint
from undistill.tasks import load_task
from undistill.utility import measure_teacher

ON_DIGITS = ("--task", "digits", "--classes", "3")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two seeds each of cross entropy and CMIM of two weights."""
    root = tmp_path_factory.mktemp("teachers")
    recipe = ("--model", "mlp-4", "--epochs", "1", "--batch-size", "25")
    for seed in "01":
        for name, defence in (("ce", "ce"), ("weak", "cmim:weight=0.3"), ("strong", "cmim:weight=3")):
            out = root / f"{name}-{seed}"
            words = ("train", *ON_DIGITS, *recipe, "--defence", defence, "--seed", seed, "--out", str(out))
            assert main([*words]) == 0
    return root


def test_teachers_are_compared_with_cross_entropy(run, teachers, tmp_path):
    every = sorted(teachers.glob("*-?"))
    assert len(every) == 6
    plot = tmp_path / "trade-off.png"
    status, out, _ = run("utility", *every, *ON_DIGITS, "--json", "--plot", plot, "--output-defence", "label-only")
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert status == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert found["against"] == "ce"
    bare = ["ce", "cmim:weight=3", "cmim:weight=0.3"]
    assert [group["label"] for group in found["groups"]] == [*bare, *(f"{label} + label-only" for label in bare)]
    assert [curve["weights"] for curve in found["curves"]] == [[0.3, 3.0]] * 2
    task = load_task("digits", classes=3)
    facts = measure_teacher(LocalBlackBox("strong-1", load_checkpoint(teachers / "strong-1")), task)
    measured = found["groups"][1]["teachers"][1]
    assert (measured["seed"], measured["name"]) == (1, "strong-1")
    for figure in ("accuracy", "nll", "ece", "brier", "aurc"):
        assert measured["utility"][figure] == pytest.approx(getattr(facts.utility.quality, figure), rel=1e-5)
    assert measured["utility"]["training_seconds"] == facts.utility.training_seconds > 0
    assert found["groups"][1]["differences"]["ece"]["paired_by_seeds"] == [0, 1]
    assert found["groups"][3]["differences"]["accuracy"] == {
        "mean": 0.0,
        "low": 0.0,
        "high": 0.0,
        "paired_by_seeds": [0, 1],
    }


def test_tables_fit_80_columns(run, teachers):
    status, out, _ = run("utility", teachers / "strong-0", *ON_DIGITS, "--against", teachers / "ce-0")
    assert status == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    words = " ".join(out.split())
    for said in (
        "Difference to ce paired by seed (0): cmim:weight=3.",
        "no interval: ce, cmim:weight=3.",
        "serving s/1000",
        "sup CMI",
    ):
        assert said in words


def test_an_audit_says_what_protection_costs(run, quick, teachers, tmp_path):
    status, out, _ = run(*quick, teachers / "strong-0")
    assert status == 0
    words = " ".join(out.split())
    assert "Utility of ce: accuracy" in words
    assert "Utility of strong-0 (in brackets: ce, undefended): accuracy" in words
    found = json.loads((tmp_path / "out" / "strong-0" / "audit.json").read_text())
    costs = {"accuracy", "nll", "ece", "brier", "auroc", "aurc", "training_seconds", "serving"}
    assert costs <= set(found["teacher"]["utility"]) == set(found["undefended"]["utility"])
    assert found["undefended"]["accuracy"] == found["undefended"]["utility"]["accuracy"]


def test_another_task_is_shown(run, teachers):
    other = ("--other-task", "digits", "--other-classes", "7,8,9")
    out = run("utility", teachers / "ce-0", *ON_DIGITS, *other, "--json").out
    found = json.loads(out)["groups"][0]["teachers"][0]["utility"]["other_task"]
    assert found["n"] == len(load_task("digits", classes=["7", "8", "9"]).test)
    assert 0 <= found["auroc"] <= 1


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["nowhere", *ON_DIGITS], "nowhere is not a checkpoint"),
        (["ce-0", "ce-0", *ON_DIGITS], "teachers 'ce-0', 'ce-0' answer alike; give each once"),
        (["ce-0", *ON_DIGITS, "--plot", "p.png"], "no two teachers differ by their defence's weight only"),
        (["weak-0", "strong-0", *ON_DIGITS, "--plot", "p.jpg"], "'p.jpg' must end in one of .png, .svg, .pdf"),
        (["ce-0", *ON_DIGITS, "--other-task", "mnist1d"], "the images of 'mnist1d' have shape (1, 40)"),
        (["ce-0", *ON_DIGITS, "--other-task", "digits", "--other-classes", "2,3"], "of 'digits' itself (first: '2')"),
        (
            ["ce-0", *ON_DIGITS, "--against", "ce-1", "--against", "weak-1"],
            "the teachers to compare with are of 2 kinds",
        ),
        (["ce-0", *ON_DIGITS, "--split-seed", "3"], "'ce-0' was trained on another split"),
        (["ce-0", "--task", "digits"], "'ce-0' has 3 classes, the task has 10"),
        (["ce-0", *ON_DIGITS, "--surrogate", "ce-1"], "--surrogate is for an output defence"),
    ],
)
def test_bad_input_is_one_sentence(refused, teachers, tmp_path, monkeypatch, tokens, words):
    monkeypatch.chdir(tmp_path)
    known = {path.name: path for path in teachers.iterdir()}
    assert words in refused("utility", *[known.get(token, token) for token in tokens])
    assert list(tmp_path.iterdir()) == []
