"""Every defence by training has a row and a page that names all its settings."""

from dataclasses import fields
from pathlib import Path

import pytest

from undistill.defences.training import DEFENCES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defence_has_a_row_and_a_page(name):
    index = (DOCS / "training-defences.md").read_text()
    (row,) = (line for line in index.splitlines() if line.startswith(f"| [`{name}`](defences/{name}.md) |"))
    assert row.endswith(f"| {DEFENCES[name].source} |")
    runs = row.split("|")[3].strip()
    assert ("a normal teacher" in runs) is DEFENCES[name].needs_normal
    assert runs == (DEFENCES[name].runs if DEFENCES[name].needs_normal else "-")
    assert f"\ndefences/{name}\n" in index
    page = (DOCS / "defences" / f"{name}.md").read_text()
    assert page.startswith(f"# `{name}`")
    for field in fields(DEFENCES[name]):
        assert f"`{field.name}`" in page, field.name
