"""The settings of attacks, defences and recipes: the fields of a dataclass by name."""

from dataclasses import fields, is_dataclass
from typing import Any


def settings_of(method: Any) -> dict[str, Any]:
    """Field names and values of a dataclass instance, or names and defaults of a dataclass.

    >>> from undistill.attacks import KD
    >>> settings_of(KD(temperature=2.0)), settings_of(KD)
    ({'temperature': 2.0, 'hard': 0.1}, {'temperature': 4.0, 'hard': 0.1})
    """
    return {field.name: getattr(method, field.name) for field in fields(method)}


def _is_method(value: Any) -> bool:
    return is_dataclass(value)


def settings_as_json(method: Any) -> dict[str, Any]:
    """The same with methods inside methods as objects of their own, under their names.

    >>> from undistill.attacks import KD
    >>> settings_as_json(KD(temperature=2.0))
    {'temperature': 2.0, 'hard': 0.1}
    """
    return {
        name: {"name": value.name, **settings_as_json(value)} if _is_method(value) else value
        for name, value in settings_of(method).items()
    }


def settings_in_words(method: Any) -> str:
    """The settings of a method in words.

    >>> from undistill.attacks import KD
    >>> settings_in_words(KD(temperature=2.0))
    'temperature=2.0, hard=0.1'
    """
    return ", ".join(
        f"{name}={f'{value.name}({settings_in_words(value)})' if _is_method(value) else value}"
        for name, value in settings_of(method).items()
    )
