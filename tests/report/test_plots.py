import importlib
import xml.etree.ElementTree as ET

import pytest
import torch

from undistill.errors import InputError, MissingExtraError
from undistill.information import spectrum_compute, spectrum_update
from undistill.report import plot_spectra


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
