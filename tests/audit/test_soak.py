"""One audit that everything goes wrong with, many times, beside one that ran through.

The lost node of a cluster is in ``test_cluster.py``, for it takes a cluster of its own.
"""

import errno
import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from undistill.audit import Store, audit
from undistill.errors import InputError

KILLS = 50
FULL_DISKS = 10


@pytest.fixture
def protocol(choosing):
    """Something to choose everywhere, and three looks: those that the command line takes from ``quick``."""
    return replace(choosing, seeds=200, looks=(3, 6), tuning_seeds=20, margin=0.01)


def whole(out):
    """Names of the files that a checksum vouches for."""
    return {entry.name for entry in Store(out / "trials").entries() if entry.problem is None}


def spoil(path, generator):
    """Cut a file off, flip one of its bits, or empty it, as a bad disk does: the name stays, the content is another."""
    content = bytearray(path.read_bytes())
    kind = generator.randrange(3)
    if kind == 0:
        content = content[: generator.randrange(len(content))]
    elif kind == 1:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    else:
        content = bytearray()
    path.unlink()  # a reader that has mapped it keeps what it had
    path.write_bytes(content)


@pytest.mark.slow
def test_an_audit_survives_kills_full_disks_and_damage(
    task, protocol, teachers, command, result_of, tmp_path, recorder, monkeypatch
):
    audit(teachers / "ce", task, out=tmp_path / "through", protocol=protocol, workers=1, watcher=recorder)
    total = len(recorder.trials)
    recorder.trials.clear()

    generator, out = random.Random(0), tmp_path / "out"
    trials, kills, safe = out / "trials", 0, set()
    while kills < KILLS:
        process = subprocess.Popen(
            command(out, workers=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        began, before = time.monotonic(), len(safe)
        try:
            if kills % 5 == 0:  # at any moment, mostly before there is anything to store
                time.sleep(generator.uniform(0, 4))
            else:
                while len(list(trials.glob("[!.]*.json"))) <= before and process.poll() is None:
                    assert time.monotonic() - began < 120
                    time.sleep(0.01)
                time.sleep(generator.uniform(0, 0.3))
        finally:
            finished = process.poll() is not None
            if not finished and kills % 2:
                process.kill()  # alone, as a system does that runs out of memory: its workers end by themselves
            elif not finished:
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            said, _ = process.communicate()
        if finished:
            pytest.fail(f"the audit ended before it was killed {KILLS} times; give it more seeds\n{said}")
        kills += 1
        now = whole(out)
        assert safe <= now, "a kill has taken what was stored"
        if (out / "audit.json").exists():
            assert json.loads((out / "audit.json").read_text())["state"] == "running"
        safe = now
        for folder in (trials, out / "answers"):
            found = (path for path in folder.rglob("*.*") if path.suffix in (".json", ".safetensors"))
            files = sorted(path for path in found if path.stat().st_size)  # one that was emptied before holds nothing
            if files and generator.random() < 0.3:
                hit = generator.choice(files)
                spoil(hit, generator)
                safe -= {hit.name}
        safe &= whole(out)  # a flipped bit may have hit white space

    fsync = os.fsync
    for _ in range(FULL_DISKS):
        left = [generator.randrange(1, 12)]

        def full(descriptor, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr("undistill.files.os.fsync", full)
            with pytest.raises((InputError, OSError), match=r"the disk is full|No space left on device"):
                audit(teachers / "ce", task, out=out, protocol=protocol, workers=1)
        assert safe <= whole(out)
        safe = whole(out)

    assert 0 < len(safe) < total
    audit(teachers / "ce", task, out=out, protocol=protocol, workers=1, watcher=recorder)
    assert len(recorder.trials) == len(set(recorder.trials)) == total - len(safe), "what was stored did not run again"
    assert result_of(out) == result_of(tmp_path / "through")
