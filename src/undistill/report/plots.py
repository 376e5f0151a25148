"""Static plots, for papers and READMEs.

Matplotlib and not Plotly: Plotly writes PNG and SVG only through a browser, which a fresh machine does not have.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undistill.errors import InputError, require
from undistill.information import Spectrum
from undistill.utility import Comparison, Group, Plan

# Okabe and Ito's colours, told apart by the colour-blind.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SUFFIXES = (".png", ".svg", ".pdf")


def plot_spectra(spectra: Mapping[str, Spectrum], path: Path) -> None:
    """Draw CMI(a) and T^2 CMI(1/T) over the power, one line per spectrum, into a PNG, SVG or PDF file.

    Left: CMI as it is, its maximum marked. Right: what a student sees whose loss is multiplied by T^2; it nears half
    the within-class variance of the logits as the temperature grows (towards the left).

    Args:
        spectra: spectra by the name in the legend.
        path: the file; its suffix chooses the format.

    Raises:
        InputError: another suffix.
        MissingExtraError: matplotlib is not installed.
    """
    with drawn(path, (7.2, 2.9)) as figure:
        left, right = figure.subplots(1, 2)
        lines = []
        for index, spectrum in enumerate(spectra.values()):
            colour = COLOURS[index % len(COLOURS)]
            style = "-" if index < len(COLOURS) else "--"
            powers, cmi = list(spectrum.powers), spectrum.cmi.tolist()
            lines += left.plot(powers, cmi, style, color=colour, linewidth=1.5)
            left.plot([spectrum.supremum_power], [spectrum.supremum], "o", color=colour, markersize=4)
            right.plot(powers, [value / a**2 for a, value in zip(powers, cmi, strict=True)], style, color=colour)
        height = "log" if any(spectrum.supremum > 0 for spectrum in spectra.values()) else "linear"
        left.set(title="CMI(a), maximum marked", xlabel="power a = 1/T", ylabel="nats", xscale="log", yscale=height)
        right.set(title="T² CMI(1/T)", xlabel="power a = 1/T", xscale="log", yscale=height)
        for axes in (left, right):
            # What lies four decades under the top teaches nobody, and would flatten the rest.
            axes.set_ylim(bottom=axes.get_ylim()[1] / 1e4)
        _legend(left, lines, list(spectra))


TRADE_OFF = {
    "accuracy": "test accuracy (%)",
    "ece": "ECE",
    "auroc": "AUROC of confidence",
    "supremum": "sup CMI (nats)",
    "residual_T4": "T² CMI(1/T) at T = 4",
}


def plot_trade_off(comparison: Comparison, path: Path) -> None:
    """Draw what a defence gives and takes over its weight into a PNG, SVG or PDF file, one line per defence.

    Accuracy, calibration error and the AUROC of confidence on the test split; the largest CMI and T^2 CMI(1/T) at T = 4
    on test (solid) and training images (dashed). Points are means over seeds, bars their 95% t-intervals where there
    are several. What the teachers are compared with is a grey line across.

    Args:
        comparison: teachers of which some differ by their defence's weight only.
        path: the file; its suffix chooses the format.

    Raises:
        InputError: no such teachers, or another suffix.
        MissingExtraError: matplotlib is not installed.
    """
    check_trade_off(comparison.plan, path)
    with drawn(path, (7.2, 4.6)) as figure:
        grid = list(figure.subplots(2, 3).flat)
        lines: list[Any] = []
        for axes, (name, title) in zip(grid, TRADE_OFF.items(), strict=False):
            spectral = name in ("supremum", "residual_T4")
            for split, style in (("test_", "-"), ("train_", "--")) if spectral else (("", "-"),):
                bars = _draw_curves(axes, comparison, split + name, style)
                lines = lines or bars
            axes.set(title=title, xlabel="weight", yscale="log" if spectral else "linear")
        grid[-1].axis("off")
        names = [*comparison.curves, *([] if comparison.reference is None else [comparison.reference.label])]
        _legend(grid[-1], lines, names, loc="center")


def check_trade_off(plan: Plan, path: Path) -> None:
    """Refuse what cannot be drawn, before hours are spent on it.

    Raises:
        InputError: no two teachers differ by their defence's weight only, or another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
    """
    check_plot(path)
    if not plan.curves:
        raise InputError(
            "there is no trade-off to draw, for no two teachers differ by their defence's weight only; name teachers "
            "that do"
        )


def _draw_curves(axes: Any, comparison: Comparison, figure: str, style: str) -> list[Any]:
    """The lines of a figure over the weight, that of what is compared with last."""
    lines = []
    weights = [weight for line in comparison.curves.values() for weight, _ in line]
    for index, line in enumerate(comparison.curves.values()):
        means, reaches = zip(*(_mean_and_reach(group, figure) for _, group in line), strict=True)
        bars = axes.errorbar(
            [weight for weight, _ in line],
            means,
            reaches,
            fmt=f"o{style}",
            color=COLOURS[index % len(COLOURS)],
            markersize=3,
            linewidth=1.5,
        )
        lines.append(bars)
    if comparison.reference is not None:
        lines.append(axes.axhline(comparison.reference.summary(figure).mean, linestyle=style, color="0.5", linewidth=1))
    if min(weights) > 0:
        axes.set_xscale("log")
    elif max(weights) > 0:
        axes.set_xscale("symlog", linthresh=min(weight for weight in weights if weight > 0))
    return lines


def _mean_and_reach(group: Group, figure: str) -> tuple[float, float]:
    """A mean and half the width of its interval, 0 where there is none."""
    mean, _, high = group.summary(figure)
    return mean, high - mean if math.isfinite(high) else 0.0


def check_plot(path: Path) -> None:
    """Refuse the name of a plot before anything is measured for it.

    Raises:
        InputError: another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name!r} must end in one of {', '.join(SUFFIXES)}")
    require("matplotlib", "plot")


@contextmanager
def drawn(
    path: Path, size: tuple[float, float], *, grid: bool = True, style: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """A figure that is written to ``path`` when all is drawn.

    Args:
        path: its suffix chooses the format.
        size: in inches.
        grid: with grid lines, and without the upper and the right frame.
        style: settings of matplotlib beside our own.
    """
    check_plot(path)
    matplotlib = require("matplotlib", "plot")
    figures = require("matplotlib.figure", "plot")
    # Text stays text in SVG and PDF; ids do not change from run to run.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "undistill", **(style or {})}
    ):
        figure = figures.Figure(figsize=size, layout="constrained")
        yield figure
        for axes in figure.axes if grid else ():
            axes.grid(alpha=0.3, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _legend(axes: Any, lines: list[Any], names: list[str], loc: str = "best") -> None:
    legend = axes.legend(lines, names, frameon=False, fontsize="small", loc=loc)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is a dollar
