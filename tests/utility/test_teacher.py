import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from undistill.blackbox import BlackBox, CallableBlackBox, defend
from undistill.defences.output import LabelOnly
from undistill.errors import InputError
from undistill.tasks import load_task
from undistill.utility import (
    Comparison,
    check_other_task,
    compare,
    confidence,
    kept_observation,
    kept_serving,
    measure_serving,
    measure_teacher,
    plan_comparison,
)


def of_nothing(word):
    pytest.fail(f"{word} is not JSON")


class SlowBox(BlackBox):
    """Takes 20 milliseconds for every batch; the first one takes ten times as long."""

    name, fingerprint = "slow", "s" * 64

    def __init__(self, clock):
        self.clock, self.asked = clock, []

    def log_probs(self, images):
        self.clock.now += 0.02 if self.asked else 0.2
        self.asked.append(len(images))
        return torch.full((len(images), 3), 1 / 3).log()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def slow(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("undistill.utility.serving.time.perf_counter", clock)
    return SlowBox(clock)


def test_serving_time_is_that_of_a_warm_batch(slow, task):
    found = measure_serving(slow, task.test)
    assert slow.asked == [64] * 8
    assert found.seconds_per_1000 == pytest.approx(1000 * 0.02 / 64)
    assert (found.batch, found.repetitions, found.torch) == (64, 7, torch.__version__)
    assert found.hardware
    assert found.threads == torch.get_num_threads()


def test_serving_time_is_kept(slow, task, tmp_path):
    path = tmp_path / "serving" / "slow.json"
    first = kept_serving(path, slow, task.test)
    assert kept_serving(path, slow, task.test) == first
    assert len(slow.asked) == 8
    path.write_text("{}")
    with pytest.raises(InputError, match=r"slow\.json is damaged .*; delete it and run the same command again"):
        kept_serving(path, slow, task.test)


def test_a_teacher_is_measured_on_both_splits(ce, task):
    facts = measure_teacher(ce[1], task)
    test, train = ce[1].answers(task.test), ce[1].answers(task.train)
    assert facts.accuracy == pytest.approx(100 * (test.argmax(1) == task.test.labels).double().mean().item())
    assert facts.train_accuracy == pytest.approx(100 * (train.argmax(1) == task.train.labels).double().mean().item())
    assert facts.test.counts.sum() == len(task.test)
    assert facts.train.counts.sum() == len(task.train)
    assert facts.utility.training_seconds == 4.5  # 1.5 + 2 + the seed
    assert facts.utility.other is None


def test_another_task_is_told_apart_by_confidence(ce, task):
    other = load_task("digits", classes=["7", "8", "9"])
    found = measure_teacher(ce[0], task, other=other).utility.other
    sure = torch.cat([confidence(ce[0].answers(part.test)) for part in (task, other)]).numpy()
    own = np.arange(len(sure)) < len(task.test)
    assert found.auroc == pytest.approx(roc_auc_score(own, sure), abs=1e-6)
    assert (found.name, found.n, found.fingerprint) == (other.name, len(other.test), other.fingerprint)


def test_what_was_found_with_another_task_does_not_stand_for_what_is_found_without(ce, task, tmp_path):
    box = ce[0]
    others = [load_task("digits", classes=classes) for classes in (["7", "8", "9"], ["5", "6"])]
    for other in (None, *others, None):
        found, _ = kept_observation(tmp_path, box, task, other=other)
        assert found.utility.other == measure_teacher(box, task, other=other).utility.other
    again, _ = kept_observation(tmp_path, box, task)
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize(
    ("name", "classes", "words"),
    [
        ("mnist1d", None, r"the images of 'mnist1d' have shape \(1, 40\), those of 'digits' have \(1, 8, 8\)"),
        ("digits", ["2", "3", "4"], r"holds images of 1 classes of 'digits' itself \(first: '2'\)"),
        ("digits", None, r"holds images of 3 classes of 'digits' itself"),
    ],
)
def test_another_task_that_does_not_fit_is_refused(task, name, classes, words):
    with pytest.raises(InputError, match=words):
        check_other_task(load_task(name, classes=classes), task)


def test_the_same_task_without_a_source_is_known_by_its_data(task):
    with pytest.raises(InputError, match="of 'digits' itself"):
        check_other_task(replace(task, source={}), task)


def test_exact_zeros_are_null_in_json_and_said_why(ce, task):
    box = defend(ce[0], [LabelOnly()], task)
    facts = measure_teacher(box, task)
    assert facts.utility.quality.nll == math.inf
    written = json.loads(json.dumps(facts.to_json(), allow_nan=False), parse_constant=of_nothing)
    wrong = round(len(task.test) * (1 - facts.accuracy / 100))
    assert written["utility"]["nll"] is None
    assert written["utility"]["zero_truths"] == wrong
    assert written["utility"]["undefined"]["nll"].startswith(f"{wrong} of {len(task.test)} answers give")
    assert written["utility"]["ece"] == pytest.approx(wrong / len(task.test), abs=1e-6)
    assert written["utility"]["auroc"] == 0.5
    assert [defence["name"] for defence in written["output_defences"]] == ["label-only"]


def test_a_teacher_that_only_answers_has_no_training_time(task):
    box = CallableBlackBox("api", lambda images: images.flatten(1)[:, 20:23].softmax(1), 3, task.test.images[:4] / 255)
    comparison = compare(plan_comparison([box]), task)
    assert isinstance(comparison, Comparison)
    [group] = comparison.to_json()["groups"]
    assert group["teachers"][0]["utility"]["training_seconds"] is None
    assert (group["architecture"], group["training"], group["label"]) == (None, {}, "api")
