"""What every defence by training must do, and the settings of each."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from undistill.defences.training import CMIM, DEFENCES, CMIMLoss, CrossEntropy, LabelSmoothing
from undistill.errors import InputError

EVERY = [defence() for defence in DEFENCES.values()]


def draw(n=10, classes=4, scale=2.0):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, classes, generator=generator), torch.arange(n) % classes


def test_registry_holds_every_defence_by_its_name():
    assert list(DEFENCES) == ["ce", "label-smoothing", "cmim"]
    assert all(name == defence.name for name, defence in DEFENCES.items())
    assert all(defence.summary and "\n" not in defence.summary for defence in DEFENCES.values())


@pytest.mark.parametrize("defence", EVERY, ids=lambda defence: defence.name)
def test_is_a_frozen_value(defence):
    assert defence == dataclasses.replace(defence)
    assert hash(defence) == hash(type(defence)())
    with pytest.raises(dataclasses.FrozenInstanceError):
        defence.name = "other"


@pytest.mark.parametrize("defence", EVERY, ids=lambda defence: defence.name)
def test_loss_is_one_finite_value_per_example(defence):
    logits, target = draw(scale=200.0)
    loss = defence.loss(num_classes=4, steps=20)
    for _ in range(3):
        logits = logits.detach().requires_grad_()
        value = loss(logits, target)
        value.mean().backward()
    assert value.shape == (10,)
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("defence", EVERY, ids=lambda defence: defence.name)
def test_order_of_examples_does_not_matter(defence):
    logits, target = draw()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    first, second = (defence.loss(num_classes=4, steps=0) for _ in range(2))
    torch.testing.assert_close(second(logits[order], target[order]), first(logits, target)[order])


@pytest.mark.parametrize("defence", EVERY, ids=lambda defence: defence.name)
def test_state_is_tensors_that_another_loss_takes(defence):
    loss = defence.loss(num_classes=4, steps=20)
    loss(*draw())
    assert all(isinstance(value, torch.Tensor) for value in loss.state_dict().values())
    resumed = defence.loss(num_classes=4, steps=20)
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(loss(*draw()), resumed(*draw()))


def test_cross_entropy_and_label_smoothing_by_their_formulas():
    logits, target = draw()
    log_probs = logits.log_softmax(dim=1)
    hard = -log_probs[torch.arange(10), target]
    torch.testing.assert_close(CrossEntropy().loss(4, 1)(logits, target), hard)
    smooth = -(F.one_hot(target, 4) * 0.8 + 0.2 / 4).mul(log_probs).sum(dim=1)
    torch.testing.assert_close(LabelSmoothing(0.2).loss(4, 1)(logits, target), smooth)


def test_cmim_gives_its_settings_to_the_loss():
    defence = CMIM(0.3, (0.5, 1.0), "none", "power-mean", 6.0, "symmetric", 0.5, ramp=0.25)
    loss = defence.loss(num_classes=4, steps=50)
    assert isinstance(loss, CMIMLoss)
    direct = CMIMLoss(
        4,
        0.3,
        powers=(0.5, 1.0),
        weighting="none",
        aggregation="power-mean",
        exponent=6.0,
        centroids="symmetric",
        decay=0.5,
        ramp_steps=12,
        reduction="none",
    )
    for _ in range(4):
        assert torch.equal(loss(*draw()), direct(*draw()))


@pytest.mark.parametrize(
    ("defence", "settings", "message"),
    [
        (LabelSmoothing, {"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), got 1\.0"),
        (LabelSmoothing, {"smoothing": math.nan}, "smoothing must lie"),
        (CMIM, {"weight": -0.1}, "weight must be a finite number of at least 0"),
        (CMIM, {"powers": (0.0,)}, "powers must be finite numbers above 0"),
        (CMIM, {"ramp": 1.5}, r"ramp is a share of the training and must lie in \[0, 1\], got 1\.5"),
        (CMIM, {"aggregation": "median"}, "unknown aggregation 'median'"),
    ],
)
def test_bad_settings_are_named(defence, settings, message):
    with pytest.raises(InputError, match=message):
        defence(**settings)
