"""Methods as words: attacks and defences (``kd:temperature=4``), access (``top-k:5``), query data (``train:0.1``)."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin

from undistill.attacks import AS_RELEASED, ATTACKS, Attack
from undistill.errors import InputError, unknown_name
from undistill.tasks import FreshImages, NoImages, OtherImages, QueryData, Task, TrainingImages

Method = TypeVar("Method")

NAMED_ATTACKS: dict[str, type[Attack]] = ATTACKS | AS_RELEASED
"""What can be named: the battery's attacks, and those as released with other studies, for comparison."""


def parse_method(kind: str, registry: Mapping[str, type[Method]], text: str) -> Method:
    """``NAME`` or ``NAME:FIELD=VALUE,...`` as a value; a list's entries are separated by colons.

    The value of a field that is an attack is the name of one, which then has its default settings.

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
    if isinstance(kind, type) and issubclass(kind, Attack):
        return parse_method("attack", NAMED_ATTACKS, text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{what} is {text!r}, must be true or false")
        return text.lower() == "true"
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        words = {int: "a whole number", float: "a number"}[kind]
        raise InputError(f"{what} is {text!r}, must be {words}") from None


def parse_data(text: str, other: Callable[[], Task]) -> QueryData:
    """``train``, ``train:SHARE``, ``fresh``, ``other`` or ``none`` as a value.

    Args:
        text: the words.
        other: loads the other task, where it is needed.
    """
    plain: dict[str, Callable[[], QueryData]] = {
        "train": TrainingImages,
        "fresh": FreshImages,
        "other": lambda: OtherImages(other()),
        "none": NoImages,
    }
    name, colon, share = text.partition(":")
    if name not in plain:
        raise unknown_name("query data", name, plain)
    if not colon:
        return plain[name]()
    if name != "train":
        raise InputError(f"query data {text!r} take no share; write {name}, or train:0.1 for a share of those images")
    return TrainingImages(_convert(f"query data {text!r}: the share", share, float))
