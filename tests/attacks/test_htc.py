"""High-temperature distillation against its formula and its limit."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks.htc import HTC, nearly_uniform_divergence
from undistill.attacks.kd import KDWithoutLabels
from undistill.errors import InputError


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def formula(logits, log_probs, labels, attack):
    values = []
    for z, lp, y in zip(logits.numpy(), log_probs.numpy(), labels.tolist(), strict=True):
        p, q = np.exp(lp / attack.temperature), np.exp(z / attack.temperature)
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)
        hard = math.log(np.exp(z).sum()) - z[y]
        values.append(attack.hard * hard + attack.alpha * attack.temperature**2 * divergence)
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("temperature", [1.0, 20.0, 50.0, 100.0, 200.0])
@pytest.mark.parametrize("alpha", [0.01, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shown", [1, 3, 100])
def test_values_are_those_of_the_formula(temperature, alpha, classes, shown):
    logits, log_probs, labels = draw(classes=classes)
    hidden = log_probs.topk(classes - min(classes, shown), largest=False).indices
    log_probs = torch.log_softmax(log_probs.scatter(1, hidden, -torch.inf), 1)
    attack = HTC(temperature, alpha)
    expected = formula(logits, log_probs, labels, attack)
    loss = attack.loss(logits.float(), log_probs.float(), labels)
    # T^2 times a divergence of size 1/T^2, from terms of size 1/T that cancel.
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=3e-6 * max(1, temperature))


def test_gradients_are_those_of_kd():
    logits, log_probs, labels = draw()
    mine, theirs = (logits.float().requires_grad_() for _ in range(2))
    nearly_uniform_divergence(mine, log_probs.float(), 20.0).sum().backward()
    KDWithoutLabels(20.0).loss(theirs, log_probs.float(), labels).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_at_high_temperature_it_is_the_squared_error_of_centred_logits():
    logits, log_probs, labels = draw(classes=20)
    gap = logits - log_probs
    expected = (gap - gap.mean(1, keepdim=True)).square().sum(1) / (2 * 20)
    loss = HTC(2000.0, alpha=1.0, hard=0.0).loss(logits.float(), log_probs.float(), labels)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-2, atol=1e-2)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match=r"the temperature is -20.0, must be finite and above 0"):
        HTC(temperature=-20.0)
    with pytest.raises(InputError, match=r"the weight alpha of the soft part is inf, must be finite and at least 0"):
        HTC(alpha=math.inf)
    with pytest.raises(InputError, match=r"the weight of hard labels is -1.0, must be finite and at least 0"):
        HTC(hard=-1.0)
