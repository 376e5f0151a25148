import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from undistill.errors import InputError
from undistill.utility import auroc, calibration_error, confidence, quality, risk_coverage_area


@pytest.fixture(scope="module")
def answers():
    """Float64 log-probabilities of 300 answers over 5 classes, somewhat right, and labels."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300)
    logits = 2 * random.normal(size=(300, 5))
    logits[np.arange(300), labels] += 2
    return torch.from_numpy(log_softmax(logits, axis=1)), torch.from_numpy(labels)


def test_figures_are_those_of_other_implementations(answers):
    log_probs, labels = answers
    found, probs = quality(log_probs, labels), log_probs.exp().numpy()
    right = probs.argmax(1) == labels.numpy()
    assert 0 < right.mean() < 1
    assert found.n == 300
    assert found.accuracy == pytest.approx(100 * right.mean())
    assert found.nll == pytest.approx(log_loss(labels, probs))
    assert found.brier == pytest.approx(brier_score_loss(labels, probs, scale_by_half=False))
    assert found.auroc == pytest.approx(roc_auc_score(right, probs.max(1)), abs=1e-6)
    assert found.ece == pytest.approx(brute_force_ece(probs.max(1), right), abs=1e-6)
    assert found.ece == pytest.approx(multiclass_calibration_error(log_probs.exp(), labels, 5).item(), abs=1e-6)
    assert found.aurc == pytest.approx(brute_force_aurc(probs.max(1), right))
    assert (found.zero_truths, found.undefined) == (0, {})


def test_float32_answers_give_the_same_figures(answers):
    log_probs, labels = answers
    exact, rounded = quality(log_probs, labels), quality(log_probs.float(), labels)
    for name in ("accuracy", "nll", "ece", "brier", "auroc", "aurc"):
        assert getattr(rounded, name) == pytest.approx(getattr(exact, name), abs=1e-5)


def brute_force_ece(sure, right):
    bins = np.minimum((sure * 15).astype(int), 14)
    return sum(
        (bins == place).mean() * abs(right[bins == place].mean() - sure[bins == place].mean()) for place in set(bins)
    )


def brute_force_aurc(sure, right):
    wrong = ~right[np.argsort(-sure, kind="stable")]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


@pytest.mark.parametrize("seed", range(5))
def test_tied_confidence_counts_as_the_mean_over_all_orders(seed):
    random = np.random.default_rng(seed)
    sure, right = random.choice([0.5, 0.75, 1.0], 7), random.random(7) < 0.5
    areas = [
        np.mean(np.cumsum(~right[list(order)]) / np.arange(1, 8))
        for order in itertools.permutations(range(7))
        if (np.diff(sure[list(order)]) <= 0).all()
    ]
    assert risk_coverage_area(torch.from_numpy(sure), torch.from_numpy(right)) == pytest.approx(np.mean(areas))


def test_confidence_that_tells_nothing_is_worth_the_error_rate():
    sure, right = torch.full((8,), 0.5), torch.tensor([True, False] * 4)
    assert risk_coverage_area(sure, right) == pytest.approx(0.5)
    assert auroc(sure[right], sure[~right]) == 0.5


def test_tied_confidence_counts_half_in_the_auroc():
    pairs = [(a > b) + 0.5 * (a == b) for a in (0.9, 0.6, 0.6) for b in (0.6, 0.3)]
    assert auroc(torch.tensor([0.9, 0.6, 0.6]), torch.tensor([0.6, 0.3])) == pytest.approx(np.mean(pairs))


def test_labels_alone_are_infinitely_wrong_where_they_are_wrong():
    log_probs = torch.eye(3).log()[[0, 1, 2, 0]]
    found = quality(log_probs, torch.tensor([0, 1, 2, 1]))
    assert (found.accuracy, found.nll, found.zero_truths) == (75.0, math.inf, 1)
    assert (found.ece, found.brier, found.auroc, found.aurc) == pytest.approx((0.25, 0.5, 0.5, 0.25))
    assert found.undefined == {"nll": "1 of 4 answers give their true class the probability 0, so it is infinite"}


@pytest.mark.parametrize(("label", "kind"), [(0, "wrong"), (1, "right")])
def test_without_wrong_or_right_answers_there_is_nothing_to_tell_apart(label, kind):
    found = quality(torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log(), torch.tensor([label, label]))
    assert math.isnan(found.auroc)
    assert found.undefined == {"auroc": f"none of 2 answers is {kind}, so there is nothing to tell apart"}


def test_rows_that_do_not_sum_to_one_are_taken_as_they_are():
    found = quality(torch.tensor([[0.5, 0.2, 0.0]]).log(), torch.tensor([0]))
    assert found.brier == pytest.approx(0.25 + 0.04)
    assert found.ece == pytest.approx(0.5)


def test_confidence_just_above_one_is_one():
    log_probs = torch.tensor([[1e-6, -20.0], [-1e-9, -20.0]], dtype=torch.float64)
    sure = confidence(log_probs)
    assert sure[0] == 1
    assert 1 - 2e-9 < sure[1] < 1  # not a tie
    assert calibration_error(sure, torch.tensor([True, True])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 1000])
def test_one_hot_and_uniform_answers_have_figures(classes):
    log_probs = torch.stack([torch.eye(classes)[0], torch.full((classes,), 1 / classes)]).log()
    found = quality(log_probs, torch.tensor([0, 1]))
    assert found.accuracy == 50
    assert found.nll == pytest.approx(math.log(classes) / 2, rel=1e-5)
    assert found.brier == pytest.approx((1 - 1 / classes) / 2, rel=1e-5)
    assert found.auroc == 1


@pytest.mark.parametrize(
    ("log_probs", "labels", "words"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "the quality of no answers is undefined"),
        (torch.tensor([[2.0, 0.0]]), torch.tensor([0]), "holds 2, which is above 0 and so no logarithm of a probab"),
        (torch.tensor([[0.0, -1.0]]), torch.tensor([2]), r"labels must lie in \[0, 2\)"),
        (torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), "1 of 1 rows hold NaN"),
    ],
)
def test_bad_answers_are_refused(log_probs, labels, words):
    with pytest.raises(InputError, match=words):
        quality(log_probs, labels)
