"""Several students as one program: what they are alone, and what the plain loop makes of them."""

import random
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

import undistill.training.vectorised as vectorised
from undistill.attacks import ATTACKS, CTKD, DIST, DKD, KD, MKD, MLKD, LabelOnly
from undistill.defences.training import CMIM, LabelSmoothing
from undistill.tasks import load_task
from undistill.training import (
    FromAnswers,
    FromLabels,
    NonFiniteLossError,
    Objective,
    Recipe,
    SilentProgress,
    Training,
    classifier_for,
    fit,
    fit_all,
    fit_one,
)

RECIPE = Recipe(epochs=2, batch_size=30, learning_rate=0.1, clip_norm=2.0)


@pytest.fixture(scope="module")
def task():
    return load_task("digits", classes=3)


@pytest.fixture(scope="module")
def signals():
    return load_task("mnist1d", classes=3, fraction=0.13)


@pytest.fixture(scope="module")
def training(task, signals):
    """Makes a training: on labels for a number (the smoothing), on noise as answers for an attack; CNNs see signals."""
    size = max(len(task.train), len(signals.train))
    answers = torch.log_softmax(3 * torch.randn(2, 2, size, 3, generator=torch.Generator().manual_seed(0)), 3)

    def make(what, seed, recipe=RECIPE, student="mlp-7", **others):
        data = signals if student == "cnn1d-small" else task
        classifier = classifier_for(data, student, seed=seed)
        if isinstance(what, float):
            objective = FromLabels(LabelSmoothing(what).loss(3, 1))
        else:
            objective = FromAnswers(
                what, lambda epoch, view: answers[epoch % 2, view, : len(data.train)], num_classes=3, seed=seed
            )
        return Training(classifier, data, objective, recipe, seed, **others)

    return make


def learnt(training):
    return {name: value.clone() for name, value in training.classifier.state_dict().items()}


def outcome(training, records):
    told = [{name: value for name, value in record.items() if name != "seconds"} for record in records]
    return learnt(training), told


def same(one, other):
    weights, records = one
    return records == other[1] and all(torch.equal(value, other[0][name]) for name, value in weights.items())


MIXED = [0.1, KD(), KD(1.0), DKD(), LabelOnly(), DIST(), CTKD(), MKD()]


@pytest.fixture(scope="module")
def alone(training):
    """What a student becomes that is trained by itself."""

    @cache
    def outcome_of(what, seed, recipe, student):
        one = training(what, seed, recipe, student)
        return outcome(one, fit_one(one))

    return outcome_of


@pytest.mark.parametrize(
    ("student", "batch_size", "size"),
    [
        ("mlp-7", 30, 3),
        ("mlp-7", 30, 18),
        ("mlp-16-5", 64, 5),
        ("cnn1d-small", 30, 18),
        ("cnn1d-small", 17, 5),
        ("cnn1d-small", 64, 2),
    ],
)
def test_a_student_is_the_same_alone_and_in_any_company(training, alone, student, batch_size, size):
    recipe = replace(RECIPE, batch_size=batch_size)
    cases = [(what, seed) for what in MIXED for seed in range(2)]
    random.Random(size).shuffle(cases)
    for first in range(0, len(cases), size):
        together = [training(*case, recipe, student) for case in cases[first : first + size]]
        for case, one, records in zip(cases[first:], together, fit_all(together), strict=False):
            assert same(outcome(one, records), alone(*case, recipe, student)), case


@pytest.mark.parametrize(
    ("what", "clip_norm"), [*((what, 0.5) for what in (*MIXED, MLKD())), (0.1, 0.0), (DIST(), 0.0)], ids=str
)
@pytest.mark.parametrize("student", ["mlp-7", "cnn1d-small"])
def test_the_program_is_the_plain_loop_but_for_rounding(training, what, clip_norm, student):
    recipe = replace(RECIPE, clip_norm=clip_norm, learning_rate=0.01)  # unclipped, a larger one magnifies rounding
    stacked, plain = training(what, 4, recipe, student), training(what, 4, recipe, student)
    records = fit_all([training(what, 3, recipe, student), stacked])[1]
    expected = fit(plain.classifier, plain.task, plain.objective, recipe, seed=4)
    for name, value in learnt(plain).items():
        torch.testing.assert_close(learnt(stacked)[name], value, rtol=1e-4, atol=1e-5)
    for record, other in zip(records, expected, strict=True):
        assert record.keys() == other.keys()
        assert record["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert {name: record[name] for name in ("epoch", "images", "learning_rate")} == {
            name: other[name] for name in ("epoch", "images", "learning_rate")
        }
        assert record["train_accuracy"] == pytest.approx(other["train_accuracy"], abs=1)
    assert not stacked.classifier.training


def test_batches_may_be_prepared_in_parts(training, monkeypatch):
    whole = training(KD(), 0)
    expected = outcome(whole, fit_one(whole))
    monkeypatch.setattr(vectorised, "VALUES_AT_ONCE", 1)
    parts = training(KD(), 0)
    assert same(outcome(parts, fit_one(parts)), expected)


class BrokenAt(Objective):
    """Cross entropy that becomes NaN at a step."""

    def __init__(self, step):
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, logits, labels, indices):
        self.calls += 1
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return losses * torch.nan if self.calls == self.step + 1 else losses


@pytest.mark.parametrize("student", ["mlp-7", "cnn1d-small"])
def test_a_student_that_diverges_takes_nobody_along(training, student):
    training = partial(training, student=student)
    broken, healthy = training(0.1, 0), training(0.1, 1)
    broken = replace(broken, objective=BrokenAt(step=6))
    error, records = fit_all([broken, healthy])
    assert isinstance(error, NonFiniteLossError)
    assert "the loss became nan at step 6 (epoch 1, step 1 of 5" in str(error)
    alone = training(0.1, 1)
    assert same(outcome(healthy, records), outcome(alone, fit_one(alone)))
    wreck = replace(training(0.1, 0), objective=BrokenAt(step=6))
    with pytest.raises(NonFiniteLossError) as raised:
        fit_one(wreck)
    assert str(raised.value) == str(error)
    torch.testing.assert_close(learnt(wreck), learnt(broken), rtol=0, atol=0, equal_nan=True)
    plain = replace(training(0.1, 0), objective=BrokenAt(step=6))
    with pytest.raises(NonFiniteLossError, match=r"the loss became nan at step 6 \(epoch 1, step 1 of 5"):
        fit(plain.classifier, plain.task, plain.objective, RECIPE, seed=0)


class BrokenGradient(Objective):
    """A finite loss whose gradient is not, at a step."""

    def __init__(self, step):
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, logits, labels, indices):
        self.calls += 1
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        # The gradient of a square root at 0 is infinite.
        return losses + (0 * logits.sum(1)).sqrt() if self.calls == self.step + 1 else losses


def test_weights_that_only_the_last_gradient_broke_are_noticed(training):
    broken, healthy = replace(training(0.1, 0), objective=BrokenGradient(step=4)), training(0.1, 1)
    error, records = fit_all([broken, healthy])
    assert isinstance(error, NonFiniteLossError)
    assert "weights became NaN or infinite in epoch 0, with finite losses" in str(error)
    assert len(records) == RECIPE.epochs


class Noting(SilentProgress):
    def __init__(self):
        self.steps, self.epochs = [], []

    def step(self, epoch, step, images):
        self.steps.append((epoch, step, images))

    def epoch(self, record):
        self.epochs.append(record["epoch"])


def test_progress_hears_of_every_step_and_epoch(training):
    told = Noting()
    fit_all([training(0.1, 0), training(0.1, 1, progress=lambda done: told)])
    assert told.steps == [(epoch, step, 30) for epoch in range(2) for step in range(5)]
    assert told.epochs == [0, 1]


def test_what_can_be_stacked(training, task, monkeypatch):
    stackable = vectorised.stackable
    assert stackable(training(0.1, 0))
    assert stackable(training(0.1, 0, student="cnn1d-small"))
    assert not stackable(training(0.1, 0, student="cnn"))
    assert not stackable(training(0.1, 0, replace(RECIPE, precision="bfloat16")))
    assert not stackable(training(0.1, 0, student="mlp-800")), "too large to gain"
    dressed = ATTACKS["skeptical"]().dress(classifier_for(task, "mlp-7", seed=0), 0)
    assert not stackable(replace(training(0.1, 0), classifier=dressed))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not stackable(training(0.1, 0))


def test_others_are_trained_one_by_one_by_the_plain_loop(training):
    network, perceptron, plain = (training(0.1, 1, student=name) for name in ("cnn", "mlp-7", "cnn"))
    records = fit_all([network, perceptron])
    expected = fit(plain.classifier, plain.task, plain.objective, RECIPE, seed=1)
    assert same(outcome(network, records[0]), outcome(plain, expected))
    assert len(records[1]) == RECIPE.epochs


def test_a_loss_is_shared_only_where_it_is_surely_one(task, training):
    def key(what):
        return training(what, 0).objective.rows_key

    class Own(KD):
        """Might look at the batch, and says nothing of rows."""

    assert key(KD()) == key(KD()) is not None
    assert len({key(KD()), key(KD(1.0)), key(0.1), key(0.2), key(DKD())}) == 5
    for what in (DIST(), CTKD(), MKD(), Own(), ATTACKS["averager"]()):
        assert key(what) is None
    assert FromLabels(CMIM().loss(3, 1)).rows_key is None
    assert FromLabels(torch.nn.CrossEntropyLoss()).rows_key is None
    with pytest.raises(NotImplementedError, match="BrokenAt has no loss of single rows"):
        BrokenAt(0).rows_loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), None)
