"""Distillation by correlations, against NumPy's correlation coefficients."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks.dist import DIST, FLOOR, DISTWithoutLabels, correlation
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def tempered(rows, temperature):
    probs = np.exp(rows.numpy() / temperature)
    return probs / probs.sum(1, keepdims=True)


def rho(a, b):
    """NumPy's correlation, with the published floor under the product of norms."""
    norms = np.linalg.norm(a - a.mean()) * np.linalg.norm(b - b.mean())
    return np.corrcoef(a, b)[0, 1] * norms / (norms + FLOOR)


def formula(logits, log_probs, labels, attack):
    P, Q = tempered(log_probs, attack.temperature), tempered(logits, attack.temperature)
    columns = np.mean([rho(Q[:, c], P[:, c]) for c in range(P.shape[1])])
    values = []
    for b, y in enumerate(labels.tolist()):
        relations = attack.beta * (1 - rho(Q[b], P[b])) + attack.gamma * (1 - columns)
        hard = math.log(np.exp(logits[b].numpy()).sum()) - logits[b, y].item()
        values.append(attack.hard * hard + attack.weight * attack.temperature**2 * relations)
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("attack", [*DIST.grid(), DIST(2.0, 0.5, 3.0, 0.2, 0.0), DIST(gamma=0.0)])
@pytest.mark.parametrize(("batch", "classes"), [(16, 10), (64, 100), (5, 2)])
def test_values_are_those_of_the_formula(attack, batch, classes):
    logits, log_probs, labels = draw(batch, classes)
    loss = attack.loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss, formula(logits, log_probs, labels, attack), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_without_labels_it_is_the_same_without_cross_entropy(temperature):
    logits, log_probs, labels = draw()
    arguments = logits.float(), log_probs.float(), labels
    with_labels, without = DIST(temperature, 1.5, 0.3, 0.7, hard=0.0), DISTWithoutLabels(temperature, 1.5, 0.3, 0.7)
    assert torch.equal(without.loss(*arguments), with_labels.loss(*arguments))


def test_zeros_in_an_answer_are_numbers_like_others():
    logits, log_probs, labels = draw()
    log_probs = torch.log_softmax(log_probs.scatter(1, log_probs.topk(6, largest=False).indices, -torch.inf), 1)
    attack = DIST()
    loss = attack.loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss, formula(logits, log_probs, labels, attack), rtol=1e-5, atol=1e-4)


def test_any_linear_map_of_the_answers_is_as_good():
    _, log_probs, labels = draw()
    p = log_probs.exp()
    student = (0.6 * p + 0.4 / 10).log()
    loss = DISTWithoutLabels(temperature=1.0).loss(student.float(), log_probs.float(), labels)
    assert loss.abs().max() < 1e-4


def test_the_column_part_depends_on_the_batch_and_is_shared_by_it():
    logits, log_probs, labels = draw()
    attack = DISTWithoutLabels(beta=0.0)
    arguments = logits.float(), log_probs.float(), labels
    whole, half = attack.loss(*arguments), attack.loss(*(rows[:8] for rows in arguments))
    assert whole.unique().numel() == half.unique().numel() == 1
    assert abs(whole[0] - half[0]) > 0.1
    rows_only = DISTWithoutLabels(gamma=0.0)
    torch.testing.assert_close(
        rows_only.loss(*arguments)[:8], rows_only.loss(*(rows[:8] for rows in arguments)), rtol=1e-5, atol=1e-5
    )


def test_one_image_has_no_columns_to_learn_from():
    logits, log_probs, labels = draw(batch=1)
    student = logits.float().requires_grad_()
    loss = DISTWithoutLabels(beta=0.0).loss(student, log_probs.float(), labels)
    loss.sum().backward()
    assert loss.item() == 2 * 16  # weight * T^2 * (1 - 0)
    assert not student.grad.any()


@pytest.mark.parametrize("number", [0.0, 0.1, 1 / 3, 1e-12])
def test_a_constant_column_is_correlated_with_nothing(number):
    """In float32 the mean of sixty-four times 0.1 is not 0.1, and rounding errors must not be taught."""
    varying = torch.rand(1, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    constant = torch.full((1, 64), number).requires_grad_()
    for first, second in ((varying, constant), (constant, varying)):
        value = correlation(first, second)
        value.sum().backward()
        assert value.item() == 0
    assert not varying.grad.any()
    assert not constant.grad.any()


def test_a_student_that_knows_nothing_yet_is_not_thrown_about():
    """Equal logits: probabilities that are constant but for rounding, whose correlation has no slope."""
    logits, log_probs, labels = draw(classes=7)
    student = torch.zeros(16, 7, requires_grad=True)
    DIST(hard=0.0).loss(student, log_probs.float(), labels).sum().backward()
    assert not student.grad.any()
    student = (1e-3 * logits).float().requires_grad_()
    DIST(hard=0.0).loss(student, log_probs.float(), labels).sum().backward()
    assert 0 < student.grad.abs().max() < math.inf


def test_scaled_values_keep_their_correlation():
    """A class of small probabilities counts as much as another."""
    a, b = torch.rand(2, 5, 30, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([np.corrcoef(x, y)[0, 1] for x, y in zip(a.numpy(), b.numpy(), strict=True)]).float()
    torch.testing.assert_close(correlation(a, b), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(correlation(0.01 * a, 0.01 * b), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(correlation(a, -b), -expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [DIST, DISTWithoutLabels])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "the temperature is 0.0, must be finite and above 0"),
        ({"weight": -1.0}, "the weight of the correlations is -1.0, must be finite and at least 0"),
        ({"beta": math.nan}, "the weight beta of the rows is nan, must be finite and at least 0"),
        ({"gamma": math.inf}, "the weight gamma of the columns is inf, must be finite and at least 0"),
    ],
)
def test_bad_settings_are_refused(kind, settings, words):
    with pytest.raises(InputError, match=words):
        kind(**settings)


def test_bad_weights_of_labels_are_refused():
    with pytest.raises(InputError, match=r"the weight of hard labels is -1\.0, must be finite and at least 0"):
        DIST(hard=-1.0)
