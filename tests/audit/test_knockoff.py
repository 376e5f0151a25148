"""One knockoff as a checkpoint."""

import json

import pytest
import torch

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Trial, run_trial, train_knockoff
from undistill.blackbox import (
    CHECKED_IMAGES,
    AnswerCache,
    LabelAccess,
    LimitedBlackBox,
    LocalBlackBox,
    Queries,
    TopK,
    open_black_box,
)
from undistill.errors import InputError
from undistill.models import load_checkpoint
from undistill.tasks import OtherImages, TrainingImages, load_task
from undistill.training import Recipe, accuracy, predict

RECIPE = Recipe(epochs=2, batch_size=25, learning_rate=0.1)


@pytest.fixture
def steal(task, tmp_path):
    def run(teacher, attack=KD(4.0), out="knockoff", **options):  # noqa: B008
        settings = {"student": "mlp-4", "recipe": RECIPE} | options
        return train_knockoff(teacher, task, attack, out=tmp_path / out, **settings)

    return run


def test_a_knockoff_is_the_audits_and_a_model_like_any_other(task, teachers, tmp_path, steal):
    policy, data, queries = TopK(2), TrainingImages(0.5), Queries("cached-views", views=1)
    made = steal(teachers / "ce", seed=3, access=policy, data=data, queries=queries)
    box = LimitedBlackBox(LocalBlackBox("ce", load_checkpoint(teachers / "ce")), policy)
    part = data.attackers_task(task)
    trial = Trial(part.fingerprint, "mlp-4", RECIPE, 3, KD(4.0), teacher=box.fingerprint, queries=queries)
    outcome = run_trial(trial, {part.fingerprint: part}, {box.fingerprint: box}, AnswerCache(tmp_path / "answers"))
    loaded = load_checkpoint(tmp_path / "knockoff")
    assert loaded.fingerprint() == made.fingerprint()
    said = loaded.provenance
    assert said["test_accuracy"] == outcome["accuracy"] == accuracy(predict(loaded, task.test), task.test)
    assert (said["agreement"], said["validation_accuracy"]) == (outcome["agreement"], outcome["validation_accuracy"])
    assert said["queries"] == {"mode": "cached-views", "views": 1, "budget": None, "asked": 75}
    assert said["attack"]["name"] == "kd"
    assert said["teacher"] == {"name": "ce", "fingerprint": box.fingerprint, "output_defences": []}
    assert (said["access"], said["data"]["name"], said["seed"]) == ("top-k:2", "train:0.5", 3)
    assert said["task_fingerprint"] == task.fingerprint
    assert said["recipe"]["epochs"] == 2
    # As the teacher of the next one.
    second = steal(tmp_path / "knockoff", KDWithoutLabels(), out="second", access=LabelAccess())
    assert second.provenance["teacher"]["name"] == "knockoff"


def test_the_meter_and_a_second_call(task, counting_box, steal, tmp_path):
    first = steal(counting_box)
    own = 4 * CHECKED_IMAGES + len(task.test)  # the check beforehand, and the agreement
    assert first.provenance["queries"]["asked"] == 2 * len(task.train) == counting_box.asked - own
    assert not (tmp_path / "knockoff.training").exists()
    before, written = counting_box.asked, (tmp_path / "knockoff" / "model.json").stat().st_mtime_ns
    again = steal(counting_box)
    assert counting_box.asked == before, "a finished knockoff asks nothing"
    assert again.fingerprint() == first.fingerprint()
    assert (tmp_path / "knockoff" / "model.json").stat().st_mtime_ns == written


def test_a_counting_callable_is_asked_what_the_outcome_says(task, steal):
    asked = []

    def api(images):
        asked.append(len(images))
        return torch.softmax(images.flatten(1)[:, 20:23] * 3, 1)

    box = open_black_box(api, class_names=task.class_names, probe=task.validation.images[:8].float() / 255)
    asked.clear()
    made = steal(box, queries=Queries("clean"))
    assert sum(asked) == made.provenance["queries"]["asked"] + 4 * CHECKED_IMAGES + len(task.test)


def test_what_was_asked_before_a_kill_is_not_asked_again(task, counting_box, steal, tmp_path):
    answer, left = counting_box.log_probs, [4 * CHECKED_IMAGES + 200]

    def killed(images):
        if left[0] < len(images):
            raise KeyboardInterrupt
        left[0] -= len(images)
        return answer(images)

    counting_box.log_probs = killed
    with pytest.raises(KeyboardInterrupt):
        steal(counting_box)
    assert (tmp_path / "knockoff.training" / "answers").exists()
    assert not (tmp_path / "knockoff").exists()
    counting_box.log_probs = answer
    counting_box.asked = 0
    made = steal(counting_box)
    assert counting_box.asked == 150 + 4 * CHECKED_IMAGES + len(task.test), "the first epoch's answers were kept"
    assert made.provenance["queries"]["asked"] == 300
    assert not (tmp_path / "knockoff.training").exists()
    uninterrupted = steal(counting_box, out="other")
    assert uninterrupted.fingerprint() == made.fingerprint()


def test_a_folder_with_something_else_is_refused(teachers, steal, tmp_path):
    steal(teachers / "ce")
    held = (tmp_path / "knockoff" / "model.json").read_bytes()
    for other in (
        {"attack": KD(2.0)},
        {"seed": 1},
        {"student": "mlp-5"},
        {"access": LabelAccess()},
        {"data": TrainingImages(0.5)},
        {"queries": Queries("clean")},
        {"recipe": Recipe(epochs=1, batch_size=25)},
        {"teacher": teachers / "cmim"},
    ):
        with pytest.raises(InputError, match="knockoff exists and holds something else than this knockoff; choose"):
            steal(**{"teacher": teachers / "ce"} | other)
    assert (tmp_path / "knockoff" / "model.json").read_bytes() == held
    with pytest.raises(InputError, match="exists and holds something else"):
        train_knockoff(teachers / "ce", load_task("digits", classes=3), KD(), out=teachers / "cmim", student="mlp-4")


def test_progress_is_told_how_many_images_there_are(teachers, steal, recorder):
    told = []
    recorder.training = lambda title, recipe, images: told.append((title, recipe, images))
    steal(teachers / "ce", queries=Queries(budget=100), watcher=recorder)
    assert told == [("kd on ce with mlp-4", RECIPE, 100)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"access": TopK(4)}, "access 'top-k:4' keeps 4 classes, but there are 3"),
        ({"queries": Queries(budget=10)}, "the query budget is 10 images, but one batch of the training asks about 25"),
        ({"student": "resnt8"}, "unknown model 'resnt8'; did you mean 'resnet8'?"),
        (
            {"data": OtherImages(load_task("digits", classes=2))},
            "the attacker has no labels, but they are needed by kd",
        ),
        ({"teacher": "nowhere"}, "nowhere is not a checkpoint"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(teachers, steal, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        steal(**{"teacher": teachers / "ce"} | options)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_draws_its_answers_is_refused(steal, tmp_path):
    with pytest.raises(InputError, match="drawn answers differently when it is asked about the same images again"):
        steal(lambda images: torch.randn(len(images), 3), name="drawn")
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_another_split_is_refused(teachers, tmp_path):
    with pytest.raises(InputError, match=r"'ce' was trained on another split of 'digits' \(split seed 0, not 3\)"):
        train_knockoff(teachers / "ce", load_task("digits", classes=3, seed=3), KD(), out=tmp_path / "k", recipe=RECIPE)
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_json(teachers, steal, tmp_path):
    steal(teachers / "ce", KDWithoutLabels(), data=OtherImages(load_task("digits", classes=2)))
    text = (tmp_path / "knockoff" / "model.json").read_text()
    said = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))["provenance"]
    assert said["data"]["other"]["name"] == "digits"
