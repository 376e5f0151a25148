"""The loop: what it sees, what it steps on, what it records, how it goes on, when it stops."""

import math

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from undistill.attacks import KDWithoutLabels
from undistill.errors import InputError
from undistill.training import (
    FromAnswers,
    FromLabels,
    NonFiniteLossError,
    Objective,
    Recipe,
    SilentProgress,
    accuracy,
    fit,
    predict,
)
from undistill.training.loop import RESUME_FILE

RECIPE = Recipe(epochs=2, batch_size=50, learning_rate=0.1)


class Noting(Objective):
    """Cross entropy that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.epochs, self.logits, self.labels, self.indices = [], [], [], []

    def begin_epoch(self, task, seed, epoch, epochs, device):
        self.epochs.append(epoch)
        return super().begin_epoch(task, seed, epoch, epochs, device)

    def forward(self, logits, labels, indices):
        self.logits.append(logits.detach().clone())
        self.labels.append(labels)
        self.indices.append(indices)
        return F.cross_entropy(logits, labels, reduction="none")


class BrokenAt(Noting):
    """Cross entropy until a step, counted over all epochs, at which ``break_it`` changes it."""

    def __init__(self, step, break_it):
        super().__init__()
        self.step, self.break_it = step, break_it

    def forward(self, logits, labels, indices):
        losses = super().forward(logits, labels, indices)
        return self.break_it(losses, logits) if len(self.logits) == self.step + 1 else losses


class StopAfter(SilentProgress):
    """Ends a training from outside, after so many epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def epoch(self, record):
        if record["epoch"] + 1 == self.epochs:
            raise KeyboardInterrupt


def cross_entropy():
    return FromLabels(torch.nn.CrossEntropyLoss(reduction="none"))


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def without_seconds(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_weights_are_those_of_a_plain_loop(digits, fresh, clip_norm):
    recipe = Recipe(epochs=2, batch_size=50, learning_rate=0.1, schedule="cosine", clip_norm=clip_norm)
    trained, plain = fresh(), fresh()
    fit(trained, digits, cross_entropy(), recipe, seed=5)

    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    norms = []
    for step in range(20):
        epoch, place = divmod(step, 10)
        optimiser.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * step / 20)) / 2
        view = digits.view(5, epoch)
        chosen = view.order[50 * place : 50 * place + 50]
        optimiser.zero_grad()
        F.cross_entropy(plain(view.images(chosen) / 255), digits.train.labels[chosen]).backward()
        norms.append(torch.cat([parameter.grad.flatten() for parameter in plain.parameters()]).norm().item())
        if clip_norm:
            for parameter in plain.parameters():
                parameter.grad.mul_(min(1, clip_norm / norms[-1]))
        optimiser.step()

    assert max(norms) > 0.5, "nothing to clip, so the test would show nothing"
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_seed_alone_decides(digits, fresh):
    torch.manual_seed(1)
    states = []
    for seed in (0, 0, 1):
        classifier = fresh("cnn")
        torch.rand(7)  # the surroundings' random numbers have no say
        fit(classifier, digits, cross_entropy(), Recipe(epochs=1, batch_size=100, learning_rate=0.1), seed=seed)
        states.append(classifier.state_dict())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_a_classifier_may_come_in_evaluation_mode(digits, fresh):
    recipe = Recipe(epochs=1, batch_size=250, learning_rate=0.1)
    fit(loaded := fresh("cnn").eval(), digits, cross_entropy(), recipe, seed=0)
    fit(made := fresh("cnn"), digits, cross_entropy(), recipe, seed=0)
    assert same(loaded.state_dict(), made.state_dict())


def test_surroundings_keep_their_random_numbers(digits, fresh):
    before = torch.random.get_rng_state()
    fit(fresh(), digits, cross_entropy(), RECIPE, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("batch_size", "steps", "used"), [(50, 10, 50), (150, 3, 150), (500, 1, 500), (501, 1, 500), (10_000, 1, 500)]
)
def test_order_is_the_views_and_the_incomplete_batch_is_dropped(digits, fresh, batch_size, steps, used):
    classifier, objective, seen = fresh(), Noting(), []
    hook = classifier.register_forward_pre_hook(lambda module, images: seen.append(images[0].clone()))
    recipe = Recipe(epochs=2, batch_size=batch_size, learning_rate=0.01)
    records = fit(classifier, digits, objective, recipe, seed=9)
    hook.remove()
    assert objective.epochs == [0, 1]
    assert [len(indices) for indices in objective.indices] == [used] * (2 * steps)
    assert [record["images"] for record in records] == [steps * used] * 2
    for epoch in (0, 1):
        view, part = digits.view(9, epoch), slice(epoch * steps, (epoch + 1) * steps)
        indices = torch.cat(objective.indices[part])
        assert torch.equal(indices, view.order[: steps * used])
        assert torch.equal(torch.cat(objective.labels[part]), digits.train.labels[indices])
        torch.testing.assert_close(torch.cat(seen[part]), view.images(indices) / 255)


def test_records_hold_what_happened(digits, fresh):
    classifier, objective = fresh(), Noting()
    recipe = Recipe(epochs=3, batch_size=50, learning_rate=0.1, schedule="step", milestones=(0.5,), decay=0.1)
    records = fit(classifier, digits, objective, recipe, seed=0, validate=True)
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert [record["learning_rate"] for record in records] == pytest.approx([0.1, 0.1, 0.01])
    assert all(record["seconds"] > 0 for record in records)
    for epoch, record in enumerate(records):
        part = slice(10 * epoch, 10 * epoch + 10)
        logits, labels = torch.cat(objective.logits[part]), torch.cat(objective.labels[part])
        right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True))
        assert record["train_accuracy"] == pytest.approx(100 * right / 500, abs=1e-4)
        assert record["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert not classifier.training
    with torch.no_grad():
        logits = classifier(digits.validation.images / 255)
    right = (logits.argmax(1) == digits.validation.labels).sum().item()
    assert records[-1]["validation_accuracy"] == pytest.approx(100 * right / 297)


def test_validation_is_measured_on_request_only_and_changes_nothing(digits, fresh):
    with_it, without = fresh("cnn"), fresh("cnn")
    recipe = Recipe(epochs=2, batch_size=250, learning_rate=0.1)
    measured = fit(with_it, digits, cross_entropy(), recipe, seed=0, validate=True)
    plain = fit(without, digits, cross_entropy(), recipe, seed=0)
    assert [record.pop("validation_accuracy") > 0 for record in measured] == [True, True]
    assert without_seconds(measured) == without_seconds(plain)
    assert same(with_it.state_dict(), without.state_dict())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_the_networks_never_the_losss(digits, fresh, precision):
    classifier, objective, inner = fresh(), Noting(), []
    classifier.net.register_forward_hook(lambda module, images, logits: inner.append(logits.dtype))
    fit(classifier, digits, objective, Recipe(epochs=1, batch_size=250, precision=precision), seed=0)
    assert set(inner) == {getattr(torch, precision)}
    assert {logits.dtype for logits in objective.logits} == {torch.float32}
    assert {parameter.dtype for parameter in classifier.parameters()} == {torch.float32}


def test_answers_are_asked_per_epoch_and_looked_up_by_index(digits, fresh):
    asked = []

    def answers(epoch, view):
        asked.append((epoch, view))
        return F.one_hot((digits.train.labels + epoch) % 10, 10).float().log()

    objective = FromAnswers(KDWithoutLabels(1.0), answers, num_classes=10, seed=0)
    records = fit(fresh(), digits, objective, RECIPE, seed=0)
    assert asked == [(0, 0), (1, 0)]
    assert len(records) == 2
    # With one-hot answers and T = 1 the attack is cross entropy towards them.
    indices, logits = torch.tensor([7, 3]), torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    objective.begin_epoch(digits, 0, 4, 5, torch.device("cpu"))
    expected = F.cross_entropy(logits, (digits.train.labels[indices] + 4) % 10, reduction="none")
    torch.testing.assert_close(objective(logits, digits.train.labels[indices], indices), expected)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step"])
def test_an_interrupted_training_goes_on_bit_for_bit(digits, fresh, tmp_path, schedule):
    recipe = Recipe(epochs=3, batch_size=100, learning_rate=0.1, schedule=schedule)
    unbroken = fresh("cnn")
    expected = fit(unbroken, digits, cross_entropy(), recipe, seed=0, validate=True)

    told = []

    def run(progress):
        classifier = fresh("cnn")
        records = fit(
            classifier,
            digits,
            cross_entropy(),
            recipe,
            seed=0,
            identity="this",
            folder=tmp_path,
            validate=True,
            progress=lambda done: told.append(len(done)) or progress,
        )
        return classifier, records

    for epochs in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(StopAfter(epochs))
    resumed, records = run(SilentProgress())
    assert told == [0, 1, 2]
    assert same(resumed.state_dict(), unbroken.state_dict())
    assert without_seconds(records) == without_seconds(expected)
    again, records = run(SilentProgress())  # all epochs are done: nothing is left to do
    assert same(again.state_dict(), unbroken.state_dict())
    assert len(records) == 3


def test_progress_hears_of_every_step_and_epoch(digits, fresh):
    heard = []

    class Listener(SilentProgress):
        def step(self, epoch, step, images):
            heard.append((epoch, step, images))

        def epoch(self, record):
            heard.append(record)

    records = fit(
        fresh(), digits, cross_entropy(), Recipe(epochs=2, batch_size=200), seed=0, progress=lambda _: Listener()
    )
    assert heard == [(0, 0, 200), (0, 1, 200), records[0], (1, 0, 200), (1, 1, 200), records[1]]


def test_the_state_of_another_training_is_refused(digits, fresh, tmp_path):
    fit(fresh(), digits, cross_entropy(), RECIPE, seed=0, identity="first", folder=tmp_path)
    before = (tmp_path / RESUME_FILE).read_bytes()
    with pytest.raises(InputError, match=r"state of another training \('first', not 'second'\); give another folder"):
        fit(fresh(), digits, cross_entropy(), RECIPE, seed=0, identity="second", folder=tmp_path)
    assert (tmp_path / RESUME_FILE).read_bytes() == before


def test_a_folder_needs_an_identity(digits, fresh, tmp_path):
    with pytest.raises(InputError, match="needs an identity, so that no other training goes on from it"):
        fit(fresh(), digits, cross_entropy(), RECIPE, seed=0, folder=tmp_path)


def test_tensorboard_events(digits, fresh, tmp_path):
    records = fit(
        fresh(),
        digits,
        cross_entropy(),
        RECIPE,
        seed=0,
        identity="this",
        folder=tmp_path,
        validate=True,
        tensorboard=True,
    )
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent)).Reload()
    for name in records[0].keys() - {"epoch"}:
        stored = events.Scalars(name)
        assert [event.step for event in stored] == [0, 1]
        assert [event.value for event in stored] == pytest.approx([record[name] for record in records], rel=1e-6)


def test_tensorboard_needs_a_folder(digits, fresh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="TensorBoard events need a folder"):
        fit(fresh(), digits, cross_entropy(), RECIPE, seed=0, tensorboard=True)
    assert not list(tmp_path.iterdir())


def test_a_loss_of_nan_stops_with_step_values_and_advice(digits, fresh, tmp_path):
    objective = BrokenAt(13, lambda losses, logits: losses * math.nan)
    with pytest.raises(NonFiniteLossError) as stop:
        fit(fresh(), digits, objective, RECIPE, seed=0, identity="this", folder=tmp_path)
    before = [F.cross_entropy(objective.logits[step], objective.labels[step]).item() for step in (10, 11, 12)]
    assert str(stop.value) == (
        "the loss became nan at step 13 (epoch 1, step 3 of 10; losses just before: "
        f"{', '.join(f'{value:.4g}' for value in before)}; highest learning rate 0.1); try a learning rate of 0.033, "
        "a clip_norm of 1, a smaller weight of the defence, or precision float32"
    )
    # What is kept is the epoch before, from which a training that does not break goes on.
    fit(resumed := fresh(), digits, cross_entropy(), RECIPE, seed=0, identity="this", folder=tmp_path)
    fit(unbroken := fresh(), digits, cross_entropy(), RECIPE, seed=0)
    assert same(resumed.state_dict(), unbroken.state_dict())


def test_nan_in_the_first_step_names_no_losses_before(digits, fresh):
    objective = BrokenAt(0, lambda losses, logits: losses / 0)
    with pytest.raises(NonFiniteLossError, match=r"became inf at step 0 .*losses just before: none in this epoch"):
        fit(fresh(), digits, objective, RECIPE, seed=0)


def test_nan_is_noticed_within_an_epoch(digits, fresh):
    objective = BrokenAt(5, lambda losses, logits: losses * math.nan)
    with pytest.raises(NonFiniteLossError, match="at step 5 "):
        fit(fresh(), digits, objective, Recipe(epochs=1, batch_size=10), seed=0)
    assert len(objective.logits) == 32 < 50


def test_an_absurd_learning_rate_stops(digits, fresh, tmp_path):
    recipe = Recipe(epochs=2, batch_size=50, learning_rate=1e30)
    with pytest.raises(NonFiniteLossError, match=r"learning rate of 3\.3e\+29"):
        fit(fresh(), digits, cross_entropy(), recipe, seed=0, identity="this", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_that_only_the_last_gradient_broke_are_not_kept(digits, fresh, tmp_path):
    def value_zero_gradient_nan(losses, logits):
        return losses + (0 * logits[:, 0]).sqrt()

    objective = BrokenAt(9, value_zero_gradient_nan)
    with pytest.raises(NonFiniteLossError, match="4 weights became NaN or infinite in epoch 0, with finite losses"):
        fit(fresh(), digits, objective, RECIPE, seed=0, identity="this", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_learns(digits, fresh):
    classifier = fresh("mlp-16")
    records = fit(classifier, digits, cross_entropy(), Recipe(epochs=15, batch_size=50, learning_rate=0.1), seed=0)
    assert records[-1]["train_accuracy"] > 60
    assert accuracy(predict(classifier, digits.test), digits.test) > 60


def test_two_views_are_no_rows_of_one_view():
    """A loss of single rows is given those of one view only, so a second view must keep students out of it."""
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    assert FromLabels(loss).rows_key is not None
    assert FromLabels(loss, second_view="mixed").rows_key is None
