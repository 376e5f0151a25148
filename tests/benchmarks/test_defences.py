"""The comparison of all defences: a whole run in small, and what its tables and correlations say."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import defences
from benchmarks.defences import (
    app,
    correlations,
    leak_differences,
    leak_words,
    order_table,
    picked,
    rank_correlation,
    slug,
)
from undistill.errors import InputError

FEW = 50  # resamples: enough where an interval is not looked at


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A run on three classes with networks of four hidden units."""
    folder = tmp_path_factory.mktemp("defences")
    words = (
        "run --task digits --classes 3 --fresh 0.2 --model mlp-4 --student mlp-2 --epochs 2 --batch-size 16 --seeds 2"
        " --teacher-epochs 3 --workers 1"
    )
    words += f" --out {folder / 'out'} --record small --defence cmim:weight=0.1 --attack kd:temperature=4"
    words += " --attack kd-mse --placebo-smoothing 0.1 --smoothing 0.1"
    served = ["--output-defence", "label-only on ce", "--output-defence", "top-k:k=2 on cmim:weight=0.1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defences, "RECORDS", folder)
        patch.setattr(defences, "RESAMPLES", FEW)
        for command in ([*words.split(), *served], ["pages"]):
            app(command, exit_on_error=False, print_error=False, result_action="return_value")
    return json.loads((folder / "small.json").read_text()), folder


def test_teachers_and_students_have_epochs_of_their_own(record):
    held, folder = record
    assert held["protocol"]["recipe"]["epochs"] == 2
    teachers = [json.loads(path.read_text()) for path in (folder / "out" / "teachers").glob("*/model.json")]
    assert [teacher["provenance"]["recipe"]["epochs"] for teacher in teachers] == [3] * 4
    assert "3 (teachers) and 2 (students) epochs" in (folder / "small-source.md").read_text()


def test_a_run_measures_every_defence_with_both_kinds_of_queries(record):
    held, _ = record
    assert [entry["label"] for entry in held["defences"]] == [
        "ce",
        "cmim:weight=0.1",
        "label-only on ce",
        "top-k:k=2 on cmim:weight=0.1",
    ]
    for entry in held["defences"]:
        assert len(entry["teachers"]) == 2
        assert set(entry["cells"]) == {"train", "fresh"}
        for cells in entry["cells"].values():
            for cell in cells:
                assert len(cell["knockoff"]) == len(cell["control"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output-defence", "top-k on cmim"], "'top-k on cmim' needs a teacher that is not trained here"),
        (["--output-defence", "rounding:digits=1 on ce"], "unknown setting of rounding 'digits'"),
        (["--students", "1"], "seeds is 1, must be at least 2"),
        (["--seeds", "1"], "--seeds is 1, must be at least 2: an interval over teachers needs two"),
        (["--attack", "kdd"], "unknown attack 'kdd'"),
        (["--defence", "cmin"], "unknown defence 'cmin'; did you mean 'cmim'"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_trained(tmp_path, words, message):
    command = ["run", "--task", "digits", "--out", str(tmp_path / "out"), "--record", "none", *words]
    if "--defence" not in words:
        command += ["--defence", "ce"]
    with pytest.raises(InputError, match=message):
        app(command, exit_on_error=False, print_error=False, result_action="return_value")
    assert not (tmp_path / "out").exists()


def test_an_attack_that_cannot_use_an_answer_is_left_out(record):
    held, folder = record
    attacks = {entry["label"]: [cell["attack"] for cell in entry["cells"]["train"]] for entry in held["defences"]}
    assert attacks["ce"] == ["kd", "kd-mse"]
    assert attacks["label-only on ce"] == ["kd"]
    table = (folder / "small-leak-train.md").read_text().splitlines()
    assert table[0] == "| defence | kd | kd-mse |"
    [line] = [line for line in table if "label-only" in line]
    assert line.endswith("| cannot be run |")


def test_leaks_are_those_of_the_mean_student_of_each_teacher(record):
    held, _ = record
    for entry in held["defences"]:
        for cell in entry["cells"]["fresh"]:
            gaps = [a - b for a, b in zip(cell["knockoff"], cell["control"], strict=True)]
            assert cell["leak"]["mean"] == pytest.approx(sum(gaps) / 2)


def test_two_teachers_share_no_student(record):
    _, folder = record
    seeds = {
        path.relative_to(folder / "out" / "train").parts[0]: json.loads(path.read_text())["protocol"]["first_seed"]
        for path in (folder / "out" / "train").rglob("audit.json")
    }
    assert len(seeds) == 4  # two teachers of each label, in two groups of attacks
    assert {seeds[name] for name in seeds if name.startswith("teachers-0")} == {0}
    assert {seeds[name] for name in seeds if name.startswith("teachers-1")} == {2}


def test_tables_are_written_for_what_was_measured(record):
    _, folder = record
    names = {path.stem.removeprefix("small-") for path in folder.glob("small-*.md")}
    assert names == {
        "utility",
        "spectrum",
        "source",
        "leak-train",
        "leak-fresh",
        "choice-train",
        "choice-fresh",
        "correlations",
    }, "a record without mcmi and with another cmim holds no order of the poles"


def leaking(label, **by_attack):
    cells = [
        {"attack": name, "knockoff": [leak + 50.0 for leak in leaks], "control": [50.0] * len(leaks)}
        for name, leaks in by_attack.items()
    ]
    return {"label": label, "teachers": [{}] * 3, "cells": {"train": cells}}


def test_the_order_of_the_poles_is_the_paired_t_interval_of_scipy():
    ce, mcmi = {"kd": [1.0, 2.0, 4.0], "dist": [0.5, 0.0, 1.0]}, {"kd": [3.0, 3.0, 4.5], "dist": [0.0, 2.0, 1.0]}
    entries = [leaking("ce", **ce), leaking("nasty", kd=[9.0] * 3, dist=[9.0] * 3), leaking("mcmi", **mcmi)]
    title, _, row = order_table(entries, "train")
    assert title == "| leak of | teachers | mean over attacks | kd | dist |"
    first, *others = row.strip("| ").split(" | ")
    assert (first, others[0]) == ("`mcmi` less `ce`", "3")
    means = [[(a + b) / 2 for a, b in zip(*of.values(), strict=True)] for of in (mcmi, ce)]
    for word, ours, theirs in zip(others[1:], (means[0], *mcmi.values()), (means[1], *ce.values()), strict=True):
        oracle = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        centre = np.mean(np.subtract(ours, theirs))
        assert word == f"{centre:+.2f} [{oracle.low:+.2f},\N{NO-BREAK SPACE}{oracle.high:+.2f}]"


def test_the_order_compares_what_a_record_holds():
    ce, cmim = leaking("ce", kd=[1.0, 2.0, 4.0]), leaking("cmim", kd=[0.0, 2.0, 1.0])
    assert order_table([ce], "train") == []
    assert order_table([leaking("mcmi", kd=[1.0] * 3), cmim], "train") == []
    [row] = order_table([ce, cmim], "train")[2:]
    assert row.startswith("| `ce` less `cmim` | 3 | +1.33 [")
    entries = [ce, cmim, leaking("mcmi", kd=[1.0, 2.0, 4.5])]
    assert [line.split(" | ")[0] for line in order_table(entries, "train")[2:]] == [
        "| `mcmi` less `ce`",
        "| `ce` less `cmim`",
    ]


def test_an_attack_that_one_of_two_cannot_be_attacked_with_is_left_out_of_their_mean():
    ce, cmim = leaking("ce", kd=[1.0, 2.0, 4.0], dist=[90.0] * 3), leaking("cmim", kd=[0.0, 2.0, 1.0])
    assert leak_differences(ce, cmim, "train") == {"kd": [1.0, 0.0, 3.0]}
    assert order_table([ce, cmim], "train")[2].endswith(" |  |")


def fake_entry(values, leaks, label="ce"):
    teachers = [{f"{part}_{name}": v for part in ("train", "test") for name in defences.PREDICTORS} for v in values]
    cells = {
        "train": [
            {"knockoff": leaks, "control": [0.0] * len(leaks)},
            {"knockoff": [-9.0] * len(leaks), "control": [0.0] * len(leaks)},
        ]
    }
    return {"label": label, "teachers": teachers, "cells": cells}


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(defences, "RESAMPLES", FEW)


def test_what_is_picked_leaks_least_of_those_that_are_as_accurate_as_cross_entropy():
    def entry(accuracy, train):
        cells = {"train": [{"attack": "kd", "validation_leak": train}, {"attack": "dist", "validation_leak": -9.0}]}
        return {"teachers": [{"validation_accuracy": accuracy}], "cells": cells}

    first = {"ce": entry(90, 5.0), "good": entry(90, 1.0), "costly": entry(89, 0.0), "one task": entry(95, 0.0)}
    second = {"ce": entry(70, 6.0), "good": entry(71, 2.0), "costly": entry(80, 0.0), "elsewhere": entry(90, 0.0)}
    assert picked([first, second]) == "good"
    first["uneven"], second["uneven"] = entry(99, -1.0), entry(99, 2.5)
    assert picked([first, second]) == "good", "the task on which it leaks most counts"
    assert picked([{"ce": entry(90, 5.0)}]) == "ce"


def test_the_correlation_is_that_of_ranks_with_the_largest_leak(few_resamples):
    rising = {"defences": [fake_entry([v, v + 1], [v**3, (v + 1) ** 3]) for v in (0.0, 2.0, 4.0, 6.0)]}
    for row in correlations(rising, "train"):
        assert row["rho"] == pytest.approx(1)
        assert row["low"] == pytest.approx(1)
    falling = {"defences": [fake_entry([v, v + 1], [-v, -v - 1]) for v in (0.0, 2.0, 4.0, 6.0)]}
    assert all(row["rho"] == pytest.approx(-1) for row in correlations(falling, "train"))


def test_numbers_that_are_not_finite_are_left_out_of_the_correlation(few_resamples):
    entries = [fake_entry([v, v + 1], [v, v + 1]) for v in (0.0, 2.0, 4.0)] + [fake_entry([None, None], [50.0, 60.0])]
    rows = correlations({"defences": entries}, "train")
    assert {(row["defences"], row["teachers"]) for row in rows} == {(3, 6)}


def test_the_correlation_is_scipys():
    draws = np.random.default_rng(0)
    for _ in range(5):
        groups = [draws.integers(6, size=(4, 2)).astype(float) for _ in range(4)]  # with ties
        pairs = np.concatenate(groups)
        expected = stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic
        assert rank_correlation(groups) == pytest.approx(expected)
    assert np.isnan(rank_correlation([np.array([[1.0, 2.0], [1.0, 3.0]])]))


def test_teachers_without_an_output_defence_are_looked_at_apart(few_resamples):
    trained = [fake_entry([v, v + 1], [v, v + 1]) for v in (0.0, 2.0, 4.0)]
    served = [fake_entry([v, v + 1], [-9 - v, -10 - v], "rounding on ce") for v in (6.0, 8.0, 10.0)]
    rows = correlations({"defences": trained + served}, "train")
    assert {row["rho"] for row in rows if row["over"] == "no output defence"} == {1.0}
    assert all(row["rho"] < 0 for row in rows if row["over"] == "all")


def test_words():
    cell = {"leak": {"mean": 1.0, "low": 0.25, "high": 1.75}, "outcome": "leaks"}
    assert leak_words(cell) == "+1.00 [+0.25,\N{NO-BREAK SPACE}+1.75] **leaks**"
    assert slug("top-k:k=3 on cmim:weight=0.3,ramp=0.1") == "top-k-k-3-on-cmim-weight-0.3-ramp-0.1"
