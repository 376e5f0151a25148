"""An audit's trainings beside the same cells as one would script them without this package."""

import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.material import TINY_RATE, fresh, random_task
from benchmarks.throughput import PlainDataset, crop_at_random, flip_at_random, normalise, to_tensor
from benchmarks.timing import Figure, quotients, stopwatch, take_turns
from undistill.attacks import Attack, FullAverager
from undistill.audit import Store, Trial
from undistill.audit.execution import Pool
from undistill.audit.packing import pack
from undistill.audit.versions import QUICK
from undistill.blackbox import AnswerCache, LocalBlackBox
from undistill.models import Classifier
from undistill.tasks import Task
from undistill.training import Recipe

BATTERY: tuple[Attack, ...] = tuple(attack for grid in QUICK for attack in grid if not isinstance(attack, FullAverager))
"""What a ``quick`` audit tries before it judges; without the Averager, which asks in a way of its own."""


def plain_way(
    *,
    task: Task | None = None,
    teacher: str = "resnet20",
    student: str = "resnet8",
    classes: int = 20,
    images: int = 640,
    batch_size: int = 128,
    epochs: int = 2,
    attacks: tuple[Attack, ...] = BATTERY,
    cores: int = 1,
    repeats: int = 3,
) -> list[Figure]:
    """Knockoffs by several settings of attacks, on a task or on noise: an audit's way against a script for each.

    The script is float32, channels first, with PIL transforms in a DataLoader, and asks the teacher at every step. The
    audit's way is that of ``undistill.audit``, from an empty store: answers are asked for once and shared. Both include
    the test images at the end. The teacher is untrained, for speed does not depend on it.

    ``cores``: a script uses that many threads, as PyTorch does by itself, and an audit that many workers of one thread.
    """
    task = random_task(images, classes) if task is None else task
    taught = fresh(teacher, task)
    recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=TINY_RATE)
    box = LocalBlackBox("teacher", taught)
    trials = [Trial(task.fingerprint, student, recipe, 0, attack, teacher=box.fingerprint) for attack in attacks]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store, cache = Store(Path(folder) / "trials"), AnswerCache(Path(folder) / "answers")
            with Pool([task], [box], cache, workers=cores) as pool:
                pool.run(pack(trials, workers=cores), store.write)

    def plain() -> None:
        torch.set_num_threads(cores)
        for attack in attacks:
            PlainScript(attack, taught, student, task, batch_size).run(epochs)
        torch.set_num_threads(1)

    seconds = take_turns({"scripts": stopwatch(plain), "audit": stopwatch(ours)}, repeats=repeats, warmups=0)
    return [
        *(Figure(name, "s per knockoff", tuple(v / len(attacks) for v in values)) for name, values in seconds.items()),
        Figure("scripts / audit", "x", quotients(seconds["scripts"], seconds["audit"]), at_least=4),
    ]


class PlainScript:
    """Distillation as in a tutorial.

    Args:
        attack: the loss.
        teacher: asked about every batch.
        student: architecture.
        task: the data.
        batch_size: images per step.
    """

    def __init__(self, attack: Attack, teacher: Classifier, student: str, task: Task, batch_size: int) -> None:
        transforms = (crop_at_random, flip_at_random, to_tensor, normalise(task.mean, task.std))
        self.loader = DataLoader(PlainDataset(task, transforms), batch_size=batch_size, shuffle=True, drop_last=True)
        self.attack, self.teacher, self.task = attack, teacher.net.eval(), task
        self.network = fresh(student, task).net
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), lr=TINY_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    def run(self, epochs: int) -> float:
        """Train, and return the accuracy on the test images."""
        for _ in range(epochs):
            self.network.train()
            for images, labels in self.loader:
                with torch.no_grad():
                    log_probs = torch.log_softmax(self.teacher(images), 1)
                self.optimiser.zero_grad()
                loss = self.attack.loss(self.network(images), log_probs, labels).mean()
                loss.backward()
                self.optimiser.step()
        self.network.eval()
        test = self.task.test
        normalised = torch.stack([normalise(self.task.mean, self.task.std)(image / 255) for image in test.images])
        with torch.no_grad():
            return (self.network(normalised).argmax(1) == test.labels).double().mean().item()
