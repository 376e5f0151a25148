"""Distillation by centred logits, against the formula and against KD at high temperatures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from undistill.attacks.kd_mse import KDMSE, KDInfinite
from undistill.errors import InputError
from undistill.information import spectrum_compute, spectrum_update


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def hide(log_probs, k):
    """The k largest entries, renormalised."""
    kept = torch.full_like(log_probs, -torch.inf)
    largest = log_probs.topk(k, dim=1)
    return torch.log_softmax(kept.scatter(1, largest.indices, largest.values), 1)


def mean_cost(logits, log_probs, cost):
    """Mean of a cost over the classes of the answer, row by row, in float64."""
    values = []
    for z, p in zip(logits.numpy(), log_probs.numpy(), strict=True):
        support = [c for c in range(len(z)) if p[c] > -np.inf]
        student, teacher = z[support] - z[support].mean(), p[support] - p[support].mean()
        values.append(np.mean([cost(gap) for gap in student - teacher]))
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", [None, 1, 2, 7])
def test_values_are_those_of_the_formulas(classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    if shown is not None:
        log_probs = hide(log_probs, min(shown, classes))
    arguments = logits.float(), log_probs.float(), labels
    expected = mean_cost(logits, log_probs, lambda gap: gap**2)
    torch.testing.assert_close(KDMSE().loss(*arguments), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(KDInfinite(3.0).loss(*arguments), 3 * expected / 2, rtol=1e-5, atol=1e-5)
    for bend in (0.5, 1.0):
        huber = mean_cost(logits, log_probs, lambda gap, d=bend: gap**2 / (2 * d) if abs(gap) < d else abs(gap) - d / 2)
        torch.testing.assert_close(KDMSE(bend).loss(*arguments), huber, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_kd_tends_to_it_as_the_temperature_grows(classes):
    """In float64 and for plain KL, because T^2 multiplies the rounding of float32. The distance falls as 1/T."""
    logits, log_probs, labels = draw(classes=classes)
    limit = KDInfinite().loss(logits.float(), log_probs.float(), labels).double()
    for temperature in (1e2, 1e3, 1e4):
        p, q = torch.softmax(log_probs / temperature, 1), torch.log_softmax(logits / temperature, 1)
        kd = temperature**2 * (p * (p.log() - q)).sum(1)
        torch.testing.assert_close(kd, limit, rtol=20 / temperature, atol=1e-5)


def test_restricted_to_the_answers_support_kd_has_this_limit():
    logits, log_probs, labels = draw()
    log_probs = hide(log_probs, 4)
    support = log_probs > -torch.inf
    p, q = (rows[support].reshape(-1, 4) / 1e4 for rows in (log_probs, logits))
    p, q = torch.log_softmax(p, 1), torch.log_softmax(q, 1)
    limit = 1e8 * (p.exp() * (p - q)).sum(1)
    loss = KDInfinite().loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss, limit.float(), rtol=2e-3, atol=1e-4)


def test_the_gradient_is_the_published_one_at_infinite_temperature():
    """[C (z - v) - sum(z - v)] / C^2 per example, whatever constant the teacher's logits v hold."""
    logits, log_probs, labels = draw()
    student = logits.float().requires_grad_()
    KDInfinite().loss(student, log_probs.float(), labels).sum().backward()
    gap = logits - (log_probs + torch.linspace(-5, 5, 16)[:, None])
    expected = (10 * gap - gap.sum(1, keepdim=True)) / 100
    torch.testing.assert_close(student.grad, expected.float(), rtol=1e-5, atol=1e-6)


def test_a_student_that_knows_the_class_alone_is_left_with_the_residual():
    """Its best logits are class means; half the within-class variance of centred logits stays."""
    _, log_probs, labels = draw(batch=60, classes=4)
    means = torch.stack([(log_probs - log_probs.mean(1, keepdim=True))[labels == y].mean(0) for y in range(4)])
    loss = KDInfinite().loss(means[labels].float(), log_probs.float(), labels).mean().item()
    spectrum = spectrum_compute(spectrum_update(log_probs, labels))
    assert loss == pytest.approx(spectrum.within_variance / 2, rel=1e-5)


def test_the_mean_squared_error_of_logits_that_are_centred_already():
    logits, log_probs, labels = draw()
    logits, teacher = (rows - rows.mean(1, keepdim=True) for rows in (logits, log_probs))
    expected = torch.nn.MSELoss()(logits, teacher)
    loss = KDMSE().loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss.mean(), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attack", [KDMSE(), KDMSE(1.0), KDInfinite()])
def test_classes_that_were_not_returned_are_left_free(attack):
    logits, log_probs, labels = draw()
    log_probs = hide(log_probs, 3).float()
    student = logits.float().requires_grad_()
    attack.loss(student, log_probs, labels).sum().backward()
    assert torch.equal(student.grad != 0, log_probs > -torch.inf)


@given(st.floats(-60, 60), st.floats(-60, 60))
def test_constants_per_image_make_no_difference(of_student, of_teacher):
    logits, log_probs, labels = draw(batch=3)
    moved = KDMSE().loss((logits + of_student).float(), (log_probs + of_teacher).float(), labels)
    torch.testing.assert_close(moved, KDMSE().loss(logits.float(), log_probs.float(), labels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [KDMSE, KDInfinite])
def test_the_predicted_class_alone_is_refused(kind):
    with pytest.raises(InputError, match=f"attack {kind.name} cannot use access 'label' \\(it can use: full, "):
        kind().check_access("label")
    kind().check_access("top-k-raw")


@pytest.mark.parametrize("bend", [0.0, -1.0, math.nan, math.inf])
def test_bad_bends_are_refused(bend):
    with pytest.raises(InputError) as refusal:
        KDMSE(huber=bend)
    assert str(refusal.value) == (
        f"the bend of the Huber loss is {bend}, must be finite and above 0 (usual value: 1), or left out"
    )


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_bad_weights_are_refused(weight):
    with pytest.raises(InputError, match=f"the weight of the loss is {weight}, must be finite and at least 0"):
        KDInfinite(weight)
