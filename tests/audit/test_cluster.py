"""Audits on a Ray cluster of two nodes that run on this machine; and the parts of it that need no cluster."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from undistill.attacks import KD
from undistill.audit import RayCluster, Trial, audit
from undistill.audit import cluster as cluster_room
from undistill.audit.cluster import AnswerKeeper, _check_code, _room
from undistill.audit.run import Look, Plan
from undistill.blackbox import Page, Queries
from undistill.errors import InputError
from undistill.training import Recipe

# Parts.


class Asking:
    """A remote function that notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def remote(self, context, box, fingerprint, task, page):
        self.asked.append((box, fingerprint, page.crops))
        return f"answers to {self.asked[-1]}"


def test_a_page_is_asked_for_once_and_the_one_that_was_not_read_for_longest_goes_first():
    asking = Asking()
    keeper = AnswerKeeper(["context"], asking, space=200)

    def read(crops, box="box"):
        return keeper.page(box, "task", None, Page("usual", 0, crops), 100)

    assert read(0) == read(0) == ["answers to ('box', 'task', 0)"]
    read(1)
    assert asking.asked == [("box", "task", 0), ("box", "task", 1)]
    read(0)  # now page 1 is the older one
    read(2)
    read(0)
    assert len(asking.asked) == 3
    read(1)
    assert [crops for _, _, crops in asking.asked] == [0, 1, 2, 1]
    read(1, box="another")
    assert asking.asked[-1] == ("another", "task", 1)


def test_a_page_that_is_larger_than_the_space_is_kept_while_it_is_the_only_one():
    asking = Asking()
    keeper = AnswerKeeper(["context"], asking, space=10)
    for _ in range(2):
        keeper.page("box", "task", None, Page("clean"), 100)
    assert len(asking.asked) == 1


def test_a_node_with_other_code_is_refused():
    trial = Trial("t", "mlp-4", Recipe(), 0, attack=KD(4.0), smoothing=0.1)
    _check_code(trial, trial.key)
    with pytest.raises(InputError, match=r"placebo of kd .* another version of undistill .* install the same on all"):
        _check_code(trial, "0" * 64)


def test_what_the_cluster_has_lost_is_run_again_and_is_no_outcome(monkeypatch):
    ray = pytest.importorskip("ray")
    lost, other = ray.exceptions.RayError("the keeper of the answers is out of reach"), ValueError("a broken attack")
    monkeypatch.setattr(cluster_room, "_unpack", lambda context: ({}, {}))
    monkeypatch.setattr(cluster_room, "run_pack", lambda *_: [{"accuracy": 1.0}, lost])
    with pytest.raises(ray.exceptions.RayError, match="out of reach"):
        cluster_room._train([], None, (), [])
    monkeypatch.setattr(cluster_room, "run_pack", lambda *_: [{"accuracy": 1.0}, other])
    assert cluster_room._train([], None, (), []) == [{"accuracy": 1.0}, other]


def nodes(*resources):
    return SimpleNamespace(nodes=lambda: [{"Alive": alive, "Resources": held} for alive, held in resources])


def test_the_room_of_a_cluster_is_counted_node_by_node():
    held = nodes((True, {"CPU": 3.0}), (True, {"CPU": 4.0, "GPU": 1.0}), (False, {"CPU": 64.0}))
    assert _room(held, RayCluster()) == 7
    assert _room(held, RayCluster(cpus_per_trial=2)) == 1 + 2
    assert _room(held, RayCluster(cpus_per_trial=0.1)) == 30 + 40
    assert _room(held, RayCluster(gpus_per_trial=0.25)) == 4
    with pytest.raises(InputError, match=r"takes 5 CPUs and 0 GPUs, which no node .* nodes of 3 CPUs and 0 GPUs; 4"):
        _room(held, RayCluster(cpus_per_trial=5))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cpus_per_trial": 0}, "cpus_per_trial is 0, must be above 0"),
        ({"cpus_per_trial": float("nan")}, "cpus_per_trial is nan"),
        ({"gpus_per_trial": -1}, "gpus_per_trial is -1, must be 0 or more"),
    ],
)
def test_what_a_trial_takes_is_checked(settings, words):
    with pytest.raises(InputError, match=words):
        RayCluster(**settings)


def test_a_cluster_that_is_not_there_is_said_at_once(task, protocol, teachers, tmp_path):
    pytest.importorskip("ray")
    gone = RayCluster(address="127.0.0.1:1")
    with pytest.raises(InputError, match=r"no Ray cluster at '127.0.0.1:1' \(.*refused\); start one with `ray start"):
        audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=gone)


# The whole.


@pytest.fixture(scope="module")
def cluster():
    """A head of one CPU, on which this process is."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8},
    )
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_finds_what_one_process_finds(
    cluster, task, protocol, teachers, tmp_path, stored_outcomes, result_of, recorder
):
    lost = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    protocol = replace(protocol, seeds=12, queries=Queries(budget=100 * protocol.recipe.epochs))
    total = 3 * protocol.seeds

    class Saboteur(type(recorder)):
        def trial(self, trial, outcome):
            super().trial(trial, outcome)
            if len(self.trials) == 8:
                cluster.remove_node(lost, allow_graceful=False)

    watcher = Saboteur()
    where = RayCluster(address=cluster.address)
    audit(teachers / "ce", task, out=tmp_path / "cluster", protocol=protocol, workers=where, watcher=watcher)
    assert len(watcher.trials) == len(set(watcher.trials)) == total, "nothing is counted twice"
    audit(teachers / "ce", task, out=tmp_path / "one", protocol=protocol, workers=1)
    assert stored_outcomes(tmp_path / "cluster") == stored_outcomes(tmp_path / "one")
    assert result_of(tmp_path / "cluster") == result_of(tmp_path / "one")
    assert not (tmp_path / "cluster" / "answers").exists(), "answers are in the object store"


@pytest.mark.slow
def test_a_cluster_says_what_is_wrong_as_one_process_does(cluster, task, protocol, teachers, tmp_path, monkeypatch):
    few = RayCluster(address=cluster.address, cpus_per_trial=2)
    with pytest.raises(InputError, match="a trial takes 2 CPUs and 0 GPUs, which no node of the cluster has"):
        audit(teachers / "ce", task, out=tmp_path / "few", protocol=protocol, workers=few)
    wanted = Look({}, {}, due=[Trial(task.fingerprint, "mlp-4", Recipe(), 0)])
    monkeypatch.setattr(Plan, "look", lambda *_: wanted)
    where = RayCluster(address=cluster.address)
    with pytest.raises(InputError, match=r"^reference with mlp-4 \(seed 0\): a reference trial needs a smoothing"):
        audit(teachers / "ce", task, out=tmp_path / "refused", protocol=protocol, workers=where)
