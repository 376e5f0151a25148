"""Two processes that train together do what one does."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from undistill.models import load_checkpoint
from undistill.tasks import load_task

WORKER = Path(__file__).with_name("launched_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The outcomes of both processes. The launcher is set to bfloat16, which the recipe (float32) overrules."""
    folder = tmp_path_factory.mktemp("launched")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = (
        "--multi_gpu --num_machines 1 --num_processes 2 --num_cpu_threads_per_process 1 "
        f"--main_process_port {port} --mixed_precision bf16 --dynamo_backend no"
    )
    run = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch.split(), str(WORKER), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    return runpy.run_path(str(WORKER))["fit_perceptron"](load_task("digits"))


def test_they_train_together(ranks):
    _, outcomes = ranks
    assert [(outcome["rank"], outcome["world"]) for outcome in outcomes] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("part", ["model", "objective", "teacher", "again", "sparse"])
def test_both_agree(ranks, part):
    _, (first, second) = ranks
    assert first[part].keys() == second[part].keys()
    for name, tensor in first[part].items():
        assert torch.equal(tensor, second[part][name]), name


def test_averaged_gradients_are_those_of_the_whole_batch(ranks, alone):
    _, (first, _) = ranks
    for name, tensor in alone["model"].items():
        torch.testing.assert_close(first["model"][name], tensor, rtol=1e-4, atol=1e-5)


def test_centroids_are_those_of_the_whole_batch(ranks, alone):
    _, (first, _) = ranks
    assert {"loss.centroids.sums", "loss.centroids.counts", "loss.steps"} <= alone["objective"].keys()
    for name, tensor in alone["objective"].items():
        torch.testing.assert_close(first["objective"][name], tensor, rtol=1e-4, atol=1e-5)


def test_records_are_those_of_the_whole_batch(ranks, alone):
    _, outcomes = ranks
    for outcome in outcomes:
        for record, expected in zip(outcome["records"], alone["records"], strict=True):
            assert record["images"] == expected["images"] == 500
            assert record["loss"] == pytest.approx(expected["loss"], rel=1e-4)
            assert record["train_accuracy"] == pytest.approx(expected["train_accuracy"], abs=0.21)
            assert record["validation_accuracy"] == pytest.approx(expected["validation_accuracy"], abs=0.4)


def test_one_checkpoint_is_saved(ranks):
    folder, (first, _) = ranks
    assert sorted(path.name for path in folder.iterdir()) == ["rank0.pt", "rank1.pt", "sparse", "teacher"]
    assert sorted(path.name for path in (folder / "sparse").iterdir()) == ["teacher", "teacher.normal"]
    teacher = load_checkpoint(folder / "teacher")
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, first["teacher"][name]), name
        assert torch.equal(tensor, first["again"][name]), name
    for outcome in ranks[1]:
        assert outcome["provenance"]["test_accuracy"] == teacher.provenance["test_accuracy"]


def test_a_batch_that_cannot_be_shared_is_refused(ranks):
    refusal = "a batch of 51 images cannot be shared by 2 processes; choose a multiple of 2"
    assert [outcome["refusal"] for outcome in ranks[1]] == [refusal, refusal]
