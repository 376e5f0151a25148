"""``undistill store``: counts, checks, and removes nothing without being told twice."""

import json
import os
import time

import pytest


@pytest.fixture
def audited(run, quick, tmp_path):
    """OUT of a finished audit with 6 trials."""
    assert run(*quick).status == 0
    return tmp_path / "out"


def files(out):
    return sorted(path.name for path in (out / "trials").iterdir())


def test_ls_counts_by_role_attack_student_and_teacher(run, audited):
    status, out, _ = run("store", "ls", audited)
    assert status == 0
    rows = [line.split()[:5] for line in out.splitlines()[1:4]]
    assert rows == [
        ["knockoff", "kd", "mlp-4", "ce", "2"],
        ["placebo", "kd", "mlp-4", "-", "2"],
        ["reference", "-", "mlp-4", "-", "2"],
    ]
    assert out.splitlines()[-1].startswith(f"{audited / 'trials'}: 6 files, ")
    held = json.loads(run("store", "ls", audited / "trials", "--json").out)
    assert [(row["role"], row["files"]) for row in held["rows"]] == [("knockoff", 2), ("placebo", 2), ("reference", 2)]
    assert sum(row["bytes"] for row in held["rows"]) == sum(
        path.stat().st_size for path in (audited / "trials").iterdir()
    )


def test_verify_names_what_is_damaged_and_the_audit_runs_it_again(run, quick, audited):
    status, out, _ = run("store", "verify", audited)
    assert (status, out) == (0, f"{audited / 'trials'}: 6 files, 0 damaged.\n")
    found = (audited / "audit.json").read_bytes()
    first = audited / "trials" / files(audited)[0]
    first.write_bytes(first.read_bytes().replace(b'"accuracy": ', b'"accuracy": 1'))
    status, out, _ = run("store", "verify", audited)
    assert status == 1
    assert out.startswith(f"{first.name}: its checksum is another one\n")
    assert out.endswith("6 files, 1 damaged.\n")
    assert json.loads(run("store", "verify", audited, "--json").out)["damaged"] == [
        {"name": first.name, "problem": "its checksum is another one"}
    ]
    again = run(*quick)
    assert again.status == 0
    assert f"{first.name} is damaged (its checksum is another one): it is set aside" in again.err
    assert "judge on test: 6 trials, 5 stored" in again.err
    assert (audited / "audit.json").read_bytes() == found
    assert f"{first.name}.damaged" in files(audited)
    assert run("store", "verify", audited).status == 1, "it is still there"
    assert run("store", "prune", audited, "--damaged", "--yes").out.startswith("1 damaged\n")
    assert run("store", "verify", audited).status == 0
    assert len(files(audited)) == 6


def test_prune_keeps_what_a_result_rests_on_and_removes_only_with_yes(run, quick, audited):
    quick[quick.index("--seeds") + 1] = 3
    assert run(*quick, "--margin", 5).status == 0
    fewer = [*quick]
    fewer[fewer.index("--seeds") + 1] = 2
    assert run(*fewer).status == 0  # now the third seed is of no use
    assert len(files(audited)) == 9
    out = run("store", "prune", audited, "--unused-by", audited).out
    assert out.splitlines()[:3] == [
        "1 knockoff of kd with mlp-4 (ce)",
        "1 placebo of kd with mlp-4",
        "1 reference with mlp-4",
    ]
    assert "3 files" in out
    assert out.endswith("would be removed; add --yes to do so.\n")
    assert len(files(audited)) == 9
    told = json.loads(run("store", "prune", audited, "--unused-by", audited, "--yes", "--json").out)
    assert told["removed"] is True
    assert len(told["files"]) == 3
    assert len(files(audited)) == 6
    assert "judge on test: 6 trials, 6 stored" in run(*fewer).err


def test_prune_by_age_attack_and_teacher(run, audited):
    assert ": 0 files" in run("store", "prune", audited, "--older-than", 1).out
    assert "6 files" in run("store", "prune", audited, "--older-than", 0).out
    assert "4 files" in run("store", "prune", audited, "--attack", "kd").out
    assert "2 files" in run("store", "prune", audited, "--teacher", "ce", "--attack", "kd").out
    for condition in (["--older-than", 1], ["--unused-by", audited]):  # all of its knockoffs are kept
        assert ": 0 files" in run("store", "prune", audited, "--teacher", "ce", *condition).out
    fingerprint = json.loads((audited / "undistill.json").read_text())["teachers"]["ce"]
    assert run("store", "prune", audited / "trials", "--teacher", fingerprint[:12], "--yes").status == 0
    assert len(files(audited)) == 4


def test_a_store_elsewhere_is_found_from_the_audits_folder(run, refused, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*quick, "--store", "first").status == 0
    out, first, second = tmp_path / "out", tmp_path / "first", tmp_path / "second"
    assert json.loads((out / "undistill.json").read_text())["store"] == str(first)
    monkeypatch.chdir("/")
    status, said, _ = run("store", "verify", out)
    assert (status, said) == (0, f"{first}: 6 files, 0 damaged.\n")
    assert "ce" in run("store", "ls", out).out, "names are those of the audit"
    damaged = next(first.iterdir())
    damaged.write_bytes(b"{}")
    assert run("store", "verify", out).status == 1
    assert run("store", "prune", out, "--damaged", "--yes").out.startswith("1 damaged\n")
    # A later audit of the same folder has the last word, one that names no store too.
    assert run(*quick, "--store", f"file://{second}").status == 0
    assert run("store", "verify", out).out == f"{second}: 6 files, 0 damaged.\n"
    assert run(*quick).status == 0
    assert run("store", "verify", out).out == f"{out / 'trials'}: 6 files, 0 damaged.\n"
    assert run(*quick, "--store", second).status == 0
    second.rename(tmp_path / "moved")
    assert f"keeps its trials in {second}, and there is no such folder: nothing is" in refused("store", "verify", out)


def test_a_mark_of_an_earlier_version_means_the_trials_beside_it(run, audited):
    mark = json.loads((audited / "undistill.json").read_text())
    assert mark.pop("store") is None
    (audited / "undistill.json").write_text(json.dumps(mark))
    assert run("store", "verify", audited).out == f"{audited / 'trials'}: 6 files, 0 damaged.\n"


@pytest.fixture
def leftovers(audited):
    """What writers have left in the store of an audit: two files that are old, one that is young; and a file of the
    user's own."""
    trials = audited / "trials"
    keys = [name.removesuffix(".json") for name in files(audited)]
    old = [f".{keys[0]}.json.abc_1234", f".{'0' * 64}.json.{'f' * 32}"]
    for name in (*old, f".{keys[1]}.json.young123", ".gitignore"):
        (trials / name).write_bytes(b'{"trial": ')
        if not name.endswith("young123"):
            os.utime(trials / name, (time.time() - 3700,) * 2)
    return sorted(old)


def test_what_killed_writers_left_is_counted_and_removed(run, audited, leftovers):
    rows = json.loads(run("store", "ls", audited, "--json").out)["rows"]
    assert rows[-1] == {
        "role": "unfinished",
        "attack": None,
        "student": None,
        "teacher": None,
        "files": 2,
        "bytes": 20,
    }
    assert [row["role"] for row in rows[:-1]] == ["knockoff", "placebo", "reference"]
    assert run("store", "verify", audited).status == 0
    assert "6 files" in run("store", "prune", audited, "--older-than", 0).out, "only where they are asked for"
    assert run("store", "prune", audited, "--damaged").out.startswith("2 unfinished\n")
    for condition in (["--teacher", "ce"], ["--attack", "kd"], ["--older-than", 1]):
        assert ": 0 files" in run("store", "prune", audited, "--damaged", *condition).out
    removed = json.loads(run("store", "prune", audited, "--damaged", "--yes", "--json").out)
    assert sorted(removed["files"]) == leftovers
    kept = [name for name in files(audited) if name.startswith(".")]
    assert len(kept) == 2
    assert ".gitignore" in kept
    assert len(files(audited)) == 8


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["ls", "nowhere"], "there is no folder nowhere; name the OUT of an audit, or its store"),
        (["prune", "."], "nothing says what to remove; add --unused-by OUT, --older-than DAYS"),
        (["prune", ".", "--older-than", "-1"], "--older-than is -1.0, must be a number of days, 0 or more"),
        (["prune", ".", "--unused-by", "."], ". holds no finished audit, so it does not say which outcomes it needs"),
        (["prune", ".", "--teacher", "ce"], ". holds no knockoff of a teacher 'ce'; see: undistill store ls"),
        (["verify", "nothing://here"], "nothing://here cannot be used as a store"),
    ],
)
def test_bad_input_is_one_sentence(refused, tmp_path, monkeypatch, tokens, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused("store", *tokens)
