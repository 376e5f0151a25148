import importlib
import xml.etree.ElementTree as ET

import pytest
import torch

from undistill.blackbox import LocalBlackBox
from undistill.defences.training import CMIM, CrossEntropy
from undistill.errors import InputError, MissingExtraError
from undistill.information import spectrum_compute, spectrum_update
from undistill.models import make_classifier
from undistill.report import plot_spectra, plot_trade_off
from undistill.settings import settings_of
from undistill.tasks import load_task
from undistill.utility import compare, plan_comparison


def spectrum(scale=1.0):
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * scale
    return spectrum_compute(spectrum_update(logits, torch.arange(40) % 3))


def texts(path):
    return {text for element in ET.parse(path).iter() if (text := "".join(element.itertext()).strip())}


def test_a_png_is_a_png(tmp_path):
    plot_spectra({"ce": spectrum()}, tmp_path / "new" / "spectrum.png")
    content = (tmp_path / "new" / "spectrum.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 5_000


def test_a_pdf_is_a_pdf(tmp_path):
    plot_spectra({"ce": spectrum()}, tmp_path / "spectrum.pdf")
    assert (tmp_path / "spectrum.pdf").read_bytes().startswith(b"%PDF")


def test_an_svg_holds_titles_and_names_as_text(tmp_path):
    path = tmp_path / "spectrum.svg"
    names = ["ce, test", "cmim, test", "<script>", "[red]x[/red]", "a$b$c", "_hidden", r"$\nonsense$"]
    plot_spectra({name: spectrum(1 + index) for index, name in enumerate(names)}, path)
    found = texts(path)
    assert set(names) <= found
    assert {"CMI(a), maximum marked", "T² CMI(1/T)", "power a = 1/T", "nats"} <= found
    plot_spectra({name: spectrum(1 + index) for index, name in enumerate(names)}, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == path.read_bytes()


def test_a_spectrum_of_zeros_can_be_drawn(tmp_path):
    plot_spectra({"constant": spectrum(0.0)}, tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").exists()


@pytest.mark.parametrize("name", ["spectrum.jpg", "spectrum", "spectrum.png.txt"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=rf"'{name}' must end in one of \.png, \.svg, \.pdf"):
        plot_spectra({"ce": spectrum()}, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    found = importlib.import_module

    def missing(name, package=None):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return found(name, package)

    monkeypatch.setattr("undistill.errors.importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'undistill\[plot\]'"):
        plot_spectra({"ce": spectrum()}, tmp_path / "spectrum.png")


@pytest.fixture(scope="module")
def task():
    return load_task("digits", classes=3)


@pytest.fixture(scope="module")
def compared(task):
    """Makes a comparison of untrained teachers, which say that they were trained with CMIM of these weights."""

    def make(weights, seeds=2, against=True):
        def teacher(name, defence, seed):
            classifier = make_classifier(
                "mlp-4", class_names=task.class_names, input_shape=(1, 8, 8), mean=(0.3,), std=(0.3,), seed=seed
            )
            classifier.provenance = {"defence": {"name": defence.name, **settings_of(defence)}, "seed": seed}
            with torch.no_grad():
                classifier.net[-1].bias += 0.01 * len(name)
            return LocalBlackBox(name, classifier)

        boxes = [
            teacher("x" * place, CMIM(weight=weight), seed)
            for place, weight in enumerate(weights)
            for seed in range(seeds)
        ]
        plain = [teacher("plain", CrossEntropy(), seed) for seed in range(seeds)] if against else []
        return compare(plan_comparison([*boxes, *plain]), task)

    return make


@pytest.mark.parametrize(
    ("weights", "seeds", "against"), [((0.3, 1.0), 2, True), ((0.0, 1.0), 1, False), ((1.0, 10.0, 0.0), 1, True)]
)
def test_a_trade_off_is_drawn(compared, tmp_path, weights, seeds, against):
    path = tmp_path / "new" / "trade-off.svg"
    plot_trade_off(compared(weights, seeds, against), path)
    found = texts(path)
    assert {"test accuracy (%)", "ECE", "AUROC of confidence", "sup CMI (nats)", "weight", "cmim"} <= found
    assert ("ce" in found) == against


def test_without_two_weights_there_is_no_trade_off(compared, tmp_path):
    with pytest.raises(
        InputError, match="no two teachers differ by their defence's weight only; name teachers that do"
    ):
        plot_trade_off(compared((1.0,)), tmp_path / "trade-off.svg")
    with pytest.raises(InputError, match=r"'trade-off\.jpg' must end in one of"):
        plot_trade_off(compared((0.3, 1.0)), tmp_path / "trade-off.jpg")
    assert list(tmp_path.iterdir()) == []
