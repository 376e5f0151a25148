"""How a teacher came about, as far as its checkpoint says."""

import math
from dataclasses import dataclass
from typing import Any

from undistill.blackbox import BlackBox, LimitedBlackBox, LocalBlackBox
from undistill.defences.training import DEFENCES
from undistill.files import content_hash
from undistill.settings import settings_of
from undistill.training import needed_seconds, own_seconds


@dataclass(frozen=True)
class Origin:
    """What a teacher was trained with and what is done to its answers; made by :func:`origin_of`.

    Attributes:
        name: of the teacher without what is done to its answers.
        architecture: of its network; None if it is not known, as for a remote teacher.
        training: task, defence, recipe, and the same of the model that it started from, as JSON; empty if not known.
        served: the output defences and the access policy in front of it, in their order, as JSON; empty for full
            answers.
        seed: of the training; None if it is not known.
        training_seconds: wall-clock time of its own epochs; nan if it is not known.
        needed_seconds: that of the trainings that it was built on: its start, a normal teacher that it needed; nan if
            it is not known.
    """

    name: str
    architecture: str | None
    training: dict[str, Any]
    served: tuple[dict[str, Any], ...]
    seed: int | None
    training_seconds: float
    needed_seconds: float = 0.0

    @property
    def defence(self) -> dict[str, Any]:
        """Name and settings of the defence that it was trained with; empty if not known."""
        return self.training.get("defence", {})

    @property
    def weight(self) -> float | None:
        """The defence's weight, if it has one."""
        weight = self.defence.get("weight")
        return float(weight) if isinstance(weight, int | float) else None

    @property
    def kind(self) -> str:
        """Equal for teachers that differ by their seed only. A teacher of unknown training is of a kind of its own."""
        return self._hash(self.defence)

    @property
    def family(self) -> str:
        """Equal for teachers that differ by their seed and their defence's weight only."""
        return self._hash({name: value for name, value in self.defence.items() if name != "weight"})

    def _hash(self, defence: dict[str, Any]) -> str:
        who = None if self.defence else self.name
        return content_hash([who, self.architecture, self.training | {"defence": defence}, self.served])

    @property
    def label(self) -> str:
        """The defence as the command line writes it, with its weight and the settings that are not its defaults."""
        return self._label({"name"})

    @property
    def label_without_weight(self) -> str:
        """The same without the weight."""
        return self._label({"name", "weight"})

    def _label(self, left_out: set[str]) -> str:
        served = [str(defence["words"]) for defence in self.served]
        if not self.defence:
            return " + ".join([self.name, *served])
        name = str(self.defence["name"])
        usual = settings_of(DEFENCES[name]) if name in DEFENCES else {}
        settings = [
            f"{field}={_in_words(value)}"
            for field, value in self.defence.items()
            if field not in left_out and (field == "weight" or _as_json(value) != _as_json(usual.get(field)))
        ]
        started = "" if self.training["start"] is None else " (fine-tuned)"
        return " + ".join([name + (f":{','.join(settings)}" if settings else "") + started, *served])


def _in_words(value: Any) -> str:
    """
    >>> _in_words([0.25, 1.0])
    '0.25:1'
    """
    if isinstance(value, list | tuple):
        return ":".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_json(value: Any) -> Any:
    """A freshly trained classifier's provenance holds tuples, which a checkpoint brings back as lists."""
    return list(value) if isinstance(value, tuple) else value


def origin_of(box: BlackBox) -> Origin:
    """The origin of what a black box asks.

    >>> import torch
    >>> from undistill.blackbox import CallableBlackBox
    >>> origin_of(CallableBlackBox("api", lambda images: images.flatten(1).softmax(1), 4, torch.rand(1, 1, 2, 2))).label
    'api'
    """
    # What a defence learnt follows from the teacher, and so from its seed.
    served = [{name: value for name, value in defence.items() if name != "learnt"} for defence in box.defences]
    if isinstance(box, LimitedBlackBox):
        served.append({"name": "access", "words": str(box.policy)})
    inner = box.undefended
    if not isinstance(inner, LocalBlackBox):
        return Origin(inner.name, None, {}, tuple(served), None, math.nan, math.nan)
    made = inner.classifier.provenance  # any JSON: a provenance may be the user's own
    defence, seed = made.get("defence"), made.get("seed")
    known = isinstance(defence, dict) and "name" in defence
    return Origin(
        name=inner.name,
        architecture=inner.classifier.architecture,
        training=_training(made) if known else {},
        served=tuple(served),
        seed=seed if known and isinstance(seed, int) else None,
        training_seconds=own_seconds(made),
        needed_seconds=needed_seconds(made),
    )


def _training(made: dict[str, Any]) -> dict[str, Any]:
    """What was done, without what follows from the seed."""
    same = {name: made.get(name) for name in ("task_fingerprint", "defence", "recipe")}
    start = made.get("start")
    return same | {
        "start": {name: start.get(name) for name in ("defence", "recipe")} if isinstance(start, dict) else None
    }
