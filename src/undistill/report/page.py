"""The report as one HTML page that needs nothing else: no network, no files beside it."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from undistill.audit import Outcome
from undistill.errors import InputError, require
from undistill.files import content_hash, write_atomic
from undistill.report.command import command_of
from undistill.report.files import AuditFiles, read_audits
from undistill.report.model import (
    MARKS,
    Shown,
    cells_of,
    curves_of,
    in_words,
    label_audits,
    query_curves,
    rows_of,
    teachers_of,
    three_classes,
    trade_off,
)
from undistill.utility import Measurement

PARTS = Path(__file__).parent / "page"  # template, style and script
PACKAGE = Path(__file__).parents[1]
REPORT = "report.html"
HEAD = 1024  # bytes of a page, in which its digest stands


def write_report(
    places: str | Path | Sequence[str | Path], path: str | Path | None = None, *, keep: bool = False
) -> Path:
    """Write the report of one audit, or of several side by side, from the files that they left.

    Args:
        places: folders of audits, or ``audit.json`` files.
        path: of the page; by default ``report.html`` in the folder, and in the current one for several.
        keep: leave a page as it is that was made of the same files by the same code.

    Returns:
        Where it was written.

    Raises:
        InputError: a place that holds no audit, or files that are damaged or of another version.
        MissingExtraError: Plotly or Jinja is not installed.
    """
    places = [places] if isinstance(places, str | Path) else list(places)
    audits = read_audits(places)
    if path is None:
        alone = Path(places[0]) if len(places) == 1 else Path()
        path = (alone.parent if alone.is_file() else alone) / REPORT
    path, digest = Path(path), _digest(audits)
    if not (keep and path.is_file() and digest in _beginning(path)):
        write_atomic(path, render_report(label_audits(audits), digest).encode())
    return path


def _digest(audits: Sequence[AuditFiles]) -> str:
    """Of everything that a page is made of: what the audits left, and all of our code, for any part may speak there."""
    code = sorted(file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".html", ".css", ".js"))
    left = [[one.result, one.evidence, one.trial_names] for one in audits]
    return content_hash([version("undistill"), *(file.read_text() for file in code), *left])


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD).decode(errors="replace")


def render_report(shown: Sequence[Shown], digest: str) -> str:
    """The page of some audits, which names the digest of its sources."""
    cells = cells_of(shown)
    places, curves = curves_of(shown, cells)
    teachers = teachers_of(shown)
    spread = [teacher for teacher in teachers if teacher.get("clusters")]
    audits = [_audit(one) for one in shown]
    data = {
        "audits": [{"label": one.label, "margin": one.result["protocol"]["margin"]} for one in shown],
        "marks": MARKS,
        "cells": [_cell(cell, found) for cell, found in zip(cells, places, strict=True)],
        "curves": curves,
        "teachers": teachers,
        "first_classes": {teacher["task"]: three_classes(teacher) for teacher in reversed(spread)},
        "trade_off": trade_off(shown),
        "query_curves": query_curves(shown),
    }
    return _render(
        digest=digest,
        title="Audit of " + ", ".join(one.label for one in shown),
        audits=audits,
        groups=_groups(shown, cells),
        rows=list(dict.fromkeys(cell["attack"] for cell in cells)),
        cells=cells,
        grid={
            (cell["audit"], cell.get("data"), cell["attack"], cell["student"]): place
            for place, cell in enumerate(cells)
        },
        most=max([2 * max(audit["margin"] for audit in audits), *(abs(cell["leak"]["mean"]) for cell in cells)]),
        teachers=teachers,
        spread=spread,
        card=_side_by_side([audit["card"] for audit in audits]),
        settings=_side_by_side([audit["settings"] for audit in audits]),
        utilities=_utilities(shown),
        data=data,
    )


def write_measurements(measurements: Mapping[str, Measurement], path: Path) -> None:
    """Write the sections on spectrum and clusters alone, of answers that were measured and not audited.

    Args:
        measurements: by the name in the legends; the first two are set side by side.
        path: of the page.

    Raises:
        InputError: the path does not end in ``.html``.
        MissingExtraError: Plotly or Jinja is not installed.
    """
    check_page(path)
    teachers = [
        {**found.evidence(), "label": name, "undefended": False, "task": f"{len(found.right)} classes"}
        for name, found in measurements.items()
    ]
    data = {
        "audits": [],
        "marks": MARKS,
        "cells": [],
        "curves": [],
        "teachers": teachers,
        "first_classes": {teacher["task"]: three_classes(teacher) for teacher in reversed(teachers)},
        "trade_off": [],
        "query_curves": [],
    }
    page = _render(
        digest=None,
        title="Spectrum of " + ", ".join(measurements),
        audits=[],
        measured=[
            {
                "label": name,
                "n": found.n,
                "sources": len(found.sources),
                "defences": [defence["words"] for defence in found.output_defences],
                "accuracy": found.accuracy,
                "cmi": found.spectrum.at(1.0),
                "supremum": found.spectrum.supremum,
                "residual": found.spectrum.residual(4.0),
                "limit": found.spectrum.within_variance / 2,
            }
            for name, found in measurements.items()
        ],
        teachers=teachers,
        spread=teachers,
        data=data,
    )
    write_atomic(path, page.encode())


def check_page(path: Path) -> None:
    """Refuse the name of a page before anything is measured for it.

    Raises:
        InputError: another suffix than ``.html``.
        MissingExtraError: Plotly or Jinja is not installed.
    """
    if path.suffix != ".html":
        raise InputError(f"{path.name!r} must end in .html")
    require("jinja2", "report")
    require("plotly.offline", "report")


def _render(**context: Any) -> str:
    jinja2 = require("jinja2", "report")
    offline = require("plotly.offline", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": _signed, "words": in_words, "embedded": _embedded}
    return environment.get_template("page.html").render(
        **context,
        version=version("undistill"),
        marks=MARKS,
        outcomes={outcome.value: outcome.sentence for outcome in Outcome},
        style=(PARTS / "page.css").read_text(),
        script=(PARTS / "page.js").read_text(),
        plotly=offline.get_plotlyjs(),
    )


def _signed(value: float) -> str:
    """Two decimals with a sign, a minus that is as wide as a plus."""
    return f"{value:+z.2f}".replace("-", "\N{MINUS SIGN}")


def _embedded(value: Any) -> str:
    """JSON that can stand in a script element, whatever it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _audit(one: Shown) -> dict[str, Any]:
    result, worst = one.result, one.worst
    protocol = result["protocol"]
    return {
        "label": one.label,
        "verdict": result["verdict"],
        "sentence": result["sentence"],
        "task": result["task"]["name"],
        "version": protocol.get("version"),
        "accuracy": result["teacher"]["accuracy"],
        "undefended": None if one.is_undefended else result["undefended"],
        "worst": worst,
        "detectable": result["detectable"],
        "margin": protocol["margin"],
        "card": {name.replace("_", " "): in_words(value) for name, value in result["threat_card"].items()},
        "settings": _settings(one),
        "flags": [_flag(flag) for flag in result.get("flags", [])],
        "noted": [
            (cell, name.replace("_", " "), count) for cell in result["cells"] for name, count in cell["flags"].items()
        ],
        "command": command_of(result),
    }


def _flag(flag: Mapping[str, Any]) -> dict[str, Any]:
    return {name: flag[name] for name in ("name", "sentence", "severity", "docs")}


def _settings(one: Shown) -> dict[str, str]:
    """Every setting, version and hash."""
    result = one.result
    evidence = one.files.evidence or {}
    facts = {
        "schema": result["schema"],
        "versions": evidence.get("versions", {}),
        "task": result["task"],
        "teacher": {name: result["teacher"][name] for name in ("name", "fingerprint", "output_defences")},
        "undefended": {"name": result["undefended"]["name"]},
        "hardware": {name: result["teacher"]["utility"]["serving"][name] for name in ("hardware", "threads")},
        "protocol": {name: value for name, value in result["protocol"].items() if name != "attacks"},
        "attack": {
            grid[0]["name"]: [{name: value for name, value in method.items() if name != "name"} for method in grid]
            for grid in result["protocol"]["attacks"]
        },
    }
    return dict(rows_of(facts))


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str], bool]]:
    """Rows of name, values, and whether all values are the same; in the order in which names first occur."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, [column.get(name, "\N{EN DASH}") for column in columns]) for name in names]
    return [(name, values, len(set(values)) == 1) for name, values in rows]


def _groups(shown: Sequence[Shown], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Columns of the leak matrix: students, under what the attacker asks about, under the audit."""
    groups = []
    for place, one in enumerate(shown):
        own = [cell for cell in cells if cell["audit"] == place]
        for data in dict.fromkeys(cell.get("data") for cell in own):
            students = list(dict.fromkeys(cell["student"] for cell in own if cell.get("data") == data))
            groups.append({"audit": place, "label": one.label, "data": data, "students": students})
    return groups


def _cell(cell: Mapping[str, Any], curves: Mapping[str, int | None]) -> dict[str, Any]:
    kept = ("audit", "attack", "student", "outcome", "knockoff", "ls", "placebo", "control", "leak", "agreement")
    return {name: cell[name] for name in kept} | {
        "data": cell.get("data"),
        "queries": cell["queries"],
        "flags": cell["flags"],
        "curves": curves,
    }


def _utilities(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """What answers are worth, of every audited teacher and of what it is compared with."""
    rows = {}
    for one in shown:
        result = one.result
        plain = result["undefended"]
        rows[json.dumps(result["teacher"]["utility"])] = {"label": one.label, **result["teacher"]["utility"]}
        rows.setdefault(json.dumps(plain["utility"]), {"label": f"{plain['name']} (undefended)", **plain["utility"]})
    return list(rows.values())
