"""Learning from answers at temperature 1, against formulas written class by class in float64."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks import ACCESS_KINDS, KDWithoutLabels
from undistill.attacks.knockoff import Knockoff, KnockoffHard, LabelOnly


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def cross_entropies(logits, targets):
    """- sum over classes of target_c log softmax(z)_c, in float64."""
    values = []
    for z, target in zip(logits.double().numpy(), targets, strict=True):
        log_q = z - math.log(np.exp(z).sum())
        values.append(-sum(float(t) * float(log) for t, log in zip(target, log_q, strict=True)))
    return torch.tensor(values, dtype=torch.float32)


def smoothed(classes, count, smoothing):
    return (1 - smoothing) * np.eye(count)[classes] + smoothing / count


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_knockoff_is_cross_entropy_with_the_answers(classes):
    logits, log_probs, labels = draw(classes=classes)
    expected = cross_entropies(logits, log_probs.double().exp().numpy())
    torch.testing.assert_close(Knockoff().loss(logits, log_probs, labels), expected, rtol=1e-5, atol=1e-6)


def test_knockoff_is_kd_at_temperature_one_plus_the_entropy_of_the_answers():
    logits, log_probs, labels = draw()
    entropy = -(log_probs.exp() * log_probs).sum(1)
    expected = KDWithoutLabels(1.0).loss(logits, log_probs, labels) + entropy
    torch.testing.assert_close(Knockoff().loss(logits, log_probs, labels), expected, rtol=1e-5, atol=1e-5)


def test_an_answer_with_less_mass_weighs_less():
    logits, log_probs, labels = draw()
    hidden = log_probs.exp() < 0.1
    kept = log_probs.masked_fill(hidden, -torch.inf)
    mass = kept.exp().sum(1)
    renormalised = torch.log_softmax(kept, 1)
    expected = mass * Knockoff().loss(logits, renormalised, labels)
    torch.testing.assert_close(Knockoff().loss(logits, kept, labels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_hard_answers_are_predicted_classes(smoothing):
    logits, log_probs, labels = draw()
    predicted = cross_entropies(logits, smoothed(log_probs.numpy().argmax(1), 10, smoothing))
    true = cross_entropies(logits, smoothed(labels.numpy(), 10, 0.0))
    loss = KnockoffHard(smoothing).loss(logits, log_probs, labels)
    torch.testing.assert_close(loss, predicted, rtol=1e-5, atol=1e-6)
    both = LabelOnly(0.5, smoothing).loss(logits, log_probs, labels)
    torch.testing.assert_close(both, 0.5 * true + 0.5 * predicted, rtol=1e-5, atol=1e-6)
    assert torch.equal(LabelOnly(0.0, smoothing).loss(logits, log_probs, labels), loss)


def test_no_defence_that_keeps_the_predicted_class_changes_hard_answers():
    logits, log_probs, labels = draw()
    one_hot = torch.full_like(log_probs, -torch.inf).scatter(1, log_probs.argmax(1, keepdim=True), 0.0)
    for attack in (KnockoffHard(), LabelOnly()):
        expected = attack.loss(logits, log_probs, labels)
        for answers in (one_hot, torch.log_softmax(0.01 * log_probs, 1), torch.log_softmax(50 * log_probs, 1)):
            assert torch.equal(attack.loss(logits, answers, labels), expected)


@pytest.mark.parametrize("attack", [Knockoff, KnockoffHard, LabelOnly])
def test_every_access_will_do(attack):
    for kind in ACCESS_KINDS:
        attack().check_access(kind)
