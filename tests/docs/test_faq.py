"""The numbers on the page of questions are those of the recorded audits."""

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("record", "words"), [("full", "all"), ("decimals-2", "two")])
def test_rounding(record, words):
    audit = json.loads((DOCS / "results" / "rounding" / f"{record}.json").read_text())
    page = (DOCS / "faq.md").read_text()
    assert audit["protocol"]["seeds"] == 4
    for cell in audit["cells"]:
        leak = cell["leak"]
        means = " | ".join(f"{cell[name]['mean']:.2f}" for name in ("knockoff", "ls", "placebo"))
        interval = f"{leak['mean']:+z.2f} [{leak['low']:+z.2f}, {leak['high']:+z.2f}]"
        assert f"| {words} | {cell['attack']} | {means} | {interval} | {cell['outcome']} |" in page
