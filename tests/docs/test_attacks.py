"""Every attack has a row, a page, and a measured table that says what was recorded."""

import json
from pathlib import Path

import pytest

from benchmarks.self_check import table_of_attack, table_of_record
from undistill.attacks import ATTACKS

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = {file.stem: json.loads(file.read_text()) for file in sorted((DOCS / "results" / "self-check").glob("*.json"))}


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_has_a_row_and_a_page(name):
    kind = ATTACKS[name]
    assert f"| [`{name}`](attacks/{name}.md) | " in (DOCS / "attacks.md").read_text()
    assert f"{'needed' if kind.needs_labels else 'not needed'} | {kind.source} |" in (DOCS / "attacks.md").read_text()
    page = (DOCS / "attacks" / f"{name}.md").read_text()
    assert page.startswith(f"# `{name}`")
    assert f"{{include}} ../results/self-check/{name}.md" in page


@pytest.mark.parametrize("name", ATTACKS)
def test_the_measured_table_is_that_of_the_records(name):
    assert (DOCS / "results" / "self-check" / f"{name}.md").read_text() == table_of_attack(name, RECORDS)


@pytest.mark.parametrize("title", RECORDS)
def test_the_table_of_a_record_is_that_of_the_record(title):
    table = (DOCS / "results" / "self-check" / f"table-{title}.md").read_text()
    assert table == table_of_record(RECORDS[title]) + "\n"
    assert f"results/self-check/table-{title}.md" in (DOCS / "self-check.md").read_text()
