"""What is refused before anything is trained: with all names, in one sentence."""

import importlib
from dataclasses import dataclass, replace

import pytest

from undistill.attacks import ATTACKS, KD, KDWithoutLabels, RecoveryBayes, Skeptical
from undistill.audit import Protocol, battery
from undistill.audit.beforehand import check_split, check_trainings, misfit, refusals
from undistill.blackbox import FULL, LabelAccess, LimitedBlackBox, LocalBlackBox, Queries, TopK
from undistill.errors import InputError
from undistill.models import load_checkpoint
from undistill.tasks import TRAINING_IMAGES, NoImages, OtherImages, load_task
from undistill.training import Recipe, classifier_for


@dataclass(frozen=True)
class Picky(KDWithoutLabels):
    name = "picky"
    access = {"full": "as published"}  # noqa: RUF012


@dataclass(frozen=True)
class MakesItsOwn(KDWithoutLabels):
    name = "makes-its-own"
    needs_images = False
    placebo = ""
    own_queries = 1000
    slow = True

    budget: int = 1000


@dataclass(frozen=True)
class NeedsStages(KD):
    name = "needs-stages"

    def dress(self, student, seed):
        raise InputError(f"attack needs-stages cannot use {type(student.net).__name__}")


@pytest.fixture
def others():
    return OtherImages(load_task("digits", classes=["7", "8", "9"]))


def test_every_reason_is_named_with_all_its_attacks(others):
    attacks = [KD(1.0), KD(4.0), Picky(), Picky(2.0), KDWithoutLabels(), MakesItsOwn()]
    assert refusals(attacks, FULL, TRAINING_IMAGES, Queries()) == []
    [words] = refusals([*attacks, NeedsStages()], FULL, others, Queries())
    assert words == "with data 'other' the attacker has no labels, but they are needed by kd, needs-stages"
    words = refusals(attacks, TopK(2), NoImages(), Queries(budget=999))
    assert words == [
        "access 'top-k:2' leaves nothing to picky (see: undistill list attacks --json)",
        "with data 'none' the attacker has no labels, but they are needed by kd",
        "with data 'none' the attacker has no images, but they are needed by kd, picky, kd-no-labels",
        "the query budget is 999 images, but makes-its-own would spend more; lower its own budget",
    ]
    assert refusals([MakesItsOwn()], FULL, NoImages(), Queries(budget=1000)) == []


def test_a_protocol_refuses_what_its_attacker_cannot_run(others):
    with pytest.raises(
        InputError, match=r"protocol: seeds is 1.*; access 'label' leaves nothing to picky .*needed by kd$"
    ):
        Protocol(("mlp-4",), Recipe(), ((KD(),), (Picky(),)), seeds=1, access=LabelAccess(), data=(others,))


def test_students_and_budgets_are_tried_beforehand(task):
    check_trainings(task, ["mlp-4"], Recipe(batch_size=25), [KD(1.0), KDWithoutLabels()], Queries(budget=25))
    with pytest.raises(InputError) as refusal:
        check_trainings(
            task, ["mlp-4", "resnt8"], Recipe(), [KD(), NeedsStages(), NeedsStages(2.0)], Queries(budget=100)
        )
    problems = str(refusal.value).split("; ")
    assert problems[0] == "attack needs-stages cannot use Perceptron", "both settings say the same, once"
    assert problems[1] == "unknown model 'resnt8'"
    assert problems[-2] == "the query budget is 100 images, but one batch of the training asks about 128"
    assert problems[-1] == "give a larger budget or a smaller batch"
    with pytest.raises(
        InputError, match=r"the query budget is 4 images, which leaves 4 of 150: .* every class needs at"
    ):
        check_trainings(task, ["mlp-4"], Recipe(batch_size=4), [KD()], Queries(budget=4))


def test_the_battery_is_what_can_be_run(task, monkeypatch):
    own = {kind.name: kind for kind in (KD, Picky, MakesItsOwn, NeedsStages)}
    monkeypatch.setattr(importlib.import_module("undistill.audit.protocol"), "ATTACKS", own)

    def names(*arguments, **options):
        return [grid[0].name for grid in battery(*arguments, **options)]

    assert names() == ["kd", "picky", "needs-stages"]
    assert names(task, ["mlp-4"]) == ["kd", "picky"]
    assert names(slow=True) == ["kd", "picky", "makes-its-own", "needs-stages"]
    assert names(access=LabelAccess()) == ["kd", "needs-stages"]
    assert names(data=NoImages()) == []
    assert names(data=NoImages(), slow=True) == ["makes-its-own"]
    assert names(data=NoImages(), slow=True, queries=Queries(budget=999)) == []
    with pytest.raises(InputError, match="unknown model 'mpl-4'"):
        names(task, ["mpl-4"])


def test_slow_attacks_are_in_no_default_protocol():
    named = {grid[0].name for grid in Protocol(("mlp-4",), Recipe()).attacks}
    assert named == {name for name, kind in ATTACKS.items() if not kind.slow}


def test_a_teacher_of_another_split_is_refused(teachers):
    box = LimitedBlackBox(LocalBlackBox("ce", load_checkpoint(teachers / "ce")), LabelAccess())
    reserved = load_task("digits", classes=3, fresh=0.2)
    with pytest.raises(
        InputError,
        match=r"^teacher 'ce' was trained on another split of 'digits' \(fresh share 0\.0, not 0\.2\), so it may have "
        r"seen images that it is judged on; choose the split that it was trained on",
    ):
        check_split(box, reserved)
    with pytest.raises(InputError, match=r"\(split seed 0, not 1; validation share None, not 0\.3\)"):
        check_split(box, load_task("digits", classes=3, validation=0.3, seed=1))
    for part in ({"classes": 2}, {"classes": 3, "fraction": 0.5}, {"classes": 3, "fresh": 0.0}):
        check_split(box, load_task("digits", **part))
    classifier = box.unlimited.classifier
    classifier.provenance["task"] = reserved.source
    check_split(box, reserved)
    with pytest.raises(InputError, match=r"\(fresh share 0\.2, not 0\.0\)"):
        check_split(box, load_task("digits", classes=2))
    classifier.provenance["task_fingerprint"] = reserved.fingerprint  # the same images, in other words
    check_split(box, replace(reserved, source=reserved.source | {"validation": 0.5}))
    classifier.provenance["task"] = "mine"  # says nothing that could be checked
    check_split(box, replace(load_task("digits", classes=3, seed=1), source={}))


def test_what_an_attack_on_recovered_answers_needs_is_known_beforehand(task, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_stages.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, input_shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    student = classifier_for(task, "no_stages:make", seed=0)
    assert misfit(RecoveryBayes(base=KD()), student) is None
    assert "stages" in misfit(RecoveryBayes(base=Skeptical()), student)
