"""A defended teacher as a folder: served and audited without the data that its defences were set up on."""

import hashlib
import json
import os
import shutil
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from undistill.blackbox.box import BlackBox, LocalBlackBox
from undistill.blackbox.defended import DefendedBlackBox
from undistill.defences.output import OUTPUT_DEFENCES
from undistill.errors import InputError
from undistill.files import write_atomic, write_json
from undistill.models import load_checkpoint, save_checkpoint
from undistill.settings import settings_of

FORMAT = 1
_DESCRIPTION = "defences.json"
_TENSORS = "defences.safetensors"
_TEACHER = "teacher"


def check_new(folder: str | Path) -> None:
    """Refuse a folder where something stands.

    Raises:
        InputError: something does.
    """
    if Path(folder).exists():
        raise InputError(f"{folder} is there already; name a new folder")


def save_defended(box: BlackBox, folder: str | Path) -> None:
    """Write a checkpoint and the output defences around it to a new folder.

    ``teacher/`` is the checkpoint, ``defences.json`` holds the settings of the stack, and ``defences.safetensors`` what
    they learnt. The settings hold the key of keyed noise, so only the user who wrote the folder can look into it: keep
    it as you keep a password. The folder is there as a whole or not at all.

    Args:
        box: as :func:`~undistill.blackbox.defend` makes it of a checkpoint or a classifier.
        folder: where nothing stands yet.

    Raises:
        InputError: something stands at ``folder``; no output defence is there, or one of the user's own; an access
            policy lies around the box, or what is defended is no classifier in this process; a defence asks a surrogate
            about every image; or a secret is the public default.
        OSError: the disk is full or cannot be written.
    """
    check_new(folder)
    folder = Path(folder)
    stack: list[DefendedBlackBox] = []
    while isinstance(box, DefendedBlackBox):
        stack.insert(0, box)
        box = box.box
    if not isinstance(box, LocalBlackBox):
        raise InputError(
            f"{box.name!r} is no checkpoint or classifier, so it cannot be saved with its defences; name a checkpoint, "
            "or serve it from Python (undistill.serve.create_app)"
        )
    if not stack:
        raise InputError(f"{box.name!r} has no output defence around it; save it as a checkpoint")
    foreign = [one.defence.name for one in stack if OUTPUT_DEFENCES.get(one.defence.name) is not type(one.defence)]
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: only defences of undistill itself can be saved, for loading must not run other code"
        )
    for defence in (one.defence for one in stack):
        secrets = [one for one in fields(defence) if not one.repr]  # type: ignore[arg-type]
        public = [one.name for one in secrets if getattr(defence, one.name) == one.default]
        if public:
            raise InputError(
                f"the {public[0]} of {defence.name} is the public default, by which anybody can take it away; set one "
                f"of your own: {defence.name}:{public[0]}=SECRET"
            )
    tensors = {
        f"{place}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for place, one in enumerate(stack)
        for name, tensor in one.transform.state().items()
    }
    content = safetensors.torch.save(tensors)
    description = {
        "format": FORMAT,
        "undistill": version("undistill"),
        "fingerprint": stack[-1].fingerprint,
        "defences": [
            {"name": one.defence.name, "settings": settings_of(one.defence), "learnt_from": one.learnt_from}
            for one in stack
        ],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)  # before anything is in it: it will hold keys
        save_checkpoint(box.classifier, temporary / _TEACHER)
        write_atomic(temporary / _TENSORS, content)
        write_json(temporary / _DESCRIPTION, description)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_defended(folder: str | Path) -> bool:
    """Whether a folder is one that :func:`save_defended` wrote."""
    return (Path(folder) / _DESCRIPTION).is_file()


def load_defended(folder: str | Path, *, name: str | None = None, trust_import_path: bool = False) -> DefendedBlackBox:
    """The teacher and its defences, with the fingerprint that they had, so that kept answers are still theirs.

    Args:
        folder: as :func:`save_defended` wrote it.
        name: of the teacher without its defences; by default that of the folder.
        trust_import_path: let the checkpoint import and run the code that it names.

    Raises:
        InputError: something is missing, damaged, exchanged, or written by a newer undistill.
    """
    folder = Path(folder)
    about = _read(folder)
    classifier = load_checkpoint(folder / _TEACHER, trust_import_path=trust_import_path)
    box: BlackBox = LocalBlackBox(name or folder.resolve().name, classifier)
    state = _state(folder, about["sha256"])
    try:
        for place, made in enumerate(about["defences"]):
            kind = OUTPUT_DEFENCES[made["name"]]
            defence = kind(**made["settings"])
            start = f"{place}."
            learnt = {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}
            box = DefendedBlackBox(box, defence, defence.restore(learnt), made["learnt_from"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / _DESCRIPTION} is damaged ({error!r}); set the defences up again") from error
    if not isinstance(box, DefendedBlackBox) or box.fingerprint != about["fingerprint"]:
        raise InputError(
            f"{folder} is not what was saved there: teacher, defences and what they learnt do not belong together; set "
            "the defences up again"
        )
    return box


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    try:
        about = json.loads(path.read_bytes())
        made_in = int(about["format"])
        if made_in <= FORMAT:
            texts = {name: str(about[name]) for name in ("fingerprint", "sha256")}
            return texts | {"defences": list(about["defences"])}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}); set the defences up again") from error
    raise InputError(
        f"{folder} was saved in format {made_in} by undistill {about.get('undistill')}; this undistill reads up to "
        f"format {FORMAT}, so upgrade it"
    )


def _state(folder: Path, sha256: str) -> dict[str, Tensor]:
    path = folder / _TENSORS
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("its SHA-256 differs")
        return safetensors.torch.load(content)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{path} is not the file that {_DESCRIPTION} describes ({error}); set the defences up again"
        ) from error
