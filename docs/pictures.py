"""Draw the pictures of the theory from two real teachers of the digits: python docs/pictures.py (a minute)."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from undistill import CMIM, Recipe, Task, load_task, train_teacher
from undistill.defences.training import CrossEntropy
from undistill.information import DEFAULT_POWERS, Spectrum, spectrum_compute, spectrum_update, temper

COLOURS = ("#D55E00", "#0072B2", "#009E73")  # Okabe and Ito's, told apart by the colour-blind
MARKS = ("o", "s", "^")
SHOWN = (3, 5, 8)  # digits that are taken for each other
TEMPERATURES = (1, 4, 20)
ANSWERS = 60  # of each class
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
TEACHERS = {"cross entropy": CrossEntropy(), "CMIM": CMIM(weight=10.0)}


def answers_of_teachers(task: Task, epochs: int) -> dict[str, Tensor]:
    """Logits of both teachers for the test images. The recipe is the demo's."""
    recipe = Recipe(epochs=epochs, batch_size=50, learning_rate=0.1, clip_norm=2.0)
    images = task.test.images / 255
    found = {}
    for name, defence in TEACHERS.items():
        with tempfile.TemporaryDirectory() as folder:
            teacher = train_teacher(task, "cnn", defence, recipe, seed=0, folder=Path(folder, "teacher"))
        with torch.no_grad():
            found[name] = teacher.eval()(images).double()
    return found


def draw_clusters(logits: dict[str, Tensor], labels: Tensor) -> Figure:
    """Three classes on the simplex: one row for each teacher, one column for each temperature."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    grid = figure.subplots(len(logits), len(TEMPERATURES), squeeze=False)
    for row, (name, rows) in zip(grid, logits.items(), strict=True):
        for axes, temperature in zip(row, TEMPERATURES, strict=True):
            outline = torch.cat([CORNERS, CORNERS[:1]])
            axes.plot(*outline.T.tolist(), color="0.6", linewidth=0.8)
            for place, digit in enumerate(SHOWN):
                own = rows[labels == digit][:ANSWERS][:, list(SHOWN)]
                points = temper(own, 1 / temperature).exp() @ CORNERS
                axes.plot(
                    *points.T.tolist(), MARKS[place], color=COLOURS[place], markersize=3, alpha=0.6, markeredgewidth=0
                )
            for place, (digit, (x, y)) in enumerate(zip(SHOWN, CORNERS.tolist(), strict=True)):
                axes.annotate(
                    f"{digit}", (x, y), (0, 4 if y else -4), textcoords="offset points", ha="center",
                    va="bottom" if y else "top", fontsize=8, color=COLOURS[place],
                )  # fmt: skip
            axes.set(xlim=(-0.08, 1.08), ylim=(-0.12, 1.0), aspect="equal")
            axes.set_title(f"{name}, T = {temperature}", fontsize=9)
            axes.axis("off")
    return figure


def draw_spectra(spectra: dict[str, Spectrum]) -> Figure:
    """CMI(a), and what a student sees whose loss is multiplied by T²."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, spectrum) in zip(COLOURS, spectra.items(), strict=False):
        order = sorted(range(len(spectrum.powers)), key=lambda place: spectrum.powers[place])
        powers = [spectrum.powers[place] for place in order]
        cmi = [float(spectrum.cmi[place]) for place in order]
        left.plot(powers, cmi, color=colour, label=name)
        left.plot([spectrum.supremum_power], [spectrum.supremum], "o", color=colour, markersize=4)
        right.plot(powers, [value / a**2 for a, value in zip(powers, cmi, strict=True)], color=colour)
        right.axhline(spectrum.within_variance / 2, color=colour, linestyle=":", linewidth=1)
    left.set(xscale="log", xlabel="power a = 1/T", ylabel="nats", title="CMI(a), its maximum marked")
    right.set(xscale="log", yscale="log", xlabel="power a = 1/T", title="T² CMI(1/T), and its limit W/2 (dotted)")
    left.legend(frameon=False, fontsize=8)
    return figure


def draw_scaling(rows: Tensor, labels: Tensor, scales: Sequence[float] = (1.0, 2.0, 4.0)) -> Figure:
    """The spectra of one teacher whose logits were multiplied: the same curve, elsewhere."""
    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    axes = figure.subplots()
    powers = sorted(DEFAULT_POWERS)
    for colour, mark, scale in zip(COLOURS, MARKS, scales, strict=True):
        cmi = spectrum_compute(spectrum_update(scale * rows, labels, powers)).cmi.tolist()
        axes.plot(powers, cmi, color=colour, marker=mark, markersize=3, label=f"{scale:g} z")
    axes.axvline(1.0, color="0.6", linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="power a = 1/T", ylabel="CMI(a), nats")
    axes.legend(frameon=False, fontsize=8)
    return figure


def main(folder: Path, epochs: int = 100) -> None:
    task = load_task("digits")
    logits, labels = answers_of_teachers(task, epochs), task.test.labels
    spectra = {name: spectrum_compute(spectrum_update(rows, labels)) for name, rows in logits.items()}
    pictures = {
        "clusters": draw_clusters(logits, labels),
        "theory-spectrum": draw_spectra(spectra),
        "scaling": draw_scaling(logits["cross entropy"], labels),
    }
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"svg.fonttype": "none", "svg.hashsalt": "undistill", "font.size": 9}
    with matplotlib.rc_context(settings):
        for name, figure in pictures.items():
            for axes in figure.axes:
                axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    for name, rows in logits.items():
        found, right = spectra[name], 100 * (rows.argmax(1) == labels).double().mean().item()
        print(f"{name}: accuracy {right:.2f}%, sup CMI {found.supremum:.4f}, W/2 {found.within_variance / 2:.4f}")


if __name__ == "__main__":
    main(Path(__file__).parent / "images", *map(int, sys.argv[1:]))
