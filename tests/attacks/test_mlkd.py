"""Multi-level distillation, plain and on z-scores, against the formula in NumPy, and what the views must do to it."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from undistill.attacks.divergence import soft_loss
from undistill.attacks.mlkd import MLKD, LSKDWithMLKD, gram_distances
from undistill.errors import InputError

ATTACKS = (MLKD, LSKDWithMLKD)
both = pytest.mark.parametrize("kind", ATTACKS)


def draw(batch=16, classes=10, seed=0):
    """Logits of the student and of the teacher to two views of a batch, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, 2 * batch, classes, generator=generator, dtype=torch.float64)
    return logits, teacher, torch.randint(classes, (batch,), generator=generator)


def z_scores(values):
    return (values - values.mean(1, keepdims=True)) / values.std(1, ddof=1, keepdims=True)


def formula(logits, teacher, labels, temperatures, hard, weight, standardised):
    """Mean over the batch, as published but for the scale of the Gram matrices, in float64."""
    batch, classes = len(labels), logits.shape[1]
    z, t = (values.numpy().reshape(2, batch, classes) for values in (logits, teacher))
    log_softmax = scipy.special.log_softmax
    cross_entropy = sum(-log_softmax(z[view], 1)[np.arange(batch), labels].mean() for view in (0, 1))
    soft = 0.0
    for temperature in temperatures:
        for view, share in ((0, 0.5), (1, 1.0)):
            of_student, of_teacher = (z_scores(z[view]), z_scores(t[view])) if standardised else (z[view], t[view])
            log_q, log_p = log_softmax(of_student / temperature, 1), log_softmax(of_teacher / temperature, 1)
            soft += share * temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
        q, p = (np.exp(log_softmax(values[0] / temperature, 1)) for values in (z, t))
        scale = 0.64 * classes / batch
        soft += 0.5 * scale * np.linalg.norm(p @ p.T - q @ q.T) ** 2 / batch
        soft += 0.5 * scale**2 * np.linalg.norm(p.T @ p - q.T @ q) ** 2 / classes
    return hard * cross_entropy + weight * soft


@both
@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("classes", [2, 10, 40])
@pytest.mark.parametrize(("hard", "weight"), [(0.1, 0.9), (0.0, 9.0), (1.0, 0.0)])
def test_values_are_those_of_the_formula(kind, batch, classes, hard, weight):
    attack = kind(hard=hard, weight=weight)
    logits, teacher, labels = draw(batch, classes)
    loss = attack.loss(logits.float(), torch.log_softmax(teacher, 1).float(), labels)
    expected = formula(logits, teacher, labels, attack.temperatures, hard, weight, kind is LSKDWithMLKD)
    assert loss.mean().item() == pytest.approx(expected, rel=1e-5)


def test_in_batches_of_64_of_100_classes_the_gram_matrices_count_as_in_the_official_code():
    logits, teacher, _ = draw(batch=32, classes=100)  # two views, so 64 rows
    q, p = (torch.softmax(values / 4, 1) for values in (logits, teacher))
    released = ((p @ p.T - q @ q.T) ** 2).sum() / 64 + ((p.T @ p - q.T @ q) ** 2).sum() / 100
    mine = gram_distances(q.log(), p.log())
    assert mine.mean().item() == pytest.approx(released.item(), rel=1e-5)


def test_a_batch_twice_is_no_other_problem():
    logits, teacher, labels = draw()
    log_probs = torch.log_softmax(teacher, 1)
    once = MLKD().loss(logits, log_probs, labels)
    views = [torch.cat([view, view]) for values in (logits, log_probs) for view in values.split(16)]
    twice = MLKD().loss(torch.cat(views[:2]), torch.cat(views[2:]), labels.repeat(2))
    torch.testing.assert_close(twice, once.repeat(2), rtol=1e-4, atol=1e-4)


@both
def test_each_view_is_judged_by_its_own_answer(kind):
    """The answers are for the same images, so a student who mixes up the views is not the teacher."""
    _, teacher, labels = draw()
    usual, strong = torch.log_softmax(teacher, 1).float().split(16)
    answers, attack = torch.cat([usual, strong]), kind(hard=0.0)
    assert attack.loss(answers, answers, labels).abs().max() < 1e-3
    assert attack.loss(torch.cat([strong, usual]), answers, labels).mean() > 10
    for student in (torch.cat([usual, usual]), torch.cat([strong, strong])):
        assert attack.loss(student, answers, labels).mean() > 5


def test_the_strong_view_is_judged_at_every_temperature():
    """The official code takes the usual view's logits at T = 2 and 6."""
    _, teacher, labels = draw()
    answers = torch.log_softmax(teacher, 1).float()
    student = torch.cat([answers[:16], torch.zeros(16, 10)])
    for temperature in (2.0, 3.0, 6.0):
        loss = MLKD((temperature,), hard=0.0, weight=1.0).loss(student, answers, labels)
        torch.testing.assert_close(loss, soft_loss(student[16:], answers[16:], temperature), rtol=1e-4, atol=1e-4)


def test_z_scores_leave_the_scale_of_the_logits_to_the_labels_and_the_gram_matrices():
    _, teacher, labels = draw()
    answers = torch.log_softmax(teacher, 1).float()
    strong = torch.cat([answers[:16], 5 * answers[16:]])  # only the divergence sees the strong view
    assert LSKDWithMLKD(hard=0.0).loss(strong, answers, labels).abs().max() < 1e-3
    assert MLKD(hard=0.0).loss(strong, answers, labels).mean() > 10


@both
def test_bad_temperatures_are_refused(kind):
    with pytest.raises(InputError, match=r"at least one temperature is needed, and none was given"):
        kind(temperatures=())
    for wrong in (0.0, -4.0, math.nan, math.inf):
        with pytest.raises(InputError, match=f"the temperature is {wrong}, must be finite and above 0"):
            kind(temperatures=(4.0, wrong))


@both
def test_bad_weights_are_refused(kind):
    with pytest.raises(InputError, match=r"the weight of hard labels is 1.5, must lie between 0 and 1"):
        kind(hard=1.5)
    with pytest.raises(InputError, match=r"the weight of the soft part is -1.0, must be finite and at least 0"):
        kind(weight=-1.0)


@both
def test_two_views_are_asked_about(kind):
    assert kind.views == kind.blocks == 2
    assert "same two views" in kind.placebo
