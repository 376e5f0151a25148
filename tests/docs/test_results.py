"""The tables of the results page say what the recorded audits say, judged by the present rule."""

import json
from pathlib import Path

import pytest

from benchmarks.self_check import judged

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("teacher", ["ce", "cmim"])
def test_the_page_shows_the_recorded_numbers(teacher):
    audit = json.loads((DOCS / "results" / f"cifar100-20-{teacher}.json").read_text())
    page = (DOCS / "results-cifar100.md").read_text()
    [cell] = audit["cells"]
    [by_present_rule] = judged(audit)
    leak = by_present_rule.leak
    row = (
        f"| {audit['teacher']['accuracy']:.2f} | {cell['knockoff']['mean']:.2f} | {cell['ls']['mean']:.2f} "
        f"| {cell['placebo']['mean']:.2f} | {leak.mean:+z.2f} [{leak.low:+z.2f}, {leak.high:+z.2f}] "
        f"| {by_present_rule.outcome.value} |"
    )
    assert row in page
    for split in ("train", "test"):
        spectrum = audit["teacher"]["spectrum"][split]
        tail = [spectrum["residual_T4"], spectrum["residual_T20"], spectrum["within_class_variance"] / 2]
        assert " | ".join(f"{number:.3g}" for number in (spectrum["supremum"], *tail)) in page


def test_the_page_shows_the_recorded_teachers():
    held = json.loads((DOCS / "results" / "cifar100-20-teachers.json").read_text())["teachers"]
    page = (DOCS / "results-cifar100.md").read_text()
    for defence in ("ce", "cmim"):
        teachers = [teacher for teacher in held if teacher["defence"] == defence]
        both = [f"{t['validation_accuracy']:.2f}, {t['test_accuracy']:.2f}" for t in teachers]
        mean = sum(teacher["test_accuracy"] for teacher in teachers) / len(teachers)
        assert f"| {' | '.join(both)} | {mean:.2f} |" in page
