"""Every flag has a row and a page, no page is left over, and the pages name the thresholds of the code."""

import json
from pathlib import Path

import numpy as np
import pytest

from undistill.audit import FLAGS, flags
from undistill.blackbox import ANSWER_TOLERANCE, REPEAT_TOLERANCE
from undistill.statistics import share_p_value

DOCS = Path(__file__).parents[2] / "docs"
HEADINGS = ["## Raised if", "## Why it matters", "## What to do"]

THRESHOLDS = {
    "trained-on-test": [flags.SPLIT_ALPHA],
    "student-above-teacher": [flags.STUDENT_ALPHA],
    "trained-on-validation": [flags.SPLIT_ALPHA],
    "validation-and-test-disagree": [flags.SPLIT_ALPHA],
    "answers-not-probabilities": [flags.SUM_NOISE],
    "answers-not-repeatable": [flags.REPEAT_NOISE, REPEAT_TOLERANCE],
    "answers-depend-on-batch": [flags.BATCH_NOISE, ANSWER_TOLERANCE],
    "labels-beat-soft-answers": [flags.STUDENT_ALPHA],
    "placebo-collapsed": [flags.PLACEBO_SHARE],
}


def page(name):
    return (DOCS / "flags" / f"{name}.md").read_text()


def test_there_is_a_page_for_each_flag_and_for_nothing_else():
    assert sorted(path.stem for path in (DOCS / "flags").glob("*.md")) == sorted(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_a_page_says_when_why_and_what_to_do(name):
    text = page(name)
    assert text.startswith(f"# `{name}`\n")
    assert f"Severity: **{FLAGS[name].severity.value}**." in text
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == HEADINGS
    assert all(section.strip() for section in text.split("## ")[1:])
    overview = (DOCS / "flags.md").read_text()
    assert f"| [`{name}`](flags/{name}.md) | {FLAGS[name].severity.value} | {FLAGS[name].summary} |" in overview
    assert f"\nflags/{name}\n" in overview


def test_severities_are_explained():
    overview = (DOCS / "flags.md").read_text()
    assert all(f"- **{severity.value}**: {severity.sentence}." in overview for severity in flags.Severity)


@pytest.mark.parametrize(("name", "thresholds"), THRESHOLDS.items())
def test_a_page_names_its_thresholds(name, thresholds):
    words = page(name).split()
    for threshold in thresholds:
        written = f"{threshold:.6f}".rstrip("0")
        assert any(word.strip("().,") == written for word in words), written


def test_the_pages_numbers_on_placebos_are_those_of_the_records():
    below = []
    for path in (DOCS / "results" / "self-check").glob("*.json"):
        record = json.loads(path.read_text())
        chance = 100 / (record["task"]["source"]["classes"] or 10)  # digits and MNIST-1D have ten
        for cell in record["cells"]:
            if cell["placebo"] is not None:
                share = (cell["placebo"]["mean"] - chance) / (cell["ls"]["mean"] - chance)
                below.append(share < flags.PLACEBO_SHARE)
    assert f"{sum(below)} of {len(below)} placebos" in page("placebo-collapsed")


@pytest.mark.parametrize(("points", "least", "most"), [(3, 0.95, 1.0), (1, 0.0, 0.4)])
def test_the_pages_word_on_its_power_is_true(points, least, most):
    """A teacher of 90% with 5,000 validation images, and 10,000 test images that lift it by some points."""
    assert f"{points} point" in " ".join(page("trained-on-test").split())
    random = np.random.default_rng(0)
    validation, test = random.binomial(5000, 0.9, 40), random.binomial(10_000, 0.9 + points / 100, 40)
    pairs = zip(test.tolist(), validation.tolist(), strict=True)
    found = np.mean([share_p_value(right, 10_000, other, 5000) < flags.SPLIT_ALPHA for right, other in pairs])
    assert least <= found <= most
