"""The verdict in one sentence says what a reader needs to repeat or to doubt it."""

from dataclasses import replace

import pytest

from undistill.audit import Leak, Outcome, quick


@pytest.fixture
def said(finished):
    """The sentence of an audit with cells of these outcomes; the leak of the n-th is n + 1 points."""
    _, [audit, _] = finished

    def sentence(*outcomes, **change):
        leaks = [Leak(1.0 + n, 0.5 + n, 1.5 + n, 0.01, 0.75, 0.1 + n, 1.9 + n) for n in range(len(outcomes))]
        cells = [
            replace(audit.cells[0], leak=leak, outcome=outcome, data=f"d{n}")
            for n, (leak, outcome) in enumerate(zip(leaks, outcomes, strict=True))
        ]
        return replace(audit, cells=tuple(cells), **change).sentence

    return sentence


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([Outcome.LEAKS, Outcome.INCONCLUSIVE], "its answers are worth more than labels in 1 of 2 cells"),
        (
            [Outcome.NO_LEAK_FOUND],
            "its answers are in none of 1 cell (attack x student x data) worth 50 points of test",
        ),
        ([Outcome.INCONCLUSIVE, Outcome.TOO_WEAK], "of 2 cells (attack x student x data), 1 is inconclusive, in 0 no"),
    ],
)
def test_a_sentence_names_all_that_the_verdict_rests_on(said, finished, choosing, outcomes, words):
    sentence = said(*outcomes)
    audit = finished[1][0]
    for part in (
        "Under a custom protocol, ",
        audit.teacher.name,
        f"on digits ({len(audit.task.test):,} test images)",
        "an attacker who sees the probabilities of all classes, and has the teacher's training images, with labels",
        words,
        "the margin is 50 points",
        "a true leak of 0.75 points would have been found with probability 0.8 in any cell",
    ):
        assert part in sentence
    assert sentence.count(".") == 1 + sum(
        char == "." and sentence[i + 1 : i + 2].isdigit() for i, char in enumerate(sentence)
    )


def test_the_largest_leak_is_one_that_leaks_where_any_does(said):
    largest = (
        "+1.00 points of test accuracy (+0.50 to +1.50 over seeds, +0.10 to +1.90 over test images; kd with student"
    )
    assert f"the largest leak is {largest} mlp-4, data d0)" in said(Outcome.LEAKS, Outcome.INCONCLUSIVE)
    assert "the largest leak is +2.00 points" in said(Outcome.NO_LEAK_FOUND, Outcome.NO_LEAK_FOUND)


def test_a_frozen_version_is_named(said, finished):
    protocol = quick((1, 8, 8))
    sentence = said(Outcome.NO_LEAK_FOUND, protocol=protocol)
    assert sentence.startswith("Under undistill-quick v1, no leak was found in ce on digits")
    assert "worth 1 point of test accuracy more than labels" in sentence
    assert "data" in sentence
    assert "fresh" not in sentence, "the task has no such images, so no such attacker was audited"
    assert said(Outcome.LEAKS, protocol=replace(protocol, margin=0.3)).startswith(
        "Under a custom protocol (from undistill-quick v1), ce leaks"
    )


def test_the_json_names_version_and_hash(finished, choosing):
    found = finished[1][0].to_json()
    assert (found["protocol"]["version"], found["protocol"]["hash"]) == ("custom", choosing.hash)
    for cell in found["cells"]:
        assert cell["leak"]["test_low"] < cell["leak"]["mean"] < cell["leak"]["test_high"]
        assert cell["control"] == ("placebo" if cell["placebo"]["mean"] > cell["ls"]["mean"] else "ls")
