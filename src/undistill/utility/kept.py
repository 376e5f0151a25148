"""What was measured of a teacher, kept on disk, so that it is measured once."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from undistill.blackbox import AnswerFacts, BlackBox
from undistill.files import content_hash, write_atomic
from undistill.information import Spectrum
from undistill.tasks import Task
from undistill.utility.quality import Quality
from undistill.utility.serving import ServingTime, kept_serving
from undistill.utility.teacher import OtherTask, TeacherFacts, Utility, measure_teacher, measure_utility

Kept = TypeVar("Kept", TeacherFacts, Utility)


def kept_teacher(folder: Path, box: BlackBox, task: Task) -> TeacherFacts:
    """What :func:`measure_teacher` finds, from ``folder`` if it was found before.

    It depends on the black box, the task and the code that measures, and a file of another one is not used; nor is one
    that is damaged. The time of serving is kept beside it, so that whoever measures again says the same.
    """
    return _kept(
        folder, "facts", box, task, lambda: measure_teacher(box, task, serving=_serving(folder, box, task)), _teacher
    )


def kept_utility(folder: Path, box: BlackBox, task: Task) -> Utility:
    """What :func:`measure_utility` finds of the answers to the test split, kept in the same way."""

    def measure() -> Utility:
        return measure_utility(box, task, box.answers(task.test), serving=_serving(folder, box, task))

    return _kept(folder, "utility", box, task, measure, _utility)


def _serving(folder: Path, box: BlackBox, task: Task) -> ServingTime:
    return kept_serving(folder / "serving" / f"{box.fingerprint[:16]}.json", box, task.test)


def _kept(
    folder: Path,
    kind: str,
    box: BlackBox,
    task: Task,
    measure: Callable[[], Kept],
    build: Callable[[dict[str, Any]], Kept],
) -> Kept:
    about = content_hash([kind, box.name, box.fingerprint, task.fingerprint, list(box.defences), _measuring_code()])
    path = folder / "measured" / f"{box.fingerprint[:16]}-{kind}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
            if held.get("about") == about:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                return build(_joined(json.loads(held["values"]), tensors))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is damaged: measured anew
    found = measure()
    tensors = {}
    values = _without_tensors(asdict(found), "", tensors)
    write_atomic(path, save(tensors, metadata={"about": about, "values": json.dumps(values)}))
    return found


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON, in which tensors are null; these by the path to them."""
    if isinstance(value, Tensor):
        tensors[name] = value.contiguous()
        return None
    if isinstance(value, dict):
        return {key: _without_tensors(part, f"{name}/{key}", tensors) for key, part in value.items()}
    return value


def _joined(value: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    for path, tensor in tensors.items():
        *way, last = path.removeprefix("/").split("/")
        place = value
        for key in way:
            place = place[key]
        place[last] = tensor
    return value


def _teacher(value: dict[str, Any]) -> TeacherFacts:
    made = {
        "test": _spectrum(value["test"]),
        "train": _spectrum(value["train"]),
        "utility": _utility(value["utility"]),
        "output_defences": tuple(value["output_defences"]),
        "answers": AnswerFacts(**value["answers"]),
    }
    return TeacherFacts(**value | made)


def _spectrum(value: dict[str, Any]) -> Spectrum:
    return Spectrum(**{field.name: _tuple(value[field.name]) for field in fields(Spectrum)})


def _utility(value: dict[str, Any]) -> Utility:
    other = value["other"]
    return Utility(
        quality=Quality(**value["quality"]),
        serving=ServingTime(**value["serving"]),
        training_seconds=value["training_seconds"],
        other=None if other is None else OtherTask(**other),
    )


def _tuple(value: Any) -> Any:
    """JSON has lists in the place of tuples."""
    return tuple(value) if isinstance(value, list) else value


@cache
def _measuring_code() -> str:
    modules = [sys.modules[kind.__module__] for kind in (AnswerFacts, Spectrum, Quality, ServingTime, TeacherFacts)]
    return content_hash([version("undistill"), *map(inspect.getsource, modules)])
