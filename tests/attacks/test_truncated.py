"""Distillation from answers that hide classes, against formulas written class by class in float64."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks import KD
from undistill.attacks.truncated import ImputedTailKD, RestBinKD, SupportKD
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def top(log_probs, k, renormalise):
    largest = log_probs.topk(k, dim=1)
    kept = torch.full_like(log_probs, -torch.inf).scatter(1, largest.indices, largest.values)
    return torch.log_softmax(kept, 1) if renormalise else kept


def tempered(probs, temperature):
    powers = np.where(probs > 0, probs, 0) ** (1 / temperature)
    return powers / powers.sum()


def divergence(p, q):
    return sum(p[c] * (math.log(p[c]) - math.log(q[c])) for c in range(len(p)) if p[c] > 0)


def by_rows(soft, logits, log_probs, labels, hard):
    """hard * CE(z, y) + (1 - hard) * soft(p, q), row by row; p as answered, q at temperature 1."""
    values = []
    for z, answer, y in zip(logits.double().numpy(), log_probs.double().exp().numpy(), labels.tolist(), strict=True):
        q = np.exp(z) / np.exp(z).sum()
        values.append(-hard * math.log(q[y]) + (1 - hard) * soft(answer, q))
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("renormalise", [True, False])
def test_support_kd_is_kd_among_the_shown_classes(temperature, k, renormalise):
    logits, log_probs, labels = draw()
    shown = top(log_probs, k, renormalise)

    def soft(p, q):
        support = p > 0
        return temperature**2 * divergence(tempered(p[support], temperature), tempered(q[support], temperature))

    expected = by_rows(soft, logits, shown, labels, 0.2)
    loss = SupportKD(temperature, 0.2).loss(logits, shown, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5 * max(1, temperature**2 / 16))
    if k == 10:
        torch.testing.assert_close(loss, KD(temperature, 0.2).loss(logits, log_probs, labels))


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("renormalise", [True, False])
def test_a_rest_bin_is_one_more_class(k, renormalise):
    logits, log_probs, labels = draw()
    shown = top(log_probs, k, renormalise)

    def soft(p, q):
        support = p > 0
        if renormalise or support.all():
            return divergence(p, q)
        return divergence([*p[support], 1 - p.sum()], [*q[support], 1 - q[support].sum()])

    loss = RestBinKD(0.2).loss(logits, shown, labels)
    torch.testing.assert_close(loss, by_rows(soft, logits, shown, labels, 0.2), rtol=1e-5, atol=1e-5)
    if renormalise or k == 10:
        torch.testing.assert_close(loss, KD(1.0, 0.2).loss(logits, shown, labels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("tail", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("renormalise", [True, False])
def test_an_imputed_tail_has_the_students_proportions(temperature, tail, k, renormalise):
    logits, log_probs, labels = draw()
    shown = top(log_probs, k, renormalise)

    def soft(p, q):
        hidden = p == 0
        mass = 0.0
        if hidden.any():
            mass = max(tail, 0.0 if renormalise else 1 - p.sum())
        target = (1 - mass) * p / p.sum()
        target[hidden] = mass * q[hidden] / q[hidden].sum()
        return temperature**2 * divergence(tempered(target, temperature), tempered(q, temperature))

    expected = by_rows(soft, logits, shown, labels, 0.2)
    loss = ImputedTailKD(temperature, 0.2, tail).loss(logits, shown, labels)
    torch.testing.assert_close(loss, expected, rtol=2e-5, atol=1e-5 * max(1, temperature**2 / 16))


def soft_gradient(attack, logits, log_probs):
    student = logits.clone().requires_grad_()
    loss = attack.loss(student, log_probs, torch.zeros(len(logits), dtype=torch.int64))
    loss.sum().backward()
    return loss.detach(), student.grad


def test_a_student_that_is_the_teacher_has_nothing_left_to_learn():
    _, log_probs, _ = draw()
    kept, renormalised = top(log_probs, 3, renormalise=False), top(log_probs, 3, renormalise=True)
    for attack, shown in (
        (SupportKD(4.0, 0.0), renormalised),
        (SupportKD(4.0, 0.0), kept),
        (RestBinKD(0.0), kept),
        (ImputedTailKD(4.0, 0.0, 0.0), kept),
    ):
        loss, gradient = soft_gradient(attack, log_probs, shown)
        assert loss.abs().max() < 1e-4
        assert gradient.abs().max() < 1e-4
    for attack in (KD(4.0, 0.0), RestBinKD(0.0), ImputedTailKD(4.0, 0.0, 0.0)):
        loss, _ = soft_gradient(attack, log_probs, renormalised)
        assert loss.mean() > 0.1, "renormalised answers teach that hidden classes are impossible"


def test_hidden_logits_get_no_gradient_from_support_kd():
    logits, log_probs, _ = draw()
    shown = top(log_probs, 3, renormalise=True)
    _, gradient = soft_gradient(SupportKD(4.0, 0.0), logits, shown)
    hidden = shown == -torch.inf
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] != 0).all()
    _, pushed = soft_gradient(KD(4.0, 0.0), logits, shown)
    assert (pushed[hidden] > 0).all(), "KD pushes them down"


def test_an_imputed_tail_is_a_constant():
    logits, log_probs, _ = draw()
    shown = top(log_probs, 3, renormalise=True)
    _, gradient = soft_gradient(ImputedTailKD(1.0, 0.0, 0.1), logits, shown)
    q, hidden = torch.softmax(logits, 1), shown == -torch.inf
    tail = q.masked_fill(~hidden, 0)
    target = torch.where(hidden, 0.1 * tail / tail.sum(1, keepdim=True), 0.9 * shown.exp())
    torch.testing.assert_close(gradient, q - target, rtol=1e-4, atol=1e-6)


def test_rounding_of_renormalised_answers_is_no_rest():
    """A rest of 1e-8 would be one of 1e-2 at T = 4."""
    logits, log_probs, labels = draw(batch=300, classes=100)
    shown = top(log_probs, 20, renormalise=True)
    assert (shown.exp().sum(1) != 1).any()
    expected = KD(4.0, 0.0).loss(logits, shown, labels)
    torch.testing.assert_close(ImputedTailKD(4.0, 0.0, 0.0).loss(logits, shown, labels), expected)


@pytest.mark.parametrize("tail", [-0.1, 1.0, math.nan])
def test_bad_tails_are_refused(tail):
    with pytest.raises(InputError, match=f"the tail is {tail}, must lie between 0 and 1, and below 1"):
        ImputedTailKD(tail=tail)


def test_support_kd_refuses_answers_of_one_class():
    with pytest.raises(InputError, match="attack kd-support cannot use access 'label'"):
        SupportKD().check_access("label")
