"""APGP: what is trained, what it reaches, and that decisions survive it."""

import math
import pickle

import jaxtyping
import numpy as np
import pytest
import torch

from undistill.defences.output.apgp import APGP
from undistill.defences.output.defence import OwnData
from undistill.errors import InputError

SMALL = {"hidden": 32, "steps": 150}


def own_data(classes=5, count=200, confidence=9.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    logits = torch.randn(count, classes, generator=generator) + confidence * torch.nn.functional.one_hot(
        labels, classes
    )
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    return OwnData(images, torch.log_softmax(logits, 1), labels)


def served(transform, log_probs):
    return transform.apply(log_probs, torch.zeros(len(log_probs), 1, 2, 2))


def test_the_loss_is_the_formula():
    """In NumPy, with a network of one layer, g(p) = A p + b."""
    draws = np.random.default_rng(0)
    probs, weight, bias = draws.dirichlet(np.ones(4), 6), draws.normal(size=(4, 4)), draws.normal(size=4)
    probs[0] = [0, 0, 1, 0]
    logits = probs + probs @ weight.T + bias
    moved = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    top = probs.argmax(1)
    decided = moved[np.arange(6), top]
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.nansum(probs * np.log(probs / moved), 1)
    aim = math.exp(-0.3)
    held = np.abs(np.log(decided / (1 - decided)) - math.log(aim / (1 - aim)))
    expected = held - 0.7 * np.minimum(divergence, 0.3)
    layers = ((torch.from_numpy(weight), torch.from_numpy(bias)),)
    loss = APGP(weight=0.7, bound=0.3).loss(torch.from_numpy(probs).log(), torch.from_numpy(top), layers)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-10)


def test_trained_it_moves_answers_by_its_bound_and_keeps_decisions():
    own = own_data()
    transform = APGP(**SMALL).set_up(own)
    answers = served(transform, own.log_probs)
    assert torch.equal(answers.argmax(1), own.log_probs.argmax(1))
    divergence = (own.log_probs.exp() * (own.log_probs - answers)).sum(1)
    assert 0.35 < divergence.median() < 0.8
    assert abs(answers.exp().amax(1).median().item() - math.exp(-0.5)) < 0.1
    further = served(APGP(bound=0.65, **SMALL).set_up(own), own.log_probs)
    assert further.exp().amax(1).median() < answers.exp().amax(1).median()


def test_a_network_that_changes_decisions_is_drawn_back():
    """One step of training keeps nothing; the rows keep their predicted classes all the same."""
    own = own_data(classes=20, confidence=1.0)
    transform = APGP(hidden=8, steps=1).set_up(own)
    assert transform.facts()["decisions_changed_by_network"] > 0.5
    answers = served(transform, own.log_probs)
    assert torch.equal(answers.argmax(1), own.log_probs.argmax(1))
    assert (answers.exp() - own.log_probs.exp()).abs().sum(1).min() > 0
    torch.testing.assert_close(answers.exp().sum(1), torch.ones(200))


def test_training_depends_on_the_seed_alone_and_leaves_no_trace():
    own, small = own_data(), {"hidden": 16, "steps": 5}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = APGP(**small).set_up(own)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with torch.no_grad():
        again, other = APGP(**small).set_up(own), APGP(seed=1, **small).set_up(own)
    answers = served(first, own.log_probs)
    assert torch.equal(answers, served(again, own.log_probs))
    assert torch.equal(answers, served(pickle.loads(pickle.dumps(first)), own.log_probs))
    assert not torch.equal(answers, served(other, own.log_probs))


def test_the_number_of_threads_changes_nothing_that_is_served():
    """In single precision, a sum in another order grew to several hundredths of probability within this training."""
    own, threads, answers = own_data(), torch.get_num_threads(), []
    rows = torch.log_softmax(2 * torch.randn(500, 5, generator=torch.Generator().manual_seed(3)), 1)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(served(APGP(hidden=64, steps=150).set_up(own), rows).exp())
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*answers, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 30])
def test_extreme_rows_are_finite_and_independent_of_the_batch(classes):
    transform = APGP(hidden=32, steps=20).set_up(own_data(classes=classes))
    certain = torch.full((1, classes), -torch.inf)
    certain[0, -1] = 0
    rows = torch.cat([certain, torch.full((1, classes), 1 / classes).log(), own_data(classes=classes).log_probs])
    answers = served(transform, rows)
    assert answers[1:].isfinite().all()
    assert torch.equal(answers.argmax(1), rows.argmax(1))
    assert torch.equal(answers, torch.cat([served(transform, row[None]) for row in rows]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": 0.0}, "the weight of apgp is 0.0, must be finite and above 0"),
        ({"bound": math.inf}, "the bound of apgp is inf, must be finite and above 0"),
        ({"hidden": 1.5}, "hidden of apgp is 1.5, must be a whole number, written without a decimal point"),
        ({"steps": 2.0}, "steps of apgp is 2.0, must be a whole number"),
        ({"seed": 0.5}, "seed of apgp is 0.5, must be a whole number"),
        ({"hidden": 0}, "hidden of apgp is 0, must be at least 1"),
        ({"steps": 0}, "steps of apgp is 0, must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type would be refused before the value
    with pytest.raises(InputError, match=words):
        APGP(**settings)
