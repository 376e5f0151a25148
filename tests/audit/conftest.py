import json
import sys
from pathlib import Path

import pytest
import torch

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Protocol, audit_all
from undistill.blackbox import BlackBox
from undistill.defences.training import CMIM, CrossEntropy
from undistill.settings import settings_in_words
from undistill.tasks import load_task
from undistill.training import Recipe, train_teacher

RECIPE = Recipe(epochs=2, batch_size=25, learning_rate=0.1)


class CountingBox(BlackBox):
    """A teacher in Python that counts the images it is asked about."""

    def __init__(self, classes, name="box", fingerprint="b" * 64):
        self.name, self.fingerprint, self.classes, self.asked = name, fingerprint, classes, 0

    def log_probs(self, images):
        self.asked += len(images)
        return torch.log_softmax(images.flatten(1)[:, 20 : 20 + self.classes] * 3, 1)


class Recorder:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.stages, self.trials, self.trainings, self.notes, self.cells = [], [], [], [], {}

    def training(self, title, recipe, images):
        self.trainings.append((title, recipe))

    def stage(self, stage):
        self.stages.append((stage.title, len(stage.trials), stage.stored))

    def trial(self, trial, outcome):
        self.trials.append(trial)

    def judged(self, teacher, cells):
        self.cells[teacher] = cells

    def note(self, sentence):
        self.notes.append(sentence)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture(scope="session")
def task():
    """150 training images of 3 classes."""
    return load_task("digits", classes=3)


@pytest.fixture
def counting_box(task):
    return CountingBox(task.num_classes)


@pytest.fixture(scope="session")
def protocol():
    """One setting of everything: nothing to choose, 6 trials for one teacher."""
    return Protocol(("mlp-4",), RECIPE, ((KD(4.0),),), smoothings=(0.1,), placebo_smoothings=(0.1,), seeds=2)


@pytest.fixture(scope="session")
def teachers(task, tmp_path_factory):
    """Checkpoint folders ``ce`` and ``cmim`` of one task."""
    root = tmp_path_factory.mktemp("teachers")
    for name, defence in (("ce", CrossEntropy()), ("cmim", CMIM())):
        train_teacher(task, "mlp-4", defence, RECIPE, seed=0, folder=root / name)
    return root


@pytest.fixture
def command(protocol, teachers):
    """The command line of the audit of ``ce`` under ``protocol``."""

    def words(out: Path, workers: int) -> list[str]:
        entries = [attack for grid in protocol.attacks for attack in grid]
        options = [
            ("--epochs", protocol.recipe.epochs),
            ("--batch-size", protocol.recipe.batch_size),
            ("--learning-rate", protocol.recipe.learning_rate),
            ("--clip-norm", protocol.recipe.clip_norm),
            ("--classes", 3),
            ("--student", "mlp-4"),
            *(("--attack", f"{attack.name}:{settings_in_words(attack).replace(', ', ',')}") for attack in entries),
            *(("--smoothing", smoothing) for smoothing in protocol.smoothings),
            *(("--placebo-smoothing", smoothing) for smoothing in protocol.placebo_smoothings),
            ("--data", "train"),
            ("--seeds", protocol.seeds),
            ("--tuning-seeds", protocol.tuning_seeds),
            ("--margin", protocol.margin),
            ("--workers", workers),
            ("--out", out),
        ]
        start = [sys.executable, "-m", "undistill", "audit", teachers / "ce", "--task", "digits"]
        return [str(word) for word in (*start, *(word for option in options for word in option))]

    return words


@pytest.fixture(scope="session")
def result_of():
    """Reads ``audit.json`` without the serving times, which a clock has measured."""

    def read(folder: Path) -> dict:
        held = json.loads((folder / "audit.json").read_text())
        for name in ("teacher", "undefended"):
            assert held[name]["utility"]["serving"].pop("seconds_per_1000") > 0
        return held

    return read


@pytest.fixture(scope="session")
def choosing():
    """Two attacks, and something to choose everywhere."""
    return Protocol(
        ("mlp-4",),
        RECIPE,
        ((KD(1.0), KD(4.0)), (KDWithoutLabels(4.0),)),
        smoothings=(0.0, 0.1),
        placebo_smoothings=(0.1, 0.3),
        seeds=2,
        margin=50.0,
    )


@pytest.fixture(scope="session")
def finished(task, teachers, choosing, tmp_path_factory):
    """A finished audit of both teachers: its folder and its results."""
    out = tmp_path_factory.mktemp("finished")
    audits = audit_all([teachers / "ce", teachers / "cmim"], task, out=out, protocol=choosing, workers=1)
    return out, audits


@pytest.fixture(scope="session")
def stored_outcomes():
    """Reads a folder's stored trials, without the seconds that they took, and so without the checksum."""

    def read(out: Path):
        files = {path.name: json.loads(path.read_text()) for path in (out / "trials").glob("*.json")}
        for content in files.values():
            del content["outcome"]["seconds"], content["checksum"]
        return files

    return read
