"""The lines that an audit writes while it runs: its counts are those of what it does."""

from dataclasses import replace

import pytest

from undistill.attacks import DKD, KD
from undistill.audit import Protocol, Stage, audit
from undistill.audit.packing import pack
from undistill.audit.run import Plan
from undistill.blackbox import BlackBox
from undistill.cli import watch
from undistill.tasks import FreshImages, TrainingImages, load_task
from undistill.training import Recipe

PROTOCOL = Protocol(
    ("mlp-4",),
    Recipe(epochs=1, batch_size=25, learning_rate=0.1),
    ((KD(4.0),), (DKD(),)),
    smoothings=(0.1,),
    placebo_smoothings=(0.1,),
    seeds=2,
    data=(TrainingImages(), FreshImages()),
)
CELLS = 2 * 2 * 2  # attacks x images x teachers


class Api(BlackBox):
    """A teacher that looks at three pixels; all of them share a name."""

    name = "api"

    def __init__(self, digit):
        self.fingerprint, self.digit = digit * 64, int(digit)

    def log_probs(self, images):
        return (images.flatten(1)[:, 20:23] * self.digit).log_softmax(1)


@pytest.fixture(scope="module")
def task():
    return load_task("digits", classes=3, fresh=0.4)


@pytest.fixture(autouse=True)
def every_trial(monkeypatch):
    """A line for each trial."""
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LINES", 0.0)


def test_cells_and_workers_of_two_kinds_of_images_and_two_teachers(task, capsys):
    trials = Plan(task, PROTOCOL, [Api("1"), Api("2")]).largest()
    packs = pack(trials, 2)
    with watch.TerminalWatcher() as watcher:
        watcher.stage(Stage("judge on test", tuple(trials), tuple(packs), workers=2))
        assert watcher._cells() == f" (0/{CELLS} cells done, 2 workers busy)"
        left = {}
        for trial in trials:
            if trial.role == "knockoff":
                key = trial.attack, trial.task, trial.teacher
                left[key] = left.get(key, 0) + 1
        assert len(left) == CELLS
        for number, group in enumerate(packs):
            for place, trial in enumerate(group):
                if trial.role == "knockoff":
                    left[trial.attack, trial.task, trial.teacher] -= 1
                watcher.trial(trial, {})
                busy = min(2, len(packs) - number - (place + 1 == len(group)))
                words = {0: "", 1: ", 1 worker busy", 2: ", 2 workers busy"}[busy]
                assert watcher._cells() == f" ({list(left.values()).count(0)}/{CELLS} cells done{words})"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"judge on test: {len(trials)} trials, 0 stored"
    assert lines[-1] == f"judge on test: {len(trials)}/{len(trials)} trials ({CELLS}/{CELLS} cells done), 0 s left"


def test_decided_cells_are_some_of_all_teachers_cells(task, tmp_path, capsys):
    undecided = replace(PROTOCOL, seeds=3, looks=(2,), margin=0.01)
    with watch.TerminalWatcher() as watcher:
        audit(Api("1"), task, out=tmp_path, protocol=undecided, undefended=Api("2"), workers=1, watcher=watcher)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("choose settings")
    looks = [line for line in lines if " stored" in line]
    assert len(looks) == 2
    second = lines[lines.index(looks[1]) + 1 :]
    assert second
    assert all(f" of {CELLS} cells decided)" in line for line in second)
    assert not any("decided" in line for line in lines[: lines.index(looks[1])])


def test_a_resumed_audit_knows_what_was_decided(task, tmp_path, capsys):
    given = {"out": tmp_path, "undefended": Api("2"), "workers": 1}
    audit(Api("1"), task, protocol=PROTOCOL, **given)
    longer = replace(PROTOCOL, seeds=3, looks=(2,), margin=0.01)
    with watch.TerminalWatcher() as watcher:
        audit(Api("1"), task, protocol=longer, watcher=watcher, **given)
    trials = [line for line in capsys.readouterr().err.splitlines() if " left" in line]
    assert trials
    assert all(f" of {CELLS} cells decided)" in line for line in trials)
