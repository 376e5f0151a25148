"""Trains one teacher in child processes that die by SIGKILL at given moments, each going on where the last one died.

Arguments: the teacher's folder, then moments as KIND:NUMBER:

- step: from outside, when the child has told of so many steps, wherever it is by then;
- half: inside the child's so-many-th atomic write, when half of the temporary file is on disk;
- whole: likewise, when all of it is;
- renamed: right after the child's so-many-th renaming of a temporary file or folder.

A last child may finish. One line is printed per child: the moment, and the signal or status that ended it.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from undistill.defences.training import CMIM
from undistill.tasks import Augmentation, load_task
from undistill.training import Recipe, SilentProgress, train_teacher


class Telling(SilentProgress):
    """Writes a byte per step into a pipe."""

    def __init__(self, pipe):
        self.pipe = pipe

    def step(self, epoch, step, images):
        os.write(self.pipe, b".")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number, function, before=None, after=None):
    """``function``, which does something more at its so-many-th call."""
    calls = 0

    def wrapped(*arguments):
        nonlocal calls
        calls += 1
        if calls == number and before is not None:
            before(*arguments)
        value = function(*arguments)
        if calls == number and after is not None:
            after()
        return value

    return wrapped


def halve_and_die(descriptor):
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()


def arm(kind, number):
    if kind == "half":
        os.fsync = at_call(number, os.fsync, before=halve_and_die)
    elif kind == "whole":
        os.fsync = at_call(number, os.fsync, before=lambda descriptor: die())
    elif kind == "renamed":
        os.replace = at_call(number, os.replace, after=die)


def train(folder, progress=None):
    task = replace(load_task("digits"), augmentation=Augmentation(pad=1))
    recipe = Recipe(epochs=5, batch_size=50, learning_rate=0.1, precision="float32")
    train_teacher(task, "noisy_network:make", CMIM(weight=0.3), recipe, seed=3, folder=folder, progress=progress)


def run_child(folder, kind, number):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        arm(kind, number)
        train(folder, lambda title, recipe, images: lambda done: Telling(writing))
        os._exit(0)
    os.close(writing)
    steps = 0
    while read := os.read(reading, 1):
        steps += len(read)
        if kind == "step" and steps == number:
            os.kill(child, signal.SIGKILL)
            break
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    return f"killed by {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exited with {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    teacher = Path(sys.argv[1])
    for moment in [*sys.argv[2:], "never:0"]:
        kind, number = moment.split(":")
        print(moment, run_child(teacher, kind, int(number)), flush=True)
