"""Train a teacher under a defence, and save it."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import PartialState

from undistill.defences.training import Defence
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.models import Classifier, load_checkpoint, save_checkpoint
from undistill.settings import settings_of
from undistill.tasks import Task
from undistill.training.evaluate import accuracy, predict
from undistill.training.loop import RESUME_FILE, fit
from undistill.training.network import classifier_for
from undistill.training.objectives import FromLabels
from undistill.training.progress import Progress
from undistill.training.recipe import Recipe


def train_teacher(
    task: Task,
    architecture: str,
    defence: Defence,
    recipe: Recipe,
    *,
    seed: int,
    folder: str | Path,
    tensorboard: bool = False,
    progress: Callable[[int], Progress] | None = None,
) -> Classifier:
    """Train ``architecture`` on ``task`` with ``defence`` and save it as a checkpoint in ``folder``.

    A training that was killed goes on from its last finished epoch; the state for that (and TensorBoard events) is
    kept beside the checkpoint, in ``folder`` with the suffix ``.training``. A finished training is not repeated.

    Args:
        task: the data; only its training split is learnt from.
        architecture: a name from ``undistill list models``.
        defence: what the teacher is trained with.
        recipe: optimiser, schedule, precision.
        seed: of initial weights, order and augmentation.
        folder: where the checkpoint goes.
        tensorboard: write TensorBoard events.
        progress: given the number of epochs that are already done, makes what shows the rest.

    Returns:
        The classifier, in evaluation mode. Its ``provenance`` holds task, defence, recipe, seed and accuracies.

    Raises:
        InputError: ``folder`` holds another model, or the training cannot go on (see :func:`fit`).
    """
    folder = Path(folder)
    trained: dict[str, Any] = {
        "task": task.source,
        "task_fingerprint": task.fingerprint,
        "defence": {"name": defence.name, **settings_of(defence)},
        "recipe": settings_of(recipe),
        "seed": seed,
    }
    identity = content_hash({"architecture": architecture, **trained})
    scratch = folder.with_name(f"{folder.name}.training")
    if folder.exists():
        if not holds_training(folder, architecture, identity):
            raise InputError(f"{folder} exists and holds something else than this training; choose another folder")
        _clear(scratch)
        return load_checkpoint(folder, trust_import_path=True)  # the code, if any, is what the caller named
    classifier = classifier_for(task, architecture, seed=seed)
    steps = recipe.epochs * recipe.steps_per_epoch(len(task.train))
    records = fit(
        classifier,
        task,
        FromLabels(defence.loss(task.num_classes, steps)),
        recipe,
        seed=seed,
        identity=identity,
        folder=scratch,
        validate=True,
        tensorboard=tensorboard,
        progress=progress,
    )
    classifier.provenance = {
        **trained,
        "identity": identity,
        "validation_accuracy": records[-1]["validation_accuracy"],
        "test_accuracy": accuracy(predict(classifier, task.test), task.test),
        "records": records,
    }
    if PartialState().is_main_process:
        save_checkpoint(classifier, folder)
        _clear(scratch)
    PartialState().wait_for_everyone()
    return classifier


def holds_training(folder: Path, architecture: str, identity: str) -> bool:
    """Whether ``folder`` holds the checkpoint of the training with that identity."""
    try:
        description = json.loads((folder / "model.json").read_bytes())
        return description["architecture"] == architecture and description["provenance"]["identity"] == identity
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _clear(scratch: Path) -> None:
    """Delete the state to resume from, and what a kill left of one that was being written; events are kept."""
    for file in scratch.glob(f"*{RESUME_FILE}*"):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        scratch.rmdir()
