"""Curriculum temperature: the loss, the learned temperature, and the sign of its steps."""

import json
import math

import numpy as np
import pytest
import torch

from undistill.attacks.ctkd import CTKD, MOMENTUM, WEIGHT_DECAY, LearnedTemperature
from undistill.errors import InputError

INITIAL = 1 + 20 / (1 + math.exp(-1))


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def formula(logits, log_probs, labels, temperature, hard):
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        p, q = np.exp(lp / temperature), np.exp(z / temperature)
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)
        cross_entropy = math.log(np.exp(z).sum()) - z[y]
        values.append(hard * cross_entropy + (1 - hard) * temperature**2 * divergence)
    return torch.tensor(values)


def top(log_probs, k):
    shown = log_probs.topk(min(k, log_probs.shape[1]), 1)
    return torch.log_softmax(torch.full_like(log_probs, -torch.inf).scatter(1, shown.indices, shown.values), 1)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", [1, 3, 100])
def test_values_are_those_of_the_formula_at_the_initial_temperature(classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    log_probs = top(log_probs, shown)
    seen = logits.float(), log_probs.float(), labels
    expected = formula(logits, log_probs, labels, INITIAL, 0.1).float()
    torch.testing.assert_close(CTKD().loss(*seen), expected, rtol=1e-5, atol=2e-4)
    torch.testing.assert_close(CTKD().start(classes, seed=0)(*seen), expected, rtol=1e-5, atol=2e-4)


def test_the_temperature_lies_in_its_range():
    attack = CTKD(t_start=2.0, t_range=5.0)
    ends = [attack.temperature(torch.tensor(theta)).item() for theta in (-50.0, 0.0, 50.0)]
    assert ends == pytest.approx([2.0, 4.5, 7.0])


def test_the_reversal_is_the_official_cosine():
    """Half a cosine from 0 to -1 over 10 of 240 epochs, which are counted from 1."""
    loss = CTKD().start(10, seed=0)
    reversals = []
    for epoch in range(240):
        loss.begin_epoch(epoch, 240)
        reversals.append(loss.reversal)
    expected = [(math.cos(e * math.pi / 10) + 1) / 2 - 1 for e in range(1, 11)]
    assert reversals[:10] == pytest.approx(expected)
    assert reversals[10:] == [-1.0] * 230
    assert reversals[0] == pytest.approx(-0.0245, abs=1e-4)
    at_once = CTKD(decay=0.0).start(10, seed=0)
    at_once.begin_epoch(0, 240)
    assert at_once.reversal == -1.0


@pytest.mark.parametrize("shown", [1, 3, 10])
@pytest.mark.parametrize("reversal", [0.0, -0.3, -1.0])
def test_the_gradient_of_theta_is_the_reversed_slope_of_the_loss(shown, reversal):
    logits, log_probs, labels = draw()
    log_probs = top(log_probs, shown)
    loss = CTKD().start(10, seed=0)
    loss.reversal = reversal
    loss(logits.float(), log_probs.float(), labels).mean().backward()
    up, down = (
        formula(logits, log_probs, labels, 1 + 20 / (1 + math.exp(-theta)), 0.1).mean() for theta in (1.001, 0.999)
    )
    assert loss.theta.grad.item() == pytest.approx(reversal * (up - down).item() / 0.002, rel=1e-3, abs=1e-6)


def test_the_student_descends_while_the_temperature_ascends():
    """A free table of logits: with each step of its own the student's loss falls, with each of theta's it rises."""
    attack = CTKD(decay=0.0)
    logits, log_probs, labels = draw(batch=64)
    loss = attack.start(10, seed=0)
    student = torch.nn.Parameter(logits.float())
    optimiser = torch.optim.SGD([student], lr=1.0)
    seen = log_probs.float(), labels

    def value(theta):
        return attack.loss_at(attack.temperature(theta), student.detach(), *seen).mean().item()

    ascents = []
    for epoch in range(30):
        loss.begin_epoch(epoch, 30)
        before = loss(student, *seen).mean()
        before.backward()
        old = loss.theta.detach().clone()
        loss.after_step(0.1)
        ascents.append(value(loss.theta.detach()) - value(old))
        optimiser.step()
        optimiser.zero_grad()
        assert value(old) < before.item()
    # Momentum may overshoot a maximum, and weight decay pulls a little; most steps go up.
    assert sum(ascent > 0 for ascent in ascents) > 20
    assert sum(ascents) > 0


def test_theta_takes_the_steps_of_sgd():
    logits, log_probs, labels = draw()
    seen = logits.float(), log_probs.float(), labels
    mine, theirs = CTKD().start(10, seed=0), CTKD().start(10, seed=0)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    for epoch, rate in enumerate((0.1, 0.2, 0.05)):
        for loss in (mine, theirs):
            loss.begin_epoch(epoch, 3)
            loss(*seen).mean().backward()
        mine.after_step(rate)
        assert mine.theta.grad is None
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        optimiser.zero_grad()
        assert mine.theta.item() == pytest.approx(theirs.theta.item(), rel=1e-6)
    assert mine.theta.item() != 1.0


def test_half_precision_logits_move_the_temperature_all_the_same():
    logits, log_probs, labels = draw()
    loss = CTKD().start(10, seed=0)
    loss.begin_epoch(0, 1)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits.bfloat16(), log_probs.float(), labels)
    assert value.dtype == torch.float32
    value.mean().backward()
    assert loss.theta.dtype == torch.float32
    assert loss.theta.grad.abs() > 1e-3


def collapse(thetas, **settings):
    """Facts of a training of which these are the thetas at the ends of its epochs."""
    loss = CTKD(**settings).start(10, seed=0)
    for epoch, theta in enumerate(thetas):
        loss.begin_epoch(epoch, len(thetas))
        loss.theta.data.fill_(theta)
    return loss.facts()


def test_facts_say_what_became_of_the_temperature():
    facts = collapse([1.0, 0.0, 2.0])
    assert json.loads(json.dumps(facts)) == facts
    assert facts["temperatures"] == pytest.approx([INITIAL, 11.0, 1 + 20 / (1 + math.exp(-2))])
    assert facts["temperature_collapsed"] is False


@pytest.mark.parametrize(
    ("thetas", "collapsed"),
    [
        ([0.0, -5.0, -5.0, -6.0], True),  # at the floor in the second half
        ([0.0, 5.0, 5.0, 5.0], True),  # at the ceiling
        ([1.0, 0.0, -5.0, 0.0], False),  # came back
        ([-5.0, -5.0, 0.0, 0.0], False),
        ([1.0, 1.0, 1.0, -5.0], False),  # there in the last epoch only
        ([-5.0], True),
    ],
)
def test_a_collapsed_temperature_is_flagged(thetas, collapsed):
    assert collapse(thetas)["temperature_collapsed"] is collapsed
    assert collapse(thetas, t_start=4.0, t_range=2.0)["temperature_collapsed"] is collapsed


def test_each_training_starts_anew():
    attack = CTKD()
    first, second = attack.start(10, seed=0), attack.start(10, seed=0)
    assert isinstance(first, LearnedTemperature)
    first.theta.data.fill_(-3.0)
    assert second.theta.item() == 1.0
    second.load_state_dict(first.state_dict())
    assert second.theta.item() == -3.0
    assert set(first.state_dict()) == {"theta", "velocity"}


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match=r"the temperature is 0.0, must be finite and above 0"):
        CTKD(t_start=0.0)
    with pytest.raises(InputError) as refusal:
        CTKD(t_range=math.inf)
    assert str(refusal.value) == "the range of the temperature is inf, must be finite and above 0"
    with pytest.raises(InputError, match=r"gradient is reversed is 2.0, must lie between 0 and 1"):
        CTKD(decay=2.0)
    with pytest.raises(InputError, match=r"the share of hard labels is -0.1, must lie between 0 and 1"):
        CTKD(hard=-0.1)
