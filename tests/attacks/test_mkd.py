"""Markov distillation against explicit matrices in NumPy, and the two gradients of one step."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from undistill.attacks import mkd
from undistill.attacks.mkd import MKD, starting_matrices, transformed
from undistill.errors import InputError


def draw(batch=12, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def explicit(matrices):
    """All transition matrices M (classes, classes, classes), in float64."""
    left, right, scale = (part.detach().double().numpy() for part in matrices)
    scores = np.einsum("yir,yjr->yij", left, right) + scale[:, None, None] * np.eye(len(scale))
    return scipy.special.softmax(scores, 2)


def formula(logits, log_probs, labels, matrices, temperature, hard):
    p = scipy.special.softmax(log_probs.double().numpy() / temperature, 1)
    mixed = np.einsum("bi,bij->bj", p, explicit(matrices)[labels.numpy()])
    z = logits.detach().double().numpy()
    divergence = scipy.special.rel_entr(mixed, scipy.special.softmax(z / temperature, 1)).sum(1)
    cross_entropy = -scipy.special.log_softmax(z, 1)[np.arange(len(labels)), labels.numpy()]
    return hard * cross_entropy + (1 - hard) * temperature**2 * divergence


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("hard", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("classes", [2, 6, 30])
def test_values_are_those_of_the_formula(temperature, hard, classes):
    logits, log_probs, labels = draw(classes=classes)
    loss = MKD(temperature, hard).loss(logits, log_probs, labels)
    expected = formula(logits, log_probs, labels, starting_matrices(classes, rank=3, seed=0), temperature, hard)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5, atol=1e-5 * max(1, temperature**2 / 16))


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_matrices_are_stochastic_and_start_near_the_identity(classes):
    rows = explicit(starting_matrices(classes, rank=3, seed=1))
    np.testing.assert_allclose(rows.sum(2), 1, rtol=1e-12)
    kept = np.diagonal(rows, axis1=1, axis2=2)
    assert 0.8 < kept.mean() < 0.95
    assert (rows.argmax(2) == np.arange(classes)).mean() > 0.95


def test_an_answer_becomes_a_distribution_whatever_its_zeros():
    _, log_probs, labels = draw()
    for answers in (log_probs, 60 * log_probs, torch.eye(6)[labels].log(), torch.eye(6)[labels - 1].log()):
        mixed = transformed(torch.log_softmax(answers, 1), labels, starting_matrices(6, rank=2, seed=0))
        assert mixed.isfinite().all()
        torch.testing.assert_close(mixed.exp().sum(1), torch.ones(12))


def test_parts_of_a_batch_give_the_same(monkeypatch):
    logits, log_probs, labels = draw(batch=7)
    results = []
    for entries, cached in ((1 << 24, 1 << 18), (3 * 36, 1 << 18), (1, 1 << 18), (1 << 24, 2 * 36), (1 << 24, 1)):
        monkeypatch.setattr(mkd, "ENTRIES", entries)
        monkeypatch.setattr(mkd, "CACHED", cached)
        loss = MKD().start(6, seed=4)
        value = loss(logits, log_probs, labels)
        value.mean().backward()
        results.append([value, *(part.grad for part in loss.matrices)])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def plainly_mixed(probs, labels, left, right, scale):
    """p M_y of each row, by operations that autograd differentiates."""
    scores = torch.einsum("bir,bjr->bij", left[labels], right[labels])
    scores = scores + scale[labels, None, None] * torch.eye(probs.shape[1], dtype=probs.dtype)
    return torch.einsum("bi,bij->bj", probs, torch.softmax(scores, 2))


def test_student_and_matrices_take_the_gradient_with_the_other_constant():
    logits, log_probs, labels = draw()
    attack = MKD()
    loss = attack.start(6, seed=2)
    student = logits.clone().requires_grad_()
    loss(student, log_probs, labels).mean().backward()
    targets = attack.targets(log_probs, labels, tuple(part.detach() for part in loss.matrices))
    alone = logits.clone().requires_grad_()
    attack.loss_from(alone, targets, labels).mean().backward()
    torch.testing.assert_close(student.grad, alone.grad)
    matrices = [part.detach().double().requires_grad_() for part in loss.matrices]
    mixed = plainly_mixed(torch.log_softmax(log_probs / 4, 1).exp().double(), labels, *matrices)
    soft = (mixed * (mixed.log() - torch.log_softmax(logits.double() / 4, 1))).sum(1).mean()
    (0.9 * 16 * soft).backward()
    for mine, expected in zip(loss.matrices, matrices, strict=True):
        torch.testing.assert_close(mine.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)


def test_a_step_is_adams_at_a_hundredth_of_the_rate():
    logits, log_probs, labels = draw()
    loss = MKD().start(6, seed=2)
    before = [part.detach().clone() for part in loss.matrices]
    loss(logits, log_probs, labels).mean().backward()
    gradients = [part.grad.clone() for part in loss.matrices]
    loss.after_step(0.5)
    for part, old, gradient in zip(loss.matrices, before, gradients, strict=True):
        # Adam's first step is the learning rate times the sign of the gradient.
        sure = gradient.abs() > 1e-4
        torch.testing.assert_close((part - old)[sure], -0.005 * gradient.sign()[sure], rtol=1e-2, atol=1e-5)
        assert part.grad is None


def test_the_matrices_learn_what_the_student_says():
    logits, log_probs, labels = draw()
    loss = MKD(hard=0.0).start(6, seed=2)
    values = []
    for _ in range(60):
        loss.begin_epoch(len(values), 60)
        value = loss(logits, log_probs, labels).mean()
        value.backward()
        loss.after_step(5.0)
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
    entropies = loss.facts()["transformed_entropy"]
    assert len(entropies) == 60
    assert all(0 < entropy <= math.log(6) for entropy in entropies)


def test_facts_hold_the_mean_entropy_of_each_epoch():
    loss = MKD().start(6, seed=3)
    assert loss.facts() == {"transformed_entropy": []}
    expected = []
    for epoch in range(2):
        loss.begin_epoch(epoch, 2)
        entropies = []
        for step in range(3):
            logits, log_probs, labels = draw(seed=10 * epoch + step)
            loss(logits, log_probs, labels)
            p = scipy.special.softmax(log_probs.double().numpy() / 4, 1)
            mixed = np.einsum("bi,bij->bj", p, explicit(loss.matrices)[labels.numpy()])
            entropies.append(scipy.special.entr(mixed).sum(1).mean())
        expected.append(np.mean(entropies))
    assert loss.facts()["transformed_entropy"] == pytest.approx(expected, rel=1e-5)


def test_the_seed_fixes_the_start():
    first, again, other = (MKD().start(6, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(first["matrices.0"], again["matrices.0"])
    assert not torch.equal(first["matrices.0"], other["matrices.0"])
    logits, log_probs, labels = draw()
    torch.testing.assert_close(MKD().start(6, seed=0)(logits, log_probs, labels), MKD().loss(logits, log_probs, labels))


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="the rank of the transition matrices is 0, must be at least 1"):
        MKD(rank=0)
    with pytest.raises(InputError, match=r"the temperature is -1.0, must be finite and above 0"):
        MKD(temperature=-1.0)
    with pytest.raises(InputError, match=r"the share of hard labels is 7.0, must lie between 0 and 1"):
        MKD(hard=7.0)
    with pytest.raises(InputError, match=r"rate of the transition matrices is -1.0, must be finite and at least 0"):
        MKD(rate=-1.0)
