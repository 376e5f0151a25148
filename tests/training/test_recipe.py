"""Recipes: schedules against values worked out by hand, what is refused, and the choice of precision."""

import math
from itertools import pairwise

import jaxtyping
import pytest
import torch

from undistill.errors import InputError
from undistill.models import build
from undistill.training import Recipe, defaults_for
from undistill.training import recipe as recipe_module
from undistill.training.recipe import has_bfloat16


def learning_rates(recipe, steps):
    """The learning rate of each step, and after the last."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = recipe.optimiser([parameter])
    scheduler = recipe.scheduler(optimiser, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        parameter.grad = torch.zeros(1)
        optimiser.step()
        scheduler.step()
    assert optimiser.param_groups[0]["momentum"] == recipe.momentum
    return [*rates, optimiser.param_groups[0]["lr"]]


def test_one_cycle():
    rates = learning_rates(Recipe(learning_rate=2.0, warmup=0.2), 100)
    # Up from 2 / 25 = 0.08 for 0.2 * 101 - 1 = 19.2 steps, then down to 2 / 25 / 10,000 = 8e-6 in the other 80.8.
    assert rates[0] == pytest.approx(0.08)
    assert rates[10] == pytest.approx(0.08 + 1.92 * (1 - math.cos(math.pi * 10 / 19.2)) / 2)
    assert max(rates) == pytest.approx(2, rel=1e-3)
    assert max(rates) in (rates[19], rates[20])
    assert rates[20] == pytest.approx(8e-6 + (2 - 8e-6) * (1 + math.cos(math.pi * 0.8 / 80.8)) / 2)
    assert rates[60] == pytest.approx(8e-6 + (2 - 8e-6) * (1 + math.cos(math.pi * 40.8 / 80.8)) / 2)
    assert rates[100] == pytest.approx(8e-6)
    assert all(abs(a - b) < 0.17 for a, b in pairwise(rates)), "no jumps"


def test_cosine():
    rates = learning_rates(Recipe(learning_rate=0.4, schedule="cosine"), 60)
    assert rates[0] == 0.4
    assert rates[20] == pytest.approx(0.3)
    assert rates[30] == pytest.approx(0.2)
    assert rates[40] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0, abs=1e-12)


def test_step():
    rates = learning_rates(Recipe(learning_rate=1.0, schedule="step"), 200)
    expected = [1.0] * 60 + [0.2] * 60 + [0.04] * 40 + [0.008] * 41
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_of_very_few_steps(schedule, steps):
    rates = learning_rates(Recipe(learning_rate=1.0, schedule=schedule), steps)
    assert all(0 < rate <= 1 for rate in rates[:-1])


def test_all_problems_are_named_at_once():
    with pytest.raises(InputError) as refusal:
        Recipe(
            epochs=0,
            batch_size=-5,
            learning_rate=0.0,
            momentum=1.0,
            weight_decay=-0.1,
            warmup=1.0,
            milestones=(0.6, 0.3),
            decay=2.0,
            clip_norm=-1.0,
        )
    assert str(refusal.value) == (
        "recipe: epochs is 0, must be at least 1; batch_size is -5, must be at least 1; learning_rate is 0.0, must be "
        "finite and above 0; momentum is 1.0, must lie between 0 and 1 (Nesterov needs it); weight_decay is -0.1, must "
        "be finite and not negative; warmup is 1.0, must lie between 0 and 1; decay is 2.0, must be above 0 and at "
        "most 1; clip_norm is -1.0, must be finite and not negative (0 turns clipping off); milestones are (0.6, 0.3), "
        "must rise and lie between 0 and 1 (shares of the training)"
    )


@pytest.mark.parametrize("field", ["learning_rate", "momentum", "weight_decay", "warmup", "decay", "clip_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(field, value):
    with pytest.raises(InputError, match=f"recipe: {field} is {value}"):
        Recipe(**{field: value})


@pytest.mark.parametrize("milestones", [(0.0, 0.5), (0.5, 1.0), (0.5, 0.5), (math.nan,)])
def test_milestones_out_of_range_are_refused(milestones):
    with pytest.raises(InputError, match=r"milestones are .* must rise"):
        Recipe(milestones=milestones)


def test_unknown_words_bring_a_suggestion(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type would be refused before the value
    with pytest.raises(InputError, match="unknown schedule 'onecycle'; did you mean 'one-cycle'"):
        Recipe(schedule="onecycle")
    with pytest.raises(InputError, match="unknown precision 'bfloat'; did you mean 'bfloat16'"):
        Recipe(precision="bfloat")


@pytest.mark.parametrize(("images", "steps"), [(499, 3), (128, 1), (127, 1), (1, 1), (256, 2)])
def test_steps_per_epoch(images, steps):
    assert Recipe(batch_size=128).steps_per_epoch(images) == steps


@pytest.mark.parametrize("native", [True, False])
def test_precision_rule(monkeypatch, native):
    monkeypatch.setattr(recipe_module, "has_bfloat16", lambda device: native)
    cpu = torch.device("cpu")
    assert Recipe().bfloat16(cpu, (3, 32, 32)) is native
    assert Recipe().bfloat16(cpu, (1, 32, 32)) is native
    assert Recipe().bfloat16(cpu, (1, 28, 28)) is False
    assert Recipe(precision="bfloat16").bfloat16(cpu, (1, 8, 8)) is True
    assert Recipe(precision="float32").bfloat16(cpu, (3, 224, 224)) is False


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"bf16": True}, True),
    ],
)
def test_bfloat16_of_a_cpu(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(torch.device("cpu")) is expected


def test_bfloat16_where_pytorch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_bfloat16(torch.device("cpu")) is False
    assert has_bfloat16(torch.device("meta")) is False


@pytest.mark.parametrize("shape", [(1, 40), (1, 8, 8), (3, 32, 32)])
def test_defaults_have_networks_that_take_the_shape(shape):
    defaults = defaults_for(shape)
    for architecture in (defaults.teacher, defaults.student):
        assert build(architecture, num_classes=10, input_shape=shape)(torch.zeros(2, *shape)).shape == (2, 10)
