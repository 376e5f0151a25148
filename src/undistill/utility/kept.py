"""What was measured of a teacher, kept on disk, so that it is measured once."""

import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from undistill.blackbox import AnswerFacts, BlackBox
from undistill.files import content_hash, write_atomic
from undistill.information import Spectrum
from undistill.tasks import Task
from undistill.utility.evidence import Bin, Clusters, Evidence
from undistill.utility.quality import Quality
from undistill.utility.serving import ServingTime, kept_serving
from undistill.utility.teacher import OtherTask, TeacherFacts, Utility, observe


def kept_observation(
    folder: Path, box: BlackBox, task: Task, shown: Sequence[int] | None = None, *, other: Task | None = None
) -> tuple[TeacherFacts, Evidence]:
    """What :func:`observe` finds, from ``folder`` if it was found before.

    It depends on the black box, both tasks, the classes that are shown and the code that measures, and a file of
    another one is not used; nor is one that is damaged. The time of serving is kept beside it, so that whoever measures
    again says the same.

    Args:
        folder: of the audit.
        box: the teacher.
        task: what it is for.
        shown: as of :func:`observe`.
        other: as there.
    """
    about = [
        box.name,
        box.fingerprint,
        task.fingerprint,
        None if other is None else other.fingerprint,
        list(box.defences),
        shown and list(shown),
        _measuring_code(),
    ]
    path = folder / "measured" / f"{box.fingerprint[:16]}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
            if held.get("about") == content_hash(about):
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                return _observation(_joined(json.loads(held["values"]), tensors))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is damaged: measured anew
    facts, evidence = observe(box, task, other=other, shown=shown, serving=_serving(folder, box, task))
    tensors = {}
    values = _without_tensors({"facts": asdict(facts), "evidence": asdict(evidence)}, "", tensors)
    write_atomic(path, save(tensors, metadata={"about": content_hash(about), "values": json.dumps(values)}))
    return facts, evidence


def _serving(folder: Path, box: BlackBox, task: Task) -> ServingTime:
    return kept_serving(folder / "serving" / f"{box.fingerprint[:16]}.json", box, task.test)


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


def _observation(value: dict[str, Any]) -> tuple[TeacherFacts, Evidence]:
    return _teacher(value["facts"]), _evidence(value["evidence"])


def _evidence(value: dict[str, Any]) -> Evidence:
    made = {
        "shown": _tuple(value["shown"]),
        "spectra": {split: _spectrum(held) for split, held in value["spectra"].items()},
        "clusters": {split: Clusters(**held) for split, held in value["clusters"].items()},
        "reliability": tuple(Bin(**held) for held in value["reliability"]),
        "coverage": _tuple(value["coverage"]),
        "risk": _tuple(value["risk"]),
    }
    return Evidence(**value | made)


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
        needed_seconds=value["needed_seconds"],
    )


def _tuple(value: Any) -> Any:
    """JSON has lists in the place of tuples."""
    return tuple(value) if isinstance(value, list) else value


@cache
def _measuring_code() -> str:
    modules = [
        sys.modules[kind.__module__] for kind in (AnswerFacts, Evidence, Spectrum, Quality, ServingTime, TeacherFacts)
    ]
    return content_hash([version("undistill"), *map(inspect.getsource, modules)])
