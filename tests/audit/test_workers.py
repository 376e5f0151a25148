"""Workers that are lost: the audit ends with a sentence, and does not wait for them."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import undistill
from undistill.audit import Pool, Trial
from undistill.audit.execution import NICENESS
from undistill.blackbox import AnswerCache
from undistill.training import Recipe

# The package is replaced by one that cannot be imported when the audit's own process has already got it.
SCRIPT = """
import sys
from pathlib import Path
from undistill.audit import Pool, Trial
from undistill.blackbox import AnswerCache, LocalBlackBox
from undistill.errors import InputError
from undistill.tasks import load_task
from undistill.training import Recipe, classifier_for

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    task = load_task("digits")
    box = LocalBlackBox("teacher", classifier_for(task, "mlp-8", seed=0))
    trials = [Trial(task.fingerprint, "mlp-8", Recipe(epochs=1), seed, smoothing=0.1) for seed in range(3)]
    (folder / "undistill").rename(folder / "gone")
    (folder / "undistill").mkdir()
    (folder / "undistill" / "__init__.py").write_text("raise ImportError('the package has vanished')")
    try:
        with Pool([task], [box], AnswerCache(folder / "answers"), workers=2) as pool:
            pool.run([(trial,) for trial in trials], print)
    except InputError as error:
        sys.exit(f"refused: {error}")
"""


def test_workers_that_cannot_start_end_the_audit(tmp_path):
    shutil.copytree(Path(undistill.__file__).parent, tmp_path / "undistill")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "refused: a worker was killed, mostly because memory ran out, or could not start" in run.stderr


def _setting():
    threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    return torch.get_num_threads(), threads.get("OMP_NUM_THREADS"), threads.get("MKL_NUM_THREADS"), os.nice(0)


def test_workers_have_one_thread_each_and_leave_the_machine_to_others(task, tmp_path):
    before = os.nice(0)
    with Pool([task], [], AnswerCache(tmp_path), workers=2) as pool:
        pool.run([(Trial(task.fingerprint, "mlp-4", Recipe(epochs=1), 0, smoothing=0.1),)], lambda *_: None)
        assert pool._pool.submit(_setting).result() == (1, "1", "1", min(19, before + NICENESS))


def test_what_has_ended_is_reported_before_what_failed_otherwise(task, tmp_path):
    """Whatever a pack raises, those that had ended are stored."""
    ended, failed, done = Future(), Future(), []
    ended.set_result([{"accuracy": 50.0}])
    failed.set_exception(OSError("the disk is gone"))
    trials = [Trial(task.fingerprint, "mlp-4", Recipe(epochs=1), seed, smoothing=0.1) for seed in range(2)]
    with Pool([task], [], AnswerCache(tmp_path), workers=2) as pool:
        futures = iter((failed, ended))
        pool._pool = SimpleNamespace(submit=lambda *_: next(futures), shutdown=lambda **_: None)
        with pytest.raises(OSError, match="the disk is gone"):
            pool.run([(trial,) for trial in trials], lambda trial, outcome: done.append(trial))
    assert done == [trials[1]]
