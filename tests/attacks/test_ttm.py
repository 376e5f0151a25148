"""Transformed teacher matching against its formula and against the identities that tie it to plain distillation."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks.kd import KD, KDWithoutLabels
from undistill.attacks.ttm import TTM, WTTM, TTMWithoutLabels, WTTMWithoutLabels, power_sum
from undistill.errors import InputError

POWERS = (0.1, 0.4, 1.0, 2.0)


def draw(batch=16, classes=10, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = scale * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def top(log_probs, k):
    shown = log_probs.topk(min(k, log_probs.shape[1]), 1)
    return torch.log_softmax(torch.full_like(log_probs, -torch.inf).scatter(1, shown.indices, shown.values), 1)


def parts(logits, log_probs, labels, power):
    """Cross entropy, KL(p^(g) || q) and U = sum of p^g of each example, in float64, class by class."""
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        raised = np.exp(lp) ** power
        mass = raised.sum()
        log_q = z - math.log(np.exp(z).sum())
        divergence = sum(t * (math.log(t) - s) for t, s in zip(raised / mass, log_q, strict=True) if t > 0)
        values.append((-log_q[y], divergence, mass))
    return torch.tensor(values).T


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", [1, 3, 100])
def test_values_are_those_of_the_formulas(power, classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    log_probs = top(log_probs, shown)
    hard, divergence, mass = parts(logits, log_probs, labels, power)
    seen = logits.float(), log_probs.float(), labels
    for attack, expected in (
        (TTM(power, 7.0), hard + 7 * divergence),
        (TTM(power, 45.0, 0.3), 0.3 * hard + 45 * divergence),
        (TTMWithoutLabels(power, 2.0), 2 * divergence),
        (WTTM(power, 2.25), hard + 2.25 * mass * divergence),
        (WTTM(power, 2.25, 0.0), 2.25 * mass * divergence),
        (WTTMWithoutLabels(power, 2.0), 2 * mass * divergence),
    ):
        torch.testing.assert_close(attack.loss(*seen), expected.float(), rtol=1e-5, atol=1e-5)


def renyi_entropy(log_probs, order):
    """log(sum of q^a) / (1 - a); Shannon's for a = 1."""
    probs = np.exp(log_probs.numpy())
    if order == 1:
        return torch.from_numpy(-(probs * np.log(probs)).sum(1))
    return torch.from_numpy(np.log((probs**order).sum(1)) / (1 - order))


@pytest.mark.parametrize("temperature", [2.0, 4.0, 10.0])
def test_it_is_distillation_less_a_renyi_entropy_of_the_student(temperature):
    """KL(p^(g) || q) = T KL(p^(g) || q^(g)) - (T - 1) H_g(q) + (T - 1) H(p^(g)), g = 1/T."""
    logits, log_probs, labels = draw()
    seen = logits.float(), log_probs.float(), labels
    kd = KDWithoutLabels(temperature).loss(*seen) / temperature  # T^2 KL / T
    of_student = renyi_entropy(torch.log_softmax(logits, 1), 1 / temperature)
    of_teacher = renyi_entropy(torch.log_softmax(log_probs / temperature, 1), 1)
    expected = kd.double() + (temperature - 1) * (of_teacher - of_student)
    torch.testing.assert_close(TTMWithoutLabels(1 / temperature).loss(*seen), expected.float(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("temperature", "share"), [(4.0, 0.9), (2.0, 0.5), (10.0, 0.2)])
def test_with_the_papers_weight_it_is_scaled_kd_less_that_entropy(temperature, share):
    """beta = share / (1 - share) * T makes TTM = KD / (1 - share) - beta (T - 1) (H_g(q) - H(p^(g)))."""
    logits, log_probs, labels = draw()
    seen = logits.float(), log_probs.float(), labels
    beta = share / (1 - share) * temperature
    of_student = renyi_entropy(torch.log_softmax(logits, 1), 1 / temperature)
    of_teacher = renyi_entropy(torch.log_softmax(log_probs / temperature, 1), 1)
    kd = KD(temperature, hard=1 - share).loss(*seen).double() / (1 - share)
    expected = kd - beta * (temperature - 1) * (of_student - of_teacher)
    torch.testing.assert_close(TTM(1 / temperature, beta).loss(*seen), expected.float(), rtol=1e-5, atol=5e-4)


@pytest.mark.parametrize("attack", [TTM(hard=0.0), TTMWithoutLabels(), WTTM(hard=0.0), WTTMWithoutLabels()])
def test_the_optimum_is_the_tempered_teacher(attack):
    _, log_probs, labels = draw()
    student = (attack.power * log_probs).float().requires_grad_()
    at_optimum = attack.loss(student, log_probs.float(), labels)
    at_optimum.sum().backward()
    assert at_optimum.abs().max() < 1e-4
    assert student.grad.abs().max() < 1e-4
    for seed in range(4):
        noise = torch.randn(student.shape, generator=torch.Generator().manual_seed(seed))
        assert (attack.loss(student.detach() + noise, log_probs.float(), labels) > 1e-3).all()


def test_weights_are_one_for_certain_answers_and_largest_for_uniform_ones():
    one_hot, uniform = torch.full((1, 16), -torch.inf), torch.full((1, 16), 1 / 16).log()
    one_hot[0, 3] = 0.0
    assert power_sum(one_hot, 0.25).item() == pytest.approx(1)
    assert power_sum(uniform, 0.25).item() == pytest.approx(16**0.75)
    assert power_sum(uniform, 1.0).item() == pytest.approx(1)
    assert power_sum(one_hot - 5, 0.25).item() == pytest.approx(1), "missing mass is no uncertainty"


def test_a_probability_too_small_for_float32_keeps_its_power():
    """p = 1e-46 is zero to a softmax in float32, but its power 0.1 is 2.5e-5."""
    log_probs = torch.tensor([[0.0, -46 * math.log(10)]])
    assert power_sum(log_probs, 0.1).item() - 1 == pytest.approx(10**-4.6, rel=1e-2)


@pytest.mark.parametrize("attack", [TTM, TTMWithoutLabels, WTTM, WTTMWithoutLabels])
def test_bad_settings_are_refused(attack):
    for power in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(InputError) as refusal:
            attack(power=power)
        assert str(refusal.value) == f"the power is {power}, must be finite and above 0"
    with pytest.raises(InputError, match=r"the weight beta of the divergence is -1.0, must be finite and at least 0"):
        attack(beta=-1.0)
    if attack.needs_labels:
        with pytest.raises(InputError, match=r"the weight of hard labels is nan, must be finite and at least 0"):
            attack(hard=math.nan)
