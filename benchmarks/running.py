"""What running an audit costs beside the trainings: planning, coming back to a complete one, and a second worker."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.timing import Figure, Piece, quotients, stopwatch, take_turns
from undistill.attacks import KD
from undistill.audit import VERSIONS, Pool, Store, Trial
from undistill.audit.run import Plan, open_all
from undistill.audit.trial import pack_bits
from undistill.blackbox import AnswerCache, LocalBlackBox
from undistill.models import save_checkpoint
from undistill.tasks import Task, load_task
from undistill.training import Recipe, classifier_for

# In a process of its own, so that nothing before has filled the memory; the process itself is measured without PyTorch,
# whose import alone takes half a gigabyte.
PLANNING = """
import sys, time
from pathlib import Path
from tempfile import TemporaryDirectory
import psutil
from undistill.audit import Protocol, Store, battery
from undistill.audit.run import Plan
from undistill.blackbox import LocalBlackBox
from undistill.tasks import load_task
from undistill.training import Recipe, classifier_for

task = load_task("digits")
box = LocalBlackBox("teacher", classifier_for(task, "mlp-8", seed=0))
protocol = Protocol(("mlp-8", "mlp-16"), Recipe(), battery(task, ("mlp-8", "mlp-16")), seeds=5, tuning_seeds=1)
each = len(Plan(task, protocol, [box]).tuning())
tuning_seeds = -(-int(sys.argv[1]) // each)
protocol = Protocol(protocol.students, Recipe(), protocol.attacks, seeds=5, tuning_seeds=tuning_seeds)
started, before = time.perf_counter(), psutil.Process().memory_info().rss
with TemporaryDirectory() as folder:
    trials = Plan(task, protocol, [box]).tuning()
    missing = Store(Path(folder)).missing(trials, print)
seconds = time.perf_counter() - started
assert len(missing) >= int(sys.argv[1])
print(seconds * int(sys.argv[1]) / len(missing), (psutil.Process().memory_info().rss - before) / 1e6)
"""


def running(
    *, trials: int = 10_000, student: str = "mlp-64", epochs: int = 30, seeds: int = 12, repeats: int = 5
) -> list[Figure]:
    """What running an audit costs beside the trainings; the second worker needs a second core.

    Planning: a list of so many trials with their hashes, held against an empty store, in a process of its own; its
    memory is what planning adds. Complete: the command ``undistill audit`` on a folder that lacks nothing, from its
    start to its end, imports included. Workers: references and knockoffs by a pool of one, and by one
    of two that has started.
    """
    planned = [_planning(trials) for _ in range(repeats)]
    task = load_task("digits")
    box = LocalBlackBox("teacher", classifier_for(task, student, seed=0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        complete = {name: _complete(name, task, folder / name) for name in ("quick", "standard")}
        pieces = {
            f"{workers} {'worker' if workers == 1 else 'workers'}": _pool(
                stack.enter_context(Pool([task], [box], AnswerCache(folder / f"answers-{workers}"), workers)),
                partial(_trials, task, box, student, epochs, seeds),
            )
            for workers in (1, 2)
        }
        seconds = take_turns({**complete, **pieces}, repeats=repeats)
    per_hour = {name: tuple(3600 * 2 * seeds / value for value in seconds[name]) for name in pieces}
    return [
        Figure(f"planning {trials:,} trials", "s", tuple(value for value, _ in planned), at_most=5),
        Figure("planning, added memory", "MB", tuple(value for _, value in planned), at_most=500),
        Figure("a complete quick audit again", "s", seconds["quick"], at_most=3),
        Figure("a complete standard audit again", "s", seconds["standard"]),
        Figure("1 worker", "trials/h", per_hour["1 worker"]),
        Figure("2 workers", "trials/h", per_hour["2 workers"]),
        Figure("2 workers / 1 worker", "x", quotients(seconds["1 worker"], seconds["2 workers"]), at_least=1.8),
    ]


def _planning(trials: int) -> tuple[float, float]:
    words = [sys.executable, "-c", PLANNING, str(trials)]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, run.stdout.split())
    return seconds, megabytes


def _complete(name: str, task: Task, folder: Path) -> Piece:
    """The command on an audit of that version that is complete. Its outcomes are made up without a leak, so that most
    cells go to their last look."""
    teacher, undefended, out = folder / "teacher", folder / "undefended", folder / "out"
    for seed, where in enumerate((teacher, undefended)):
        save_checkpoint(classifier_for(task, "mlp-64", seed=seed), where)
    protocol = VERSIONS[name](task.input_shape)
    opened = open_all(
        [teacher, undefended], task, names=None, protocol=protocol, undefended=None, trust_import_path=False
    )
    plan, store = Plan(task, opened.protocol, opened.boxes), Store(out / "trials")
    draws = np.random.default_rng(0)
    trials = plan.tuning()
    while trials:
        for trial in trials:
            store.write(trial, _made_up(trial, len(task.test), draws))
        trials = plan.look(store).due
    words = ["audit", teacher, "--undefended", undefended, "--task", "digits", "--protocol", name, "--out", out]
    command = [str(word) for word in (Path(sys.executable).with_name("undistill"), *words)]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # compiled once, as on a user's machine
    return stopwatch(partial(subprocess.run, command, check=True, capture_output=True, env=env))


def _made_up(trial: Trial, images: int, draws: np.random.Generator) -> dict[str, Any]:
    """An outcome like those of trained students."""
    correct = draws.random(images) < 0.9
    epochs = trial.recipe.epochs
    return {
        "accuracy": 100 * float(correct.mean()),
        "correct": pack_bits(correct),
        "validation_accuracy": 90.0,
        "agreement": 90.0,
        "queries": 0 if trial.teacher is None else 50_000,
        "seconds": 1.0,
        "loss": draws.random(epochs).tolist(),
        "train_accuracy": (100 * draws.random(epochs)).tolist(),
        "notes": {},
    }


def _pool(pool: Pool, more: Callable[[], Sequence[Trial]]) -> Piece:
    """Trials that no round has had yet, as packs of one."""
    return stopwatch(lambda: pool.run([(trial,) for trial in more()], lambda trial, outcome: None))


_first_seed = count(0, 1000)


def _trials(task: Task, box: LocalBlackBox, student: str, epochs: int, seeds: int) -> list[Trial]:
    recipe, first = Recipe(epochs=epochs, batch_size=50), next(_first_seed)
    of = partial(Trial, task.fingerprint, student, recipe)
    return [
        trial
        for seed in range(first, first + seeds)
        for trial in (of(seed, smoothing=0.1), of(seed, KD(4.0), teacher=box.fingerprint))
    ]
