"""What is said when an input is wrong: one sentence with the value, the reason and the way out."""

import importlib
from collections.abc import Iterable
from difflib import SequenceMatcher
from os.path import commonprefix
from types import ModuleType


class InputError(ValueError):
    """A user's input is wrong. The message is one clear sentence; the command line exits with status 2."""


class MissingExtraError(InputError, ImportError):
    """A part of undistill was used whose optional dependency is not installed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that no registry holds, with the nearest known name.

    >>> print(unknown_name("attack", "kdd", ["kd", "dist"]))
    unknown attack 'kdd'; did you mean 'kd'? (known: dist, kd)
    """
    names = sorted(known)
    near = _nearest(name, names)
    hint = "." if near is None else f"; did you mean {near!r}?"
    return InputError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")


def _nearest(name: str, known: list[str]) -> str | None:
    """The known name most like ``name``; among equals the one that begins like it for longest. None if none is like it.

    >>> _nearest("resnet21", ["resnet20", "resnet32"])
    'resnet20'
    """

    def likeness(candidate: str) -> tuple[float, int]:
        return SequenceMatcher(None, candidate, name).ratio(), len(commonprefix([candidate, name]))  # noqa: RUF071

    best = max(known, key=likeness, default=None)
    return None if best is None or likeness(best)[0] < 0.5 else best


def check_whole(what: str, value: object) -> None:
    """Refuse what is not a whole number, 2.0 included: it would fail much later, where something is counted by it.

    Raises:
        InputError: it is not.

    >>> check_whole("k of top-k", 2)
    >>> check_whole("k of top-k", 2.5)
    Traceback (most recent call last):
    undistill.errors.InputError: k of top-k is 2.5, must be a whole number, written without a decimal point
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what} is {value!r}, must be a whole number, written without a decimal point")


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package {module.split('.')[0]!r}, which is not installed; "
            f"run: pip install 'undistill[{extra}]'"
        ) from error
