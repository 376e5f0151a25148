"""The installed command: PyTorch comes late, and the status is that of the command line."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_pytorch_is_not_imported_before_the_collector_is_paused():
    looks = "import sys, undistill_command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", looks], check=False).returncode == 0


@pytest.mark.parametrize(("word", "status"), [("--version", 0), ("train", 2)])
def test_the_status_is_that_of_the_command_line(word, status):
    command = Path(sys.executable).with_name("undistill")
    assert subprocess.run([command, word], check=False, capture_output=True).returncode == status


@pytest.mark.parametrize(("ends", "status"), [("return 3", 3), ("raise ValueError('a bug')", 1)])
def test_threads_and_exit_handlers_are_waited_for_and_nothing_that_was_said_is_lost(ends, status):
    script = f"""
import atexit, sys, threading, time, types

def told():
    time.sleep(0.2)
    print("thread")

def run():
    atexit.register(print, "handler")
    threading.Thread(target=told).start()
    print("run")
    {ends}

sys.modules["undistill.cli"] = types.SimpleNamespace(main=run)
from undistill_command import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert ended.returncode == status
    assert ended.stdout.split() == ["run", "thread", "handler"]
    assert ("a bug" in ended.stderr) == (status == 1)
