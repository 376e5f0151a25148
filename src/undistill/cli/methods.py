"""Attacks and defences as words: ``kd:temperature=4,hard=0.1``."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin

from undistill.errors import InputError, unknown_name

Method = TypeVar("Method")


def parse_method(kind: str, registry: Mapping[str, type[Method]], text: str) -> Method:
    """``NAME`` or ``NAME:FIELD=VALUE,...`` as a value; a list's entries are separated by colons.

    Raises:
        InputError: an unknown name or field, or a value of the wrong type.

    Example:
        >>> from undistill.attacks import ATTACKS
        >>> parse_method("attack", ATTACKS, "kd:temperature=2")
        KD(temperature=2.0, hard=0.1)
    """
    name, _, settings = text.partition(":")
    if name not in registry:
        raise unknown_name(kind, name, registry)
    method = registry[name]
    known = {field.name: field.type for field in fields(method)}  # type: ignore[arg-type]
    values = {}
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{kind} {text!r}: {setting!r} is no setting; write {name}:FIELD=VALUE,...")
        if key not in known:
            raise unknown_name(f"setting of {name}", key, known)
        values[key] = _convert(f"{kind} {text!r}: {key}", value, known[key])
    return method(**values)


def parse_grids(
    kind: str, registry: Mapping[str, type[Method]], texts: Sequence[str]
) -> tuple[tuple[Method, ...], ...]:
    """Texts as grids, one per name. A name without settings stands for the method's own grid.

    >>> from undistill.attacks import ATTACKS
    >>> parse_grids("attack", ATTACKS, ["kd:temperature=2", "kd:temperature=8"])
    ((KD(temperature=2.0, hard=0.1), KD(temperature=8.0, hard=0.1)),)
    """
    grids: dict[str, list[Method]] = {}
    for text in texts:
        method = parse_method(kind, registry, text)
        entries = [method] if ":" in text else method.grid()  # type: ignore[attr-defined]
        grid = grids.setdefault(text.partition(":")[0], [])
        grid.extend(entry for entry in entries if entry not in grid)
    return tuple(map(tuple, grids.values()))


def _convert(what: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return tuple(_convert(what, part, get_args(kind)[0]) for part in text.split(":"))
    if isinstance(kind, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        words = {int: "a whole number", float: "a number"}[kind]
        raise InputError(f"{what} is {text!r}, must be {words}") from None
