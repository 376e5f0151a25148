"""What is said when an input is wrong: one sentence with the value, the reason and the way out."""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
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
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package {module.split('.')[0]!r}, which is not installed; "
            f"run: pip install 'undistill[{extra}]'"
        ) from error
