"""Knowledge distillation, and the divergence under it, against formulas and other libraries."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from undistill.attacks import KD, KDWithoutLabels, kl_divergence
from undistill.errors import InputError

TEMPERATURES = (0.5, 1.0, 4.0, 20.0)


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, teacher, torch.randint(classes, (batch,), generator=generator)


def formula(logits, teacher, labels, temperature, hard):
    """hard * CE(z, y) + (1 - hard) * T^2 * KL(softmax(t / T) || softmax(z / T)), in float64, class by class."""
    values = []
    for z, t, y in zip(logits.numpy(), teacher.numpy(), labels.tolist(), strict=True):
        p, q = np.exp(t / temperature), np.exp(z / temperature)
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(p[c] * (math.log(p[c]) - math.log(q[c])) for c in range(len(z)))
        cross_entropy = math.log(np.exp(z).sum()) - z[y]
        values.append(hard * cross_entropy + (1 - hard) * temperature**2 * divergence)
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("hard", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_values_are_those_of_the_formula(temperature, hard, classes):
    logits, teacher, labels = draw(classes=classes)
    log_probs = torch.log_softmax(teacher, 1).float()
    expected = formula(logits, teacher, labels, temperature, hard)
    loss = KD(temperature, hard).loss(logits.float(), log_probs, labels)
    # T^2 multiplies the rounding of float32, too.
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5 * max(1, temperature**2 / 16))
    if hard == 0:
        assert torch.equal(KDWithoutLabels(temperature).loss(logits.float(), log_probs, labels), loss)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_values_and_gradients_are_those_of_pytorch(temperature):
    logits, teacher, labels = draw()
    mine, theirs = (logits.float().requires_grad_() for _ in range(2))
    loss = KDWithoutLabels(temperature).loss(mine, torch.log_softmax(teacher, 1).float(), labels).mean()
    loss.backward()
    expected = temperature**2 * torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(theirs / temperature, 1), torch.softmax(teacher.float() / temperature, 1)
    )
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_t_times_the_difference_of_tempered_probabilities():
    logits, teacher, labels = draw()
    student = logits.float().requires_grad_()
    KDWithoutLabels(4.0).loss(student, torch.log_softmax(teacher, 1).float(), labels).sum().backward()
    expected = 4 * (torch.softmax(logits / 4, 1) - torch.softmax(teacher / 4, 1))
    torch.testing.assert_close(student.grad, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_teachers_logits_say_the_same_as_its_log_probabilities(temperature):
    logits, teacher, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in draw())
    attack = KD(temperature)
    expected = attack.loss(logits, torch.log_softmax(teacher, 1), labels)
    torch.testing.assert_close(attack.loss(logits, teacher + 5, labels), expected, rtol=1e-4, atol=1e-3)


def test_one_hot_answers_at_temperature_one_are_cross_entropy():
    logits, _, labels = draw()
    answers = torch.nn.functional.one_hot(labels, 10).float().log()
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(KDWithoutLabels(1.0).loss(logits.float(), answers, labels), expected)
    torch.testing.assert_close(KD(1.0, 0.3).loss(logits.float(), answers, labels), expected)


@pytest.mark.parametrize("attack", [KD, KDWithoutLabels])
@pytest.mark.parametrize("temperature", [0.0, -4.0, math.nan, math.inf])
def test_bad_temperatures_are_refused(attack, temperature):
    with pytest.raises(InputError) as refusal:
        attack(temperature)
    assert str(refusal.value) == (
        f"the temperature is {temperature}, must be finite and above 0 (usual values: 1 to 20)"
    )


@pytest.mark.parametrize("hard", [-0.1, 1.1, math.nan])
def test_bad_shares_of_labels_are_refused(hard):
    with pytest.raises(InputError, match=f"the share of hard labels is {hard}, must lie between 0 and 1"):
        KD(4.0, hard)


def distributions(classes=5):
    """Pairs of distributions, some of whose probabilities are exactly zero."""
    weights = arrays(np.float64, (2, classes), elements=st.sampled_from([0.0, 1e-12, 0.01, 0.3, 1.0, 5.0]))
    return weights.filter(lambda rows: (rows.sum(1) > 0).all()).map(lambda rows: rows / rows.sum(1, keepdims=True))


@given(distributions())
def test_divergence_is_that_of_scipy(rows):
    p, q = rows
    with np.errstate(divide="ignore"):
        value = kl_divergence(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(q))).item()
    assert value == pytest.approx(scipy.special.rel_entr(p, q).sum(), abs=1e-12)


def test_divergence_takes_any_batch():
    rows = torch.log_softmax(torch.randn(2, 4, 3, 6, generator=torch.Generator().manual_seed(0)), -1)
    value = kl_divergence(*rows)
    expected = scipy.special.rel_entr(*rows.double().exp().numpy()).sum(-1)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert value.shape == (4, 3)


def test_an_exact_zero_adds_nothing_to_value_or_gradient():
    log_p = torch.tensor([0.0, -torch.inf, -torch.inf])
    log_q = torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_()
    value = kl_divergence(log_p, log_q)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert log_q.grad.tolist() == [-1.0, 0.0, 0.0]
