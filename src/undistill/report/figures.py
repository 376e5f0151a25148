"""The figures of a report for a paper: as wide as a column, in its size of type."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from undistill.errors import require
from undistill.report.files import read_audits
from undistill.report.model import (
    Shown,
    cells_of,
    label_audits,
    query_curves,
    teachers_of,
    three_classes,
    trade_off,
)
from undistill.report.plots import COLOURS, drawn

COLUMN = 3.3  # inches, the width of a column in most two-column styles
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
SHAPES = ("o", "s", "D", "^", "P", "*")
OUTCOMES = {
    "leaks": ("#D55E00", "^"),
    "no leak found": ("#009E73", "o"),
    "inconclusive": ("#8A5A00", "D"),
    "attack too weak": ("#777777", "x"),
}
TEMPERATURES = (1.0, 4.0, 20.0)
CLASSES = 12
LONGEST = 40  # characters of a label; what is longer would leave no room for the figure
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, math.sqrt(3) / 2))


def write_figures(places: Sequence[str | Path], folder: str | Path, suffix: str = "pdf") -> list[Path]:
    """Draw the figures of a report, one file each, 3.3 inches wide with 8-point type.

    Args:
        places: folders of audits, or ``audit.json`` files.
        folder: where the files go.
        suffix: ``"pdf"``, ``"svg"`` or ``"png"``.

    Returns:
        The files: leak matrix, leak by attack, spectrum, classes, clusters, reliability, risk and coverage, accuracy
        against leak and leak against queries, as far as the audits have what they show.

    Raises:
        InputError: a place that holds no audit, or another suffix.
        MissingExtraError: matplotlib is not installed.
    """
    shown = label_audits(read_audits(places))
    teachers = teachers_of(shown)
    spread = [teacher for teacher in teachers if teacher.get("clusters")]
    cells, lines = cells_of(shown), query_curves(shown)
    wanted: dict[str, Callable[[Path], None] | None] = {
        "leak-matrix": lambda path: _matrix(shown, cells, path),
        "leak-by-attack": lambda path: _forest(shown, cells, path),
        "spectrum": lambda path: _spectrum(teachers, path),
        "classes": (lambda path: _classes(spread, path)) if spread else None,
        "clusters": (lambda path: _clusters(spread, path)) if spread else None,
        "reliability": (lambda path: _reliability(spread, path)) if spread else None,
        "risk-coverage": (lambda path: _risk(spread, path)) if spread else None,
        "accuracy-against-leak": (lambda path: _trade_off(shown, path)) if len(shown) > 1 else None,
        "leak-against-queries": (lambda path: _queries(lines, path)) if lines else None,
    }
    files = []
    for name, draw in wanted.items():
        if draw is not None:
            files.append(Path(folder) / f"{name}.{suffix}")
            draw(files[-1])
    return files


def _matrix(shown: Sequence[Shown], cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    rows = list(dict.fromkeys(cell["attack"] for cell in cells))
    columns = list(dict.fromkeys((cell["audit"], cell["data"], cell["student"]) for cell in cells))
    values = [[math.nan] * len(columns) for _ in rows]
    marks: list[tuple[int, int, str]] = []
    for cell in cells:
        row, column = rows.index(cell["attack"]), columns.index((cell["audit"], cell["data"], cell["student"]))
        values[row][column] = cell["leak"]["mean"]
        marks.append((column, row, cell["outcome"]))
    most = max(abs(cell["leak"]["mean"]) for cell in cells) or 1.0
    with drawn(path, (COLUMN, 0.9 + 0.19 * len(rows)), grid=False, style=STYLE) as figure:
        axes = figure.subplots()
        colours = require("matplotlib.colors", "plot").LinearSegmentedColormap.from_list(
            "leak", ["#5BA3CF", "#F3F3F3", "#E8935B"]
        )
        image = axes.imshow(values, cmap=colours, vmin=-most, vmax=most, aspect="auto")
        for column, row, outcome in marks:
            axes.scatter(column, row, s=12, marker=OUTCOMES[outcome][1], color="black", linewidths=0.7)
        axes.set_yticks(range(len(rows)), [_cut(row, 24) for row in rows])
        several = len(shown) > 1
        names = [
            "\n".join(_cut(name, 24) for name in (student, data, shown[audit].label if several else "") if name)
            for audit, data, student in columns
        ]
        axes.set_xticks(range(len(columns)), names, rotation=90 if len(columns) > 4 else 0)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label="leak, points", shrink=min(1.0, 8 / len(rows)))


def _forest(shown: Sequence[Shown], cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    several_students = len({cell["student"] for cell in cells}) > 1
    several_data = len({cell["data"] for cell in cells}) > 1
    ordered = sorted(cells, key=lambda cell: cell["leak"]["mean"])
    with drawn(path, (COLUMN, 0.7 + 0.15 * len(cells)), style=STYLE) as figure:
        axes = figure.subplots()
        for row, cell in enumerate(ordered):
            colour, shape = OUTCOMES[cell["outcome"]]
            leak = cell["leak"]
            axes.plot([leak["low"], leak["high"]], [row, row], "-", color=colour, linewidth=1)
            axes.plot(leak["mean"], row, shape, color=colour)
        axes.axvline(0, color="black", linewidth=0.7)
        for margin in {one.result["protocol"]["margin"] for one in shown}:
            axes.axvline(margin, color="0.4", linewidth=0.7, linestyle="--")
        names = [
            ", ".join(
                filter(
                    None,
                    [
                        shown[cell["audit"]].label if len(shown) > 1 else "",
                        cell["attack"],
                        cell["student"] if several_students else "",
                        cell["data"] if several_data else "",
                    ],
                )
            )
            for cell in ordered
        ]
        axes.set_yticks(range(len(names)), [_cut(name) for name in names])
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel("leak, points of test accuracy", loc="right")


def _cut(label: str, longest: int = LONGEST) -> str:
    """A label that leaves room for the figure.

    >>> _cut("a long name", 7)
    'a long…'
    """
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _look(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": SHAPES[index % len(SHAPES)]}


def _legend_below(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)


def _spectrum(teachers: Sequence[Mapping[str, Any]], path: Path) -> None:
    with drawn(path, (COLUMN, 2.1), style=STYLE) as figure:
        left, right = figure.subplots(1, 2)
        top = [0.0, 0.0]
        for index, teacher in enumerate(teachers):
            for split, style in (("test", "-"), ("train", ":")):
                spectrum = teacher["spectra"].get(split)
                if spectrum is None:
                    continue
                look = _look(index) | ({} if split == "test" else {"marker": None})
                label = teacher["label"] if split == "test" else None
                powers = spectrum["powers"]
                raised = [value / power**2 for value, power in zip(spectrum["cmi"], powers, strict=True)]
                left.plot(powers, spectrum["cmi"], style, label=label, markevery=3, **look)
                right.plot(powers, raised, style, markevery=3, **look)
                left.plot(spectrum["supremum_power"], spectrum["supremum"], "o", mfc="none", ms=7, color=look["color"])
                top = [max(top[0], *spectrum["cmi"]), max(top[1], *raised)]
        for axes, title, highest in ((left, "CMI(a), nats", top[0]), (right, "T² CMI(1/T), nats", top[1])):
            axes.set(title=title, xlabel="power a = 1/T", xscale="log")
            axes.set_xticks([0.01, 0.05, 0.25, 1, 4], ["1/100", "1/20", "1/4", "1", "4"], rotation=90)
            axes.set_xticks([], minor=True)
            if highest > 0:
                axes.set(yscale="log", ylim=(highest / 1e4, 2 * highest))
                axes.yaxis.set_major_formatter("{x:g}")
        _legend_below(figure, left)


def _classes(teachers: Sequence[Mapping[str, Any]], path: Path) -> None:
    largest: dict[str, list[float | None]] = {}
    for place, teacher in enumerate(teachers):
        spectrum = teacher["spectra"]["test"]
        for index, line in zip(spectrum["classes"], spectrum["cmi_per_class"], strict=True):
            values = largest.setdefault(teacher["class_names"][index], [None] * len(teachers))
            values[place] = max(line)
    names = sorted(largest, key=lambda name: -max(value for value in largest[name] if value is not None))[:CLASSES]
    with drawn(path, (COLUMN, 0.9 + 0.16 * len(names)), style=STYLE) as figure:
        axes = figure.subplots()
        for place, teacher in enumerate(teachers):
            points = [(value, row) for row, name in enumerate(names) if (value := largest[name][place]) is not None]
            axes.plot(*zip(*points, strict=True), linestyle="none", label=teacher["label"], **_look(place))
        axes.set_yticks(range(len(names)), [_cut(name, 24) for name in names])
        axes.invert_yaxis()
        axes.set(xlabel="supremum of a class's CMI, nats")
        axes.set_xlim(left=0)
        _legend_below(figure, axes)


def _clusters(teachers: Sequence[Mapping[str, Any]], path: Path) -> None:
    teachers = [teacher for teacher in teachers if teacher["task"] == teachers[0]["task"]][:3]
    chosen = three_classes(teachers[0])
    with drawn(path, (COLUMN, 1.15 * len(teachers) + 0.2), grid=False, style=STYLE) as figure:
        grid = figure.subplots(len(teachers), len(TEMPERATURES), squeeze=False)
        for axes, temperature in zip(grid[0], TEMPERATURES, strict=True):
            axes.set_title(f"T = {temperature:g}")
        for row, teacher in zip(grid, teachers, strict=True):
            for axes, temperature in zip(row, TEMPERATURES, strict=True):
                _simplex(axes, teacher, chosen, 1 / temperature)
            row[0].text(-0.25, 0.43, _cut(teacher["label"], 20), rotation=90, va="center", ha="center")


def _simplex(axes: Any, teacher: Mapping[str, Any], chosen: Sequence[int], power: float) -> None:
    axes.plot(*zip(*CORNERS, CORNERS[0], strict=True), color="0.5", linewidth=0.6)
    columns = [teacher["shown"].index(index) for index in chosen]
    points: dict[int, list[tuple[float, float]]] = {place: [] for place in range(len(chosen))}
    clusters = teacher["clusters"]["test"]
    for label, row in zip(clusters["labels"], clusters["log_probs"], strict=True):
        shares = [math.exp(power * row[column]) if row[column] is not None else 0.0 for column in columns]
        if label in chosen and sum(shares) > 0:
            weights = [share / sum(shares) for share in shares]
            points[chosen.index(label)].append(
                (
                    sum(weight * corner[0] for weight, corner in zip(weights, CORNERS, strict=False)),
                    sum(weight * corner[1] for weight, corner in zip(weights, CORNERS, strict=False)),
                )
            )
    for place, index in enumerate(chosen):
        if points[place]:
            x, y = zip(*points[place], strict=True)
            axes.scatter(x, y, s=5, alpha=0.5, marker=SHAPES[place], color=COLOURS[place], linewidths=0)
        across, up = CORNERS[place]
        name, above = _cut(teacher["class_names"][index], 12), up > 0
        look: dict[str, Any] = {"fontsize": 6, "ha": "center", "va": "bottom" if above else "top"}
        axes.text(across, up + (0.04 if above else -0.04), name, color=COLOURS[place], **look)
    axes.set_aspect("equal")
    axes.axis("off")


def _reliability(teachers: Sequence[Mapping[str, Any]], path: Path) -> None:
    with drawn(path, (COLUMN, 2.5), style=STYLE) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "--", color="0.5", linewidth=0.8)
        for index, teacher in enumerate(teachers):
            bins = teacher["reliability"]
            look = {"label": teacher["label"], **_look(index)}
            axes.plot([found["confidence"] for found in bins], [found["accuracy"] for found in bins], **look)
        axes.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1.02), ylim=(0, 1.02))
        _legend_below(figure, axes)


def _risk(teachers: Sequence[Mapping[str, Any]], path: Path) -> None:
    with drawn(path, (COLUMN, 2.3), style=STYLE) as figure:
        axes = figure.subplots()
        for index, teacher in enumerate(teachers):
            curve = teacher["risk_coverage"]
            every = max(1, len(curve["risk"]) // 8)
            axes.plot(curve["coverage"], curve["risk"], label=teacher["label"], markevery=every, **_look(index))
        axes.set(xlabel="share of answers taken", ylabel="share of wrong ones", xlim=(0, 1.02))
        axes.set_ylim(bottom=0)
        _legend_below(figure, axes)


def _trade_off(shown: Sequence[Shown], path: Path) -> None:
    with drawn(path, (COLUMN, 2.5), style=STYLE) as figure:
        axes = figure.subplots()
        for index, point in enumerate(trade_off(shown)):
            leak = point["leak"]
            reach = [[leak["mean"] - leak["low"]], [leak["high"] - leak["mean"]]]
            look = {"linestyle": "none", "label": point["label"], **_look(index)}
            axes.errorbar(leak["mean"], point["accuracy"], xerr=reach, elinewidth=1, **look)
        axes.axvline(0, color="black", linewidth=0.7)
        axes.axvline(shown[0].result["protocol"]["margin"], color="0.4", linewidth=0.7, linestyle="--")
        axes.set(xlabel="largest leak, points", ylabel="test accuracy, %")
        _legend_below(figure, axes)


def _queries(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    with drawn(path, (COLUMN, 2.3 + 0.08 * len(lines)), style=STYLE) as figure:
        axes = figure.subplots()
        for index, line in enumerate(lines):
            points = line["points"]
            reach = [
                [point["mean"] - point["low"] for point in points],
                [point["high"] - point["mean"] for point in points],
            ]
            label = ", ".join((line["teacher"], line["attack"], line["student"]))
            x, y = [point["queries"] for point in points], [point["mean"] for point in points]
            axes.errorbar(x, y, yerr=reach, elinewidth=0.8, label=label, **_look(index))
        axes.axhline(0, color="black", linewidth=0.7)
        axes.set(xlabel="queries per knockoff", ylabel="leak, points", xscale="log")
        asked = sorted({point["queries"] for line in lines for point in line["points"]})
        axes.set_xticks(asked, [f"{number:,}" for number in asked])
        axes.set_xticks([], minor=True)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1, frameon=False)
