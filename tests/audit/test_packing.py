"""Packs: which trials go together, and that it makes no difference to them."""

from dataclasses import dataclass, replace

import pytest
import torch

from undistill.attacks import ATTACKS, KD, MLKD
from undistill.audit import Trial, pack, run_pack, run_trial
from undistill.audit.packing import LARGEST_PACK
from undistill.audit.turns import in_turns
from undistill.blackbox import AnswerCache, Queries
from undistill.errors import InputError
from undistill.training import Recipe

RECIPE = Recipe(epochs=2, batch_size=50, learning_rate=0.1)
KINDS = [kind for kind in ATTACKS.values() if not kind.slow]


@pytest.fixture
def together(task, counting_box, tmp_path):
    """Runs trials as one pack, and without their seconds."""

    def run(trials):
        boxes = {counting_box.fingerprint: counting_box}
        return [
            outcome if isinstance(outcome, Exception) else without_time(outcome)
            for outcome in run_pack(trials, {task.fingerprint: task}, boxes, AnswerCache(tmp_path / "answers"))
        ]

    return run


@pytest.fixture
def alone(task, counting_box, tmp_path):
    """Runs a trial by itself."""

    def run(trial):
        boxes = {counting_box.fingerprint: counting_box}
        return without_time(run_trial(trial, {task.fingerprint: task}, boxes, AnswerCache(tmp_path / "answers")))

    return run


@pytest.fixture
def knockoffs(task, counting_box):
    def make(attack, *seeds, student="mlp-4"):
        return [
            Trial(task.fingerprint, student, RECIPE, seed, attack, teacher=counting_box.fingerprint) for seed in seeds
        ]

    return make


def without_time(outcome):
    return {name: value for name, value in outcome.items() if name != "seconds"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_attack_gives_the_same_in_a_pack_as_alone(kind, knockoffs, together, alone):
    trials = knockoffs(kind(), 0, 1)
    assert together(trials) == [alone(trial) for trial in trials]


def test_a_mixed_pack_gives_the_same_as_each_alone(task, knockoffs, together, alone):
    """One loss for several rows, losses of their own, several trainings, a dressed student, another architecture."""
    mixed = ("dkd", "dist", "mlkd", "ensemble", "self-training", "recovery-bayes", "skeptical")
    trials = [trial for name in mixed for trial in knockoffs(ATTACKS[name](), 2)]
    trials += knockoffs(KD(), 0, student="cnn")
    trials += [Trial(task.fingerprint, "mlp-4", RECIPE, 2, smoothing=0.1)]
    trials += [replace(trial, teacher=None, smoothing=0.1) for trial in knockoffs(KD(), 0, 1)]
    assert together(trials) == [alone(trial) for trial in trials]


@dataclass(frozen=True)
class Failing(KD):
    """Fails where others would be drawn into it."""

    name = "failing"

    def loss(self, logits, log_probs, labels):
        raise ZeroDivisionError("a bug in a loss")


def test_a_trial_that_fails_takes_nobody_along(task, knockoffs, together, alone):
    good, other = knockoffs(KD(), 0, 1)
    [bug] = knockoffs(Failing(), 0)
    refused = Trial(task.fingerprint, "mlp-4", RECIPE, 0)
    outcomes = together([good, bug, refused, other])
    assert outcomes[0] == alone(good)
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert isinstance(outcomes[2], InputError)
    assert str(outcomes[2]) == f"{refused.title}: a reference trial needs a smoothing (0 is plain cross entropy)"
    assert outcomes[3] == alone(other)


def test_seconds_are_shares_of_the_pack(task, knockoffs, counting_box, tmp_path):
    trials = knockoffs(KD(), 0, 1, 2)
    boxes = {counting_box.fingerprint: counting_box}
    outcomes = run_pack(trials, {task.fingerprint: task}, boxes, AnswerCache(tmp_path))
    assert len({outcome["seconds"] for outcome in outcomes}) == 1
    assert counting_box.asked == 3 * RECIPE.epochs * len(task.train) + len(task.test), "test images once for all"


def test_packs_hold_what_belongs_together():
    def trials(attack=None, count=1, **fields):
        given = {"task": "t", "student": "mlp-4", "recipe": RECIPE, "smoothing": 0.1} | fields
        return [Trial(seed=seed, attack=attack, **given) for seed in range(count)]

    others = [
        *trials(student="mlp-5"),
        *trials(task="u"),
        *trials(recipe=replace(RECIPE, epochs=3)),
        *trials(KD(), queries=Queries("clean")),
        *trials(MLKD()),
    ]
    assert [len(trials) for trials in pack(trials(student="cnn", count=3), workers=1)] == [1, 1, 1]
    packs = pack([*trials(KD(), 3), *others, *trials(KD(1.0), 2)], workers=1)
    assert [len(trials) for trials in packs] == [5, 1, 1, 1, 1, 1]
    mixed = [trial for pair in zip(trials(KD(), 2), trials(KD(1.0), 2), strict=True) for trial in pair]
    assert [trial.attack.temperature for trial in pack(mixed, workers=1)[0]] == [4.0, 4.0, 1.0, 1.0]


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_packs_keep_all_workers_busy(workers, count):
    trials = [Trial("t", "mlp-4", RECIPE, seed, smoothing=0.1) for seed in range(count)]
    packs = pack(trials, workers)
    assert [trial for trials in packs for trial in trials] == trials
    assert len(packs) >= min(workers, count)
    assert len(packs) in (count, len(packs) // workers * workers), "as many for each"
    sizes = [len(trials) for trials in packs]
    assert all(1 <= size <= LARGEST_PACK for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_functions_wait_for_each_other_one_running_at_a_time():
    running, threads = [], []

    def function(rounds, ask):
        replies = []
        for number in range(rounds):
            running.append(1)
            threads.append(torch.get_num_threads())
            assert len(running) == 1
            running.pop()
            replies.append(ask((rounds, number)))
        if rounds == 2:
            raise ValueError("two")
        return replies

    asked = []

    def answer(questions):
        asked.append(questions)
        return [10 * number for _, number in questions]

    results = in_turns([lambda ask, rounds=rounds: function(rounds, ask) for rounds in (3, 0, 2)], answer)
    assert asked == [[(3, 0), (2, 0)], [(3, 1), (2, 1)], [(3, 2)]]
    assert results[:2] == [[0, 10, 20], []]
    assert str(results[2]) == "two"
    assert set(threads) == {torch.get_num_threads()}


def test_what_stops_the_answers_ends_all_functions():
    ended = []

    def function(ask):
        try:
            ask(0)
        finally:
            ended.append(True)

    def stopped(questions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_turns([function, function], stopped)
    assert ended == [True, True]

    def broken(questions):
        raise ValueError("no answer")

    assert [str(result) for result in in_turns([function, function], broken)] == ["no answer"] * 2
