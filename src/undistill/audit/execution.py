"""Trials run in a pool of processes, one thread each."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from typing import Any

import torch
from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from undistill.audit.packing import pack
from undistill.audit.store import Store
from undistill.audit.trial import Trial, run_pack
from undistill.blackbox import AnswerCache, BlackBox
from undistill.errors import InputError
from undistill.tasks import Task

_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def count_workers(workers: int | None) -> int:
    """How many processes: as many as cores unless told.

    Raises:
        InputError: fewer than one.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, must be at least 1")
    return workers or os.cpu_count() or 1


class Workers:
    """A pool that holds the tasks and the black boxes, and runs trials into a store.

    The pool starts with the first trial and ends with the ``with`` block. ``workers=1`` runs in this process, with one
    thread as well, so that no outcome depends on the number of workers.

    Args:
        tasks: the data of all trials.
        boxes: the black boxes that knockoffs ask.
        store: where outcomes go, each as soon as its trial ends.
        cache: answers shared by all processes.
        workers: processes; by default as many as cores.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        boxes: Sequence[BlackBox],
        store: Store,
        cache: AnswerCache,
        workers: int | None = None,
    ) -> None:
        self.tasks = {task.fingerprint: task for task in tasks}
        self.store, self.cache = store, cache
        self.boxes = {box.fingerprint: box for box in boxes}
        self.workers = count_workers(workers)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=kind is not None)

    def run(self, trials: Sequence[Trial], done: Callable[[Trial, dict[str, Any]], None]) -> None:
        """Run the trials that the store lacks; call ``done`` with each outcome as it arrives.

        Raises:
            InputError: a trial refused its input or diverged (which one comes first in the message), the disk is full,
                or a worker was killed.
        """
        missing = [trial for trial in dict.fromkeys(trials) if trial not in self.store]
        if self.workers == 1:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for trials in pack(missing, self.workers):
                    _tell(trials, _run_and_store(trials, self.tasks, self.boxes, self.store, self.cache), done)
            finally:
                torch.set_num_threads(threads)
            return
        if not missing:
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                max_workers=self.workers,
                initializer=_initialise,
                initargs=(self.tasks, self.boxes, self.store, self.cache),
                env=_THREADS,
            )
        with _interrupts_held():
            futures = {self._pool.submit(_work, trials): trials for trials in pack(missing, self.workers)}
        try:
            for future in as_completed(futures):
                _tell(futures[future], future.result(), done)
        except TerminatedWorkerError as error:
            raise InputError(
                "a worker was killed, most often because memory ran out; finished trials are stored, so run the same "
                "command again, with fewer --workers"
            ) from error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes that never see Ctrl-C, from their first instruction on: they inherit the mask of signals.

    A terminal sends the signal to all processes. Only this one may answer; it ends the workers, and they die silently.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _initialise(tasks: dict[str, Task], boxes: dict[str, BlackBox], store: Store, cache: AnswerCache) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a worker that the pool starts later, in place of one that ended
    torch.set_num_threads(1)
    _work.context = (tasks, boxes, store, cache)  # type: ignore[attr-defined]


def _work(trials: Sequence[Trial]) -> list[dict[str, Any] | Exception]:
    return _run_and_store(trials, *_work.context)  # type: ignore[attr-defined]


def _run_and_store(
    trials: Sequence[Trial], tasks: dict[str, Task], boxes: dict[str, BlackBox], store: Store, cache: AnswerCache
) -> list[dict[str, Any] | Exception]:
    outcomes = run_pack(trials, tasks, boxes, cache)
    for trial, outcome in zip(trials, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            store.write(trial, outcome)
    return outcomes


def _tell(
    trials: Sequence[Trial],
    outcomes: Sequence[dict[str, Any] | Exception],
    done: Callable[[Trial, dict[str, Any]], None],
) -> None:
    """Pass on what was stored, then raise what failed."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for trial, outcome in zip(trials, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            done(trial, outcome)
    if errors:
        raise errors[0]
