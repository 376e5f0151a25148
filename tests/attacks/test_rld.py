"""Refined logit distillation, against its formula and against decoupled KD."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks.dkd import DKD
from undistill.attacks.rld import RLD
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def tempered(row, temperature):
    probs = np.exp(row / temperature)
    return probs / probs.sum()


def formula(logits, log_probs, labels, attack):
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        p, q = tempered(lp, attack.alpha_temperature), tempered(z, attack.alpha_temperature)
        sure = divergence((p.max(), np.sort(p)[:-1].sum()), (q[y], np.delete(q, y).sum()))
        p, q = tempered(lp, attack.temperature), tempered(z, attack.temperature)
        below = [c for c in range(len(z)) if lp[c] < lp[y]]
        p, q = p[below], q[below]
        of_others = divergence(p / p.sum(), q / q.sum()) if p.sum() > 0 else 0.0
        soft = attack.alpha * attack.alpha_temperature**2 * sure + attack.beta * attack.temperature**2 * of_others
        hard = math.log(np.exp(z).sum()) - z[y]
        values.append(attack.hard * hard + (soft if lp[y] > -np.inf else 0.0))
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("attack", [*RLD.grid(), RLD(1.0, 2.0, 0.5, 0.5, 0.0)])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", ["all", "five", "one"])
def test_values_are_those_of_the_formula(attack, classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    if shown != "all":
        smallest = log_probs.topk(classes - min(classes, {"five": 5, "one": 1}[shown]), largest=False).indices
        log_probs = torch.log_softmax(log_probs.scatter(1, smallest, -torch.inf), 1)
        labels[::2] = log_probs[::2].argmax(1)  # in half of the rows the label is surely shown
    loss = attack.loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss, formula(logits, log_probs, labels, attack), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shown", [3, 10])
def test_where_the_teacher_is_right_it_is_dkd(temperature, shown):
    logits, log_probs, _ = draw(batch=40)
    log_probs = torch.log_softmax(
        log_probs.scatter(1, log_probs.topk(10 - shown, largest=False).indices, -torch.inf), 1
    )
    arguments = logits.float(), log_probs.float(), log_probs.argmax(1)
    rld, dkd = RLD(temperature, alpha_temperature=temperature, alpha=0.7), DKD(temperature, alpha=0.7)
    torch.testing.assert_close(rld.loss(*arguments), dkd.loss(*arguments), rtol=1e-5, atol=1e-4)


def test_classes_above_the_label_are_not_taught():
    """Which of them the teacher prefers makes no difference, as long as the largest stays as large."""
    logits = draw(batch=2)[0].float()
    labels = torch.tensor([2, 2])
    log_probs = torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04], [0.3, 0.4, 0.2, 0.06, 0.04]]).log()
    first, second = RLD().loss(logits[:1, :5].repeat(2, 1), log_probs, labels)
    torch.testing.assert_close(first, second)


def test_a_teacher_that_ranks_the_label_last_teaches_confidence_alone():
    logits, log_probs, _ = draw()
    arguments = logits.float(), log_probs.float(), log_probs.argmin(1)
    torch.testing.assert_close(RLD(beta=8.0).loss(*arguments), RLD(beta=0.0).loss(*arguments))


def test_an_answer_that_rules_out_the_label_leaves_cross_entropy():
    logits, log_probs, labels = draw()
    log_probs[torch.arange(16), labels] = -torch.inf
    loss = RLD(hard=0.5).loss(logits.float(), log_probs.float(), labels)
    expected = 0.5 * torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(loss, expected)


def test_where_the_teacher_errs_values_and_gradients_are_finite():
    logits, log_probs, labels = draw()
    for answers in (log_probs, 60 * log_probs, log_probs.topk(2).values.repeat(1, 5)):
        for scale in (0.0, 1.0, 70.0):
            student = (scale * logits).float().requires_grad_()
            for wrong in (labels, answers.argmin(1)):
                loss = RLD().loss(student, answers.float(), wrong)
                [gradient] = torch.autograd.grad(loss.sum(), student)
                assert loss.isfinite().all()
                assert gradient.isfinite().all()


def test_a_wrong_class_split_in_two_halves_is_the_same_problem():
    """At T = 1, with class 0 as the label and as the teacher's choice: a mean over the other classes would halve."""
    logits, log_probs, _ = draw()
    log_probs[:, 0] = 3.0
    log_probs = torch.log_softmax(log_probs, 1)
    labels = torch.zeros(16, dtype=torch.long)
    half = math.log(2)
    split = [
        torch.cat([rows[:, :1], rows[:, 1:] - half, rows[:, 1:] - half], 1).float() for rows in (logits, log_probs)
    ]
    attack = RLD(temperature=1.0)
    expected = attack.loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(attack.loss(*split, labels), expected, rtol=1e-5, atol=1e-5)


def test_the_soft_part_is_faded_in():
    logits, log_probs, labels = draw()
    arguments = logits.float(), log_probs.float(), labels
    hard, full = RLD(alpha=0.0, beta=0.0).loss(*arguments), RLD().loss(*arguments)
    running = RLD(warmup=0.5).start(num_classes=10, seed=0)
    running.begin_epoch(0, 8)
    torch.testing.assert_close(running(*arguments), hard + (full - hard) / 4, rtol=1e-5, atol=1e-4)
    running.begin_epoch(3, 8)
    assert torch.equal(running(*arguments), full)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": math.inf}, "the temperature is inf, must be finite and above 0"),
        ({"alpha_temperature": 0.0}, "the temperature is 0.0, must be finite and above 0"),
        ({"alpha": -1.0}, "the weight alpha of the confidence is -1.0, must be finite and at least 0"),
        ({"beta": math.nan}, "the weight beta of the other classes is nan, must be finite and at least 0"),
        ({"hard": -2.0}, "the weight of hard labels is -2.0, must be finite and at least 0"),
        ({"warmup": -0.5}, "the share of the warm-up is -0.5, must lie between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        RLD(**settings)
