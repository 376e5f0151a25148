"""Audits of attackers who see less, have other images, or may ask little."""

import importlib
import json
from dataclasses import asdict, replace

import pytest
import torch

from undistill.attacks import HTC, KD, KDWithoutLabels
from undistill.audit import Protocol, Store, audit, audit_all, quick
from undistill.audit.run import Plan
from undistill.blackbox import (
    CHECKED_IMAGES,
    Decimals,
    LabelAccess,
    LimitedBlackBox,
    Queries,
    TopK,
    open_black_box,
)
from undistill.blackbox.box import QUERY_BATCH
from undistill.defences.training import CrossEntropy
from undistill.errors import InputError
from undistill.models import load_checkpoint
from undistill.tasks import FreshImages, OtherImages, TrainingImages, load_task
from undistill.training import Recipe, train_teacher
from undistill.utility import measure_teacher
from undistill.utility.serving import REPETITIONS

RUN = importlib.import_module("undistill.audit.run")


@pytest.fixture(scope="module")
def others():
    return OtherImages(load_task("digits", classes=["7", "8", "9"]))


@pytest.fixture
def found(tmp_path):
    return lambda: json.loads((tmp_path / "audit.json").read_text())


def trained(tmp_path):
    return [json.loads(path.read_text())["trial"] for path in (tmp_path / "trials").glob("*.json")]


@pytest.mark.parametrize("policy", [Decimals(1), TopK(2), TopK(2, renormalised=False), LabelAccess()], ids=str)
def test_an_attacker_who_sees_less(task, protocol, teachers, tmp_path, found, policy):
    result = audit(teachers / "ce", task, out=tmp_path, protocol=replace(protocol, access=policy), workers=1)
    assert not (tmp_path / "undefended").exists(), "the undefended teacher is found behind its limit, too"
    assert result.threat_card["access"] == found()["threat_card"]["access"] == policy.sentence
    assert found()["protocol"]["access"] == str(policy)
    teachers_asked = {trial["teacher"] for trial in trained(tmp_path)} - {None}
    assert teachers_asked == {result.teacher.fingerprint}
    assert result.teacher.fingerprint != load_checkpoint(teachers / "ce").fingerprint()


def test_controls_do_not_depend_on_access(task, protocol, teachers, tmp_path, recorder):
    audit(teachers / "ce", task, out=tmp_path / "full", protocol=protocol, workers=1)
    limited = replace(protocol, access=LabelAccess())
    audit(teachers / "ce", task, out=tmp_path / "label", protocol=limited, workers=1)
    controls = [
        {
            path.name
            for path in (tmp_path / out / "trials").glob("*.json")
            if '"role": "knockoff"' not in path.read_text()
        }
        for out in ("full", "label")
    ]
    assert controls[0] == controls[1]
    assert len(controls[0]) == 4


def test_a_fraction_of_the_training_images(task, protocol, teachers, tmp_path, found):
    data = TrainingImages(0.5)
    audit(teachers / "ce", task, out=tmp_path, protocol=replace(protocol, data=(data,)), workers=1)
    part = data.attackers_task(task).fingerprint
    assert {trial["task"] for trial in trained(tmp_path)} == {part}, "controls have what the attacker has"
    assert found()["task"]["fingerprint"] == task.fingerprint
    assert found()["cells"][0]["queries"] == 2 * 75
    assert found()["threat_card"]["data"] == "a stratified 50% of the teacher's training images, with labels"
    assert [data["name"] for data in found()["protocol"]["data"]] == ["train:0.5"]


def test_fresh_images(protocol, tmp_path, found):
    task = load_task("digits", classes=3, fresh=0.4)
    train_teacher(task, "mlp-4", CrossEntropy(), protocol.recipe, seed=0, folder=tmp_path / "ce")
    audit(tmp_path / "ce", task, out=tmp_path, protocol=replace(protocol, data=(FreshImages(),)), workers=1)
    assert {trial["task"] for trial in trained(tmp_path)} == {FreshImages().attackers_task(task).fingerprint}
    assert found()["cells"][0]["queries"] == 2 * len(task.fresh)
    assert found()["task"]["fresh"] == len(task.fresh)
    assert found()["threat_card"]["labels"] == "known"
    assert found()["threat_card"]["unseen"] == (
        f"the {len(task.fresh)} fresh images, which its task keeps from it"  # as the checkpoint says
    )


def test_another_tasks_images_have_no_placebo(task, protocol, teachers, tmp_path, found, others):
    silent = replace(protocol, data=(others,), attacks=((KDWithoutLabels(4.0), KDWithoutLabels(2.0)),))
    result = audit(teachers / "ce", task, out=tmp_path, protocol=silent, workers=1)
    roles = {trial["role"]: trial["task"] for trial in trained(tmp_path)}
    assert roles == {"reference": task.fingerprint, "knockoff": others.attackers_task(task).fingerprint}
    [cell] = found()["cells"]
    assert cell["placebo"] is None
    assert cell["control"] == "ls"
    assert result.cells[0].placebo is None
    assert cell["leak"]["mean"] == pytest.approx(cell["knockoff"]["mean"] - cell["ls"]["mean"])
    assert found()["threat_card"]["labels"] == "unknown"
    assert found()["threat_card"]["unseen"] == f"the {len(others.other.train)} images of another task (digits)"
    assert found()["protocol"]["data"][0]["controls"] == "the teacher's training images"
    shown = found()["teacher"]["utility"]["other_task"]
    box = open_black_box(teachers / "ce", class_names=task.class_names, probe=task.validation.images[:8] / 255)
    assert shown == asdict(measure_teacher(box, task, other=others.other).utility.other)
    assert found()["undefended"]["utility"]["other_task"] == shown


def test_confidence_is_not_measured_by_images_of_the_tasks_own_classes(task, protocol, teachers, tmp_path, found):
    own = OtherImages(load_task("digits", classes=["2", "7", "8"]))
    silent = replace(protocol, data=(own,), attacks=((KDWithoutLabels(4.0),),))
    audit(teachers / "ce", task, out=tmp_path, protocol=silent, workers=1)
    assert found()["teacher"]["utility"]["other_task"] is None


def test_an_attack_without_a_placebo(task, protocol, teachers, tmp_path, found, monkeypatch):
    monkeypatch.setattr(KD, "placebo", "")
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1)
    assert found()["cells"][0]["placebo"] is None
    assert "placebo" not in {trial["role"] for trial in trained(tmp_path)}


@pytest.mark.parametrize(
    ("queries", "asked", "words"),
    [
        (Queries("clean"), 150, "about every image once, as it is"),
        (Queries("cached-views", views=1), 150, "about 1 augmented views of every image"),
        (Queries(budget=200), 150, "about a new augmented view of every image in every epoch; at most 200 queries"),
        (Queries(budget=90), 90, "in every epoch; at most 90 queries"),
    ],
    ids=str,
)
def test_an_attacker_who_asks_less(task, protocol, teachers, counting_box, tmp_path, found, queries, asked, words):
    limited = replace(protocol, queries=queries)
    audit(counting_box, task, out=tmp_path, protocol=limited, undefended=teachers / "ce", workers=1)
    assert found()["cells"][0]["queries"] == asked
    assert found()["threat_card"]["queries_per_knockoff"] == asked
    assert words in found()["threat_card"]["queries"]
    assert found()["threat_card"]["unseen"] == (
        "none: this audit holds no image that the teacher has not seen; the teacher does not say what it was trained on"
    )
    assert found()["protocol"]["queries"] == {"mode": queries.mode, "views": queries.views, "budget": queries.budget}
    own = 4 * CHECKED_IMAGES + len(task.test) + sum(map(len, task.splits.values()))
    own += (1 + REPETITIONS) * QUERY_BATCH  # of the serving time
    views = asked if queries.mode == "clean" else 2 * asked  # clean images are the same for both seeds
    assert counting_box.asked == views + own


def test_plans_of_references_do_not_depend_on_the_queries(task, protocol, tmp_path, counting_box):
    plans = [
        Plan(task, replace(protocol, queries=queries), [counting_box]) for queries in (Queries(), Queries("clean"))
    ]
    one, two = ([trial.key for trial in plan.look(Store(tmp_path)).due] for plan in plans)
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, True, False, False, False, False]


def test_a_teacher_that_is_limited_already(task, protocol, teachers, tmp_path, counting_box):
    limited = LimitedBlackBox(counting_box, TopK(2))
    with pytest.raises(InputError, match="teacher 'box' is open to access 'top-k:2', not 'full'; name that access"):
        audit(limited, task, out=tmp_path, protocol=protocol, undefended=teachers / "ce", workers=1)
    audit(
        limited, task, out=tmp_path, protocol=replace(protocol, access=TopK(2)), undefended=teachers / "ce", workers=1
    )


class Drawing:
    """Answers that are drawn anew."""

    def __call__(self, images):
        return images.flatten(1)[:, 20:23] * 3 + torch.randn(len(images), 3)


@pytest.mark.parametrize("access", [None, LabelAccess()])
def test_a_teacher_that_draws_its_answers_is_refused_before_anything_is_trained(
    task, protocol, teachers, tmp_path, access
):
    limited = protocol if access is None else replace(protocol, access=access)
    for teacher, undefended in ((Drawing(), teachers / "ce"), (teachers / "ce", Drawing())):
        with pytest.raises(
            InputError, match="Drawing answers differently when it is asked about the same images again"
        ):
            audit(teacher, task, out=tmp_path / "out", protocol=limited, undefended=undefended, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_holds_one_attacker(task, protocol, teachers, tmp_path, others):
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1)
    for other in (
        replace(protocol, access=LabelAccess()),
        replace(protocol, data=(TrainingImages(0.5),)),
        replace(protocol, data=(others,), attacks=((KDWithoutLabels(),),)),
        replace(protocol, queries=Queries("clean")),
        replace(protocol, queries=Queries(budget=100)),
    ):
        with pytest.raises(
            InputError, match=r"holds an audit of another attacker \(access, data or queries\); choose another folder"
        ):
            audit(teachers / "ce", task, out=tmp_path, protocol=other, workers=1)


def test_refusals_come_before_anything_is_written(task, protocol, teachers, tmp_path):
    for change, words in [
        ({"queries": Queries(budget=24)}, "the query budget is 24 images, but one batch of the training asks about 25"),
        ({"access": TopK(4)}, "access 'top-k:4' keeps 4 classes, but there are 3"),
        ({"data": (FreshImages(),)}, "'digits' has no fresh images"),
    ]:
        with pytest.raises(InputError, match=words):
            audit(teachers / "cmim", task, out=tmp_path, protocol=replace(protocol, **change), workers=1)
    assert list(tmp_path.iterdir()) == []


def test_several_teachers_share_the_attacker(task, protocol, teachers, tmp_path):
    limited = replace(protocol, access=TopK(1), queries=Queries("clean"))
    audits = audit_all([teachers / "ce", teachers / "cmim"], task, out=tmp_path, protocol=limited, workers=1)
    assert [result.teacher.name for result in audits] == ["ce", "cmim"]
    assert len({result.teacher.fingerprint for result in audits}) == 2


def test_the_default_protocol_is_quick(task, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(RUN, "check_trainings", lambda task, students, recipe, attacks, queries: seen.append(attacks))
    monkeypatch.setattr(RUN, "_claim", lambda out, task, protocol, boxes, store: seen.append(protocol) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        audit(lambda images: images.flatten(1)[:, 20:23] * 3, task, out=tmp_path)
    assert seen[1] == quick(task.input_shape)
    assert len(seen[0]) == sum(map(len, seen[1].attacks))


def test_diverged_knockoffs_are_counted_in_their_cell(task, tmp_path, counting_box):
    recipe = Recipe(epochs=2, batch_size=25, learning_rate=0.1)
    protocol = Protocol(("mlp-4",), recipe, ((KD(4.0),),), smoothings=(0.1,), placebo_smoothings=(0.1,), seeds=2)
    sane = audit(counting_box, task, out=tmp_path / "sane", undefended=counting_box, protocol=protocol, workers=1)
    assert sane.to_json()["cells"][0]["flags"] == {}
    wild = replace(protocol, attacks=((HTC(temperature=20.0, alpha=1e30),),))
    found = audit(counting_box, task, out=tmp_path / "wild", undefended=counting_box, protocol=wild, workers=1)
    assert found.to_json()["cells"][0]["flags"] == {"diverged": 2, "placebo_diverged": 2}
    assert [flag.sentence for flag in found.flags if flag.name == "training-diverged"] == [
        "The loss became NaN in 2 of 2 knockoffs of htc with mlp-4.",
        "The loss became NaN in 2 of 2 placebos of htc with mlp-4.",
    ]
