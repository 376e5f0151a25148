from pathlib import Path
from typing import NamedTuple

import pytest

from undistill.cli import main

TINY = ("--classes", "3", "--epochs", "1", "--batch-size", "25")
QUICK = (
    *("--student", "mlp-4", "--attack", "kd:temperature=4", "--smoothing", "0.1", "--placebo-smoothing", "0.1"),
    *("--seeds", "2", "--workers", "1"),
)


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """80 columns, no colours, whatever the terminal of the tests is."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys):
    """Runs a command in this process."""

    def command(*tokens):
        capsys.readouterr()
        status = main([str(token) for token in tokens])
        return Ran(status, *capsys.readouterr())

    return command


@pytest.fixture
def refused(run):
    """Runs a command that is refused, and gives its one sentence."""

    def command(*tokens):
        status, out, err = run(*tokens)
        assert status == 2, err
        lines = err.strip().splitlines()
        assert [line for line in lines if line.startswith("undistill: ")] == lines[-1:]
        assert "Traceback" not in out + err
        return lines[-1]

    return command


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    """A checkpoint made by the command line: 3 classes of digits, cross entropy."""
    folder = tmp_path_factory.mktemp("teachers") / "ce"
    assert main(["train", "--task", "digits", *TINY, "--model", "mlp-4", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def quick(teacher, tmp_path):
    """The words of a tiny audit of that teacher into ``tmp_path / "out"``."""
    return ["audit", teacher, "--task", "digits", *TINY, *QUICK, "--out", tmp_path / "out"]
