import importlib
import json
import sys
import types
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Trial, run_trial
from undistill.audit.trial import smoothed_one_hot, train_student
from undistill.blackbox import AnswerCache, LocalBlackBox, Queries
from undistill.errors import InputError
from undistill.models import load_checkpoint
from undistill.source import code_hash
from undistill.training import FromAnswers, Objective, Recipe, accuracy, classifier_for, fit, fit_one, predict

RECIPE = Recipe(epochs=2, batch_size=25, learning_rate=0.1)
PLACEBO = Trial("t", "mlp-4", RECIPE, 0, attack=KD(4.0), smoothing=0.1)


def test_the_key_changes_with_every_field():
    others = [
        replace(PLACEBO, task="u"),
        replace(PLACEBO, student="mlp-5"),
        replace(PLACEBO, recipe=replace(RECIPE, epochs=3)),
        replace(PLACEBO, recipe=replace(RECIPE, learning_rate=0.2)),
        replace(PLACEBO, seed=1),
        replace(PLACEBO, attack=KD(2.0)),
        replace(PLACEBO, attack=KDWithoutLabels(4.0)),
        replace(PLACEBO, attack=None),
        replace(PLACEBO, smoothing=0.2),
        replace(PLACEBO, smoothing=None, teacher="a"),
        replace(PLACEBO, smoothing=None, teacher="b"),
        replace(PLACEBO, queries=Queries("clean")),
        replace(PLACEBO, queries=Queries("cached-views", views=4)),
        replace(PLACEBO, queries=Queries(budget=1000)),
    ]
    assert len({trial.key for trial in (PLACEBO, *others)}) == len(others) + 1
    assert {trial.role for trial in others} == {"reference", "placebo", "knockoff"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of the user's own package, and imports one of them as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, **modules):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        for module, code in modules.items():
            (folder / f"{module}.py").write_text(code)
        for module in [held for held in sys.modules if held.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        code_hash.cache_clear()
        importlib.invalidate_caches()
        return importlib.import_module(f"{name}.{next(iter(modules))}")

    yield write
    code_hash.cache_clear()


ATTACK = """
from dataclasses import dataclass
from undistill.attacks import KD
{how}

@dataclass(frozen=True)
class Own(KD):
    name = "own"
"""


@pytest.mark.parametrize(
    "how",
    ["from . import losses", "from own_a.losses import SCALE", "import own_a.losses as l", "from .losses import f"],
)
def test_the_key_changes_with_the_code_behind_the_attack(package, how):
    def key(attack, losses):
        module = package("own_a", attack=attack, losses=losses)
        return replace(PLACEBO, attack=module.Own()).key

    attack, losses = ATTACK.format(how=how), "SCALE = 1\n\ndef f():\n    return SCALE\n"
    keys = [
        key(attack, losses),
        key(attack, losses),
        key(attack, losses.replace("1", "100")),
        key(attack + "#", losses),
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_key_changes_with_the_code_of_a_student_of_ones_own(package):
    keys = []
    for half in ("", "", " / 2"):
        package("own_s", networks=f"def make(x):\n    return x{half}\n")
        keys.append(replace(PLACEBO, student="own_s.networks:make").key)
    assert keys[0] == keys[1] != keys[2]


def test_an_attack_without_a_source_file_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "typed_in", types.ModuleType("typed_in"))
    typed = dataclass(frozen=True)(type("Typed", (KD,), {"__module__": "typed_in"}))
    with pytest.raises(InputError, match="'typed_in' has no source file"):
        replace(PLACEBO, attack=typed()).key  # noqa: B018


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_a_smoothed_one_hot_is_that_of_numpy(smoothing):
    labels = np.array([2, 0, 1, 2])
    with np.errstate(divide="ignore"):
        expected = np.log((1 - smoothing) * np.eye(3) + smoothing / 3)[labels]
    np.testing.assert_allclose(smoothed_one_hot(torch.from_numpy(labels), 3, smoothing).numpy(), expected, rtol=1e-6)


def run(trial, task, tmp_path, *boxes):
    trial = replace(trial, task=task.fingerprint)
    boxes = {box.fingerprint: box for box in boxes}
    outcome = run_trial(trial, {task.fingerprint: task}, boxes, AnswerCache(tmp_path / "answers"))
    del outcome["seconds"]
    return outcome


def test_a_placebo_is_the_attack_on_smoothed_labels(task, tmp_path):
    outcome = run(replace(PLACEBO, smoothing=0.3, seed=5), task, tmp_path)
    answers = np.log(0.7 * np.eye(3) + 0.1)[task.train.labels.numpy()].astype(np.float32)
    student = classifier_for(task, "mlp-4", seed=5)
    objective = FromAnswers(KD(4.0), lambda epoch, view: torch.from_numpy(answers), num_classes=3, seed=5)
    records = fit(student, task, objective, RECIPE, seed=5)
    assert outcome["loss"] == pytest.approx([record["loss"] for record in records], rel=1e-5)
    assert outcome["accuracy"] == pytest.approx(accuracy(predict(student, task.test), task.test), abs=0.5)


class Smoothed(Objective):
    def forward(self, logits, labels, indices):
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.3)


def test_a_reference_is_label_smoothing(task, tmp_path):
    outcome = run(Trial("t", "mlp-4", RECIPE, 5, smoothing=0.3), task, tmp_path)
    student = classifier_for(task, "mlp-4", seed=5)
    records = fit(student, task, Smoothed(), RECIPE, seed=5)
    assert outcome["loss"] == [record["loss"] for record in records]
    assert outcome["accuracy"] == accuracy(predict(student, task.test), task.test)
    assert outcome["validation_accuracy"] == accuracy(predict(student, task.validation), task.validation)
    assert outcome["queries"] == 0
    # The placebo of KD at T = 1 without labels learns the same: its loss is less by the entropy of the labels.
    placebo = run(replace(PLACEBO, attack=KDWithoutLabels(1.0), smoothing=0.3, seed=5), task, tmp_path)
    entropy = stats.entropy([0.8, 0.1, 0.1])
    assert np.array(outcome["loss"]) - placebo["loss"] == pytest.approx([entropy] * 2, abs=1e-4)


def test_students_of_one_seed_share_weights_and_order(task, tmp_path, counting_box, monkeypatch):
    seen = []

    class Spy(Objective):
        def __init__(self, inner, order):
            super().__init__()
            self.inner, self.order = inner, order

        def begin_epoch(self, *arguments):
            return self.inner.begin_epoch(*arguments)

        def forward(self, logits, labels, indices):
            self.order.append(indices.tolist())
            return self.inner(logits, labels, indices)

    def spying(training):
        order = []
        seen.append(({name: value.clone() for name, value in training.classifier.state_dict().items()}, order))
        return fit_one(replace(training, objective=Spy(training.objective, order)))

    monkeypatch.setattr(Spy, "loss", property(lambda self: self.inner.loss), raising=False)
    reference = Trial("t", "mlp-4", RECIPE, 3, smoothing=0.1)
    knockoff = replace(PLACEBO, seed=3, smoothing=None, teacher=counting_box.fingerprint)
    for trial in (reference, replace(PLACEBO, seed=3), knockoff, replace(reference, seed=4)):
        trial = replace(trial, task=task.fingerprint)
        boxes = {counting_box.fingerprint: counting_box}
        train_student(trial, {task.fingerprint: task}, boxes, AnswerCache(tmp_path / "answers"), fit=spying)
    (weights, order), *same, (other_weights, other_order) = seen
    for others, other in same:
        assert other == order
        assert all(torch.equal(value, weights[name]) for name, value in others.items())
    assert other_order != order
    assert not all(torch.equal(value, weights[name]) for name, value in other_weights.items())


def test_a_knockoff_reports_queries_and_agreement(task, tmp_path, teachers):
    box = LocalBlackBox("ce", load_checkpoint(teachers / "ce"))
    outcome = run(replace(PLACEBO, smoothing=None, teacher=box.fingerprint), task, tmp_path, box)
    assert outcome["queries"] == 2 * len(task.train)
    assert 0 <= outcome["agreement"] <= 100
    json.dumps(outcome, allow_nan=False)


@pytest.mark.parametrize("trial", [replace(PLACEBO, smoothing=None), replace(PLACEBO, attack=None, smoothing=None)])
def test_a_trial_without_teacher_needs_a_smoothing(task, tmp_path, trial):
    with pytest.raises(InputError, match="needs a smoothing"):
        run(trial, task, tmp_path)


def test_titles_say_which_trial_it_is():
    reference = Trial("t", "mlp-4", Recipe(), 3, smoothing=0.1)
    assert reference.title == "reference with mlp-4 (smoothing=0.1, seed 3)"
    placebo = replace(reference, attack=KD(2.0))
    assert placebo.title == "placebo of kd with mlp-4 (temperature=2.0, hard=0.1, smoothing=0.1, seed 3)"
    knockoff = replace(placebo, smoothing=None, teacher="b")
    assert knockoff.title == "knockoff of kd with mlp-4 (temperature=2.0, hard=0.1, seed 3)"
