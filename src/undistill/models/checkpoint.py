"""A saved classifier: a folder with ``model.safetensors`` and ``model.json``. Nothing in it is ever unpickled."""

import hashlib
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from undistill.errors import InputError
from undistill.files import write_atomic, write_json
from undistill.models.classifier import Classifier, make_classifier

FORMAT = 1
_TENSORS = "model.safetensors"
_DESCRIPTION = "model.json"


def save_checkpoint(classifier: Classifier, folder: Path) -> None:
    """Write ``classifier`` to ``folder``, replacing a checkpoint that stands there.

    ``model.safetensors`` holds the state dict of the network; ``model.json`` the architecture, class names, input
    shape, normalisation, provenance, the version of undistill and the SHA-256 of the tensors' file. At every moment a
    complete checkpoint, the new or the old one, can be loaded from ``folder``, even if the process is killed.

    Raises:
        InputError: ``folder`` is a file, or holds other files than a checkpoint's.
        OSError: the disk is full or cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> teacher = make_classifier(
    ...     "mlp-16", class_names=["cat", "dog"], input_shape=(1, 8, 8), mean=[0.3], std=[0.4], seed=0
    ... )
    >>> with TemporaryDirectory() as scratch:
    ...     save_checkpoint(teacher, Path(scratch, "teacher"))
    ...     load_checkpoint(Path(scratch, "teacher")).fingerprint() == teacher.fingerprint()
    True
    """
    folder = folder.resolve()  # a link is followed, not replaced
    _check_replaceable(folder)
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    state = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in classifier.net.state_dict().items()
    }
    tensors = safetensors.torch.save(state)
    description = {
        "format": FORMAT,
        "undistill": version("undistill"),
        "architecture": classifier.architecture,
        "class_names": classifier.class_names,
        "input_shape": classifier.input_shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        "provenance": classifier.provenance,
        "sha256": hashlib.sha256(tensors).hexdigest(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        temporary.mkdir()
        write_atomic(temporary / _TENSORS, tensors)
        write_json(temporary / _DESCRIPTION, description)
        previous = _previous(folder)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)
        os.replace(temporary, folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(folder: Path, *, trust_import_path: bool = False) -> Classifier:
    """The classifier saved in ``folder``, on the CPU, in eval mode.

    Args:
        folder: as ``save_checkpoint`` wrote it.
        trust_import_path: allow a checkpoint whose architecture is an import path; loading it imports and runs that
            code, so say so only where you know the code.

    Raises:
        InputError: something is missing or damaged, written by a newer undistill, or names code that is not trusted.
    """
    source = folder.resolve()
    if not source.exists() and _previous(source).exists():
        source = _previous(source)  # a replacement was killed between its two renames
    description = _read_description(source)
    architecture = description["architecture"]
    if ":" in architecture and not architecture.startswith("timm:") and not trust_import_path:
        raise InputError(
            f"the checkpoint {folder} is built by the code at {architecture!r}; loading it runs that code, so if you "
            "trust it, allow it with trust_import_path=True."
        )
    state = _read_tensors(source, description["sha256"])
    classifier = make_classifier(
        architecture,
        class_names=description["class_names"],
        input_shape=tuple(description["input_shape"]),
        mean=description["mean"],
        std=description["std"],
        seed=0,
    )
    _check_tensors(folder, architecture, state, classifier.net.state_dict())
    classifier.net.load_state_dict(state)
    classifier.provenance = description["provenance"]
    return classifier.eval()


def _previous(folder: Path) -> Path:
    """Where a checkpoint stands while the new one takes its place."""
    return folder.with_name(f".{folder.name}.previous")


def _check_replaceable(folder: Path) -> None:
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in (_TENSORS, _DESCRIPTION))
        if foreign:
            raise InputError(
                f"{folder} holds {foreign[0]!r} ({len(foreign)} such), which is no part of a checkpoint and would be "
                "lost; name a folder of its own."
            )
    elif folder.exists():
        raise InputError(f"{folder} is a file; a checkpoint is a folder, so name another path.")


def _read_description(folder: Path) -> dict[str, Any]:
    """``model.json`` as a dict whose entries have the right types."""
    if folder.is_file():
        raise InputError(
            f"{folder} is a file; a checkpoint is a folder with {_TENSORS} and {_DESCRIPTION}, and pickled files "
            "(.pt, .pth) are never loaded."
        )
    missing = [name for name in (_DESCRIPTION, _TENSORS) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not a checkpoint: it lacks {' and '.join(missing)}; name the folder that undistill saved."
        )
    try:
        description = json.loads((folder / _DESCRIPTION).read_bytes())
    except ValueError as error:
        raise InputError(f"{folder / _DESCRIPTION} is damaged ({error}); copy the checkpoint again.") from error
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise InputError(f"{folder / _DESCRIPTION} is not the description of a checkpoint: it has no format number.")
    if description["format"] > FORMAT:
        raise InputError(
            f"{folder} was saved in format {description['format']} by undistill {description.get('undistill')}; "
            f"this undistill reads up to format {FORMAT}, so upgrade it."
        )
    wrong = [name for name, good in _ENTRIES.items() if not good(description.get(name))]
    if wrong:
        raise InputError(f"{folder / _DESCRIPTION} is damaged: {', '.join(wrong)} missing or of the wrong type.")
    return description


def _list_of(*types: type) -> Any:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(type(item) in types for item in value)


_ENTRIES = {
    "architecture": lambda value: isinstance(value, str),
    "class_names": _list_of(str),
    "input_shape": _list_of(int),
    "mean": _list_of(int, float),
    "std": _list_of(int, float),
    "provenance": lambda value: isinstance(value, dict),
    "sha256": lambda value: isinstance(value, str),
}


def _read_tensors(folder: Path, sha256: str) -> dict[str, Tensor]:
    content = (folder / _TENSORS).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{folder / _TENSORS} is not the file that {_DESCRIPTION} describes (its SHA-256 differs): it is damaged "
            "or was replaced; copy the checkpoint again."
        )
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(
            f"{folder / _TENSORS} is not a safetensors file ({error}); pickles are never loaded."
        ) from error


def _check_tensors(folder: Path, architecture: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    problems = [f"lacks {name}" for name in expected if name not in found]
    problems += [f"has an unknown {name}" for name in found if name not in expected]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:3])
        raise InputError(
            f"the tensors in {folder} do not fit {architecture!r}: {shown} ({len(problems)} problems in all)."
        )
