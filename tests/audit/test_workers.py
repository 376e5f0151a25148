"""Workers that are lost: the audit ends with a sentence, and does not wait for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import undistill

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
