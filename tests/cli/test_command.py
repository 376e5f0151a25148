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
