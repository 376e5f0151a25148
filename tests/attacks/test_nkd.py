"""Normalised knowledge distillation, against its formula and against decoupled KD."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks.dkd import DKD
from undistill.attacks.nkd import NKD
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def hats(row, y, temperature):
    """Probabilities over the classes other than y at a temperature, renormalised; None if these have none."""
    others = np.exp(np.delete(row, y) / temperature)
    return others / others.sum() if others.sum() > 0 else None


def formula(logits, log_probs, labels, attack):
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        cross_entropy = math.log(np.exp(z).sum()) - z[y]
        p_hat, q_hat = hats(lp, y, attack.temperature), hats(z, y, attack.temperature)
        of_others = 0.0 if p_hat is None else -sum(a * math.log(b) for a, b in zip(p_hat, q_hat, strict=True))
        soft = math.exp(lp[y]) * cross_entropy + attack.gamma * attack.temperature**2 * of_others
        values.append(attack.hard * cross_entropy + (soft if lp[y] > -np.inf else 0.0))
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("attack", [*NKD.grid(), NKD(20.0, 0.1, 0.0), NKD(0.5, 1.0, 0.3)])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", ["all", "five", "one"])
def test_values_are_those_of_the_formula(attack, classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    if shown != "all":
        smallest = log_probs.topk(classes - min(classes, {"five": 5, "one": 1}[shown]), largest=False).indices
        log_probs = torch.log_softmax(log_probs.scatter(1, smallest, -torch.inf), 1)
        labels[::2] = log_probs[::2].argmax(1)  # in half of the rows the label is surely shown
    loss = attack.loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss, formula(logits, log_probs, labels, attack), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_other_classes_part_is_that_of_dkd_plus_an_entropy(temperature):
    logits, log_probs, labels = draw()
    arguments = logits.float(), log_probs.float(), labels
    nkd = NKD(temperature, gamma=1.0, hard=0.0).loss(*arguments) - NKD(temperature, gamma=0.0, hard=0.0).loss(
        *arguments
    )
    dkd = DKD(temperature, alpha=0.0, beta=1.0, hard=0.0).loss(*arguments)
    p_hats = [hats(lp, y, temperature) for lp, y in zip(log_probs.numpy(), labels.tolist(), strict=True)]
    entropies = torch.tensor([-(p * np.log(p)).sum() for p in p_hats]).float()
    torch.testing.assert_close(nkd, dkd + temperature**2 * entropies, rtol=1e-5, atol=1e-5)


def test_the_label_is_not_among_the_other_classes():
    """Its logit has no part in their term, neither the student's nor the teacher's."""
    logits, log_probs, labels = draw()
    attack, rows = NKD(hard=0.0), torch.arange(16)

    def of_others(logits, log_probs):
        arguments = logits.float(), log_probs.float(), labels
        return attack.loss(*arguments) - NKD(gamma=0.0, hard=0.0).loss(*arguments)

    expected = of_others(logits, log_probs)
    logits[rows, labels] += 5
    log_probs[rows, labels] += 3
    torch.testing.assert_close(of_others(logits, log_probs), expected, rtol=1e-5, atol=1e-4)


def test_the_teachers_own_other_classes_are_the_best():
    """The label's term has its minimum at q_y = 1, so only the rest can be asked for this."""
    _, log_probs, labels = draw()
    student = log_probs.float().requires_grad_()
    attack = NKD(hard=0.0)
    loss = attack.loss(student, log_probs.float(), labels) - NKD(gamma=0.0, hard=0.0).loss(
        student, log_probs.float(), labels
    )
    loss.sum().backward()
    assert student.grad.abs().max() < 1e-4


def test_an_answer_that_rules_out_the_label_leaves_cross_entropy():
    logits, log_probs, labels = draw()
    log_probs[torch.arange(16), labels] = -torch.inf
    loss = NKD(hard=0.5).loss(logits.float(), log_probs.float(), labels)
    expected = 0.5 * torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(loss, expected)


def test_a_wrong_class_split_in_two_halves_teaches_the_same():
    """At T = 1 and with class 0 as the label, the others' cross entropy grows by log 2, for every student alike."""
    logits, log_probs, _ = draw()
    labels = torch.zeros(16, dtype=torch.long)
    half = math.log(2)
    split = [
        torch.cat([rows[:, :1], rows[:, 1:] - half, rows[:, 1:] - half], 1).float() for rows in (logits, log_probs)
    ]
    attack = NKD(temperature=1.0, gamma=1.5)
    expected = attack.loss(logits.float(), log_probs.float(), labels) + 1.5 * half
    torch.testing.assert_close(attack.loss(*split, labels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "the temperature is -1.0, must be finite and above 0"),
        ({"gamma": math.nan}, "the weight gamma of the other classes is nan, must be finite and at least 0"),
        ({"hard": -0.1}, "the weight of hard labels is -0.1, must be finite and at least 0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        NKD(**settings)
