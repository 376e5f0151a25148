"""What is shown while a training runs: a bar on a terminal, lines elsewhere."""

import re
from io import StringIO

import pytest
from rich.console import Console

from undistill.training import SilentProgress, TerminalProgress


def run(progress, epochs, steps, done=0, validation=None):
    with progress as told:
        for epoch in range(done, epochs):
            for step in range(steps):
                told.step(epoch, step, 50)
            record = {"epoch": epoch, "loss": 1.5 / (epoch + 1), "images": 50 * steps}
            told.epoch(record if validation is None else {**record, "validation_accuracy": validation})


@pytest.fixture
def written():
    return StringIO()


def test_plain_lines_where_there_is_no_terminal(written, monkeypatch):
    monkeypatch.setattr(TerminalProgress, "SECONDS_BETWEEN_LINES", 0.0)
    run(TerminalProgress("teacher", 3, 4, console=Console(file=written, width=200)), 3, 4, validation=91.25)
    lines = written.getvalue().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"teacher: epoch 1/3, loss 1\.5000, validation 91\.25%, [\d,]+ images/s, \d+ s left", lines[0]
    ), lines[0]
    assert lines[2].startswith("teacher: epoch 3/3, loss 0.5000")
    assert lines[2].endswith(" 0 s left")
    assert "\x1b" not in written.getvalue()


def test_lines_come_now_and_then_and_at_the_end(written):
    run(TerminalProgress("teacher", 30, 2, console=Console(file=written, width=200)), 30, 2)
    (line,) = written.getvalue().splitlines()
    assert line.startswith("teacher: epoch 30/30, loss 0.0500, ")
    assert "validation" not in line


def test_a_bar_on_a_terminal(written):
    console = Console(file=written, force_terminal=True, width=120)
    run(TerminalProgress("teacher", 3, 4, console=console), 3, 4)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue())
    assert "teacher" in shown
    assert "12/12" in shown
    assert "images/s" in shown
    assert "epoch" not in shown, "the bar says it all"


def test_a_resumed_training_starts_where_it_stopped(written):
    console = Console(file=written, force_terminal=True, width=120)
    progress = TerminalProgress("teacher", 3, 4, done=2, console=console)
    assert progress.bar.tasks[0].completed == 8
    run(progress, 3, 4, done=2)
    assert progress.bar.tasks[0].completed == 12


def test_the_bar_ends_with_an_error(written):
    progress = TerminalProgress("teacher", 3, 4, console=Console(file=written, force_terminal=True))
    with pytest.raises(RuntimeError), progress:
        raise RuntimeError
    assert not progress.bar.live.is_started


def test_silence(capsys):
    run(SilentProgress(), 2, 2)
    assert capsys.readouterr() == ("", "")
