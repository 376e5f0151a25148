"""Audits in a process of their own that are stopped in the middle."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from undistill.audit import audit


@pytest.fixture
def protocol(protocol):
    return replace(protocol, seeds=24)


@pytest.fixture
def start(command, tmp_path):
    """Starts ``undistill audit`` and waits until it has stored a few trials."""
    started = []

    def run(workers):
        process = subprocess.Popen(
            command(tmp_path / "out", workers),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the signal reaches all of the audit and nothing of the test
            # As at a terminal: what a script starts in the background ignores Ctrl-C, tests included.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        while len(stored(tmp_path)) < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def stored(folder: Path) -> list[Path]:
    return list((folder / "out" / "trials").glob("[!.]*.json"))


@pytest.fixture
def finish_and_compare(task, protocol, teachers, tmp_path, recorder, result_of):
    """Goes on in this process, under the same content hashes, and compares with an audit that ran through."""

    def finish():
        kept = len(stored(tmp_path))
        total = 3 * protocol.seeds
        assert 4 <= kept < total
        audit(teachers / "ce", task, out=tmp_path / "out", protocol=protocol, workers=1, watcher=recorder)
        assert len(recorder.trials) == total - kept
        audit(teachers / "ce", task, out=tmp_path / "through", protocol=protocol, workers=1)
        assert result_of(tmp_path / "out") == result_of(tmp_path / "through")

    return finish


def test_an_audit_that_was_killed_goes_on_as_if_it_had_not_been(start, finish_and_compare):
    process = start(workers=1)
    time.sleep(random.uniform(0, 0.05))
    process.kill()
    process.communicate()
    finish_and_compare()


def test_a_worker_that_begins_after_its_audit_was_killed_ends(tmp_path):
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_bytes(pickle.dumps(None))
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    code = f"""
import time
from pathlib import Path
from undistill.audit.execution import _initialise
_initialise(Path({str(tmp_path / "context" / "file")!r}), {int(gone.stdout)})
time.sleep(60)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 1
    assert not (tmp_path / "context").exists()


def test_workers_end_with_an_audit_that_was_killed(start, finish_and_compare):
    process = start(workers=2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()  # alone, as a system does that runs out of memory
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    process.communicate()
    finish_and_compare()


def test_ctrl_c_keeps_finished_trials_and_says_how_to_go_on(start, finish_and_compare):
    process = start(workers=2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.strip().endswith(
        "undistill: stopped; what was finished is stored, and the same command goes on from there"
    )
    assert "Traceback" not in out + error
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    finish_and_compare()
