"""The source code behind what the user wrote, as a hash: what was made by other code is not used again."""

import ast
import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any

from undistill.errors import InputError

_PACKAGE = __name__.partition(".")[0]
_LIBRARIES = {
    Path(folder).resolve()
    for folder in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        site.getusersitepackages(),
    )
}


@cache  # once per process, so that an edit in mid-audit does not mix two versions under one name
def code_hash(module: str) -> str:
    """SHA-256 of the source of a loaded module and of what it imports, directly or not.

    Followed are the imports at the top of each file: those of the module's own package, of this one, and of all code
    that is not installed as a library. Of ``from package import name`` it is the module that defines ``name``.

    Args:
        module: its name in ``sys.modules``.

    Raises:
        InputError: the module has no source file, as in a notebook or an interpreter.

    >>> code_hash("undistill.errors") == code_hash("undistill.files")
    False
    """
    root = module.partition(".")[0]
    found: dict[str, bytes] = {}
    ahead = [module]
    while ahead:
        name = ahead.pop()
        file = _file(name)
        followed = name == module or name.partition(".")[0] in (root, _PACKAGE) or not _installed(file)
        if name in found or file is None or not followed:
            continue
        found[name] = file.read_bytes()
        ahead += _imported(sys.modules[name], found[name])
    if module not in found:
        raise InputError(
            f"the code in {module!r} has no source file, so nobody could tell later what an outcome was made with; "
            "put it into a file and import it from there"
        )
    return hashlib.sha256(b"".join(hashlib.sha256(found[name]).digest() for name in sorted(found))).hexdigest()


def callable_code(function: Any) -> str | None:
    """A hash of what the user wrote to define a function, or an object that can be called.

    It is :func:`code_hash` of its module; in a script that is run, where every other line may change without changing
    the function, its own source alone. None where it is installed as a library, or its source is not at hand.

    >>> import torch
    >>> callable_code(torch.nn.Linear(2, 2)) is None
    True
    """
    while isinstance(function, partial):
        function = function.func
    kind = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    if kind.__module__ == "__main__":
        with suppress(OSError, TypeError):
            return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()
        return None
    file = _file(kind.__module__)
    return None if file is None or _installed(file) else code_hash(kind.__module__)


def _file(name: str) -> Path | None:
    """The source of a loaded module."""
    path = getattr(sys.modules.get(name), "__file__", None)
    return Path(path) if path is not None and path.endswith(".py") and Path(path).is_file() else None


@cache
def _installed(file: Path | None) -> bool:
    return file is None or any(file.resolve().is_relative_to(folder) for folder in _LIBRARIES)


def _imported(module: ModuleType, source: bytes) -> Iterator[str]:
    """Modules that a loaded module imports as it is loaded."""
    for node in _top_level(ast.parse(source).body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), module.__package__)
            yield from (_defining(base, alias.name) for alias in node.names)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements outside of functions and classes. Others are not run as the module is loaded."""
    for node in body:
        yield node
        for name in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _top_level(getattr(node, name, []))


def _defining(base: str, name: str) -> str:
    """The module behind ``from base import name``: a submodule, that of a class or function, or ``base`` itself."""
    if f"{base}.{name}" in sys.modules:
        return f"{base}.{name}"
    defining = getattr(getattr(sys.modules.get(base), name, None), "__module__", None)
    return defining if isinstance(defining, str) and defining in sys.modules else base
