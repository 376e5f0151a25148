import errno
import importlib
import json
import os

import pytest

from undistill.attacks import AS_RELEASED, ATTACKS
from undistill.audit import VERSIONS
from undistill.audit.versions import QUICK
from undistill.files import content_hash
from undistill.models import load_checkpoint, save_checkpoint


def test_an_audit_writes_json_and_says_what_it_found(run, quick, tmp_path):
    status, out, err = run(*quick)
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert status == 0
    assert " ".join(found["sentence"].split()) in " ".join(out.split())
    assert f"Details: {tmp_path / 'out' / 'audit.json'}" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("Details: ", "Report: ")))
    assert "judge on test: 6/6 trials" in err
    flags = dict.fromkeys(flag["name"] for flag in found["flags"])
    assert {"ls-at-edge", "attack-too-weak"} <= flags.keys()
    told = [
        line.split(": ")[0].split(", ")[1] for line in out.splitlines() if line.startswith(("critical", "warn", "note"))
    ]
    assert told == list(flags)
    assert "docs/flags.md says" in " ".join(out.split())
    assert f"unseen by teacher {found['threat_card']['unseen']}" in " ".join(out.split())
    again = run(*quick)
    assert again[:2] == (0, out)
    assert "judge on test: 6 trials, 6 stored" in again.err


def test_several_teachers_get_a_folder_each(run, quick, teacher, tmp_path):
    save_checkpoint(load_checkpoint(teacher), tmp_path / "copy")
    status, out, _ = run(*quick[:2], tmp_path / "copy", *quick[2:])
    assert status == 0
    for name in ("ce", "copy"):
        assert json.loads((tmp_path / "out" / name / "audit.json").read_text())["teacher"]["name"] == name
    assert out.count("Details: ") == 2


def test_a_callable_is_audited_against_a_given_teacher(run, quick, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "audited_teacher.py").write_text("def soft(images):\n    return images.flatten(1)[:, 20:23] * 3\n")
    words = ["audited_teacher:soft" if word == teacher else word for word in quick]
    assert run(*words, "--undefended", teacher).status == 0
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["teacher"]["name"] == "audited_teacher:soft"
    assert found["undefended"]["name"] == "ce"


@pytest.mark.parametrize(("accuracies", "status"), [((95.0, 95.1), 1), ((50.0, 50.1), 0)])
def test_fail_on_leaks_sets_the_exit_status(run, quick, tmp_path, accuracies, status):
    assert run(*quick).status == 0
    for path in (tmp_path / "out" / "trials").glob("*.json"):
        content = json.loads(path.read_text())
        seed = content["trial"]["seed"]
        content["outcome"]["accuracy"] = (
            accuracies[seed] if content["trial"]["role"] == "knockoff" else 90.0 + seed / 10
        )
        del content["checksum"]
        path.write_text(json.dumps({**content, "checksum": content_hash(content)}))
    assert run(*quick).status == 0
    assert run(*quick, "--fail-on", "leaks").status == status
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["verdict"] == (
        "leaks" if status else "inconclusive"  # of an attack that is too weak
    )


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_options_can_stand_in_a_file(run, teacher, tmp_path, suffix):
    options = {
        "teacher": [str(teacher)],
        "task": "digits",
        "classes": "3",
        "epochs": 1,
        "batch-size": 25,
        "student": ["mlp-4", "mlp-5"],
        "attack": ["kd:temperature=4", "kd-no-labels:temperature=2", "kd:temperature=1"],
        "smoothing": [0.1],
        "placebo-smoothing": [0.1],
        "seeds": 2,
        "workers": 1,
        "margin": 2,
    }
    lines = [f"{name}{' = ' if suffix == 'toml' else ': '}{json.dumps(value)}" for name, value in options.items()]
    head, indent = ("[audit]", "") if suffix == "toml" else ("audit:", "  ")
    path = tmp_path / f"options.{suffix}"
    path.write_text("\n".join([head, *(indent + line for line in lines)]))
    status, out, err = run("--config", path, "audit", "--out", tmp_path / "out")
    assert status == 0, err
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["protocol"]["margin"] == 2.0
    assert found["threat_card"]["tuning"] == {"kd": 2, "kd-no-labels": 1}
    assert len(found["cells"]) == 4
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("Details: ", "Report: ")))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["--classes", "4"], "'ce' has 3 classes, the task has 4; choose the task"),
        (["--student", "resnt8"], "unknown model 'resnt8'; did you mean 'resnet8'?"),
        (["--attack", "kdd"], "unknown attack 'kdd'; did you mean 'kd'?"),
        (["--attack", "kd:temprature=2"], "unknown setting of kd 'temprature'; did you mean 'temperature'?"),
        (["--attack", "kd:temperature=0"], "the temperature is 0.0, must be finite and above 0"),
        (["--attack", "kd:temperature=-4"], "the temperature is -4.0"),
        (["--attack", "kd:hard=2"], "must lie between 0 and 1"),
        (["--smoothing", "1.5"], "must lie in [0, 1)"),
        (["--seeds", "1"], "seeds is 1, must be at least 2"),
        (["--seeds", "2.5"], "'2.5' is not a whole number"),
        (["--margin", "0"], "margin is 0.0, must be finite and above 0"),
        (["--margin", "inf"], "margin is inf"),
        (["--alpha", "0.7"], "alpha is 0.7"),
        (["--workers", "0"], "workers is 0, must be at least 1"),
        (["--undefended", "nowhere"], "nowhere is not a checkpoint"),
        (["--access", "topk:2"], "unknown access 'topk'; did you mean 'top-k'?"),
        (["--access", "top-k:4"], "access 'top-k:4' keeps 4 classes, but there are 3"),
        (["--data", "fresh"], "'digits' has no fresh images; reserve a share of its training images"),
        (["--data", "other"], "--data other needs the other task; add --other-task NAME"),
        (["--other-task", "mnist1d"], "--other-task is for --data other, not for --data train"),
        (["--data", "none"], "with data 'none' the attacker has no labels, but they are needed by kd"),
        (["--data", "train:0.01"], "every class needs at least 2 training images"),
        (["--fresh", "1"], "fresh is 1.0, but must be a share of at least 0 and below 1"),
        (["--query-mode", "views"], "fresh-views"),
        (["--views", "0"], "the number of cached views is 0, must be at least 1"),
        (["--budget", "10"], "the query budget is 10 images, but one batch of the training asks about 25"),
        (["--out", "/dev/null"], "/dev/null: File exists"),
    ],
)
def test_bad_input_is_one_sentence(refused, quick, tmp_path, tokens, words):
    [option, value] = tokens
    if option in quick:
        quick[quick.index(option) + 1] = value
    else:
        quick += tokens
    assert words in refused(*quick)
    assert not (tmp_path / "out" / "trials").exists()


def test_the_attacker_is_described(run, quick, tmp_path):
    quick[quick.index("kd:temperature=4")] = "kd-no-labels:temperature=4"
    given = ["--access", "top-k:2", "--data", "other", "--other-task", "digits", "--other-classes", "7,8,9"]
    status, out, err = run(*quick, *given, "--query-mode", "clean", "--budget", 100)
    assert status == 0, err
    card = json.loads((tmp_path / "out" / "audit.json").read_text())["threat_card"]
    assert card["access"] == "the 2 largest probabilities, renormalised"
    assert card["data"] == "images of another task (digits), without labels"
    assert card["labels"] == "unknown"
    assert card["queries"] == "about every image once, as it is; at most 100 queries"
    assert card["queries_per_knockoff"] == 100
    [row] = [line for line in out.split("\n\n")[0].splitlines() if line.startswith("kd-no-labels ")]
    assert row.split()[3] == "-", "there is no placebo"


@pytest.fixture
def planned(run, quick, monkeypatch):
    """What a command would audit with, without names of attacks: the protocol, and what is said."""

    def plan(*more, bare=False):
        seen = []
        monkeypatch.setattr("undistill.cli.app.audit_all", lambda *_, protocol, **__: seen.append(protocol) or [])
        monkeypatch.setattr("undistill.cli.app.write_report", lambda places, path, keep: path)
        place = quick.index("--attack")
        words = [quick[0], quick[1], *quick[2:place], *quick[place + 2 :]]
        if bare:
            words = [*quick[:2], "--task", "digits", "--out", "nowhere"]
        told = run(*words, *more)
        assert told.status == 0, told.err
        return seen[0], " ".join(told.out.split())

    return plan


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_is_what_its_name_says(planned, name):
    protocol, told = planned("--protocol", name, bare=True)
    assert protocol == VERSIONS[name]((1, 8, 8))
    assert protocol.version == f"undistill-{name} v1"
    assert "Left out: fresh images of the task that the teacher never saw, with labels, for the task has none" in told
    assert "Not run" not in told


def test_the_default_version_is_quick_and_any_option_makes_it_custom(planned):
    assert planned(bare=True)[0].version == "undistill-quick v1"
    for option, value in (
        ("--margin", 0.7),
        ("--epochs", 3),
        ("--seeds", 6),
        ("--data", "train"),
        ("--access", "label"),
    ):
        protocol, _ = planned(option, value, bare=True)
        assert protocol.version == "custom (from undistill-quick v1)", option
    assert planned("--seeds", 6, bare=True)[0].all_looks == (3, 6)
    assert planned("--margin", 1, bare=True)[0].version == "undistill-quick v1", "the same again changes nothing"


def test_without_names_the_audit_runs_what_can_be_used(planned):
    given, _ = planned()
    assert given.students == ("mlp-4",)
    assert given.tries is None, "one smoothing, four settings"
    assert [grid[0].name for grid in given.attacks] == [grid[0].name for grid in QUICK]
    limited, told = planned("--slow", "--access", "label", "--data", "train")
    names = {grid[0].name for grid in limited.attacks}
    assert all("label" in ATTACKS[name].access for name in names)
    assert not names & AS_RELEASED.keys()
    assert all(name in told.split("says why): ")[1] for name in ATTACKS.keys() - names)
    silent, told = planned("--data", "other", "--other-task", "digits", "--other-classes", "7,8,9")
    assert [grid[0].name for grid in silent.attacks] == ["kd-no-labels"]
    assert "Not run, for they are of no use here (--attack NAME says why): averager-full, dist, dkd, kd," in told


def test_another_audits_folder_is_refused_and_left_alone(run, refused, quick, teacher, tmp_path):
    assert run(*quick).status == 0
    held = (tmp_path / "out" / "audit.json").read_bytes()
    save_checkpoint(load_checkpoint(teacher), tmp_path / "other")
    words = [tmp_path / "other" if word == teacher else word for word in quick]
    assert "holds an audit of the teacher 'ce'; choose another folder" in refused(*words)
    assert "holds an audit of another task" in refused(*quick, "--fraction", "0.5")
    assert (tmp_path / "out" / "audit.json").read_bytes() == held


@pytest.mark.parametrize("where", ["undistill.files.os.fsync", "undistill.blackbox.answers.write_atomic"])
def test_a_full_disk_is_one_sentence_and_loses_nothing(run, refused, quick, tmp_path, monkeypatch, where):
    done, fsync = [], os.fsync

    def full(*arguments):
        if where.endswith("fsync") and len(done) < 9:
            done.append(arguments)
            return fsync(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        sentence = refused(*quick)
    assert "disk is full" in sentence or "No space left on device" in sentence
    kept = len(list((tmp_path / "out" / "trials").iterdir()))
    assert kept == 4
    status, _, err = run(*quick)
    assert status == 0
    assert f"judge on test: 6 trials, {kept} stored" in err


def test_ctrl_c_is_one_sentence(run, quick, monkeypatch):
    monkeypatch.setattr(
        "undistill.cli.watch.TerminalWatcher.trial", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    status, _, err = run(*quick)
    assert status == 130
    assert err.splitlines()[-1] == (
        "undistill: stopped; what was finished is stored, and the same command goes on from there"
    )


# Where and how it runs.


def test_a_dry_run_says_what_it_would_take_and_does_nothing(run, quick, tmp_path, monkeypatch):
    # By its name: the package's attribute ``audit`` is the function.
    monkeypatch.setattr(importlib.import_module("undistill.audit.forecast"), "CALIBRATION_SECONDS", 0.0)
    status, out, err = run(*quick, "--dry-run")
    assert status == 0, err
    assert out.startswith("Trials: 6 (2 references, 2 placebos, 2 knockoffs); 0 stored already.\nQueries: ")
    assert "Time: about " in out
    assert " a step of mlp-4; " in out
    assert not (tmp_path / "out").exists()


def test_a_store_of_its_own_is_shared_by_audits(run, quick, tmp_path):
    store = f"file://{tmp_path}/shared"
    assert run(*quick, "--store", store).status == 0
    assert not (tmp_path / "out" / "trials").exists()
    quick[quick.index(tmp_path / "out")] = tmp_path / "again"
    assert "judge on test: 6 trials, 6 stored" in run(*quick, "--store", store).err


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--address", "auto"], "--address: only for a Ray cluster; add --executor ray, or leave it out"),
        (["--gpus-per-trial", "0.5", "--cpus-per-trial", "2"], "--cpus-per-trial, --gpus-per-trial: only for a Ray"),
        (
            ["--executor", "ray"],
            "--workers 1 is for the pool of this machine; on a Ray cluster as many trials run",
        ),
        (["--answers-gb", "0"], "--answers-gb is 0.0, must be above 0"),
        (["--store", "nothing://here"], "nothing://here cannot be used as a store"),
    ],
)
def test_where_it_runs_is_checked_first(refused, quick, tmp_path, tokens, words):
    assert words in refused(*quick, *tokens)
    assert not (tmp_path / "out").exists()
