"""Where trials run: on the machines of a Ray cluster."""

import os
import socket
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.audit.execution import Done, Executor, Pack, by_fingerprint, one_thread, report
from undistill.audit.trial import Trial, run_pack
from undistill.blackbox import BlackBox, Page, SharedAnswers
from undistill.blackbox.answers import ask
from undistill.errors import InputError, require
from undistill.files import content_hash
from undistill.tasks import Task

RETRIES = 3  # of a pack, when the node that runs it is lost
WAITING = 64  # packs that wait in the cluster beside the running ones, for nodes that join


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster, and what a trial takes of it. Ray decides what runs where.

    Every trial runs with one thread, whatever it takes: more than one CPU keeps room for its memory, less than one is
    for trials that mostly wait for a GPU.

    Args:
        address: of the cluster, as ``ray start`` says it (``"auto"``: the one of this machine). None starts one on this
            machine, which ends with the audit.
        cpus_per_trial: CPUs that are kept for a trial, or a fraction of one.
        gpus_per_trial: GPUs likewise; 0.25 lets four trials share one.

    Raises:
        InputError: a number is out of range.
    """

    address: str | None = None
    cpus_per_trial: int | float = 1
    gpus_per_trial: int | float = 0

    def __post_init__(self) -> None:
        if not 0 < self.cpus_per_trial < float("inf"):
            raise InputError(f"cpus_per_trial is {self.cpus_per_trial}, must be above 0, such as 1 or 0.5")
        if not 0 <= self.gpus_per_trial < float("inf"):
            raise InputError(f"gpus_per_trial is {self.gpus_per_trial}, must be 0 or more, such as 0.25")


class RayExecutor(Executor):
    """Tasks of a Ray cluster, which runs them again when a node is lost.

    Tasks and black boxes are put into the cluster's object store once. A page of answers is asked for once in the whole
    cluster, as a task of its own, and read by all trials from the object store. Outcomes come back to this process, so
    the nodes need no disk in common; they need the same packages and the same code of one's own.

    Args:
        cluster: where, and what a trial takes.
        tasks: the data of all trials.
        boxes: the black boxes that knockoffs ask.
        answer_space: bytes of answers that the object store may hold.

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached, or no node has room for a trial.
    """

    def __init__(
        self, cluster: RayCluster, tasks: Sequence[Task], boxes: Sequence[BlackBox], *, answer_space: int
    ) -> None:
        self._ray = ray = require("ray", "ray")
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(ray, cluster)
        try:
            self.workers = _room(ray, cluster)
            context = ray.put((by_fingerprint(tasks), by_fingerprint(boxes)))
            # A process of a dying node may still report that others are out of its reach: that is no reason to stop.
            retried = {"max_retries": RETRIES, "retry_exceptions": [ray.exceptions.RayError]}
            # Answers are asked on a CPU, as everywhere. They wait for none: those who wait for them hold all that there
            # are, and a pack, which waits in several threads, does not give its own back meanwhile.
            asking = ray.remote(num_cpus=0, scheduling_strategy="SPREAD", **retried)(_ask)
            here = ray.get_runtime_context().get_node_id()
            place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
            # If it is lost nevertheless, it begins anew, and answers are asked for again.
            lasting = {"max_restarts": -1, "max_task_retries": -1}
            keeper = ray.remote(num_cpus=0, scheduling_strategy=place, **lasting)(AnswerKeeper)
            self._keeper = keeper.remote([context], asking, answer_space)
            needs = {"num_cpus": cluster.cpus_per_trial, "num_gpus": cluster.gpus_per_trial}
            self._train = ray.remote(**needs, **retried)(_train)
            self._context = context
            self._running: dict[Any, Pack] = {}
        except BaseException:
            self._leave()
            raise

    def run(self, packs: Sequence[Pack], done: Done) -> None:
        ray, waiting = self._ray, list(reversed(packs))
        while waiting or self._running:
            while waiting and len(self._running) < self.workers + WAITING:
                pack = waiting.pop()
                keys = [trial.key for trial in pack]
                self._running[self._train.remote([self._context], self._keeper, pack, keys)] = pack
            [ended], _ = ray.wait(list(self._running), num_returns=1)
            pack = self._running.pop(ended)
            try:
                outcomes = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"{pack[0].title} was lost {1 + RETRIES} times with the node or the process that ran it "
                    f"({type(error).__name__}), most often because memory ran out; finished trials are stored, so run "
                    "the same command again, with more --cpus-per-trial, which lets fewer run at once"
                ) from error
            report(pack, outcomes, done)

    def close(self, *, failed: bool) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._ray.kill(self._keeper)
        self._leave()

    def _leave(self) -> None:
        if self._connected:
            self._ray.shutdown()


def _connect(ray: Any, cluster: RayCluster) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by itself one day
    settings: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    if cluster.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings["include_dashboard"] = False
    try:
        _knock(cluster.address)
        ray.init(cluster.address or "local", **settings)
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if cluster.address is None else f"at {cluster.address!r}"
        raise InputError(
            f"there is no Ray cluster {where} ({' '.join(str(error).split())}); start one with `ray start --head` and "
            "name the address that it says"
        ) from error


def _knock(address: str | None) -> None:
    """Fail within seconds where nobody listens; Ray itself would try for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _room(ray: Any, cluster: RayCluster) -> int:
    """How many trials the nodes can run at the same time."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = 0
    for node in nodes:
        fits = node.get("CPU", 0) / cluster.cpus_per_trial
        if cluster.gpus_per_trial:
            fits = min(fits, node.get("GPU", 0) / cluster.gpus_per_trial)
        room += int(fits + 1e-9)
    if not room:
        held = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"a trial takes {cluster.cpus_per_trial:g} CPUs and {cluster.gpus_per_trial:g} GPUs, which no node of the "
            f"cluster has (there are nodes of {held}); lower --cpus-per-trial or --gpus-per-trial, or add a node"
        )
    return room


# What follows runs on the nodes.


class AnswerKeeper:
    """An actor that knows which answers are in the cluster, and has missing ones asked for, once.

    Args:
        context: reference to tasks and boxes.
        asking: the remote function that asks.
        space: bytes that the pages may take; the one that was not read for longest goes first.
    """

    def __init__(self, context: list[Any], asking: Any, space: int) -> None:
        self._context, self._asking, self._space = context, asking, space
        self._pages: OrderedDict[tuple[str, str, Page], tuple[Any, int]] = OrderedDict()

    def page(self, box: str, fingerprint: str, task: Task | None, page: Page, size: int) -> list[Any]:
        """The reference to a page, in a list. Ray asks again by itself if the node that holds the page is lost."""
        key = box, fingerprint, page
        if key not in self._pages:
            self._pages[key] = self._asking.remote(self._context, box, fingerprint, task, page), size
        self._pages.move_to_end(key)
        while len(self._pages) > 1 and sum(size for _, size in self._pages.values()) > self._space:
            self._pages.popitem(last=False)  # whoever is reading it still has it
        return [self._pages[key][0]]


@dataclass(frozen=True)
class ClusterAnswers(SharedAnswers):
    """Answers in the object store of a cluster.

    Args:
        keeper: the actor that knows them.
        known: fingerprints of the tasks that every node has.
    """

    keeper: Any
    known: frozenset[str]

    def get(self, box: BlackBox, task: Task, page: Page) -> Float[Tensor, "n classes"]:
        ray = require("ray", "ray")
        sent = None if task.fingerprint in self.known else task  # with a budget of queries it is a part of a known one
        size = 4 * len(task.test if page.kind == "test" else task.train) * task.num_classes
        [reference] = ray.get(self.keeper.page.remote(box.fingerprint, task.fingerprint, sent, page, size))
        return torch.from_numpy(ray.get(reference).copy())  # what lies in the object store is not writable


_held: dict[str, tuple[dict[str, Task], dict[str, BlackBox]]] = {}


def _unpack(context: list[Any]) -> tuple[dict[str, Task], dict[str, BlackBox]]:
    """Tasks and boxes, which a process of a node reads once."""
    [reference] = context
    if reference.hex() not in _held:
        _held.clear()
        _held[reference.hex()] = require("ray", "ray").get(reference)
    return _held[reference.hex()]


def _ask(context: list[Any], box: str, fingerprint: str, task: Task | None, page: Page) -> Any:
    tasks, boxes = _unpack(context)
    with one_thread():
        return ask(boxes[box], tasks[fingerprint] if task is None else task, page).numpy()


def _train(context: list[Any], keeper: Any, pack: Pack, keys: list[str]) -> list[dict[str, Any] | Exception]:
    tasks, boxes = _unpack(context)
    for trial, key in zip(pack, keys, strict=True):
        _check_code(trial, key)
    with one_thread():
        outcomes = run_pack(pack, tasks, boxes, ClusterAnswers(keeper, frozenset(tasks)))
    for outcome in outcomes:
        if isinstance(outcome, require("ray", "ray").exceptions.RayError):
            raise outcome  # what the cluster has lost is no outcome: Ray runs the pack again
    return outcomes


def _check_code(trial: Trial, key: str) -> None:
    """The description holds the hash of the attack's code, as this node has it."""
    if content_hash(trial.description()) != key:
        raise InputError(
            f"{trial.title}: node {socket.gethostname()} has another version of undistill or of the attack's code than "
            "the process that began the audit; install the same on all nodes"
        )
