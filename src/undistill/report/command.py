"""The command that reproduces an audit, from what ``audit.json`` says of it."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from undistill.attacks import ATTACKS
from undistill.audit.trial import describe_attack
from undistill.audit.versions import BOTH_REGIMES

VERSION = re.compile(r"undistill-(\w+) v")  # in "undistill-quick v1" and "custom (from undistill-quick v1)"


def command_of(result: Mapping[str, Any]) -> str:
    """The command of an audit, for a shell. Every setting is named, so that later defaults change nothing.

    Names of teachers stand for their checkpoint folders or callables, whose paths a result does not hold.

    Args:
        result: the content of ``audit.json``.
    """
    teacher = result["teacher"]
    name = teacher["name"]
    for defence in reversed(teacher["output_defences"]):  # which are added to the name, and named as options
        name = name.removesuffix(f"+{defence['name']}")
    return shlex.join(["undistill", "audit", name, *(word for words in _options(result) for word in words)])


def _options(result: Mapping[str, Any]) -> Iterator[list[str]]:
    protocol, teacher = result["protocol"], result["teacher"]
    yield ["--out", "OUT"]
    yield from _task(result["task"]["source"], "")
    if named := VERSION.search(protocol["version"]):
        yield ["--protocol", named[1]]
    for student in protocol["students"]:
        yield ["--student", student]
    for grid in protocol["attacks"]:
        yield from (["--attack", text] for text in _grid(grid))
    for defence in teacher["output_defences"]:
        yield ["--output-defence", _method(defence)]
    yield ["--access", protocol["access"]]
    yield from _data(protocol)
    queries = protocol["queries"]
    yield ["--query-mode", queries["mode"]]
    if queries["mode"] == "cached-views":
        yield ["--views", str(queries["views"])]
    if queries["budget"] is not None:
        yield ["--budget", str(queries["budget"])]
    for smoothing in protocol["smoothings"]:
        yield ["--smoothing", str(smoothing)]
    for smoothing in protocol["placebo_smoothings"]:
        yield ["--placebo-smoothing", str(smoothing)]
    for name in ("seeds", "tuning_seeds", "margin", "alpha"):
        yield [f"--{name.replace('_', '-')}", str(protocol[name])]
    for name, value in protocol["recipe"].items():
        for each in value if isinstance(value, list) else [value]:
            yield [f"--{name.replace('_', '-')}", str(each)]
    if result["undefended"]["name"] not in (teacher["name"], "undefended"):
        yield ["--undefended", result["undefended"]["name"]]


def _data(protocol: Mapping[str, Any]) -> Iterator[list[str]]:
    """Kinds of images; a version's own go without saying, for a task may lack one of them."""
    version = VERSION.search(protocol["version"])
    names = [data["name"] for data in protocol["data"]]
    if version and names == [str(data) for data in BOTH_REGIMES]:
        return
    for data in protocol["data"]:
        yield ["--data", data["name"]]
        if "other" in data:
            yield from _task(data["other"]["source"], "other-")


def _task(source: Mapping[str, Any], prefix: str) -> Iterator[list[str]]:
    yield [f"--{prefix}task", source.get("name", "TASK")]
    classes = source.get("classes")
    if classes is not None:
        yield [f"--{prefix}classes", ",".join(map(str, classes)) if isinstance(classes, list) else str(classes)]
    if source.get("fraction", 1.0) != 1.0:
        yield [f"--{prefix}fraction", str(source["fraction"])]
    names = {"image_column": "image-column", "label_column": "label-column"}
    if not prefix:
        names |= {"validation": "validation", "fresh": "fresh", "seed": "split-seed"}
    for name, option in names.items():
        if source.get(name):
            yield [f"--{prefix}{option}", str(source[name])]


def _grid(grid: list[Mapping[str, Any]]) -> list[str]:
    """The words of a grid: the attack's name where it is its own grid, else one for each setting."""
    name = grid[0]["name"]
    own = [describe_attack(attack) for attack in ATTACKS[name].grid()] if name in ATTACKS else []
    if json.loads(json.dumps(own)) == grid:
        return [name]
    return [_method(method) for method in grid]


def _method(method: Mapping[str, Any]) -> str:
    """``NAME:FIELD=VALUE,...``; a method that is a setting of another one is named.

    >>> _method({"name": "cmim", "weight": 1.0, "powers": [0.25, 1.0], "code": "a0"})
    'cmim:weight=1.0,powers=0.25:1.0'
    """

    def word(value: Any) -> str:
        if isinstance(value, Mapping):
            return value["name"]
        return ":".join(map(str, value)) if isinstance(value, list) else str(value)

    settings = [
        f"{name}={word(value)}"
        for name, value in method.items()
        if name not in ("name", "code", "words", "learnt") and value is not None
    ]
    return f"{method['name']}:{','.join(settings)}" if settings else method["name"]
