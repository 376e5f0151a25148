"""Every registered attack, trained from start to end on a small task."""

import math
from dataclasses import replace

import pytest
import torch

from undistill.attacks import ATTACKS
from undistill.audit import Trial, run_trial
from undistill.blackbox import AnswerCache
from undistill.training import Recipe

BATTERY = [pytest.param(kind, id=name) for name, kind in ATTACKS.items() if not kind.slow]
every_attack = pytest.mark.parametrize("kind", BATTERY)
RECIPE = Recipe(epochs=2, batch_size=25, learning_rate=0.1)
STUDENT = "cnn"  # has stages, which one attack needs


@pytest.fixture
def run(task, tmp_path):
    def run_one(trial, *boxes):
        return run_trial(
            trial, {task.fingerprint: task}, {box.fingerprint: box for box in boxes}, AnswerCache(tmp_path / "answers")
        )

    return run_one


def knockoff(kind, task, box):
    return Trial(task.fingerprint, STUDENT, RECIPE, seed=3, attack=kind(), teacher=box.fingerprint)


def without_time(outcome):
    return {name: value for name, value in outcome.items() if name != "seconds"}


@every_attack
def test_a_knockoff_asks_as_often_as_it_says_and_gives_the_same_again(kind, task, counting_box, run):
    trial = knockoff(kind, task, counting_box)
    outcome = run(trial, counting_box)
    assert outcome["queries"] == kind.views * len(task.train) * RECIPE.epochs
    assert counting_box.asked == outcome["queries"] + len(task.test), (
        "each view once, and the test images for agreement"
    )
    assert len(outcome["loss"]) == RECIPE.epochs
    assert all(map(math.isfinite, outcome["loss"]))
    again = run(trial, counting_box)
    assert without_time(again) == without_time(outcome)
    assert counting_box.asked == outcome["queries"] + len(task.test), "stored answers are not asked for again"


@every_attack
def test_a_placebo_asks_nobody(kind, task, run):
    if not kind.placebo:
        pytest.skip("this attack has no placebo")
    outcome = run(Trial(task.fingerprint, STUDENT, RECIPE, seed=3, attack=kind(), smoothing=0.1))
    assert outcome["queries"] == 0
    assert all(map(math.isfinite, outcome["loss"]))
    assert "agreement" not in outcome


@every_attack
def test_another_seed_gives_another_student(kind, task, counting_box, run):
    trial = replace(knockoff(kind, task, counting_box), recipe=replace(RECIPE, epochs=1))
    first, second = (run(replace(trial, seed=seed), counting_box)["loss"] for seed in (0, 1))
    assert first != second
    assert torch.tensor(first).isfinite().all()
