"""Standardised distillation against its formula, PyTorch's statistics and limits."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks.lskd import FLAT, LSKD, LSKDWithDKD, LSKDWithoutLabels, standardise
from undistill.attacks.warmup import WarmUp
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def top(log_probs, k):
    shown = log_probs.topk(min(k, log_probs.shape[1]), 1)
    return torch.log_softmax(torch.full_like(log_probs, -torch.inf).scatter(1, shown.indices, shown.values), 1)


def z_scores(row):
    """Z-scores of one row over its finite entries, those of the one-hot if there is only one."""
    held = np.isfinite(row)
    if held.sum() == 1:
        row, held = held.astype(float), np.ones(len(row), bool)
    return np.where(held, (row - row[held].mean()) / row[held].std(ddof=1), -np.inf)


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def cross_entropy(z, y):
    return math.log(np.exp(z).sum()) - z[y]


def kd_formula(logits, log_probs, labels, attack, hard):
    return torch.tensor(
        [
            hard * cross_entropy(z, y)
            + attack.weight
            * attack.temperature**2
            * divergence(softmax(z_scores(lp) / attack.temperature), softmax(z_scores(z) / attack.temperature))
            for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True)
        ],
        dtype=torch.float32,
    )


def dkd_formula(logits, log_probs, labels, attack):
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        p, q = (softmax(z_scores(row) / attack.temperature) for row in (lp, z))
        others = np.arange(len(p)) != y
        of_label = divergence((p[y], p[others].sum()), (q[y], q[others].sum()))
        of_others = divergence(p[others] / p[others].sum(), q[others] / q[others].sum()) if p[others].sum() > 0 else 0
        soft = attack.alpha * of_label + attack.beta * of_others if p[y] > 0 else 0.0
        values.append(attack.hard * cross_entropy(z, y) + attack.temperature**2 * soft)
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", [1, 2, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 6.0])
def test_values_are_those_of_the_formulas(classes, shown, temperature):
    logits, log_probs, labels = draw(classes=classes)
    log_probs = top(log_probs, shown)
    labels[::2] = log_probs[::2].argmax(1)  # in half of the rows the label is surely shown
    seen = logits.float(), log_probs.float(), labels
    attack = LSKD(temperature, 9.0, 0.1)
    expected = kd_formula(logits, log_probs, labels, attack, 0.1)
    torch.testing.assert_close(attack.loss(*seen), expected, rtol=1e-5, atol=1e-4)
    attack = LSKDWithoutLabels(temperature, 3.0)
    expected = kd_formula(logits, log_probs, labels, attack, 0.0)
    torch.testing.assert_close(attack.loss(*seen), expected, rtol=1e-5, atol=1e-4)
    attack = LSKDWithDKD(temperature)
    expected = dkd_formula(logits, log_probs, labels, attack)
    torch.testing.assert_close(attack.loss(*seen), expected, rtol=1e-5, atol=1e-3)


def test_z_scores_are_those_of_pytorch():
    logits, log_probs, _ = draw()
    expected = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)
    torch.testing.assert_close(standardise(logits), expected.float())
    assert standardise(log_probs).dtype == torch.float32


def test_scale_and_shift_of_logits_do_not_matter():
    logits, log_probs, _ = draw()
    torch.testing.assert_close(standardise(7 * logits + 30), standardise(logits))
    torch.testing.assert_close(standardise(log_probs), standardise(log_probs / 20 + 3))
    torch.testing.assert_close(standardise(top(log_probs, 3) - 2), standardise(top(log_probs, 3)))


def test_one_shown_class_is_the_limit_of_smoothed_one_hots():
    one_hot = torch.full((1, 10), -torch.inf)
    one_hot[0, 4] = 0.0
    for smoothing in (0.5, 0.1, 1e-6):
        smoothed = torch.full((1, 10), smoothing / 10)
        smoothed[0, 4] += 1 - smoothing
        torch.testing.assert_close(standardise(one_hot), standardise(smoothed.log()))
    torch.testing.assert_close(standardise(one_hot - 3), standardise(one_hot))


def test_flat_rows_are_not_stretched_and_have_gradients():
    assert standardise(torch.full((1, 5), -1.6)).tolist() == [[0.0] * 5]
    row = torch.tensor([[FLAT / 10, 0.0, -FLAT / 10]])
    torch.testing.assert_close(standardise(row), torch.tensor([[0.1, 0.0, -0.1]]))
    flat = torch.zeros(1, 3, requires_grad=True)
    standardise(flat)[0, 0].backward()
    torch.testing.assert_close(flat.grad, torch.tensor([[2.0, -1.0, -1.0]]) / (3 * FLAT))


def test_every_class_of_the_student_gets_a_gradient_when_few_are_shown():
    logits, log_probs, labels = draw()
    for shown in (1, 2, 3):
        student = logits.float().requires_grad_()
        LSKDWithoutLabels().loss(student, top(log_probs, shown).float(), labels).sum().backward()
        assert (student.grad.abs() > 1e-6).all()


def test_the_soft_part_is_orthogonal_to_shifts_and_scalings_of_the_student():
    logits, log_probs, labels = draw()
    student = logits.float().requires_grad_()
    LSKDWithoutLabels().loss(student, log_probs.float(), labels).sum().backward()
    assert student.grad.sum(1).abs().max() < 1e-4
    assert (student.grad * standardise(logits)).sum(1).abs().max() < 1e-3


def test_the_decoupled_form_is_faded_in():
    attack = LSKDWithDKD(warmup=0.5)
    logits, log_probs, labels = draw()
    seen = logits.float(), log_probs.float(), labels
    loss = attack.start(10, seed=0)
    assert isinstance(loss, WarmUp)
    loss.begin_epoch(0, 20)  # the first of ten epochs of warm-up
    hard = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(loss(*seen), hard + (attack.loss(*seen) - hard) / 10, rtol=1e-5, atol=1e-4)


def test_bad_settings_are_refused():
    for attack in (LSKD, LSKDWithoutLabels, LSKDWithDKD):
        with pytest.raises(InputError, match=r"the temperature is 0.0, must be finite and above 0"):
            attack(temperature=0.0)
    with pytest.raises(InputError, match=r"the weight of the soft part is -9.0, must be finite and at least 0"):
        LSKD(weight=-9.0)
    with pytest.raises(InputError, match=r"the weight of hard labels is -0.1, must be finite and at least 0"):
        LSKD(hard=-0.1)
    with pytest.raises(InputError, match=r"the weight of the divergence is inf, must be finite and at least 0"):
        LSKDWithoutLabels(weight=math.inf)
    with pytest.raises(InputError, match=r"the weight alpha of the label's probability is nan, must be finite"):
        LSKDWithDKD(alpha=math.nan)
    with pytest.raises(InputError, match=r"the weight beta of the other classes is -1.0, must be finite"):
        LSKDWithDKD(beta=-1.0)
    with pytest.raises(InputError, match=r"the share of the warm-up is 1.5, must lie between 0 and 1"):
        LSKDWithDKD(warmup=1.5)
