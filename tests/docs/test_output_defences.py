"""Every output defence has its rows and a page, and the table says what the code says."""

from pathlib import Path

import pytest

from undistill.defences.output import OUTPUT_DEFENCES
from undistill.defences.training import DEFENCES

DOCS = Path(__file__).parents[2] / "docs"


def rows(page):
    """The cells of each row of a page's tables that begins with a link to a defence."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| [`")]
    return {line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")] for line in lines}


def test_the_overview_has_a_row_for_every_defence():
    overview = rows("defences.md")
    assert list(overview) == [*DEFENCES, *OUTPUT_DEFENCES]
    assert [row[1] for row in overview.values()] == ["training"] * len(DEFENCES) + ["output"] * len(OUTPUT_DEFENCES)


@pytest.mark.parametrize("name", OUTPUT_DEFENCES)
def test_an_output_defence_has_a_row_and_a_page(name):
    link, _, top1, idempotent, sums, learns, _ = rows("output-defences.md")[name]
    defence, said = OUTPUT_DEFENCES[name](), {True: "yes", False: "no"}
    assert link == f"[`{name}`](defences/{name}.md)"
    assert top1 in (said[defence.keeps_top1], "as set")
    assert idempotent == said[defence.idempotent]
    assert sums in (said[defence.normalised], "as set")
    assert (learns == "-") == (not defence.learns)
    page = (DOCS / "defences" / f"{name}.md").read_text()
    assert page.startswith(f"# `{name}`")
    assert type(defence).__name__ in page
