"""Several small students trained as one program.

A step of a small network computes for some microseconds, and Python and PyTorch's dispatcher take some hundreds to
arrange it. So students of one architecture, recipe and number of images are stacked: their weights are rows of one
matrix, their layers one batched product (:mod:`undistill.training.stacked`), their optimiser one call. Each student
keeps its own data, order, loss and clipping.

**A result never depends on the company.** A student that can be stacked always is, be it alone, so every outcome comes
from this program; and in it each number of a student is computed by the same instructions, whatever stands beside it:
every student's rows and weights are padded to whole vectors, so that none of its numbers falls into the remainder of a
loop, where another instruction rounds differently, and each matrix of a batched product begins at the same alignment.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from undistill.models import MODELS, Classifier
from undistill.tasks import Task
from undistill.training.loop import (
    STEPS_BETWEEN_LOOKS,
    EpochRecord,
    NonFiniteLossError,
    check_losses,
    check_weights,
    fit,
)
from undistill.training.objectives import Objective
from undistill.training.progress import Progress, SilentProgress
from undistill.training.recipe import Recipe
from undistill.training.stacked import can_stack, stack, whole

STACKED_UP_TO = 50_000
"""Parameters of the largest student that is stacked; larger ones gain little (docs/benchmarks.md, "packing")."""

WHOLE = 64
"""Floats that every row of numbers is padded to a multiple of: several vectors of any processor."""

VALUES_AT_ONCE = 4_000_000
"""Pixels of prepared batches that are in memory at once."""


@dataclass(frozen=True)
class Training:
    """What one training takes: the arguments of :func:`undistill.training.fit`, for a student.

    Args:
        classifier: the network, trained in place.
        task: the data.
        objective: one loss per example.
        recipe: optimiser, schedule, precision.
        seed: of the order and the augmentation.
        progress: given 0, the number of epochs that are already done, makes what is told of the training.
    """

    classifier: nn.Module
    task: Task
    objective: Objective
    recipe: Recipe
    seed: int
    progress: Callable[[int], Progress] | None = None


def fit_all(trainings: Sequence[Training]) -> list[list[EpochRecord] | NonFiniteLossError]:
    """Train students: those that can be, together; the others one after the other.

    Which of the two it is depends on the training alone (:func:`stackable`), never on how many there are.

    Args:
        trainings: of any kind; those that fit together are found here.

    Returns:
        What each epoch measured, as of :func:`undistill.training.fit`; for a training that diverged, the error that it
        would raise, and its network is left as it then was.

    Example:
        >>> from undistill.defences.training import LabelSmoothing
        >>> from undistill.tasks import load_task
        >>> from undistill.training import FromLabels, classifier_for
        >>> task, recipe = load_task("digits"), Recipe(epochs=2, batch_size=50)
        >>> def training(seed):
        ...     objective = FromLabels(LabelSmoothing(0.1).loss(10, steps=20))
        ...     return Training(classifier_for(task, "mlp-16", seed=seed), task, objective, recipe, seed)
        >>> [first, second] = fit_all([training(0), training(1)])
        >>> [alone] = fit_all([training(1)])
        >>> [record["loss"] for record in alone] == [record["loss"] for record in second]
        True
    """
    found: dict[int, list[EpochRecord] | NonFiniteLossError] = {}
    together: dict[object, list[int]] = {}
    for place, training in enumerate(trainings):
        if stackable(training):
            together.setdefault(_kind(training), []).append(place)
        else:
            found[place] = _fit_alone(training)
    for places in together.values():
        found |= zip(places, _Stack([trainings[place] for place in places]).train(), strict=True)
    return [found[place] for place in range(len(trainings))]


def fit_one(training: Training) -> list[EpochRecord]:
    """Train one student, as :func:`fit_all` would in any company.

    Raises:
        NonFiniteLossError: the loss, or a weight, became NaN or infinite.
    """
    [found] = fit_all([training])
    if isinstance(found, NonFiniteLossError):
        raise found
    return found


def stackable(training: Training) -> bool:
    """Whether a training is run by the stacked program: a perceptron or a CNN for signals, of at most
    :data:`STACKED_UP_TO` parameters, in float32, by one process on a CPU.

    Larger networks spend their time in computing, not in arranging it, and a network that an attack has dressed has
    layers that are not known here.
    """
    network = training.classifier
    return (
        isinstance(network, Classifier)
        and can_stack(network.net)
        and sum(parameter.numel() for parameter in network.parameters()) <= STACKED_UP_TO
        and not training.recipe.bfloat16(torch.device("cpu"), training.task.input_shape)
        and not torch.accelerator.is_available()
        and int(os.environ.get("WORLD_SIZE", "1")) == 1
    )


def stacks(architecture: str) -> bool:
    """Whether students of an architecture can be stacked at all, if they are small enough.

    >>> stacks("mlp-64"), stacks("cnn1d-small"), stacks("resnet8")
    (True, True, False)
    """
    return architecture == "cnn1d-small" or MODELS["mlp-H"].match(architecture) is not None


def _kind(training: Training) -> object:
    """Trainings of one kind can be stacked with each other."""
    shapes = tuple(parameter.shape for parameter in training.classifier.parameters())
    task = training.task
    return shapes, training.recipe, len(task.train), task.input_shape, training.objective.blocks


def _fit_alone(training: Training) -> list[EpochRecord] | NonFiniteLossError:
    shown = training.progress
    try:
        return fit(
            training.classifier,
            training.task,
            training.objective,
            training.recipe,
            seed=training.seed,
            progress=None if shown is None else lambda done: shown(len(done)),
        )
    except NonFiniteLossError as error:
        training.classifier.to("cpu").eval()
        return error


class _Run:
    """One student of a stack: the row ``place`` of its weights."""

    def __init__(self, training: Training, place: int) -> None:
        assert isinstance(training.classifier, Classifier)
        self.training, self.place, self.classifier = training, place, training.classifier
        self.objective, self.labels = training.objective, training.task.train.labels
        self.records: list[EpochRecord] = []
        self.error: NonFiniteLossError | None = None
        self.told: Progress = SilentProgress() if training.progress is None else training.progress(0)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.classifier.parameters())

    def begin_epoch(self, epoch: int, used: int) -> None:
        """Look at the epoch's view, of which the first ``used`` images are trained on."""
        training = self.training
        self.view = self.objective.begin_epoch(
            training.task, training.seed, epoch, training.recipe.epochs, torch.device("cpu")
        )
        self.order = self.view.order[:used]

    def batches(self, chosen: slice, batch_size: int) -> Float[Tensor, "steps rows pixels"]:
        """Some normalised batches; the blocks of views, where there are several, one after the other."""
        images = self.view.images(self.order[chosen]).float().div_(255)
        pixels = ((images - self.classifier.mean) / self.classifier.std).flatten(1)
        blocks = pixels.view(self.objective.blocks, -1, batch_size, pixels.shape[1])
        return blocks.transpose(0, 1).flatten(1, 2)


class _Stack:
    """Students of one kind, whose weights are the rows of one matrix."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        # Students with one loss stand next to each other.
        alike: dict[object, list[int]] = {}
        for given, training in enumerate(trainings):
            alike.setdefault(training.objective.rows_key or given, []).append(given)
        self.given = [given for group in alike.values() for given in group]
        self.runs = [_Run(trainings[given], place) for place, given in enumerate(self.given)]

        images = len(trainings[0].task.train)
        self.recipe = trainings[0].recipe
        self.batch_size, self.steps = min(self.recipe.batch_size, images), self.recipe.steps_per_epoch(images)
        looked_at = self.batch_size * trainings[0].objective.blocks
        self.rows = whole(looked_at, WHOLE)
        self.network = stack([run.classifier.net for run in self.runs], looked_at, trainings[0].task.input_shape[0])
        pixels = trainings[0].task.train.images[0].numel()
        self.steps_at_once = max(1, VALUES_AT_ONCE // (len(self.runs) * self.rows * pixels))
        self.prepared = torch.zeros(min(self.steps_at_once, self.steps), len(self.runs), self.rows, pixels)

        self.shapes = [parameter.shape for parameter in self.runs[0].parameters]
        self.pieces = [size for shape in self.shapes for size in (shape.numel(), -shape.numel() % WHOLE)]
        self.weights = nn.Parameter(torch.zeros(len(self.runs), sum(self.pieces)))
        for run in self.runs:
            for row, parameter in self._rows(run):
                row.copy_(parameter.detach())

    def train(self) -> list[list[EpochRecord] | NonFiniteLossError]:
        """Train all; the outcomes in the order of the trainings."""
        optimiser = self.recipe.optimiser([self.weights])
        scheduler = self.recipe.scheduler(optimiser, self.recipe.epochs * self.steps)
        with ExitStack() as shown:
            for run in self.runs:
                shown.enter_context(run.told)
            for epoch in range(self.recipe.epochs):
                self._epoch(epoch, optimiser, scheduler)
        for run in self.alive:
            self._hand_back(run)
        outcomes = {given: run.error or run.records for given, run in zip(self.given, self.runs, strict=True)}
        return [outcomes[given] for given in range(len(outcomes))]

    @property
    def alive(self) -> list[_Run]:
        """Students that have not diverged."""
        return [run for run in self.runs if run.error is None]

    def _epoch(self, epoch: int, optimiser: Optimizer, scheduler: LRScheduler) -> None:
        started, rate = time.monotonic(), optimiser.param_groups[0]["lr"]
        labels = torch.full((self.steps, len(self.runs), self.batch_size), -1)
        for run in self.alive:
            run.begin_epoch(epoch, self.steps * self.batch_size)
            labels[:, run.place] = run.labels[run.order].view(self.steps, self.batch_size)
        alive = self.alive
        loss = _Losses(alive, len(self.runs), self.steps, self.batch_size)
        losses = torch.zeros(len(self.runs), self.steps)
        hits = torch.zeros(len(self.runs), dtype=torch.int64)
        for step in range(self.steps):
            if not alive:
                return
            if step % self.steps_at_once == 0:
                self._prepare(alive, step)
            logits = self._logits(self.prepared[step % self.steps_at_once])
            means = loss.means(step, logits)
            means.sum().backward()
            self._step(optimiser)
            for run in alive:
                run.objective.after_step(optimiser.param_groups[0]["lr"])
            scheduler.step()
            losses[loss.places, step] = means.detach()
            hits += (logits.detach()[:, : self.batch_size].argmax(2) == labels[step]).sum(1)
            for run in alive:
                run.told.step(epoch, step, self.batch_size)
            looks = (step + 1) % STEPS_BETWEEN_LOOKS == 0 or step + 1 == self.steps
            if looks and not losses.isfinite().all():
                for run in alive:
                    self._judge(
                        run, partial(check_losses, losses[run.place, : step + 1], epoch, self.steps, self.recipe)
                    )
                losses.nan_to_num_(posinf=0.0, neginf=0.0)  # of those that are dropped, so that they are not seen again
                alive = self.alive
                loss = _Losses(alive, len(self.runs), self.steps, self.batch_size)
        if not self.weights.isfinite().all():
            for run in alive:
                self._judge(run, partial(check_weights, run.classifier, epoch, self.recipe))
        means, shares = losses.mean(1), hits / (self.steps * self.batch_size)
        for run in self.alive:
            record: EpochRecord = {
                "epoch": epoch,
                "loss": means[run.place].item(),
                "train_accuracy": 100 * shares[run.place].item(),
                "learning_rate": rate,
                "images": self.steps * self.batch_size,
                "seconds": time.monotonic() - started,
            }
            run.records.append(record)
            run.told.epoch(dict(record))

    def _prepare(self, alive: Sequence[_Run], step: int) -> None:
        """Make the batches of some steps, from this one on. Rows after a batch's own are zeros."""
        for run in alive:
            batches = run.batches(
                slice(step * self.batch_size, (step + self.steps_at_once) * self.batch_size), self.batch_size
            )
            self.prepared[: len(batches), run.place, : batches.shape[1]] = batches

    def _logits(self, images: Float[Tensor, "students rows pixels"]) -> Float[Tensor, "students rows classes"]:
        pieces = self.weights.split(self.pieces, 1)[::2]
        return self.network(images, [piece.view(-1, *shape) for piece, shape in zip(pieces, self.shapes, strict=True)])

    def _step(self, optimiser: Optimizer) -> None:
        gradient = self.weights.grad
        assert gradient is not None
        if self.recipe.clip_norm > 0:  # student by student, as PyTorch's clip_grad_norm_ would
            norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient.mul_((self.recipe.clip_norm / (norms + 1e-6)).clamp_max(1.0))
        optimiser.step()
        self.weights.grad = None

    def _judge(self, run: _Run, check: Callable[[], None]) -> None:
        """End a training that a check refuses. Its network is left as it is at this moment."""
        self._hand_back(run)
        try:
            check()
        except NonFiniteLossError as error:
            run.error = error
            with torch.no_grad():
                self.weights[run.place] = 0.0

    def _hand_back(self, run: _Run) -> None:
        """Give a classifier its weights."""
        with torch.no_grad():
            for row, parameter in self._rows(run):
                parameter.copy_(row)
            self.network.hand_back(run.place, run.classifier.net)
        run.classifier.eval()

    def _rows(self, run: _Run) -> Iterator[tuple[Tensor, nn.Parameter]]:
        """Each parameter of a classifier, and before it the same numbers in the matrix."""
        pieces = self.weights.detach()[run.place].split(self.pieces)[::2]
        for piece, parameter in zip(pieces, run.parameters, strict=True):
            yield piece.view(parameter.shape), parameter


class _Losses:
    """The mean losses of students at each step of an epoch.

    Neighbours whose loss looks at each row alone, and is the same, are given to one call, in whole vectors; all others
    call their own.

    Args:
        alive: the students, who have begun the epoch.
        students: how many rows of logits there are, those of others included.
        steps: of the epoch.
        batch_size: images of a step.
    """

    def __init__(self, alive: Sequence[_Run], students: int, steps: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.places = torch.tensor([run.place for run in alive], dtype=torch.int64)
        self.parts: list[int] = []  # rows of logits of each call, and of those in between that belong to nobody
        self.calls: dict[int, Callable[[int, Tensor], Tensor]] = {}
        for _, group in groupby(enumerate(alive), key=lambda pair: (_name_of_loss(pair[1]), pair[1].place - pair[0])):
            runs = [run for _, run in group]
            self.parts.append(runs[0].place - sum(self.parts))
            self.calls[len(self.parts)] = self._rows(runs, steps) if runs[0].objective.rows_key else self._own(runs[0])
            self.parts.append(len(runs))
        self.parts.append(students - sum(self.parts))

    def means(self, step: int, logits: Float[Tensor, "students rows classes"]) -> Float[Tensor, "alive"]:
        """Each student's mean loss, with gradient."""
        parts = logits.split(self.parts)
        return torch.cat([call(step, parts[place]) for place, call in self.calls.items()])

    def _own(self, run: _Run) -> Callable[[int, Tensor], Tensor]:
        rows, objective = self.batch_size * run.objective.blocks, run.objective
        batches = [(indices, run.labels[indices]) for indices in run.order.split(self.batch_size)]

        def mean(step: int, logits: Float[Tensor, "1 rows classes"]) -> Float[Tensor, "1"]:
            indices, labels = batches[step]
            return objective(logits[0, :rows], labels, indices).mean()[None]

        return mean

    def _rows(self, runs: Sequence[_Run], steps: int) -> Callable[[int, Tensor], Tensor]:
        # What fills up a vector is an example like any other, so that its loss is as finite as theirs.
        places = torch.arange(whole(self.batch_size, WHOLE))
        fill = places.where(places < self.batch_size, 0)
        orders = torch.stack([run.order.view(steps, self.batch_size)[:, fill] for run in runs], 1)
        labels = torch.stack([run.labels[orders[:, k]] for k, run in enumerate(runs)], 1).flatten(1)
        beside = [run.objective.rows_beside(orders[:, k].flatten()) for k, run in enumerate(runs)]
        answers = None
        if beside[0] is not None:
            answers = torch.stack([rows.view(steps, len(fill), -1) for rows in beside if rows is not None], 1).flatten(
                1, 2
            )
        objective = runs[0].objective

        def means(step: int, logits: Float[Tensor, "some rows classes"]) -> Float[Tensor, "some"]:
            rows = objective.rows_loss(logits.flatten(0, 1), labels[step], None if answers is None else answers[step])
            return rows.view(len(runs), -1)[:, : self.batch_size].mean(1)

        return means


def _name_of_loss(run: _Run) -> object:
    return run.objective.rows_key or run.place
