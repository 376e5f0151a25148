"""``undistill store``: counts, checks, and removes nothing without being told twice."""

import json

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
    fingerprint = json.loads((audited / "undistill.json").read_text())["teachers"]["ce"]
    assert run("store", "prune", audited / "trials", "--teacher", fingerprint[:12], "--yes").status == 0
    assert len(files(audited)) == 4


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
