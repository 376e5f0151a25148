"""What the benchmarks run on: random images, fresh networks, and a training step with a clock between its parts."""

import time
from itertools import cycle, pairwise

import torch

from undistill.information import DEFAULT_POWERS
from undistill.models import Classifier
from undistill.tasks import Split, Task, default_augmentation
from undistill.training import Objective, Recipe, SilentProgress, classifier_for, fit

PARTS = ("data", "forward", "loss", "backward", "optimiser")
TEN_POWERS = DEFAULT_POWERS[4:14]
"""The ten powers of the default grid from 1/20 to 1."""
TINY_RATE = 1e-6
"""A learning rate at which noise does not make a network diverge: a step on NaN is not a step."""


def random_task(images: int, classes: int, shape: tuple[int, ...] = (3, 32, 32)) -> Task:
    """A task of noise, with classes of equal size, augmented as ``load_task`` would."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pixels = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
        return Split(pixels, torch.arange(count) % classes)

    names = tuple(map(str, range(classes)))
    return Task("noise", names, split(images), split(classes), split(classes), default_augmentation(shape))


def fresh(architecture: str, task: Task) -> Classifier:
    """A network for ``task`` with initial weights."""
    return classifier_for(task, architecture, seed=0)


class StepClock(SilentProgress):
    """Notes when each step of a training ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def step(self, epoch: int, step: int, images: int) -> None:
        self.ends.append(time.perf_counter())


def second_epoch(architecture: str, task: Task, objective: Objective, recipe: Recipe) -> float:
    """Seconds that :func:`undistill.training.fit` takes for its second epoch of two, with all that is between steps."""
    clock = StepClock()
    fit(fresh(architecture, task), task, objective, recipe, seed=0, progress=lambda done: clock)
    return clock.ends[-1] - clock.ends[recipe.steps_per_epoch(len(task.train)) - 1]


class Trainee:
    """A network in training, one step of the training loop at a time.

    Args:
        architecture: of the network.
        task: the data; its batches come again and again.
        recipe: optimiser, batch size and precision.
        memory_format: of network and images; the loop's own is channels-last.
    """

    def __init__(
        self,
        architecture: str,
        task: Task,
        recipe: Recipe,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.memory_format = memory_format
        self.classifier = fresh(architecture, task).to(memory_format=memory_format)
        self.optimiser = recipe.optimiser(list(self.classifier.parameters()))
        self.scheduler = recipe.scheduler(self.optimiser, 10**6)
        self.bfloat16 = recipe.bfloat16(torch.device("cpu"), task.input_shape)
        self.labels = task.train.labels
        self.view = task.view(seed=0, epoch=0)
        self.batches = cycle(self.view.order.split(recipe.batch_size)[: recipe.steps_per_epoch(len(task.train))])

    def step(self, objective: Objective) -> dict[str, float]:
        """Take one step as :func:`undistill.training.fit` does; the seconds of each of :data:`PARTS`."""
        indices = next(self.batches)
        marks = [time.perf_counter()]
        images = self.view.images(indices).float().div_(255).contiguous(memory_format=self.memory_format)
        targets = self.labels[indices]
        marks.append(time.perf_counter())
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.classifier(images)
        marks.append(time.perf_counter())
        loss = objective(logits.float(), targets, indices).mean()
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        self.optimiser.step()
        self.scheduler.step()
        self.optimiser.zero_grad()
        marks.append(time.perf_counter())
        return {part: end - start for part, (start, end) in zip(PARTS, pairwise(marks), strict=True)}
