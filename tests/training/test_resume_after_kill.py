"""A training that is killed, again and again, gives the tensors of one that ran through, bit for bit."""

import os
import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from undistill.models import load_checkpoint

WORKER = Path(__file__).with_name("kill_worker.py")

# Batch normalisation has running statistics, dropout draws random numbers.
NETWORK = """
from torch import nn


def make(num_classes, input_shape):
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(216, num_classes)
    )
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks")
def test_killed_at_any_moment(tmp_path, monkeypatch):
    (tmp_path / "noisy_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    # A teacher takes 5 epochs of 10 steps; each epoch writes one state. Written next are tensors and description.
    chance = random.Random(0)
    moments = [
        f"step:{chance.randint(1, 9)}",  # in the first epoch: nothing is stored yet
        "half:1",  # the first state
        "whole:1",
        "renamed:1",
        f"step:{chance.randint(1, 10)}",
        "half:2",
        f"step:{chance.randint(1, 20)}",
        f"step:{chance.randint(11, 20)}",
        "renamed:2",  # the last state
        "half:1",  # the checkpoint's tensors
        "renamed:2",  # its description: all is there, in a folder of another name
        "renamed:3",  # the folder: the checkpoint is complete, the state for resuming not yet gone
    ]
    command = [sys.executable, str(WORKER), str(tmp_path / "killed"), *moments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{moment} killed by 9" for moment in moments] + ["never:0 exited with 0"]
    assert not (tmp_path / "killed.training").exists()

    assert torch.get_num_threads() == 1
    runpy.run_path(str(WORKER))["train"](tmp_path / "unbroken")
    killed, unbroken = (
        safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("killed", "unbroken")
    )
    assert killed.keys() == unbroken.keys()
    for name, tensor in unbroken.items():
        assert torch.equal(killed[name], tensor), name
    records = [
        [
            {key: value for key, value in record.items() if key != "seconds"}
            for record in load_checkpoint(tmp_path / name, trust_import_path=True).provenance["records"]
        ]
        for name in ("killed", "unbroken")
    ]
    assert records[0] == records[1]
    assert len(records[0]) == 5
