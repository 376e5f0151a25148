"""The training loop."""

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from undistill.errors import InputError, require
from undistill.files import write_atomic
from undistill.tasks import Task
from undistill.training.evaluate import accuracy, predict
from undistill.training.objectives import Objective
from undistill.training.progress import Progress, SilentProgress
from undistill.training.recipe import Recipe

# A look at the losses waits for the device, so it is taken once in so many steps.
STEPS_BETWEEN_LOOKS = 32
RESUME_FILE = "resume.pt"

Stateful = nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler


class EpochRecord(TypedDict):
    """One epoch of a training: what was measured at its end."""

    epoch: int
    loss: float
    train_accuracy: float
    learning_rate: float
    images: int
    seconds: float
    validation_accuracy: NotRequired[float]


class NonFiniteLossError(InputError):
    """The loss, or a weight, became NaN or infinite. The message names the step, the values before it, what to try."""


def fit(
    classifier: nn.Module,
    task: Task,
    objective: Objective,
    recipe: Recipe,
    *,
    seed: int,
    identity: str = "",
    folder: Path | None = None,
    validate: bool = False,
    tensorboard: bool = False,
    progress: Callable[[Sequence[EpochRecord]], Progress] | None = None,
) -> list[EpochRecord]:
    """Train ``classifier`` in place on the training split and return what each epoch measured.

    Order of samples, augmentation and dropout are functions of (seed, epoch); the learning rate of the step. So two
    runs with one seed see the same images in the same order whatever their losses are, and a training that resumes
    after a kill gives the same weights, bit for bit, as one that ran through (same machine, same thread count).
    The last epoch's weights are kept, never the best epoch's.

    Under ``torchrun`` or ``accelerate launch`` each process takes every n-th image of each batch and gradients are
    averaged: ``recipe.batch_size`` counts the images of all processes, and ``recipe.precision`` holds whatever the
    launcher is set to. Each process normalises its own share of a batch; the first one's running statistics are kept.

    Args:
        classifier: the network, images in [0, 1] in, logits out; it comes back on the CPU, in evaluation mode. In
            training mode it may return several blocks of logits, its own first.
        task: the data.
        objective: one loss per example.
        recipe: optimiser, schedule, precision.
        seed: of the order and the augmentation. (Initial weights are the caller's: ``make_classifier(seed=...)``.)
        identity: a name for everything that determines the training; a resume state of another identity is refused.
            With ``folder`` it must be given.
        folder: where the state to resume from is kept, rewritten at each epoch's end; None keeps none.
        validate: measure accuracy on the validation split after each epoch.
        tensorboard: write the records to ``folder`` as TensorBoard events (extra ``tracking``).
        progress: given the records of the epochs that are already done, makes what is told of the others.

    Raises:
        NonFiniteLossError: the loss, or a weight, became NaN or infinite.
        InputError: the batch cannot be shared among the processes, ``folder`` holds another training or comes
            without ``identity``, or ``tensorboard`` comes without ``folder``.
    """
    # Takes a tenth of a second, and most commands train nothing in their own process.
    from accelerate import Accelerator
    from accelerate.utils import broadcast

    if folder is not None and not identity:
        raise InputError(f"the state kept in {folder} needs an identity, so that no other training goes on from it")
    if tensorboard:
        if folder is None:
            raise InputError("TensorBoard events need a folder to go to; give one, or leave tensorboard off")
        require("tensorboard", "tracking")
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else several processes on the CPU would each train alone
        mixed_precision="no",
        log_with="tensorboard" if tensorboard else None,
        project_dir=str(folder) if tensorboard else None,
    )
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    batch_size = min(recipe.batch_size, len(task.train))
    if batch_size % world:
        raise InputError(
            f"a batch of {batch_size} images cannot be shared by {world} processes; choose a multiple of {world}"
        )
    if tensorboard:
        accelerator.init_trackers("undistill")
    steps = recipe.steps_per_epoch(len(task.train))
    bfloat16 = recipe.bfloat16(device, task.input_shape)

    classifier.to(device).to(memory_format=torch.channels_last if len(task.input_shape) == 3 else torch.preserve_format)
    objective.to(device)
    optimiser = recipe.optimiser(list(classifier.parameters()))
    scheduler = recipe.scheduler(optimiser, recipe.epochs * steps)
    resume = None if folder is None else ResumeState(folder / RESUME_FILE, identity)
    parts: dict[str, Stateful] = {
        "model": classifier,
        "optimiser": optimiser,
        "scheduler": scheduler,
        "objective": objective,
    }
    records = [] if resume is None else resume.restore(parts, device)
    # Accelerate's own backward, clipping and optimiser do the same, but take longer than a small network's step.
    network: nn.Module = accelerator.prepare(classifier)
    parameters = list(network.parameters())
    labels = task.train.labels.to(device)
    # On a CPU the generators of all other devices are left alone: to reach them takes as long as some steps.
    reseed = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
    with torch.random.fork_rng(), _shown(progress, records, accelerator.is_main_process) as told:
        for epoch in range(len(records), recipe.epochs):
            started = time.monotonic()
            reseed(_dropout_seed(seed, epoch, rank))
            view = objective.begin_epoch(task, seed, epoch, recipe.epochs, device)
            network.train()
            losses = torch.zeros(steps, device=device)
            hits = torch.zeros((), device=device)
            rate = optimiser.param_groups[0]["lr"]
            for step in range(steps):
                indices = view.order[step * batch_size + rank : (step + 1) * batch_size : world]
                images = view.images(indices).float().div_(255)
                targets = labels[indices]
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    objective.before_step(images, indices)
                    logits = network(images)
                loss = objective(logits.float(), targets, indices).mean()
                loss.backward()
                if recipe.clip_norm > 0:
                    nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
                optimiser.step()
                objective.after_step(optimiser.param_groups[0]["lr"])
                scheduler.step()
                optimiser.zero_grad()
                losses[step] = loss.detach()
                hits += (logits.detach()[: len(targets)].argmax(1) == targets).sum()
                told.step(epoch, step, batch_size)
                if (step + 1) % STEPS_BETWEEN_LOOKS == 0 or step + 1 == steps:
                    check_losses(losses[: step + 1], epoch, steps, recipe)
            for buffer in classifier.buffers():
                broadcast(buffer)
            check_weights(classifier, epoch, recipe)
            means = accelerator.reduce(torch.stack([losses.mean(), hits / (steps * batch_size / world)]), "mean")
            record: EpochRecord = {
                "epoch": epoch,
                "loss": means[0].item(),
                "train_accuracy": 100 * means[1].item(),
                "learning_rate": rate,
                "images": steps * batch_size,
                "seconds": time.monotonic() - started,
            }
            if validate:
                record["validation_accuracy"] = accuracy(predict(classifier, task.validation, device), task.validation)
            records.append(record)
            if tensorboard:
                accelerator.log({k: v for k, v in record.items() if k != "epoch"}, step=epoch)
            if resume is not None:
                if accelerator.is_main_process:
                    resume.save(parts, records)
                accelerator.wait_for_everyone()
            told.epoch(dict(record))
    if tensorboard:
        accelerator.end_training()
    classifier.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return records


class ResumeState:
    """What a killed training needs to go on, in one file that is rewritten whole or not at all."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    def save(self, parts: dict[str, Stateful], records: list[EpochRecord]) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        write_state(self.path, {"identity": self.identity, "records": records, **state})

    def restore(self, parts: dict[str, Stateful], device: torch.device) -> list[EpochRecord]:
        """Load the state into ``parts`` and return the records of the finished epochs; none if nothing is stored."""
        if not self.path.exists():
            return []
        saved = read_state(self.path, self.identity, device)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return saved["records"]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a killed training needs to go on: the whole file or nothing."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def read_state(path: Path, identity: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What :func:`write_state` wrote, if it belongs to the training of that identity.

    Raises:
        InputError: it belongs to another one.
    """
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if saved["identity"] != identity:
        raise InputError(
            f"{path} is the state of another training ({saved['identity']!r}, not {identity!r}); "
            "give another folder, or delete that file to start anew"
        )
    return saved


def _shown(
    progress: Callable[[Sequence[EpochRecord]], Progress] | None, done: Sequence[EpochRecord], main: bool
) -> Progress:
    return progress(tuple(done)) if progress is not None and main else SilentProgress()


def _dropout_seed(seed: int, epoch: int, rank: int) -> int:
    digest = hashlib.sha256(f"dropout {seed} {epoch} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def check_losses(losses: Tensor, epoch: int, steps: int, recipe: Recipe) -> None:
    """Refuse an epoch's losses, as far as there are any, that are NaN or infinite.

    Raises:
        NonFiniteLossError: where, and the losses before.
    """
    broken = (~losses.isfinite()).nonzero()
    if not len(broken):
        return
    first = int(broken[0])
    before = ", ".join(f"{value:.4g}" for value in losses[max(0, first - 3) : first].tolist()) or "none in this epoch"
    raise NonFiniteLossError(
        f"the loss became {losses[first].item()} at step {epoch * steps + first} (epoch {epoch}, step {first} of "
        f"{steps}; losses just before: {before}; highest learning rate {recipe.learning_rate}); {_advice(recipe)}"
    )


def check_weights(classifier: nn.Module, epoch: int, recipe: Recipe) -> None:
    """Refuse weights that the last step's gradient broke, and that no loss has seen yet.

    Raises:
        NonFiniteLossError: which.
    """
    broken = [name for name, tensor in classifier.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise NonFiniteLossError(
            f"{len(broken)} weights became NaN or infinite in epoch {epoch}, with finite losses (first: {broken[0]}; "
            f"highest learning rate {recipe.learning_rate}); {_advice(recipe)}"
        )


def _advice(recipe: Recipe) -> str:
    return (
        f"try a learning rate of {recipe.learning_rate / 3:.2g}, a clip_norm of 1, a smaller weight of the defence, "
        "or precision float32"
    )
