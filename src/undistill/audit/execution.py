"""Where trials run: in this process, or in a pool of processes, one thread each."""

import os
import pickle
import shutil
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import loky
import torch
from loky.backend import reduction
from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from undistill.audit.trial import Trial, run_pack
from undistill.blackbox import BlackBox, SharedAnswers
from undistill.errors import InputError
from undistill.tasks import Task

Pack = tuple[Trial, ...]
Done = Callable[[Trial, dict[str, Any]], None]

# What the libraries under PyTorch, NumPy and SciPy ask how many threads they may use.
_THREADS = dict.fromkeys(("OMP", "MKL", "OPENBLAS", "NUMEXPR"), "1")
_ENVIRONMENT = {f"{library}_NUM_THREADS": number for library, number in _THREADS.items()} | {
    "VECLIB_MAXIMUM_THREADS": "1"
}
SECONDS_BETWEEN_LOOKS = 1.0  # of a worker, whether its audit still runs
NICENESS = 5  # of the processes of a pool: whoever sits at the machine comes first


def count_workers(workers: int | None) -> int:
    """How many processes: as many as cores that this process may use, unless told.

    Raises:
        InputError: fewer than one.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, must be at least 1")
    return workers or loky.cpu_count()


class Executor(ABC):
    """Runs packs of trials. It is a context manager: what it has started ends with the ``with`` block.

    Every trial runs with one thread, so that no outcome depends on where it was made, nor on what ran beside it.

    Attributes:
        workers: how many packs run at the same time.
    """

    workers: int

    @abstractmethod
    def run(self, packs: Sequence[Pack], done: Done) -> None:
        """Run packs, and call ``done`` in this process with each trial and its outcome as soon as its pack ends.

        Raises:
            InputError: a trial refused its input (the message says which), or what runs it was lost. Packs that had
                ended by then are done.
        """

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """End what was started; at once if something ``failed``."""

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.close(failed=kind is not None)


class Pool(Executor):
    """Processes of this machine, which start with the first pack; a pool of one runs in this process.

    Args:
        tasks: the data of all trials.
        boxes: the black boxes that knockoffs ask.
        cache: answers shared by all processes.
        workers: processes; by default as many as cores.
    """

    def __init__(
        self, tasks: Sequence[Task], boxes: Sequence[BlackBox], cache: SharedAnswers, workers: int | None = None
    ) -> None:
        self.context = by_fingerprint(tasks), by_fingerprint(boxes), cache
        self.workers = count_workers(workers)
        self._pool: ProcessPoolExecutor | None = None
        self._folder: TemporaryDirectory | None = None

    def close(self, *, failed: bool) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=failed)
        if self._folder is not None:
            self._folder.cleanup()

    def run(self, packs: Sequence[Pack], done: Done) -> None:
        if self.workers == 1:
            with one_thread():
                for pack in packs:
                    report(pack, run_pack(pack, *self.context), done)
            return
        if not packs:
            return
        if self._pool is None:
            self._pool = self._new_pool()
        with _interrupts_held():
            futures = {self._pool.submit(_work, pack): pack for pack in packs}
        try:
            for future in as_completed(list(futures)):
                outcomes = future.result()
                report(futures.pop(future), outcomes, done)
        except BrokenProcessPool as error:
            _report_ended(futures, done)
            raise InputError(
                "a worker was killed, mostly because memory ran out, or could not start; finished trials are stored, "
                "so run the same command again, with fewer --workers"
            ) from error
        except Exception:
            _report_ended(futures, done)
            raise

    def _new_pool(self) -> ProcessPoolExecutor:
        """Workers read tasks and boxes from a file: what is sent to one that dies as it starts waits for ever, if it is
        more than a pipe holds."""
        self._folder = TemporaryDirectory(prefix="undistill-")
        context = Path(self._folder.name) / "context.pickle"
        with context.open("wb") as file:
            reduction.dump(self.context, file)
        return ProcessPoolExecutor(
            max_workers=self.workers, initializer=_initialise, initargs=(context, os.getpid()), env=_ENVIRONMENT
        )


def by_fingerprint(things: Sequence[Any]) -> dict[str, Any]:
    """Tasks or black boxes by the name under which trials know them."""
    return {thing.fingerprint: thing for thing in things}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch uses one thread of this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def report(pack: Pack, outcomes: Sequence[dict[str, Any] | Exception], done: Done) -> None:
    """Pass on what a pack has made, then raise what failed first."""
    for trial, outcome in zip(pack, outcomes, strict=True):
        if not isinstance(outcome, Exception):
            done(trial, outcome)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def _report_ended(futures: Mapping[Future, Pack], done: Done) -> None:
    """What had ended before something else failed is not lost."""
    for future, pack in futures.items():
        if future.done() and not future.cancelled() and future.exception() is None:
            with suppress(Exception):  # what is raised already came first
                report(pack, future.result(), done)


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


def _initialise(context: Path, audit: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for a worker that the pool starts later, in place of one that ended
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(audit, context.parent), daemon=True).start()
    with context.open("rb") as file:
        _work.context = pickle.load(file)  # type: ignore[attr-defined]


def _end_with(audit: int, folder: Path) -> None:
    """A worker whose audit was killed, be it before the worker began, would wait for its next pack for ever."""
    while os.getppid() == audit:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _work(pack: Pack) -> list[dict[str, Any] | Exception]:
    return run_pack(pack, *_work.context)  # type: ignore[attr-defined]
