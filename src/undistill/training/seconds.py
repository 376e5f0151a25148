"""How long trainings took, as far as checkpoints say."""

import math
from collections.abc import Mapping
from typing import Any

from undistill.defences.training import DEFENCES


def own_seconds(made: Mapping[str, Any]) -> float:
    """Wall-clock seconds of a training's own epochs; nan if they are not known.

    Args:
        made: a provenance, which may be the user's own.

    >>> own_seconds({"records": [{"seconds": 1.5}, {"seconds": 2.0}]}), own_seconds({"records": "none"})
    (3.5, nan)
    """
    try:
        return math.fsum(record["seconds"] for record in made["records"]) or math.nan
    except (TypeError, KeyError):
        return math.nan


def needed_seconds(made: Mapping[str, Any]) -> float:
    """Wall-clock seconds of the trainings that a training was built on: its start, and a normal teacher that it needed.

    Args:
        made: a provenance, which may be the user's own, or of a version that did not keep these seconds.

    Returns:
        0 if it was built on none; nan if it was built on some whose seconds are not known.

    >>> needed_seconds({"defence": {"name": "ce"}}), needed_seconds({"needed_seconds": 4.5})
    (0.0, 4.5)
    >>> needed_seconds({"defence": {"name": "mcmi"}})
    nan
    """
    if "needed_seconds" in made:
        kept = made["needed_seconds"]
        return float(kept) if isinstance(kept, int | float) else math.nan
    defence = made.get("defence")
    name = defence.get("name") if isinstance(defence, dict) else None
    needs_normal = isinstance(name, str) and name in DEFENCES and DEFENCES[name].needs_normal
    return math.nan if needs_normal or "start" in made else 0.0


def all_seconds(made: Mapping[str, Any]) -> float:
    """The sum of :func:`own_seconds` and :func:`needed_seconds`: what it takes to make the network from nothing."""
    return own_seconds(made) + needed_seconds(made)
