from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from undistill.audit import Accuracies, Cell, Leak, Measured, Outcome, Verdict, judge, verdict_of
from undistill.errors import InputError
from undistill.statistics import example_interval, smallest_detectable

ZERO = (90.0, 90.0, 90.0, 90.0)


def accuracies(*seeds, validation=90.0):
    return Accuracies("setting", tuple(map(float, seeds)), validation)


def measured(leaks, attack="kd", student="mlp-4"):
    """A cell whose knockoffs differ from both controls by ``leaks``."""
    control = accuracies(*[90.0] * len(leaks))
    return Measured(attack, student, accuracies(*(90 + leak for leak in leaks)), control, control, 95.0, 10)


def outcome_of(leaks, *, margin=0.5, alpha=0.025, weak=frozenset()):
    [cell] = judge([measured(leaks)], margin=margin, alpha=alpha, weak=weak)
    return cell.outcome


CLEAR_LEAK, NO_LEAK, UNCLEAR = (2.0, 2.2, 1.9, 2.1), (0.1, -0.1, 0.05, -0.1), (2.0, -2.0, 1.5, -1.0)
WEAK = frozenset({("kd", "mlp-4", "train")})


@pytest.mark.parametrize(
    ("leaks", "weak", "outcome"),
    [
        (CLEAR_LEAK, frozenset(), Outcome.LEAKS),
        (NO_LEAK, frozenset(), Outcome.NO_LEAK_FOUND),
        (UNCLEAR, frozenset(), Outcome.INCONCLUSIVE),
        (CLEAR_LEAK, WEAK, Outcome.LEAKS),
        (NO_LEAK, WEAK, Outcome.TOO_WEAK),
        (UNCLEAR, WEAK, Outcome.INCONCLUSIVE),
        (
            NO_LEAK,
            frozenset({("kd", "mlp-8", "train"), ("dkd", "mlp-4", "train"), ("kd", "mlp-4", "fresh")}),
            Outcome.NO_LEAK_FOUND,
        ),
    ],
)
def test_outcome_of_a_cell(leaks, weak, outcome):
    assert outcome_of(leaks, weak=weak) is outcome


def test_the_margin_itself_is_not_below_the_margin():
    assert outcome_of((0.5, 0.5, 0.5), margin=0.5) is Outcome.LEAKS  # no spread at all: the bounds are the mean
    assert outcome_of((-0.25, -0.25), margin=0.5) is Outcome.NO_LEAK_FOUND
    assert outcome_of((0.0, 0.0), margin=0.5) is Outcome.NO_LEAK_FOUND


def test_numbers_of_a_leak_are_those_of_scipy():
    leaks, alpha = (1.0, 2.5, 0.5, 1.5, 1.0), 0.05
    [cell] = judge([measured(leaks)], margin=0.5, alpha=alpha)
    test = stats.ttest_1samp(leaks, 0, alternative="greater")
    assert cell.leak.mean == pytest.approx(np.mean(leaks))
    assert cell.leak.p == pytest.approx(test.pvalue)
    assert cell.leak.low == pytest.approx(test.confidence_interval(1 - alpha).low)
    high = stats.ttest_1samp(leaks, 0, alternative="less").confidence_interval(1 - alpha / 2).high  # two controls
    assert cell.leak.high == pytest.approx(high)


def with_controls(knockoff, ls, placebo):
    return Measured("kd", "mlp-4", knockoff, ls, placebo, 95.0, 10)


def test_every_number_is_the_smaller_one_of_both_controls():
    """The union-intersection and intersection-union tests, by hand: SciPy's t-tests against each control alone."""
    knockoff, ls, placebo = (75.0, 75.4, 74.9, 75.2), (74.6, 75.2, 74.9, 74.8), (74.0, 74.1, 74.3, 74.0)
    alpha, margin = 0.05, 1.5
    for controls in ((ls, placebo), (placebo, ls)):
        cell = with_controls(accuracies(*knockoff), *(accuracies(*control) for control in controls))
        [judged] = judge([cell], margin=margin, alpha=alpha)
        above = [stats.ttest_rel(knockoff, control, alternative="greater") for control in controls]
        below = [stats.ttest_rel(knockoff, control, alternative="less") for control in controls]
        assert judged.leak.mean == pytest.approx(np.mean(np.subtract(knockoff, ls)))
        assert judged.leak.p == pytest.approx(max(test.pvalue for test in above))
        assert judged.leak.low == pytest.approx(min(test.confidence_interval(1 - alpha).low for test in above))
        assert judged.leak.high == pytest.approx(min(test.confidence_interval(1 - alpha / 2).high for test in below))
        assert judged.control == ("ls" if controls[0] == ls else "placebo")


def test_a_leak_must_beat_both_controls():
    knockoff, good, bad = (75.0, 75.1, 74.9), (74.9, 75.2, 74.9), (70.0, 70.1, 70.0)
    for controls in ((good, bad), (bad, good)):
        [cell] = judge(
            [with_controls(accuracies(*knockoff), *(accuracies(*control) for control in controls))],
            margin=0.8,
            alpha=0.025,
        )
        assert cell.leak.low < 0
        assert cell.outcome is Outcome.NO_LEAK_FOUND
    [alone] = judge([with_controls(accuracies(*knockoff), accuracies(*bad), None)], margin=0.8, alpha=0.025)
    assert alone.outcome is Outcome.LEAKS


def test_a_worse_control_clears_nobody():
    """However far the knockoff lies behind of one control, that is no reason to call a leak beyond the other one."""
    knockoff, ls = (75.0, 75.1, 74.9), (74.0, 74.1, 73.9)
    [cell] = judge([with_controls(accuracies(*knockoff), accuracies(*ls), accuracies(*ls))], margin=0.5, alpha=0.025)
    assert cell.outcome is Outcome.LEAKS
    better = accuracies(76.0, 76.1, 75.9)
    [cell] = judge([with_controls(accuracies(*knockoff), accuracies(*ls), better)], margin=0.5, alpha=0.025)
    assert cell.outcome is Outcome.NO_LEAK_FOUND
    assert cell.leak.mean == pytest.approx(-1.0)


@pytest.mark.parametrize("validation", [80.0, 99.0])
@pytest.mark.parametrize("tuning", [None, 80.0, 99.0])
def test_validation_images_have_no_say(validation, tuning):
    knockoff, ls, placebo = (75.0, 75.4, 74.9), (74.6, 75.2, 74.9), (74.0, 74.1, 74.3)
    plain = with_controls(accuracies(*knockoff), accuracies(*ls), accuracies(*placebo))
    other = replace(accuracies(*placebo, validation=validation), tuning=tuning)
    judged = judge([plain], margin=0.5, alpha=0.025), judge([replace(plain, placebo=other)], margin=0.5, alpha=0.025)
    assert judged[0][0].leak == judged[1][0].leak


def test_holm_over_the_cells_keeps_what_one_test_alone_would_call_a_leak():
    leaks, alpha = (1.0, 3.5, 0.4, 2.0, 1.1), 0.025
    p = stats.ttest_1samp(leaks, 0, alternative="greater").pvalue
    assert alpha / 2 < p < alpha
    assert outcome_of(leaks, alpha=alpha) is Outcome.LEAKS
    cells = judge([measured(leaks), measured((0.1, -0.1, 0.0, 0.1, -0.1), "other")], margin=0.5, alpha=alpha)
    assert [cell.outcome for cell in cells] == [Outcome.INCONCLUSIVE, Outcome.NO_LEAK_FOUND]
    assert cells[0].leak.p == pytest.approx(2 * p)
    assert cells[0].leak.low < 0
    # A clear leak beside it is rejected first, and then the level is alpha again.
    cells = judge([measured(leaks), measured((2.0, 2.1, 1.9, 2.0, 2.05), "other")], margin=0.5, alpha=alpha)
    assert [cell.outcome for cell in cells] == [Outcome.LEAKS, Outcome.LEAKS]


def simulated(generator, *, audits, cells, seeds, true_leak):
    """Cells of audits with normal noise, in each of which the cells share the reference students."""
    for _ in range(audits):
        ls = 90 + generator.normal(size=seeds)
        yield [
            Measured(
                f"attack {index}",
                "mlp-4",
                accuracies(*(90 + true_leak + generator.normal(size=seeds))),
                accuracies(*ls),
                accuracies(*ls, validation=80.0),
                95.0,
                10,
            )
            for index in range(cells)
        ]


def test_without_a_leak_few_audits_say_leaks():
    audits, alpha = 150, 0.05
    said = sum(
        verdict_of(judge(cells, margin=0.5, alpha=alpha)) is Verdict.LEAKS
        for cells in simulated(np.random.default_rng(0), audits=audits, cells=3, seeds=5, true_leak=0.0)
    )
    assert said <= stats.binom.ppf(0.999, audits, alpha)


def test_at_the_margin_few_audits_say_no_leak_found():
    audits, alpha, margin = 150, 0.05, 2.0
    said = sum(
        verdict_of(judge(cells, margin=margin, alpha=alpha)) is Verdict.NO_LEAK_FOUND
        for cells in simulated(np.random.default_rng(1), audits=audits, cells=1, seeds=5, true_leak=margin)
    )
    assert said <= stats.binom.ppf(0.999, audits, alpha)


def test_a_large_leak_is_found():
    for cells in simulated(np.random.default_rng(2), audits=10, cells=2, seeds=5, true_leak=12.0):
        assert {cell.outcome for cell in judge(cells, margin=0.5, alpha=0.025)} == {Outcome.LEAKS}


def with_outcome(outcome, student="mlp-4", data="train"):
    found = replace(measured(ZERO, student=student), data=data)
    return Cell(**vars(found), leak=Leak(0.0, 0.0, 0.0, 1.0, 0.5), outcome=outcome)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((Outcome.NO_LEAK_FOUND, Outcome.NO_LEAK_FOUND), Verdict.NO_LEAK_FOUND),
        ((Outcome.NO_LEAK_FOUND, Outcome.LEAKS), Verdict.LEAKS),
        ((Outcome.TOO_WEAK, Outcome.LEAKS, Outcome.INCONCLUSIVE), Verdict.LEAKS),
        ((Outcome.NO_LEAK_FOUND, Outcome.TOO_WEAK), Verdict.NO_LEAK_FOUND),
        ((Outcome.NO_LEAK_FOUND, Outcome.INCONCLUSIVE), Verdict.INCONCLUSIVE),
        ((Outcome.NO_LEAK_FOUND, Outcome.TOO_WEAK, Outcome.INCONCLUSIVE), Verdict.INCONCLUSIVE),
        ((Outcome.TOO_WEAK, Outcome.TOO_WEAK), Verdict.INCONCLUSIVE),
        ((), Verdict.INCONCLUSIVE),
    ],
)
def test_verdict(outcomes, verdict):
    assert verdict_of([with_outcome(outcome) for outcome in outcomes]) is verdict


@pytest.mark.parametrize("other", [{"student": "mlp-8"}, {"data": "fresh"}])
def test_every_student_and_kind_of_images_needs_an_attack_that_works(other):
    here = [with_outcome(Outcome.NO_LEAK_FOUND), with_outcome(Outcome.TOO_WEAK)]
    assert verdict_of([*here, with_outcome(Outcome.TOO_WEAK, **other)]) is Verdict.INCONCLUSIVE
    there = [with_outcome(Outcome.TOO_WEAK, **other), with_outcome(Outcome.NO_LEAK_FOUND, **other)]
    assert verdict_of([*here, *there]) is Verdict.NO_LEAK_FOUND


LOOKS = (3, 6, 12)


def test_bounds_after_looks_are_the_best_of_each_look_at_its_share():
    leaks, alpha = (1.0, 2.5, 0.5, 1.5, 1.0, -0.2), 0.05
    [cell] = judge([measured(leaks)], margin=0.5, alpha=alpha, looks=LOOKS)
    tests = [stats.ttest_1samp(leaks[:n], 0, alternative="greater") for n in (3, 6)]
    lows = [test.confidence_interval(1 - alpha / 4).low for test in tests]
    tests = [stats.ttest_1samp(leaks[:n], 0, alternative="less") for n in (3, 6)]
    highs = [test.confidence_interval(1 - alpha / 8).high for test in tests]  # two controls
    assert (cell.leak.low, cell.leak.high) == pytest.approx((max(lows), min(highs)))
    assert cell.leak.mean == pytest.approx(np.mean(leaks))


def test_cells_may_have_come_to_different_looks():
    early, late = measured((2.0, 2.01, 2.0)), measured((0.9, -0.3, 0.5, -0.3, 0.2, 0.1), "other")
    cells = judge([early, late], margin=0.5, alpha=0.05, looks=LOOKS)
    assert [cell.outcome for cell in cells] == [Outcome.LEAKS, Outcome.INCONCLUSIVE]
    with pytest.raises(InputError, match="4 pairs, which is none of the planned looks"):
        judge([measured(CLEAR_LEAK)], margin=0.5, alpha=0.05, looks=LOOKS)


def test_the_detectable_leak_is_that_of_the_last_look_at_holms_first_level():
    one, other = measured((1.0, 2.5, 0.5)), measured((0.1, 0.2, 0.3), "other")
    cells = judge([one, other], margin=0.5, alpha=0.05, looks=LOOKS)
    for cell, leaks in zip(cells, ((1.0, 2.5, 0.5), (0.1, 0.2, 0.3)), strict=True):
        expected = smallest_detectable(float(np.std(leaks, ddof=1)), 12, alpha=0.05 / 2 * 0.5)
        assert cell.leak.detectable == pytest.approx(expected)


def test_the_interval_over_test_images_is_there_when_their_answers_are_known():
    right = np.arange(400)[None] < np.array([[390], [392]])
    knockoff = replace(accuracies(97.5, 98.0), correct=right)
    control = replace(accuracies(95.0, 95.5), correct=np.roll(right, 5, axis=1) & right)
    [cell] = judge([with_controls(knockoff, control, None)], margin=0.5, alpha=0.025)
    expected = example_interval(right, control.correct, alpha=0.025)
    assert (cell.leak.test_low, cell.leak.test_high) == expected[1:]
    worse = replace(accuracies(90.0, 90.5), correct=control.correct & (np.arange(400) > 20))
    [cell] = judge([with_controls(knockoff, worse, control)], margin=0.5, alpha=0.025)
    assert cell.leak.test_low == expected[1]
    assert cell.leak.test_high == example_interval(right, control.correct, alpha=0.0125)[2]
    [cell] = judge([with_controls(knockoff, control, accuracies(95.0, 95.5))], margin=0.5, alpha=0.025)
    assert (cell.leak.test_low, cell.leak.test_high) == (None, None), "the placebos' answers are not known"


def test_every_outcome_has_a_sentence():
    assert len({outcome.sentence for outcome in Outcome}) == len(Outcome) == 4


def test_without_a_placebo_the_reference_is_the_control():
    ls, knockoff = accuracies(90, 91, 90, 92), accuracies(93.1, 94, 92.9, 95)
    [cell] = judge([with_controls(knockoff, ls, None)], margin=0.5, alpha=0.025)
    assert (cell.control, cell.controls, cell.outcome) == ("ls", {"ls": ls}, Outcome.LEAKS)
    better = accuracies(93, 94, 93, 95)
    [cell] = judge([with_controls(knockoff, ls, better)], margin=0.5, alpha=0.025)
    assert (cell.control, cell.controls) == ("placebo", {"ls": ls, "placebo": better})
