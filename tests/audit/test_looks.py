"""Seeds are added to cells that are undecided, and to no others; what a plan wants is a function of what is stored."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.calibration import World, number_of_cells
from undistill.attacks import DKD, KD, NKD
from undistill.audit import Outcome, Protocol, Store, Trial, audit, judge
from undistill.audit.run import Plan
from undistill.audit.trial import pack_bits
from undistill.tasks import FreshImages, Split, Task, TrainingImages, load_task
from undistill.training import Recipe

LOOKS = (3, 6, 12)
ACCURACIES = {"dkd": 2.0, "kd": -2.0, "nkd": 0.1}  # over the references: leaks, does not, cannot be told


@dataclass(frozen=True)
class Memory(Store):
    """A store without a disk."""

    held: dict[Trial, dict] = field(default_factory=dict)

    def __contains__(self, trial):
        return trial in self.held

    def write(self, trial, outcome):
        self.held[trial] = outcome

    def read(self, trial):
        return self.held[trial]


@pytest.fixture
def store():
    return Memory(Path("nowhere"))


@pytest.fixture
def sequential():
    attacks = ((DKD(),), (KD(),), (NKD(),))
    return Protocol(
        ("mlp-4",), Recipe(epochs=1), attacks, (0.1,), (0.1,), seeds=LOOKS[-1], looks=LOOKS[:-1], margin=0.5
    )


def outcome_of(trial, task, boxes=("b" * 64,)):
    """A made-up outcome with noise that depends on the trial alone."""
    draws = np.random.default_rng((trial.seed, len(trial.title), *(trial.title.encode())))
    leak = ACCURACIES[trial.attack.name] if trial.teacher in boxes else 0.0
    found = {"accuracy": 90 + leak + draws.normal(0, 0.3), "validation_accuracy": 90.0, "queries": 1, "notes": {}}
    return found | {"agreement": 95.0, "correct": pack_bits(draws.random(len(task.test)) < 0.9)}


def run(plan, store, task):
    """The loop of an audit; the lists of trials that were wanted."""
    wanted = []
    while trials := plan.look(store).due:
        wanted.append(trials)
        assert plan.look(store).due == trials, "asked again, it wants the same"
        for trial in trials:
            store.write(trial, outcome_of(trial, task))
    return wanted


def test_only_undecided_cells_get_more_seeds(task, sequential, store, counting_box):
    plan = Plan(task, sequential, [counting_box])
    rounds = run(plan, store, task)
    cells = plan.judged(plan.look(store), store, counting_box)[counting_box.fingerprint]
    seeds = {cell.attack: len(cell.knockoff.seeds) for cell in cells}
    outcomes = {cell.attack: cell.outcome for cell in cells}
    assert outcomes["dkd"] is Outcome.LEAKS
    assert outcomes["kd"] is Outcome.TOO_WEAK, "for the audited box is the undefended one, too"
    assert seeds["dkd"] < LOOKS[-1]
    assert seeds["kd"] < LOOKS[-1]
    assert seeds["nkd"] == LOOKS[-1]
    for size, trials in zip(LOOKS, rounds, strict=True):
        assert {trial.seed for trial in trials} == set(range(size))
        running = {trial.attack.name for trial in trials if trial.role == "knockoff"}
        assert running == {name for name, count in seeds.items() if count >= size}
        assert {trial.attack.name for trial in trials if trial.role == "placebo"} == running
    trained = {(trial.attack.name, trial.seed) for trial in store.held if trial.role == "knockoff"}
    assert trained == {(name, seed) for name, count in seeds.items() for seed in range(count)}
    for cell in cells:
        assert len(cell.ls.seeds) == len(cell.placebo.seeds) == len(cell.knockoff.seeds)
        assert cell.leak.test_low < cell.leak.test_high


def test_the_order_of_arrival_and_seeds_of_a_longer_audit_change_nothing(task, sequential, store, counting_box):
    plan = Plan(task, sequential, [counting_box])
    run(plan, store, task)
    expected = plan.judged(plan.look(store), store, counting_box)
    for trial in plan.largest():
        store.write(trial, outcome_of(trial, task))
    assert plan.look(store).due == []
    assert plan.judged(plan.look(store), store, counting_box) == expected


def test_the_smallest_and_the_largest_number_of_trials(task, sequential, store, counting_box):
    plan = Plan(task, sequential, [counting_box])
    assert len(plan.smallest()) == (1 + 3 + 3) * 3
    assert len(plan.largest()) == (1 + 3 + 3) * 12
    assert sorted(map(repr, plan.smallest())) == sorted(map(repr, plan.look(store).due))
    assert len(plan.smallest()) <= len({trial for trials in run(plan, store, task) for trial in trials})


def test_without_looks_all_seeds_are_wanted_at_once(task, sequential, store, counting_box):
    plan = Plan(task, replace(sequential, looks=()), [counting_box])
    [trials] = run(plan, store, task)
    assert len(trials) == len(plan.largest()) == len(plan.smallest())
    empty = Memory(Path("nowhere"))
    with pytest.raises(ValueError, match="84 trials are due"):
        plan.judged(plan.look(empty), empty, counting_box)


def test_a_plan_adds_seeds_as_the_simulation_of_the_calibration_does(task, sequential, counting_box):
    protocol = replace(sequential, attacks=tuple(grid for grid in sequential.attacks))
    names = [grid[0].name for grid in protocol.attacks]
    decided = set()
    for number in range(12):
        world = World((1.0, 0.0, -1.0), cells_per_reference=number_of_cells(protocol))
        simulated = world.audit(protocol, np.random.default_rng(number))
        plan, store = Plan(task, protocol, [counting_box]), Memory(Path("nowhere"))
        for trial in plan.largest():
            kind = {"reference": simulated.ls, "placebo": simulated.placebo, "knockoff": simulated.knockoff}[trial.role]
            place = names.index(trial.attack.name) if trial.attack else 0
            store.write(trial, outcome_of(trial, task) | {"accuracy": float(kind[place, trial.seed])})
        cells = plan.judged(plan.look(store), store, counting_box)[counting_box.fingerprint]
        expected = simulated.judged(protocol)
        for cell, other in zip(cells, expected, strict=True):
            assert cell.knockoff.seeds == other.knockoff.seeds
            assert (cell.leak.low, cell.leak.high, cell.leak.p) == (other.leak.low, other.leak.high, other.leak.p)
            decided.add(len(cell.knockoff.seeds))
    assert decided == set(LOOKS), "all looks were met"


def test_both_kinds_of_images_in_one_audit(tmp_path, protocol, counting_box, recorder):
    task = load_task("digits", classes=3, fresh=0.4)
    both = replace(protocol, data=(TrainingImages(), FreshImages()))
    result = audit(
        counting_box, task, out=tmp_path, protocol=both, undefended=counting_box, workers=1, watcher=recorder
    )
    assert [cell.data for cell in result.cells] == ["train", "fresh"]
    assert [cell.queries for cell in result.cells] == [2 * len(task.train), 2 * len(task.fresh)]
    tasks = {trial.task for trial in recorder.trials}
    assert tasks == {task.fingerprint, FreshImages().attackers_task(task).fingerprint}
    references = [trial for trial in recorder.trials if trial.role == "reference"]
    assert len(references) == 2 * 2, "each kind of images has references of its own"
    found = result.to_json()
    assert [cell["data"] for cell in found["cells"]] == ["train", "fresh"]
    assert [data["name"] for data in found["protocol"]["data"]] == ["train", "fresh"]
    assert found["threat_card"]["left_out"] == []
    assert "with labels, or fresh images of the task that the teacher never saw" in result.sentence


def test_images_that_are_not_there_are_left_out_and_the_result_says_so(tmp_path, task, protocol, counting_box):
    both = replace(protocol, data=(TrainingImages(), FreshImages()))
    result = audit(counting_box, task, out=tmp_path, protocol=both, undefended=counting_box, workers=1)
    assert [cell.data for cell in result.cells] == ["train"]
    assert result.threat_card["left_out"] == [
        "fresh images of the task that the teacher never saw, with labels: the task has none"
    ]
    assert "fresh" not in result.sentence


def test_cells_of_one_attack_are_told_apart_by_their_images(sequential):
    world = World((3.0, -3.0), cells_per_reference=2).audit(sequential, np.random.default_rng(0))
    cells = [replace(world.measured(cell, 12), attack="kd", data=data) for cell, data in enumerate(("train", "fresh"))]
    found = judge(cells, margin=0.5, alpha=0.025, weak=frozenset({("kd", "student", "fresh")}), looks=LOOKS)
    assert [cell.outcome for cell in found] == [Outcome.LEAKS, Outcome.TOO_WEAK]
    found = judge(cells, margin=0.5, alpha=0.025, weak=frozenset({("kd", "student", "train")}), looks=LOOKS)
    assert [cell.outcome for cell in found] == [Outcome.LEAKS, Outcome.NO_LEAK_FOUND]


def test_trials_of_another_precision_have_other_names(monkeypatch, counting_box):
    """So a store that machines with and without bfloat16 share never takes the one for the other."""
    blank = Split(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4) % 2)
    task = Task("blank", ("a", "b"), blank, blank, blank)
    protocol = Protocol(("mlp-4",), Recipe(epochs=1), ((KD(1.0), KD(4.0)),), (0.1,), (0.1,))
    found = {}
    for able in (False, True):
        monkeypatch.setattr("undistill.training.recipe.has_bfloat16", lambda device, able=able: able)
        trials = Plan(task, protocol, [counting_box]).tuning()
        assert {trial.recipe.precision for trial in trials} == {"bfloat16" if able else "float32"}
        found[able] = {trial.key for trial in trials}
    assert not found[False] & found[True]
