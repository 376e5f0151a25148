"""Decoupled knowledge distillation, against its formula and against plain KD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from undistill.attacks import kl_divergence
from undistill.attacks.dkd import DKD, decoupled
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def parts(p, q, y):
    """KL of (label, others), and KL over the others renormalised."""
    others = [c for c in range(len(p)) if c != y]
    p_rest, q_rest = p[others].sum(), q[others].sum()
    return (
        divergence((p[y], p_rest), (q[y], q_rest)),
        divergence(p[others] / p_rest, q[others] / q_rest) if p_rest > 0 else 0.0,
    )


def formula(logits, log_probs, labels, attack):
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        p, q = np.exp(lp / attack.temperature), np.exp(z / attack.temperature)
        of_label, of_others = parts(p / p.sum(), q / q.sum(), y)
        soft = attack.temperature**2 * (attack.alpha * of_label + attack.beta * of_others) if p[y] > 0 else 0.0
        values.append(attack.hard * (math.log(np.exp(z).sum()) - z[y]) + soft)
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("attack", [*DKD.grid(), DKD(20.0, 2.0, 0.5, 0.0), DKD(0.5, 0.0, 1.0, 0.3)])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", ["all", "five", "one"])
def test_values_are_those_of_the_formula(attack, classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    if shown != "all":
        smallest = log_probs.topk(classes - min(classes, {"five": 5, "one": 1}[shown]), largest=False).indices
        log_probs = torch.log_softmax(log_probs.scatter(1, smallest, -torch.inf), 1)
        labels[::2] = log_probs[::2].argmax(1)  # in half of the rows the label is surely shown
    loss = attack.loss(logits.float(), log_probs.float(), labels)
    scale = max(1, attack.temperature**2 * max(attack.alpha, attack.beta) / 16)
    torch.testing.assert_close(loss, formula(logits, log_probs, labels, attack), rtol=1e-5, atol=1e-5 * scale)


@given(arrays(np.float64, (2, 6), elements=st.floats(-30, 30)), st.integers(0, 5))
def test_kd_is_the_first_part_plus_the_second_weighted_by_what_is_left(rows, label):
    log_p, log_q = torch.log_softmax(torch.from_numpy(rows), 1).split(1)
    labels = torch.tensor([label])
    left = 1 - log_p[0, label].exp().item()
    kd = decoupled(log_p, log_q, labels, alpha=1.0, beta=left).item()
    assert kd == pytest.approx(kl_divergence(log_p, log_q).item(), rel=1e-6, abs=1e-9)


def test_so_it_is_for_answers_with_exact_zeros():
    for shown in range(1, 6):
        _, log_probs, _ = draw(classes=6)
        largest = log_probs.topk(shown)
        log_p = torch.full_like(log_probs, -torch.inf).scatter(1, largest.indices, largest.values)
        log_p, log_q = torch.log_softmax(log_p, 1), torch.log_softmax(draw(classes=6, seed=1)[0], 1)
        for log_p_row, log_q_row, y in zip(log_p.split(1), log_q.split(1), largest.indices[:, -1:], strict=True):
            left = 1 - log_p_row[0, y].exp().item()
            kd = decoupled(log_p_row, log_q_row, y, alpha=1.0, beta=left)
            torch.testing.assert_close(kd, kl_divergence(log_p_row, log_q_row))


def test_an_answer_that_rules_out_the_label_leaves_cross_entropy():
    logits, log_probs, labels = draw()
    log_probs[torch.arange(16), labels] = -torch.inf
    student = logits.float().requires_grad_()
    loss = DKD(hard=0.5).loss(student, log_probs.float(), labels)
    expected = 0.5 * torch.nn.functional.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(loss, expected)
    (loss - expected).sum().backward()
    assert student.grad.abs().max() < 1e-6


def test_with_two_classes_the_second_part_is_nothing():
    logits, log_probs, labels = draw(classes=2)
    with_it, without_it = DKD(beta=8.0), DKD(beta=0.0)
    arguments = logits.float(), log_probs.float(), labels
    torch.testing.assert_close(with_it.loss(*arguments), without_it.loss(*arguments), rtol=0, atol=1e-6)


@pytest.mark.parametrize("logit", [-200.0, 120.0, 400.0])
def test_a_label_of_extreme_logit_keeps_its_slope(logit):
    """The logarithm of a softmax entry is infinite here. The slope at the label's logit is T (q_y - p_y)."""
    student = torch.tensor([[logit, 0.0, 1.0]], requires_grad=True)
    log_probs = torch.tensor([[0.5, 0.3, 0.2]]).log()
    loss = DKD(1.0, beta=0.0, hard=0.0).loss(student, log_probs, torch.tensor([0]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad[0, 0].item() == pytest.approx((0.0 if logit < 0 else 1.0) - 0.5, abs=1e-4)


def test_a_wrong_class_split_in_two_halves_is_the_same_problem():
    """At T = 1 and with class 0 as the label: sums over the other classes stay, a mean over them would halve."""
    logits, log_probs, _ = draw()
    labels = torch.zeros(16, dtype=torch.long)
    half = math.log(2)
    split = [
        torch.cat([rows[:, :1], rows[:, 1:] - half, rows[:, 1:] - half], 1).float() for rows in (logits, log_probs)
    ]
    attack = DKD(temperature=1.0)
    expected = attack.loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(attack.loss(*split, labels), expected, rtol=1e-5, atol=1e-5)


def test_the_soft_part_is_faded_in():
    logits, log_probs, labels = draw()
    arguments = logits.float(), log_probs.float(), labels
    attack = DKD()
    hard, full = DKD(alpha=0.0, beta=0.0).loss(*arguments), attack.loss(*arguments)
    running = attack.start(num_classes=10, seed=0)
    for epoch, ramp in ((0, 1 / 20), (9, 0.5), (19, 1.0), (239, 1.0)):
        running.begin_epoch(epoch, 240)
        torch.testing.assert_close(running(*arguments), hard + ramp * (full - hard), rtol=1e-5, atol=1e-4)
    running = DKD(warmup=0.0).start(num_classes=10, seed=0)
    running.begin_epoch(0, 240)
    assert torch.equal(running(*arguments), full)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "the temperature is 0.0, must be finite and above 0"),
        ({"alpha": -1.0}, "the weight alpha of the label's probability is -1.0, must be finite and at least 0"),
        ({"beta": math.inf}, "the weight beta of the other classes is inf, must be finite and at least 0"),
        ({"hard": math.nan}, "the weight of hard labels is nan, must be finite and at least 0"),
        ({"warmup": 1.5}, "the share of the warm-up is 1.5, must lie between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        DKD(**settings)
