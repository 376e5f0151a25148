"""Train a teacher under a defence, and save it."""

import copy
import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from undistill.defences.training import CrossEntropy, Defence
from undistill.errors import InputError
from undistill.files import content_hash, json_number
from undistill.models import Classifier, load_checkpoint, save_checkpoint
from undistill.settings import settings_of
from undistill.tasks import Task
from undistill.training.collapse import CollapseWatch, weaker_watch
from undistill.training.companions import load_normal, load_start
from undistill.training.evaluate import accuracy, predict
from undistill.training.loop import RESUME_FILE, fit
from undistill.training.network import classifier_for
from undistill.training.objectives import FromLabels
from undistill.training.progress import ShowTraining
from undistill.training.recipe import Recipe
from undistill.training.seconds import all_seconds
from undistill.training.workshop import ONCE_FILE, TeacherWorkshop


def train_teacher(
    task: Task,
    architecture: str,
    defence: Defence,
    recipe: Recipe,
    *,
    seed: int,
    folder: str | Path,
    normal: str | Path | None = None,
    start: str | Path | None = None,
    tensorboard: bool = False,
    progress: ShowTraining | None = None,
) -> Classifier:
    """Train ``architecture`` on ``task`` with ``defence`` and save it as a checkpoint in ``folder``.

    A training that was killed goes on from its last finished epoch; the state for that (and TensorBoard events) is
    kept beside the checkpoint, in ``folder`` with the suffix ``.training``. A finished training is not repeated.

    A defence that needs a normal teacher gets one: that of ``normal``, or one that is trained first, with cross entropy
    and the same architecture, recipe and seed, and kept in ``folder`` with the suffix ``.normal``.

    An epoch after which the validation accuracy is under half of what the normal teacher had after the same epoch (for
    a training that starts from a trained network: under half of what that had) is a collapse. Where neither is known,
    the weaker watch compares with the training's own best epoch and with guessing. A collapse is told to ``progress``
    as it happens, and stands in the provenance.

    Args:
        task: the data; only its training split is learnt from.
        architecture: a name from ``undistill list models``.
        defence: what the teacher is trained with.
        recipe: optimiser, schedule, precision. A defence that fine-tunes the normal teacher takes a share of its epochs
            and learning rate.
        seed: of initial weights, order and augmentation.
        folder: where the checkpoint goes.
        normal: checkpoint of a normal teacher, of the same task and architecture. A defence that needs none is watched
            for a collapse with it, not by the weaker watch.
        start: checkpoint whose weights the training starts from, of the same task and architecture.
        tensorboard: write TensorBoard events.
        progress: given a title, a recipe and a number of images, makes what shows a training.

    Returns:
        The classifier, in evaluation mode. Its ``provenance`` holds task, defence, recipe, seed, accuracies, where
        it started, its normal teacher, the seconds of the trainings that it was built on, the collapse watch, and what
        the defence's own check found.

    Raises:
        InputError: ``folder`` holds another model, ``normal`` or ``start`` does not fit, or the training cannot go on
            (see :func:`fit`).
    """
    from accelerate import PartialState  # as in the training loop

    folder = Path(folder)
    defence = defence.for_classes(task.num_classes)
    normal_teacher = None if normal is None else load_normal(Path(normal), task, architecture)
    begun = None if start is None else load_start(Path(start), task, architecture)
    if begun is not None and defence.fine_tuning is not None:
        raise InputError(
            f"{defence.name} starts from its normal teacher; give {start} as the normal teacher, not as the start"
        )
    trained = _settings(task, defence, recipe, seed)
    built_on = {} if begun is None else {begun.fingerprint(): all_seconds(begun.provenance)}
    if begun is not None:
        trained["start"] = {"fingerprint": begun.fingerprint()}
    if defence.needs_normal:
        plain = _settings(task, CrossEntropy(), recipe, seed)
        trained["normal"] = (
            {"identity": _identity(architecture, plain)}
            if normal_teacher is None
            else {"fingerprint": normal_teacher.fingerprint()}
        )
    identity = _identity(architecture, trained)
    scratch = folder.with_name(f"{folder.name}.training")
    if folder.exists():
        if not holds_training(folder, architecture, identity):
            raise InputError(f"{folder} exists and holds something else than this training; choose another folder")
        _clear(scratch)
        return load_checkpoint(folder, trust_import_path=True)  # the code, if any, is what the caller named
    if defence.needs_normal and normal_teacher is None:
        normal_teacher = train_teacher(
            task,
            architecture,
            CrossEntropy(),
            recipe,
            seed=seed,
            folder=normal_folder(folder),
            tensorboard=tensorboard,
            progress=progress,
        )

    own_recipe = recipe
    if normal_teacher is not None and (less := defence.fine_tuning) is not None:
        begun = copy.deepcopy(normal_teacher)
        epochs = max(1, round(less.epochs * recipe.epochs))
        own_recipe = replace(recipe, epochs=epochs, learning_rate=less.rate * recipe.learning_rate)
    if normal_teacher is not None and defence.needs_normal:
        built_on[normal_teacher.fingerprint()] = all_seconds(normal_teacher.provenance)  # once, if it is the start, too
    watch = _watch(task, own_recipe, begun, normal_teacher)
    device = PartialState(cpu=not torch.accelerator.is_available()).device
    classifier = (begun or classifier_for(task, architecture, seed=seed)).to(device)
    workshop = TeacherWorkshop(
        task,
        classifier,
        normal_teacher.to(device) if normal_teacher is not None and defence.needs_normal else None,
        started=begun is not None,
        scratch=scratch,
        identity=identity,
    )
    loss = defence.loss(task.num_classes, own_recipe.epochs * own_recipe.steps_per_epoch(len(task.train)))
    defence.prepare(loss, workshop)
    shown = None if progress is None else progress(f"{architecture} with {defence.name}", own_recipe, len(task.train))
    records = fit(
        classifier,
        task,
        FromLabels(
            loss,
            lambda images, indices: defence.beside(loss, workshop, images, indices),
            second_view=defence.second_view,
        ),
        own_recipe,
        seed=seed,
        identity=identity,
        folder=scratch,
        validate=True,
        tensorboard=tensorboard,
        progress=None if shown is None else lambda done: watch.over(shown(len(done)), done),
    )
    check = defence.check(workshop)
    if start is not None:
        trained["start"] |= {name: classifier.provenance.get(name) for name in ("defence", "recipe")}
    if normal_teacher is not None:
        normal_teacher.cpu()
        trained["normal"] = {
            "fingerprint": normal_teacher.fingerprint(),
            "given": normal is not None,
            "validation_accuracy": accuracy(predict(normal_teacher, task.validation), task.validation),
            "test_accuracy": accuracy(predict(normal_teacher, task.test), task.test),
        }
    classifier.provenance = {
        **trained,
        "identity": identity,
        "validation_accuracy": records[-1]["validation_accuracy"],
        "test_accuracy": accuracy(predict(classifier, task.test), task.test),
        "collapse": watch.facts(records),
        "needed_seconds": json_number(math.fsum(built_on.values())),
        **({} if check is None else {"check": settings_of(check)}),
        "records": records,
    }
    if PartialState().is_main_process:
        save_checkpoint(classifier, folder)
        _clear(scratch)
    PartialState().wait_for_everyone()
    return classifier


def normal_folder(folder: Path) -> Path:
    """Where the normal teacher of the teacher in ``folder`` is kept, if it is trained for it."""
    return folder.with_name(f"{folder.name}.normal")


def _settings(task: Task, defence: Defence, recipe: Recipe, seed: int) -> dict[str, Any]:
    return {
        "task": task.source,
        "task_fingerprint": task.fingerprint,
        "defence": {"name": defence.name, **settings_of(defence)},
        "recipe": settings_of(recipe),
        "seed": seed,
    }


def _identity(architecture: str, trained: dict[str, Any]) -> str:
    return content_hash({"architecture": architecture, **trained})


def _watch(task: Task, recipe: Recipe, start: Classifier | None, normal: Classifier | None) -> CollapseWatch:
    """What validation accuracy is expected of a training that starts from ``start``, or from fresh weights."""
    if start is not None:
        expected = accuracy(predict(start, task.validation), task.validation)
        return CollapseWatch((expected,), "the network that it started from")
    if normal is not None:
        records = normal.provenance.get("records")  # any JSON: a provenance may be the user's own
        try:
            expected_each = tuple(float(record["validation_accuracy"]) for record in records or ())
        except (TypeError, KeyError, ValueError):
            expected_each = ()
        if expected_each:
            return CollapseWatch(expected_each, "the normal teacher after the same epoch")
    return weaker_watch(task, recipe.epochs)


def holds_training(folder: Path, architecture: str, identity: str) -> bool:
    """Whether ``folder`` holds the checkpoint of the training with that identity."""
    try:
        description = json.loads((folder / "model.json").read_bytes())
        return description["architecture"] == architecture and description["provenance"]["identity"] == identity
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _clear(scratch: Path) -> None:
    """Delete the state to resume from, and what a kill left of one that was being written; events are kept."""
    for name in (RESUME_FILE, ONCE_FILE):
        for file in scratch.glob(f"*{name}*"):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        scratch.rmdir()
