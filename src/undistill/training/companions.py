"""Other networks that a training builds on: a normal teacher, or a trained network to start from."""

import json
from pathlib import Path
from typing import Any

from undistill.defences.training import CrossEntropy
from undistill.errors import InputError
from undistill.models import Classifier, load_checkpoint
from undistill.tasks import Task


def load_start(folder: Path, task: Task, architecture: str) -> Classifier:
    """The checkpoint in ``folder`` as the start of a training.

    Raises:
        InputError: no checkpoint, or one of another task, other classes or another architecture; the message names
            both.
    """
    return _load(folder, "the start", task, architecture)


def load_normal(folder: Path, task: Task, architecture: str) -> Classifier:
    """The checkpoint in ``folder`` as the normal teacher of a training.

    Raises:
        InputError: as :func:`load_start`, or it says of itself that it was trained with a defence.
    """
    normal = _load(folder, "the normal teacher", task, architecture)
    defence: Any = normal.provenance.get("defence")  # any JSON: a provenance may be the user's own
    name = defence.get("name") if isinstance(defence, dict) else None
    if name not in (None, CrossEntropy.name):
        raise InputError(
            f"{folder} was trained with {name}, but a normal teacher is trained with {CrossEntropy.name}; choose "
            "another checkpoint"
        )
    return normal


def _load(folder: Path, role: str, task: Task, architecture: str) -> Classifier:
    own_code = _architecture(folder) == architecture  # then the code, if any, is what the caller named
    companion = load_checkpoint(folder, trust_import_path=own_code)
    problems = []
    if companion.architecture != architecture:
        problems.append(f"it is a {companion.architecture!r}, not a {architecture!r}")
    if companion.input_shape != task.input_shape:
        problems.append(f"it takes inputs of shape {companion.input_shape}, not {task.input_shape}")
    if companion.class_names != task.class_names:
        problems.append(f"it knows {_classes(companion.class_names)}, not {_classes(task.class_names)}")
    made = companion.provenance
    if made.get("task_fingerprint", task.fingerprint) != task.fingerprint:
        source = made.get("task")
        name = source.get("name") if isinstance(source, dict) else None
        other = "another split or part" if name in (None, task.name) else repr(name)
        problems.append(f"it was trained on {other}, not on this task {task.name!r}")
    if problems:
        raise InputError(
            f"{folder} cannot be {role} of this training: {'; '.join(problems)}; choose another checkpoint"
        )
    return companion


def _architecture(folder: Path) -> str | None:
    try:
        return json.loads((folder / "model.json").read_bytes())["architecture"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # load_checkpoint says what is wrong


def _classes(names: tuple[str, ...]) -> str:
    """
    >>> _classes(("a", "b", "c", "d"))
    "4 classes ('a', 'b', 'c', ...)"
    """
    return f"{len(names)} classes ({', '.join(map(repr, names[:3]))}{', ...' if len(names) > 3 else ''})"
