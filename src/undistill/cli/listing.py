"""What ``undistill list`` says."""

from collections.abc import Callable
from typing import Any, Literal

from undistill.attacks import ACCESS_KINDS, AS_RELEASED, Attack
from undistill.audit import FLAGS
from undistill.cli.methods import NAMED_ATTACKS
from undistill.defences.output import OUTPUT_DEFENCES, OutputDefence
from undistill.defences.training import DEFENCES
from undistill.models import MODELS
from undistill.settings import settings_as_json
from undistill.tasks import TASKS

Kind = Literal["tasks", "models", "attacks", "defences", "flags"]


def entries(kind: Kind) -> list[dict[str, Any]]:
    """One JSON object for everything of a kind that can be named, ``name`` and ``summary`` among its fields."""
    kinds: dict[Kind, Callable[[], list[dict[str, Any]]]] = {
        "tasks": lambda: [{"name": name, "summary": info.description} for name, info in TASKS.items()],
        "models": lambda: [{"name": name, "summary": info.description} for name, info in MODELS.items()],
        "attacks": lambda: [_attack(method) for method in NAMED_ATTACKS.values()],
        "defences": lambda: [
            *(
                {
                    "name": name,
                    "kind": "training",
                    "summary": method.summary,
                    "source": method.source,
                    "needs_normal": method.needs_normal,
                    "runs": method.runs,
                    "settings": settings_as_json(method),
                }
                for name, method in DEFENCES.items()
            ),
            *(_output_defence(method) for method in OUTPUT_DEFENCES.values()),
        ],
        "flags": lambda: [
            {"name": name, "kind": kind.severity.value, "summary": kind.summary, "docs": kind.docs}
            for name, kind in FLAGS.items()
        ],
    }
    return kinds[kind]()


def _output_defence(method: type[OutputDefence]) -> dict[str, Any]:
    default = method()
    return {
        "name": method.name,
        "kind": "output",
        "summary": method.summary,
        "source": method.source,
        "keeps_top1": default.keeps_top1,
        "idempotent": default.idempotent,
        "sums_to_1": default.normalised,
        "serves": default.serves,
        "learns": default.learns,
        "takes_surrogate": default.takes_surrogate,
        "settings": settings_as_json(method),
    }


def _attack(method: type[Attack]) -> dict[str, Any]:
    default = method()
    return {
        "name": method.name,
        "summary": method.summary,
        "source": method.source,
        "as_released": method.name in AS_RELEASED,
        "needs_labels": default.needs_labels,
        "needs_images": default.needs_images,
        "access": {kind: default.access.get(kind, "refused") for kind in ACCESS_KINDS},
        "placebo": default.placebo or None,
        "cost": {
            "queries_per_image_epoch": default.views if default.needs_images else 0,
            "own_queries": default.own_queries,
            "views_per_step": default.views,
            "outputs_per_step": default.blocks,
            "trainings": default.trainings,
        },
        "slow": default.slow,
        "settings": settings_as_json(default),
        "grid": [settings_as_json(attack) for attack in method.grid()],
    }
