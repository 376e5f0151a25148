import json

import pytest

from undistill.attacks import AS_RELEASED
from undistill.models import load_checkpoint

ON_DIGITS = ("--task", "digits", "--classes", "3")
TINY = ("--epochs", "2", "--batch-size", "25", "--student", "mlp-4")


@pytest.fixture
def words(teacher, tmp_path):
    """The words of a tiny attack on that teacher into ``tmp_path / "knockoff"``."""
    return ["attack", teacher, "--attack", "kd", *ON_DIGITS, *TINY, "--out", tmp_path / "knockoff"]


def test_a_knockoff_is_trained_once_and_can_be_used(run, words, tmp_path):
    status, out, err = run(*words)
    assert status == 0, err
    made = load_checkpoint(tmp_path / "knockoff").provenance
    assert out == (
        f"kd on ce with mlp-4, digits: test accuracy {made['test_accuracy']:.2f}%, agreement with the teacher "
        f"{made['agreement']:.2f}%, 300 queries; saved in {tmp_path / 'knockoff'}\n"
    )
    assert "kd on ce with mlp-4: epoch 2/2" in err
    again = run(*words)
    assert again.out == out.replace("saved in", "was already there in")
    assert again.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["knockoff"]
    # Like any other model: measured, and the teacher of the next one.
    assert json.loads(run("measure", tmp_path / "knockoff", *ON_DIGITS, "--json").out)["accuracy"] == pytest.approx(
        made["test_accuracy"]
    )
    second = [tmp_path / "knockoff" if str(word).endswith("/ce") else word for word in words]
    assert "on knockoff with mlp-4" in run(*second[:-1], tmp_path / "second").out


def test_options_reach_the_knockoff(run, words, tmp_path):
    options = ["--access", "top-k-raw:2", "--data", "train:0.5", "--query-mode", "cached-views", "--views", 1]
    words[words.index("kd")] = "kd-no-labels:temperature=2"
    status, _, err = run(*words, *options, "--seed", 3, "--budget", 60)
    assert status == 0, err
    made = load_checkpoint(tmp_path / "knockoff").provenance
    assert (made["attack"]["name"], made["attack"]["temperature"]) == ("kd-no-labels", 2.0)
    assert (made["access"], made["data"]["name"], made["seed"]) == ("top-k-raw:2", "train:0.5", 3)
    assert made["queries"] == {"mode": "cached-views", "views": 1, "budget": 60, "asked": 60}


def test_fresh_images_are_kept_from_the_teacher(run, refused, words, tmp_path):
    trained = ["train", *ON_DIGITS, "--fresh", "0.4", "--epochs", "1", "--batch-size", "25", "--model", "mlp-4"]
    assert run(*trained, "--out", tmp_path / "teacher").status == 0
    asked = [*words, "--fresh", "0.4", "--data", "fresh"]
    assert "'ce' was trained on another split of 'digits' (fresh share 0.0, not 0.4)" in refused(*asked)
    asked[1] = tmp_path / "teacher"
    assert run(*asked).status == 0
    assert load_checkpoint(tmp_path / "knockoff").provenance["queries"]["asked"] == 2 * 61


def test_options_can_stand_in_a_file(run, teacher, tmp_path):
    (tmp_path / "o.toml").write_text(
        f'[attack]\nteacher = "{teacher}"\nattack = "kd"\ntask = "digits"\nclasses = "3"\nepochs = 1\nbatch-size = 25\n'
        'student = "mlp-4"\naccess = "label"\nbudget = 100\n'
    )
    status, out, err = run("--config", tmp_path / "o.toml", "attack", "--out", tmp_path / "knockoff")
    assert status == 0, err
    assert "100 queries" in out


def test_a_folder_with_something_else_is_refused(run, refused, words):
    assert run(*words).status == 0
    assert "exists and holds something else than this knockoff; choose another folder" in refused(*words, "--seed", 1)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working folder; gives the import path of a function of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "attacked_teacher.py").write_text(
        "import torch\n"
        "def plain(images):\n    return (images.flatten(1)[:, 20:23] * 3).softmax(1)\n"
        "def top(images):\n    return plain(images).where(plain(images) > 0.33, 0.0)\n"
        "def draws(images):\n    return torch.randn(len(images), 3)\n"
        "def batch(images):\n    return plain(images - images.mean(0) if len(images) > 1 else images)\n"
        "def short(images):\n    return plain(images) * 0.9\n"
        "def turns(images):\n    return plain(images) if len(images) != 150 % 64 else -plain(images)\n"
    )
    return lambda name: f"attacked_teacher:{name}"


@pytest.mark.parametrize(
    ("name", "words_of_refusal"),
    [
        (
            "draws",
            "answers differently when it is asked about the same images again: the probabilities of 8 of 8 images",
        ),
        ("batch", "answers differently about an image alone than in a batch: the probabilities of"),
        ("short", "its answers look like probabilities, but do not sum to 1 (row"),
        ("turns", "rows hold negative probabilities"),
    ],
)
def test_teachers_that_cannot_be_attacked_are_refused(refused, words, module, tmp_path, name, words_of_refusal):
    words[1] = module(name)
    assert words_of_refusal in refused(*words)
    assert not (tmp_path / "knockoff").exists()


def test_an_api_that_serves_some_probabilities_says_so(run, words, module, tmp_path):
    words[1] = module("top")
    status, _, err = run(*words, "--access", "top-k-raw:2")
    assert status == 0, err


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"--attack": "kdd"}, "unknown attack 'kdd'; did you mean 'kd'?"),
        ({"--attack": "kd:temperature=0"}, "the temperature is 0.0, must be finite and above 0"),
        ({"--attack": "kd:hard=-1"}, "the share of hard labels is -1.0, must lie between 0 and 1"),
        ({"--access": "top-k:4"}, "access 'top-k:4' keeps 4 classes, but there are 3; k must be 1 to 3"),
        ({"--access": "decimals:9"}, "access to 9 decimals is not possible"),
        (
            {"--data": "other", "--other-task": "digits", "--other-classes": "2"},
            "with data 'other' the attacker has no labels, but they are needed by kd",
        ),
        ({"--data": "none"}, "the attacker has no images, but they are needed by kd"),
        (
            {"--attack": "kd-no-labels", "--data": "other", "--other-task": "mnist1d"},
            "the images of 'mnist1d' have shape (1, 40), those of 'digits' have (1, 8, 8)",
        ),
        ({"--budget": "24"}, "the query budget is 24 images, but one batch of the training asks about 25"),
        ({"--budget": "2.5"}, "'2.5' is not a whole number"),
        ({"--student": "resnt8"}, "unknown model 'resnt8'; did you mean 'resnet8'?"),
        ({"--epochs": "0"}, "epochs is 0, must be at least 1"),
        ({"--classes": "4"}, "'ce' has 3 classes, the task has 4"),
        ({"--out": "/dev/null"}, "/dev/null exists and holds something else"),
    ],
)
def test_bad_input_is_one_sentence(refused, words, tmp_path, options, refusal):
    for option, value in options.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    assert refusal in refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", AS_RELEASED)
def test_attacks_as_released_can_be_named(run, words, tmp_path, name):
    words[words.index("kd")] = name
    assert run(*words).status == 0
    assert load_checkpoint(tmp_path / "knockoff").provenance["attack"]["name"] == name


def test_an_attack_on_recovered_answers_is_named_with_its_base(run, words, tmp_path):
    words[words.index("kd")] = "recovery-bayes:base=dkd,table=200"
    status, _, err = run(*words, "--access", "top-k:2")
    assert status == 0, err
    made = load_checkpoint(tmp_path / "knockoff").provenance["attack"]
    assert (made["base"]["name"], made["table"]) == ("dkd", 200)


def test_a_student_without_stages_is_refused_where_they_are_needed(run, refused, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "flat_student.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, input_shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    words[words.index("mlp-4")] = "flat_student:make"
    assert run(*words).status == 0
    words[words.index("kd")], words[-1] = "skeptical", tmp_path / "other"
    assert "the student's network Sequential has no list of modules `stages`; choose a network" in refused(*words)
    assert not (tmp_path / "other").exists()


def test_an_attacker_without_images_makes_his_own(run, refused, words, tmp_path):
    words[words.index("kd")] = "dfme:budget=250,batch_size=50,student_steps=3"
    status, out, err = run(*words, "--data", "none", "--budget", 500)
    assert status == 0, err
    assert "250 queries" in out
    words[-1] = tmp_path / "other"
    sentence = refused(*words, "--data", "none", "--budget", 240)
    assert "the query budget is 240 images, but dfme would spend more; lower its own budget" in sentence
    assert "access 'label' leaves nothing to dfme" in refused(*words, "--data", "none", "--access", "label")


def test_ctrl_c_keeps_the_answers(run, words, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("undistill.training.progress.TerminalProgress.epoch", stop)
        status, _, err = run(*words)
    assert status == 130
    assert err.splitlines()[-1].startswith("undistill: stopped; what was finished is stored")
    assert list((tmp_path / "knockoff.training" / "answers").rglob("*.safetensors"))
    assert run(*words).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["knockoff"]
