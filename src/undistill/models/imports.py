"""The user's own code, by import path."""

import importlib
import os
import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from undistill.errors import InputError


def import_callable(path: str) -> Callable[..., Any]:
    """What ``package.module:callable`` names, imported.

    The working directory is searched first, as ``python -m`` does, so a file ``mine.py`` there is ``mine:callable``.
    Importing runs the module's code.

    Args:
        path: a dotted module, a colon, and a name in it (which may be dotted, for a method of a class).

    Returns:
        The callable.

    Raises:
        InputError: the path has another form, the module cannot be imported, has no such name, or what it names
            cannot be called.

    >>> import_callable("math:sqrt")(9.0)
    3.0
    """
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *name.split("."))):
        raise InputError(f"{path!r} is not an import path; write it as package.module:callable.")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(
            f"cannot import the module {module_name!r} of {path!r} ({type(error).__name__}: {error}); "
            "install it, or run from the folder that holds it."
        ) from error
    try:
        found = attrgetter(name)(module)
    except AttributeError as error:
        raise InputError(f"the module {module_name!r} has no {name!r}; check the name after the colon.") from error
    if not callable(found):
        raise InputError(f"{path!r} is a {type(found).__name__}, which cannot be called; name a function or a class.")
    return found
