"""Output defences on the command line: measured, attacked, audited."""

import json

import pytest
import torch

import undistill
from undistill.attacks import KD
from undistill.blackbox import defend
from undistill.cli.options import OutputDefenceOptions
from undistill.defences.output import KeepTopK, KeyedNoise, LabelOnly, ReverseSigmoid
from undistill.models import load_checkpoint, save_checkpoint
from undistill.tasks import load_task
from undistill.training import Recipe

ON_DIGITS = ("--task", "digits", "--classes", "3")


def test_the_words_are_values_in_their_order(teacher):
    task = load_task("digits", classes=3)
    words = ["noise:scale=0.1,space=logits,key=mine", "top-k:k=2,renormalised=false", "reverse-sigmoid:l1=0.1"]
    box = OutputDefenceOptions(words).around(str(teacher), task, trust_import_path=False)
    stack = [KeyedNoise(0.1, "logits", key="mine"), KeepTopK(2, renormalised=False), ReverseSigmoid(l1=0.1)]
    assert box.fingerprint == defend(teacher, stack, task).fingerprint
    assert OutputDefenceOptions().around("anything", task, trust_import_path=False) == "anything"


def test_a_defended_teacher_is_measured(run, teacher):
    status, out, err = run("measure", teacher, *ON_DIGITS, "--output-defence", "label-only", "--json")
    assert status == 0, err
    found, plain = json.loads(out), json.loads(run("measure", teacher, *ON_DIGITS, "--json").out)
    assert found["name"] == "ce+label-only on digits (test)"
    assert [defence["name"] for defence in found["output_defences"]] == ["label-only"]
    assert found["accuracy"] == plain["accuracy"]
    assert found["cmi"] != plain["cmi"]
    assert max(found["cmi"]) - min(found["cmi"]) < 1e-9, "one-hot answers are the same at every power"
    assert plain["output_defences"] == []


def test_what_was_learnt_is_said(run, teacher):
    status, out, _ = run("measure", teacher, *ON_DIGITS, "--output-defence", "reverse-sigmoid:l1=0.1")
    assert status == 0
    assert "Served behind reverse-sigmoid (gamma=0.2, l1=0.1): beta " in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_defended_teacher_is_attacked(run, refused, teacher, tmp_path):
    words = ["attack", teacher, *ON_DIGITS, "--attack", "kd", "--epochs", "1", "--batch-size", "25"]
    words += ["--student", "mlp-4", "--output-defence", "top-k:k=2", "--output-defence", "rounding:places=2"]
    status, out, err = run(*words, "--out", tmp_path / "knockoff")
    assert status == 0, err
    assert "kd on ce+top-k+rounding with mlp-4" in out
    made = load_checkpoint(tmp_path / "knockoff").provenance["teacher"]
    assert [defence["words"] for defence in made["output_defences"]] == [
        "top-k (k=2, renormalised=True)",
        "rounding (places=2)",
    ]
    words[words.index("top-k:k=2")] = "top-k:k=1"
    assert "holds something else than this knockoff" in refused(*words, "--out", tmp_path / "knockoff")
    words[words.index("kd")] = "recovery-bayes"
    sentence = refused(*words, "--out", tmp_path / "other")
    assert "serves the predicted class alone, which leaves nothing to recovery-bayes" in sentence


def test_an_inverse_is_learnt_of_what_the_stack_does(run, teacher, tmp_path):
    """The attacker knows the defences: his table is made by applying them."""
    words = [
        "attack",
        teacher,
        *ON_DIGITS,
        "--attack",
        "recovery-bayes:table=200",
        "--epochs",
        "1",
        "--batch-size",
        "25",
    ]
    words += ["--student", "mlp-4", "--out", tmp_path / "knockoff"]
    status, _, err = run(*words, "--output-defence", "reverse-sigmoid:l1=0.2", "--output-defence", "noise")
    assert status == 0, err
    assert load_checkpoint(tmp_path / "knockoff").provenance["notes"]["hidden_distance"] > 0.1


def test_a_defended_teacher_is_audited_against_itself_without_its_defences(run, refused, quick, teacher, tmp_path):
    save_checkpoint(load_checkpoint(teacher), tmp_path / "twin")
    given = ["--output-defence", "reverse-sigmoid:l1=0.2"]
    status, out, err = run(*quick, *given)
    assert status == 0, err
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["teacher"]["name"] == "ce+reverse-sigmoid"
    [defence] = found["teacher"]["output_defences"]
    assert (defence["name"], defence["l1"]) == ("reverse-sigmoid", 0.2)
    assert defence["learnt"]["beta"] > 0
    assert found["undefended"]["name"] == "ce", "the same checkpoint, which was trained with cross entropy"
    assert found["threat_card"]["output_defences"] == ["reverse-sigmoid (gamma=0.2, l1=0.2)"]
    assert "Served behind reverse-sigmoid (gamma=0.2, l1=0.2): beta " in out
    assert not (tmp_path / "out" / "undefended").exists()
    again = run(*quick, *given)
    assert again[:2] == (0, out)
    assert "judge on test: 8 trials, 8 stored" in again.err

    held = (tmp_path / "out" / "audit.json").read_bytes()
    sentence = refused(*quick, "--output-defence", "reverse-sigmoid:l1=0.1")
    assert "holds an audit of another teacher, or one of another output defence, named 'ce+reverse-sigmoid'" in sentence
    assert "holds an audit of the teacher 'ce+reverse-sigmoid'" in refused(*quick, "--output-defence", "label-only")
    assert "holds an audit of the teacher 'ce+reverse-sigmoid'" in refused(*quick)
    assert (tmp_path / "out" / "audit.json").read_bytes() == held


def test_in_python_a_defended_box_is_a_teacher(teacher):
    task = load_task("digits", classes=3)
    protocol = undistill.Protocol(("mlp-4",), Recipe(epochs=1, batch_size=25), ((KD(4.0),),), seeds=2)
    result = undistill.audit(defend(teacher, [LabelOnly()], task), task, protocol=protocol, workers=1)
    assert result.teacher.name == "ce+label-only"
    assert result.undefended.name == "ce"
    assert result.to_json()["threat_card"]["output_defences"] == ["label-only"]
    torch.testing.assert_close(result.teacher.test.cmi, result.teacher.test.cmi[:1].expand_as(result.teacher.test.cmi))


def test_without_names_the_audit_runs_what_the_defences_leave(run, quick, monkeypatch):
    seen = []
    monkeypatch.setattr("undistill.cli.app.audit_all", lambda *_, protocol, **__: seen.append(protocol) or [])
    monkeypatch.setattr("undistill.cli.app.write_report", lambda places, path, keep: path)
    place = quick.index("--attack")
    del quick[place : place + 2]
    assert run(*quick, "--output-defence", "label-only").status == 0
    assert run(*quick, "--access", "label").status == 0
    names = [{grid[0].name for grid in protocol.attacks} for protocol in seen]
    assert names[0] == names[1]
    assert (str(seen[0].access), str(seen[1].access)) == ("full", "label")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--output-defence", "topk"], "unknown output defence 'topk'; did you mean 'top-k'?"),
        (["--output-defence", "top-k:n=3"], "unknown setting of top-k 'n'"),
        (["--output-defence", "top-k:k=4"], "top-k cannot serve 4 classes where there are 3; k must be 1 to 3"),
        (["--output-defence", "top-k:k=two"], "output defence 'top-k:k=two': k is 'two', must be a whole number"),
        (["--output-defence", "rounding:places=9"], "rounding to 9 decimals is not possible"),
        (["--output-defence", "noise:scale=-1"], "noise of scale -1.0 is not possible"),
        (["--output-defence", "reverse-sigmoid:l1=1.99"], "cannot move these answers by 1.99 in the mean of L1: from"),
        (["--surrogate", "nowhere"], "--surrogate is for an output defence; add --output-defence NAME"),
        (["--output-defence", "label-only", "--surrogate", "x"], "label-only cannot make use of one; leave it out"),
        (["--output-defence", "mad", "--surrogate", "nowhere"], "nowhere is not a checkpoint"),
    ],
)
def test_bad_input_is_one_sentence(refused, quick, teacher, tmp_path, tokens, words):
    assert words in refused("measure", teacher, *ON_DIGITS, *tokens)
    assert words in refused(*quick, *tokens)
    assert not (tmp_path / "out").exists()


def test_an_access_on_top_of_what_leaves_out_is_refused(refused, quick, tmp_path):
    given = ["--output-defence", "label-only", "--access", "top-k:2"]
    assert "access 'top-k:2' cannot be set on top; leave it out, or name its output defence" in refused(*quick, *given)
    assert not (tmp_path / "out" / "trials").exists()


def test_predictions_cannot_be_defended(refused, tmp_path):
    import numpy as np

    np.savez(tmp_path / "answers.npz", logits=np.eye(3), labels=np.arange(3))
    words = "is a file of predictions, and an output defence needs the images that they belong to"
    assert words in refused("measure", tmp_path / "answers.npz", "--output-defence", "label-only")
