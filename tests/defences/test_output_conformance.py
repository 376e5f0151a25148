"""What every output defence must do. A new one is picked up by itself, and must hold here before anything else."""

import dataclasses
import json
import pickle
from functools import cache, partial
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from undistill.attacks import AccessKind
from undistill.defences.output import (
    MAD,
    OUTPUT_DEFENCES,
    Form,
    KeepTopK,
    KeyedNoise,
    NoiseTransition,
    OwnData,
    ReverseSigmoid,
)
from undistill.errors import InputError
from undistill.settings import settings_of

WITH_SURROGATE = (MAD(distance=0.9), NoiseTransition(kept=0.7))
# Every registered defence with its defaults, and other settings of some.
EVERY = [defence() for defence in OUTPUT_DEFENCES.values()] + [
    KeepTopK(2, renormalised=False),
    KeepTopK(1),
    KeyedNoise(0.5, keeps_top1=False),
    KeyedNoise(2.0, space="logits"),
    ReverseSigmoid(beta=2.0, gamma=1.0),
    ReverseSigmoid(kept=0.9),
    MAD(keeps_top1=False),
    NoiseTransition(keeps_top1=False),
    *WITH_SURROGATE,
]
every_defence = pytest.mark.parametrize("defence", EVERY, ids=str)
SUMS = 1e-5  # what float32 logarithms of probabilities may miss
LAST_BITS = 1e-13  # of a probability in double precision
FEW_STEPS = 20  # of training; all that is held here holds however long it was


def draw(seed, n, classes, scale=3.0):
    """Rows of log-probabilities, and an image for each."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.log_softmax(scale * torch.randn(n, classes, generator=generator), 1)
    return rows, torch.randint(0, 256, (n, 1, 4, 4), generator=generator).to(torch.uint8).float() / 255


def extremes(classes):
    """Certain, uniform, half-and-half and nearly certain rows, and two of the usual ones."""
    return torch.stack(
        [
            torch.eye(classes)[0].log(),
            torch.eye(classes)[classes - 1].log(),
            torch.full((classes,), 1 / classes).log(),
            torch.tensor([0.5, 0.5] + [0.0] * (classes - 2)).log(),
            torch.log_softmax(torch.tensor([200.0] + [0.0] * (classes - 1)), 0),
            *draw(4, 2, classes)[0],
        ]
    )


def student(images, classes):
    """A surrogate that looks at each image alone: the sum of its grey levels decides."""
    levels = (255 * images.flatten(1)).round().sum(1, keepdim=True)
    return torch.log_softmax((levels * (torch.arange(classes) + 1)) % 7, 1)


@cache
def transform(defence, classes):
    """Set up on the answers of a teacher that is sure of itself, but not always right."""
    rows, images = draw(1, 60, classes, scale=4.0)
    labels = torch.arange(len(rows)) % classes
    surrogate = partial(student, classes=classes) if defence in WITH_SURROGATE else None
    if hasattr(defence, "steps"):
        defence = dataclasses.replace(defence, steps=FEW_STEPS)
    return defence.set_up(OwnData((images * 255).round().to(torch.uint8), rows, labels, surrogate))


def served(defence, rows, images):
    return transform(defence, rows.shape[1]).apply(rows, images)


def test_there_are_defences_and_each_is_named():
    assert OUTPUT_DEFENCES
    for name, kind in OUTPUT_DEFENCES.items():
        assert name == kind.name
        assert kind.summary
        assert "\n" not in kind.summary
        assert kind.source
    assert get_args(Form) == get_args(AccessKind), "two rooms that may not know each other speak of the same forms"


@every_defence
def test_is_a_frozen_value_that_describes_itself(defence):
    assert defence == dataclasses.replace(defence)
    assert hash(defence) == hash(pickle.loads(pickle.dumps(defence)))
    assert json.loads(json.dumps(defence.description()))["name"] == defence.name
    assert str(defence).startswith(defence.name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        defence.summary = "other"
    assert defence.serves in get_args(Form)
    assert defence.normalised == (defence.sums(10) == (1.0, 1.0))
    assert all(isinstance(value, bool) for value in (defence.keeps_top1, defence.idempotent, defence.normalised))
    json.dumps(transform(defence, 5).facts(), allow_nan=False)


@every_defence
@pytest.mark.parametrize("classes", [2, 5])
def test_what_it_learnt_is_saved_and_restored_to_the_bit(defence, classes):
    learnt = transform(defence, classes)
    if isinstance(defence, MAD) and defence in WITH_SURROGATE:
        with pytest.raises(InputError, match="cannot be saved, for it asks the surrogate about every image"):
            learnt.state()
        return
    settings_in_a_file = json.loads(json.dumps(settings_of(defence)))
    again = type(defence)(**settings_in_a_file)
    assert again == defence
    restored = again.restore(load(save(learnt.state())))
    rows, images = draw(7, 40, classes)
    assert torch.equal(restored.apply(rows, images), learnt.apply(rows, images))
    assert restored.facts() == learnt.facts()


@every_defence
@pytest.mark.parametrize("classes", [2, 5, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_row_alone_is_the_same_row_in_a_batch_of_a_thousand(defence, classes, dtype):
    """Bit for bit in single precision, to which 16 bits are served, too; in double precision, up to the last bits."""
    n = 1000
    rows, images = draw(2, n, classes)
    first = extremes(classes)
    rows = torch.cat([first, rows[len(first) :]]).to(dtype)
    together = served(defence, rows, images)
    for i in (*range(len(first)), n // 2, n - 1):
        alone = served(defence, rows[i : i + 1], images[i : i + 1])[0]
        if dtype == torch.float64:
            torch.testing.assert_close(alone.exp(), together[i].exp(), rtol=0, atol=LAST_BITS)
        else:
            assert torch.equal(alone, together[i])


@every_defence
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 7), scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
def test_a_row_depends_on_its_own_row_alone(defence, seed, n, scale):
    rows, images = draw(seed, n, 5, scale)
    kept = rows.clone(), images.clone()
    whole = served(defence, rows, images)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(served(defence, rows[order], images[order]), whole[order])
    others, other_images = draw(seed + 1, n, 5)
    others[0], other_images[0] = rows[0], images[0]
    assert torch.equal(served(defence, others, other_images)[0], whole[0])
    assert torch.equal(rows, kept[0]), "the answers were written to"
    assert torch.equal(images, kept[1])


@every_defence
def test_what_learns_says_that_it_cannot_from_nothing(defence):
    own = OwnData(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    if not defence.learns:
        rows, images = draw(8, 3, 5)
        assert torch.equal(defence.set_up(own).apply(rows, images), defence.set_up(own).apply(rows, images))
    else:
        with pytest.raises(
            InputError, match=rf"{defence.name} cannot be set up with 0 answers of the teacher; hand over"
        ):
            defence.set_up(own)


@every_defence
def test_is_deterministic(defence):
    rows, images = draw(3, 50, 5)
    first = served(defence, rows, images)
    before = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(served(defence, rows, images), first)
    copy = pickle.loads(pickle.dumps(transform(defence, 5)))
    assert torch.equal(copy.apply(rows, images), first)
    torch.set_rng_state(before)
    fresh = transform.__wrapped__(pickle.loads(pickle.dumps(defence)), 5)
    assert torch.equal(torch.get_rng_state(), before), "the global random state was touched"
    assert torch.equal(fresh.apply(rows, images), first)


@every_defence
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    classes=st.sampled_from([2, 5]),
    scale=st.sampled_from([0.01, 1.0, 10.0, 100.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_what_is_served_is_a_distribution_that_keeps_what_it_claims(defence, seed, classes, scale, dtype):
    rows, images = draw(seed, 4, classes, scale)
    check_distributions(defence, rows.to(dtype), images)


@every_defence
@pytest.mark.parametrize("classes", [2, 5, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_hot_and_uniform_answers_are_served(defence, classes, dtype):
    rows = extremes(classes)
    check_distributions(defence, rows.to(dtype), draw(5, len(rows), classes)[1])


def check_distributions(defence, rows, images):
    answers = served(defence, rows, images)
    assert answers.shape == rows.shape
    assert answers.dtype == torch.float32
    assert not answers.isnan().any()
    assert (answers <= 1e-6).all(), "log-probabilities"
    assert (answers.amax(1) > -torch.inf).all(), "an answer names some class"
    if defence.keeps_top1:
        assert torch.equal(answers.argmax(1), rows.argmax(1))
    least, most = defence.sums(rows.shape[1])
    if defence.normalised or rows.dtype == torch.float32:  # 16 bits do not sum to 1, and nobody mends it then
        totals = answers.double().exp().sum(1)
        assert (totals >= least - SUMS).all()
        assert (totals <= most + SUMS).all()


@every_defence
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.sampled_from([2, 5]), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_twice_is_once_where_that_is_claimed(defence, seed, classes, scale):
    if defence.idempotent:
        rows, images = draw(seed, 6, classes, scale)
        once = served(defence, rows, images)
        torch.testing.assert_close(served(defence, once, images).exp(), once.exp(), rtol=1e-5, atol=1e-7)


@every_defence
def test_twice_is_not_once_where_that_is_denied(defence):
    if not defence.idempotent:
        rows, images = draw(6, 50, 5)
        once = served(defence, rows, images)
        assert (served(defence, once, images).exp() - once.exp()).abs().max() > 1e-3


@every_defence
def test_a_decision_that_is_not_kept_is_changed_somewhere(defence):
    """Otherwise the claim would be too modest."""
    if not defence.keeps_top1:
        rows, images = draw(7, 2000, 5, scale=0.001)
        assert not torch.equal(served(defence, rows, images).argmax(1), rows.argmax(1))
