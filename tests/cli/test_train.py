import errno
import json
import os

import pytest

from undistill.models import load_checkpoint

TINY = ("--task", "digits", "--classes", "3", "--batch-size", "25", "--model", "mlp-4")


def test_a_teacher_is_trained_once(run, refused, tmp_path):
    words = ["train", *TINY, "--epochs", "2", "--defence", "cmim:weight=2,powers=0.25:1", "--out", tmp_path / "teacher"]
    status, out, _ = run(*words)
    assert status == 0
    made = load_checkpoint(tmp_path / "teacher").provenance
    assert made["defence"]["name"] == "cmim"
    assert (made["defence"]["weight"], made["defence"]["powers"]) == (2.0, [0.25, 1.0])
    assert f"test accuracy {made['test_accuracy']:.2f}%" in out
    assert str(tmp_path / "teacher") in out
    written = (tmp_path / "teacher" / "model.json").stat().st_mtime_ns
    assert run(*words)[:2] == (0, out)
    assert (tmp_path / "teacher" / "model.json").stat().st_mtime_ns == written
    assert "exists and holds something else than this training; choose another folder" in refused(*words, "--seed", 1)


def test_a_folder_with_markup_in_its_name_is_printed_as_it_is(run, tmp_path):
    assert "[red]x" in run("train", *TINY, "--epochs", "1", "--out", tmp_path / "[red]x").out


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "o.toml",
            '[train]\ntask = "digits"\nclasses = "3"\nepochs = 1\n'
            'batch-size = 25\nlearning-rate = 0.05\nmodel = "mlp-4"\n'
            'defence = "label-smoothing:smoothing=0.2"\n',
        ),
        (
            "o.yaml",
            "train:\n  task: digits\n  classes: '3'\n  epochs: 1\n"
            "  batch-size: 25\n  learning-rate: 0.05\n  model: mlp-4\n"
            "  defence: label-smoothing:smoothing=0.2\n",
        ),
    ],
)
def test_options_can_stand_in_a_file(run, tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert run("--config", tmp_path / file, "train", "--out", tmp_path / "one").status == 0
    made = load_checkpoint(tmp_path / "one").provenance
    assert made["defence"] == {"name": "label-smoothing", "smoothing": 0.2}
    assert (made["recipe"]["epochs"], made["recipe"]["learning_rate"]) == (1, 0.05)
    # What is typed goes before what is written, and --config may stand behind the command.
    assert (
        run("train", "--config", tmp_path / file, "--seed", "3", "--epochs", "2", "--out", tmp_path / "two").status == 0
    )
    made = load_checkpoint(tmp_path / "two").provenance
    assert (made["recipe"]["epochs"], made["seed"]) == (2, 3)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("o.toml", None, "there is no file"),
        ("o.ini", "", "'o.ini' must end in .toml, .yaml or .yml"),
        ("o.toml", "[train\n", "o.toml cannot be read: Expected ']'"),
        ("o.yaml", "train: [\n", "o.yaml cannot be read: while parsing a flow node"),
        ("o.toml", "[train]\nepoch = 3\n", "epoch"),
        (
            "o.toml",
            "[tran]\nepochs = 3\n",
            "under the names of commands; unknown command 'tran'; did you mean 'train'?",
        ),
        ("o.yaml", "tran:\n  epochs: 3\n", "o.yaml: options stand under the names of commands; unknown command 'tran'"),
        ("o.toml", "epochs = 2\n[train]\nseed = 1\n", "unknown command 'epochs'"),
        ("o.yaml", "1: 2\n", "unknown command '1'"),
        ("o.yaml", "- train\n", "must be a mapping, but got list"),
        ("o.toml", "[train]\nepochs = 1.5\n", "'1.5' is not a whole number"),
    ],
)
def test_a_file_of_options_that_is_wrong_is_refused(refused, tmp_path, file, text, words):
    if text is not None:
        (tmp_path / file).write_text(text)
    assert words in refused("--config", tmp_path / file, "train", *TINY, "--out", tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["--model", "resnt8"], "unknown model 'resnt8'; did you mean 'resnet8'?"),
        (["--defence", "cmi"], "unknown defence 'cmi'; did you mean 'cmim'?"),
        (["--defence", "cmim:wieght=1"], "unknown setting of cmim 'wieght'; did you mean 'weight'?"),
        (["--defence", "cmim:weight"], "'weight' is no setting; write cmim:FIELD=VALUE"),
        (["--defence", "cmim:weight=much"], "weight is 'much', must be a number"),
        (["--defence", "cmim:weight=-1"], "weight must be a finite number of at least 0, got -1.0"),
        (["--defence", "cmim:weight=nan"], "got nan"),
        (["--defence", "cmim:powers=0.5:0"], "powers must be finite numbers above 0"),
        (["--defence", "label-smoothing:smoothing=1"], "smoothing must lie in [0, 1), got 1.0"),
        (["--defence", "nasty:weight=-1"], "weight must be a finite number of at least 0, got -1.0"),
        (["--defence", "nasty:direction=x"], "unknown direction 'x'. (known: nasty-to-normal, normal-to-nasty)"),
        (["--defence", "ast:kept=11"], "kept is 11, but there are 10 classes; keep at most as many"),
        (["--defence", "mcmi:epochs=2"], "epochs is a share of the recipe's and must lie in (0, 1], got 2.0"),
        (["--start", "nowhere"], "nowhere is not a checkpoint"),
        (["--normal", "nowhere"], "nowhere is not a checkpoint"),
        (["--epochs", "0"], "epochs is 0, must be at least 1"),
        (["--learning-rate", "-1"], "learning_rate is -1.0"),
        (["--classes", "11"], "classes is 11, but must be 2 to 10"),
        (["--classes", "0,x"], "unknown class 'x'"),
        (["--classes", "²"], "unknown class '²'"),
        (["--fraction", "2"], "fraction is 2.0"),
    ],
)
def test_bad_input_is_one_sentence(refused, tmp_path, tokens, words):
    given = {"--task": "digits", "--epochs": "1", "--model": "mlp-4"} | dict(
        zip(tokens[::2], tokens[1::2], strict=True)
    )
    assert words in refused("train", *[word for pair in given.items() for word in pair], "--out", tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


def test_a_defence_trains_the_networks_it_needs(run, tmp_path):
    words = ["train", *TINY, "--epochs", "2", "--defence", "nasty", "--out", tmp_path / "nasty"]
    status, out, err = run(*words)
    assert status == 0
    assert err.index("mlp-4 with ce: epoch 2/2") < err.index("mlp-4 with nasty: epoch 2/2")
    normal = load_checkpoint(tmp_path / "nasty.normal").provenance
    lines = out.splitlines()
    assert lines[0].startswith(f"normal teacher (trained first, kept in {tmp_path / 'nasty.normal'}): validation")
    assert f"test accuracy {normal['test_accuracy']:.2f}%" in lines[0]
    assert lines[1].startswith("mlp-4 with nasty on digits")
    assert "ecome nasty: its answers lie" in lines[2]
    assert len(lines) == 3
    assert run(*words)[:2] == (0, out)
    given = run(*words[:-1], tmp_path / "other", "--normal", tmp_path / "nasty.normal")
    assert given.out.startswith("normal teacher (given): ")
    assert not (tmp_path / "other.normal").exists()


def test_fine_tuning_takes_the_architecture_of_its_start(run, refused, teacher, tmp_path):
    words = ["train", "--task", "digits", "--classes", "3", "--batch-size", "25", "--epochs", "1", "--start", teacher]
    status, out, _ = run(*words, "--defence", "cmim", "--out", tmp_path / "tuned")
    assert status == 0
    assert f"mlp-4 with cmim on digits, started from {teacher}: " in out
    assert load_checkpoint(tmp_path / "tuned").architecture == "mlp-4"
    sentence = refused(*words, "--model", "mlp-8", "--out", tmp_path / "x")
    assert f"{teacher} cannot be the start of this training: it is a 'mlp-4', not a 'mlp-8'" in sentence
    sentence = refused(*["4" if word == "3" else word for word in words], "--out", tmp_path / "x")
    assert "it knows 3 classes ('0', '1', '2'), not 4 classes ('0', '1', '2', ...)" in sentence
    sentence = refused(*words, "--defence", "mcmi", "--out", tmp_path / "x")
    assert "mcmi starts from its normal teacher" in sentence
    assert not (tmp_path / "x").exists()


def test_a_collapse_is_said_as_it_happens_and_in_the_end(run, tmp_path):
    words = ["train", *TINY, "--epochs", "4", "--learning-rate", "0.3"]
    assert run(*words, "--out", tmp_path / "ce").status == 0
    watched = [*words, "--normal", tmp_path / "ce", "--out", tmp_path / "broken"]
    _, out, err = run(*watched, "--defence", "nasty:weight=50")
    assert "mlp-4 with nasty: collapse: after epoch" in err
    assert "collapse: after" in out
    assert "under half of that of the normal teacher after the same epoch, the last one among them" in out


def test_without_a_normal_teacher_the_last_line_names_the_weaker_watch(run, tmp_path):
    words = ["train", *TINY, "--epochs", "4", "--learning-rate", "0.3"]
    _, out, err = run(*words, "--defence", "cmim", "--out", tmp_path / "alone")
    weaker = "no normal teacher is known, so only the weaker watch looked for a collapse: add --normal CHECKPOINT"
    assert out.splitlines()[-1] == weaker
    assert "collapse by the weaker watch" not in out + err
    _, out, err = run(*words, "--defence", "cmim:weight=100000,ramp=0", "--out", tmp_path / "broken")
    assert "mlp-4 with cmim: collapse by the weaker watch: after epoch 2" in err
    *_, last, line = out.splitlines()
    assert last.startswith(
        "collapse by the weaker watch: after 3 of 4 epochs the validation accuracy was under half of "
    )
    assert line == weaker
    _, out, _ = run(*words, "--out", tmp_path / "ce")
    assert "weaker watch" not in out, "for cross entropy there is no other"


def test_a_loss_that_breaks_is_one_sentence(refused, tmp_path):
    assert "learning rate" in refused(
        "train", *TINY, "--epochs", "3", "--learning-rate", "1e30", "--out", tmp_path / "t"
    )


def test_a_disk_that_is_full_is_one_sentence(refused, run, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    words = ["train", *TINY, "--epochs", "1", "--out", tmp_path / "teacher"]
    with monkeypatch.context() as patch:
        patch.setattr("undistill.files.os.fsync", full)
        assert "No space left on device; what was finished is stored" in refused(*words)
    assert not (tmp_path / "teacher").exists()
    assert run(*words).status == 0
    assert json.loads((tmp_path / "teacher" / "model.json").read_text())["architecture"] == "mlp-4"
