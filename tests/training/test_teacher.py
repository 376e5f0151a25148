"""Teachers: trained once, saved whole, never written over."""

import json

import pytest
import torch

from undistill.defences.training import CMIM, CrossEntropy
from undistill.errors import InputError
from undistill.models import load_checkpoint, make_classifier, save_checkpoint
from undistill.training import Recipe, accuracy, fit, predict, train_teacher
from undistill.training.objectives import FromLabels

RECIPE = Recipe(epochs=2, batch_size=100, learning_rate=0.1)


def train(task, folder, architecture="mlp-4", defence=None, recipe=RECIPE, **settings):
    return train_teacher(task, architecture, defence or CrossEntropy(), recipe, seed=3, folder=folder, **settings)


def refuse_to_train(title, recipe, images):
    raise AssertionError(f"{title} is trained again")


def test_a_teacher_is_trained_saved_and_described(digits, tmp_path):
    teacher = train(digits, tmp_path / "teacher", defence=CMIM(weight=0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"], "nothing is left beside it"
    assert not teacher.training

    loaded = load_checkpoint(tmp_path / "teacher")
    assert loaded.fingerprint() == teacher.fingerprint()
    assert loaded.class_names == digits.class_names
    provenance = json.loads((tmp_path / "teacher" / "model.json").read_text())["provenance"]
    assert provenance["task"] == digits.source
    assert provenance["task_fingerprint"] == digits.fingerprint
    assert provenance["defence"]["name"] == "cmim"
    assert provenance["defence"]["weight"] == 0.5
    assert provenance["recipe"]["epochs"] == 2
    assert provenance["seed"] == 3
    assert [record["epoch"] for record in provenance["records"]] == [0, 1]
    assert provenance["test_accuracy"] == accuracy(predict(loaded, digits.test), digits.test)
    assert provenance["validation_accuracy"] == accuracy(predict(loaded, digits.validation), digits.validation)

    # The same, by hand.
    classifier = make_classifier(
        "mlp-4",
        class_names=digits.class_names,
        input_shape=digits.input_shape,
        mean=digits.mean,
        std=digits.std,
        seed=3,
    )
    fit(classifier, digits, FromLabels(CMIM(weight=0.5).loss(10, 10)), RECIPE, seed=3)
    assert classifier.fingerprint() == teacher.fingerprint()


def test_a_finished_teacher_is_returned(digits, tmp_path):
    first = train(digits, tmp_path / "teacher")
    scratch = tmp_path / "teacher.training"  # as a kill between saving and tidying up leaves it
    scratch.mkdir()
    for name in ("resume.pt", ".resume.pt.x1y2"):
        (scratch / name).write_bytes(b"")
    again = train(digits, tmp_path / "teacher", progress=refuse_to_train)
    assert again.fingerprint() == first.fingerprint()
    assert again.provenance["records"] == first.provenance["records"]
    assert not again.training
    assert not scratch.exists()


def test_a_finished_teacher_of_the_users_own_code_is_returned(digits, tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    first = train(digits, tmp_path / "teacher", architecture="own_network:make")
    again = train(digits, tmp_path / "teacher", architecture="own_network:make", progress=refuse_to_train)
    assert again.fingerprint() == first.fingerprint()


def test_another_training_is_not_written_over(digits, fresh, tmp_path):
    folder = tmp_path / "teacher"
    first = train(digits, folder)
    refusal = "teacher exists and holds something else than this training; choose another folder"
    with pytest.raises(InputError, match=refusal):
        train(digits, folder, defence=CMIM())
    with pytest.raises(InputError, match=refusal):
        train(digits, folder, recipe=Recipe(epochs=2, batch_size=100, learning_rate=0.2))
    with pytest.raises(InputError, match=refusal):
        train(digits, folder, architecture="mlp-5")
    assert load_checkpoint(folder).fingerprint() == first.fingerprint()

    save_checkpoint(fresh(), tmp_path / "foreign")
    with pytest.raises(InputError, match="foreign exists and holds something else"):
        train(digits, tmp_path / "foreign")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"architecture": "mlp-4", "provenance": null}'])
def test_a_folder_of_other_things_is_refused(digits, tmp_path, content):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("...")
    if content is not None:
        (folder / "model.json").write_text(content)
    with pytest.raises(InputError, match="thesis exists and holds something else than this training"):
        train(digits, folder)
    assert (folder / "thesis.tex").read_text() == "..."
    assert not (tmp_path / "thesis.training").exists()


def test_events_outlive_the_training(digits, tmp_path):
    train(digits, tmp_path / "teacher", tensorboard=True)
    scratch = tmp_path / "teacher.training"
    files = [path.name for path in scratch.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert files[0].startswith("events.out.tfevents.")
    train(digits, tmp_path / "teacher", tensorboard=True)
    assert [path.name for path in scratch.rglob("*") if path.is_file()] == files


def test_the_scratch_of_another_training_is_refused(digits, tmp_path):
    scratch = tmp_path / "teacher.training"
    scratch.mkdir()
    torch.save({"identity": "other", "records": []}, scratch / "resume.pt")
    with pytest.raises(InputError, match=r"teacher\.training/resume\.pt is the state of another training"):
        train(digits, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()
