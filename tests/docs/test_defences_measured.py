"""The tables of the defences that were measured are those of the records, and all stand on a page."""

import json

import pytest

from benchmarks import defences
from benchmarks.defences import RECORDS, SEARCHED, correlations, tables, tasks_table

FOUND = {file.stem: json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))}
PAGES = "".join((RECORDS.parents[1] / name).read_text() for name in ("defences-measured.md", "recipe-search.md"))


@pytest.mark.parametrize("title", FOUND)
def test_tables_are_those_of_the_record_and_stand_on_a_page(title):
    for name, lines in tables(FOUND[title]).items():
        assert (RECORDS / f"{title}-{name}.md").read_text() == "\n".join(lines) + "\n"
        assert f"{{include}} results/defences/{title}-{name}.md" in PAGES


def test_the_table_over_tasks_is_that_of_the_records_and_stands_on_a_page():
    lines = tasks_table({task: FOUND[name] for task, name in SEARCHED.items()})
    assert (RECORDS / "over-tasks.md").read_text() == "\n".join(lines) + "\n"
    assert "{include} results/defences/over-tasks.md" in PAGES
    [entry] = [entry for entry in FOUND["search-mnist1d"]["defences"] if entry["label"] == "cmim"]
    [row] = [line for line in lines if line.startswith("| `cmim` |")]
    largest = max(cell["validation_leak"] for cell in entry["cells"]["fresh"])
    assert row.split(" | ")[5] == f"{largest:+.2f}"


@pytest.mark.parametrize("title", FOUND)
def test_correlations_are_those_of_the_measurements(title, monkeypatch):
    monkeypatch.setattr(defences, "RESAMPLES", 2)  # intervals, which take long, are looked at elsewhere
    for regime, rows in FOUND[title]["correlations"].items():
        again = correlations(FOUND[title], regime)
        assert [row["rho"] for row in rows] == pytest.approx([row["rho"] for row in again], nan_ok=True)
