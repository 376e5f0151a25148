"""Static plots, for papers and READMEs.

Matplotlib and not Plotly: Plotly writes PNG and SVG only through a browser, which a fresh machine does not have.
"""

from collections.abc import Mapping
from pathlib import Path

from undistill.errors import InputError, require
from undistill.information import Spectrum

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
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name!r} must end in one of {', '.join(SUFFIXES)}")
    matplotlib = require("matplotlib", "plot")
    figures = require("matplotlib.figure", "plot")
    # Text stays text in SVG and PDF; ids do not change from run to run.
    with matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "undistill"}):
        figure = figures.Figure(figsize=(7.2, 2.9), layout="constrained")
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
            axes.grid(alpha=0.3, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
        legend = left.legend(lines, list(spectra), frameon=False, fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a dollar in a name is a dollar
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
