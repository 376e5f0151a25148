"""The settings of attacks, defences and recipes: the fields of a dataclass by name."""

from dataclasses import fields
from typing import Any


def settings_of(method: Any) -> dict[str, Any]:
    """Field names and values of a dataclass instance, or names and defaults of a dataclass.

    >>> from undistill.attacks import KD
    >>> settings_of(KD(temperature=2.0)), settings_of(KD)
    ({'temperature': 2.0, 'hard': 0.1}, {'temperature': 4.0, 'hard': 0.1})
    """
    return {field.name: getattr(method, field.name) for field in fields(method)}
