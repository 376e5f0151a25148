"""The script that draws the pictures of the theory runs, and its pictures are there."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pictures_are_drawn(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.main(tmp_path, epochs=1)
    assert "CMIM: accuracy" in capsys.readouterr().out
    theory = (DOCS / "theory.md").read_text()
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["clusters.svg", "scaling.svg", "theory-spectrum.svg"]
    for name in drawn:
        assert f"](images/{name})" in theory
        assert (DOCS / "images" / name).is_file()
