import numpy as np
import pytest
from scipy import stats

from undistill.audit import Accuracies, Cell, Leak, Measured, Outcome, Verdict, judge, verdict_of

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
WEAK = frozenset({("kd", "mlp-4")})


@pytest.mark.parametrize(
    ("leaks", "weak", "outcome"),
    [
        (CLEAR_LEAK, frozenset(), Outcome.LEAKS),
        (NO_LEAK, frozenset(), Outcome.NO_LEAK_FOUND),
        (UNCLEAR, frozenset(), Outcome.INCONCLUSIVE),
        (CLEAR_LEAK, WEAK, Outcome.LEAKS),
        (NO_LEAK, WEAK, Outcome.TOO_WEAK),
        (UNCLEAR, WEAK, Outcome.TOO_WEAK),
        (NO_LEAK, frozenset({("kd", "mlp-8"), ("dkd", "mlp-4")}), Outcome.NO_LEAK_FOUND),
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
    high = stats.ttest_1samp(leaks, 0, alternative="less").confidence_interval(1 - alpha).high
    assert cell.leak.high == pytest.approx(high)


@pytest.mark.parametrize(("ls", "placebo", "control"), [(91.0, 90.0, "ls"), (90.0, 91.0, "placebo"), (90, 90, "ls")])
def test_the_control_is_chosen_on_validation_whatever_the_test_says(ls, placebo, control):
    better_on_test = {"ls": 80.0, "placebo": 80.0} | {control: 70.0}
    cell = Measured(
        "kd",
        "mlp-4",
        accuracies(75.0, 75.1, 74.9),
        accuracies(*[better_on_test["ls"]] * 3, validation=float(ls)),
        accuracies(*[better_on_test["placebo"]] * 3, validation=float(placebo)),
        95.0,
        10,
    )
    assert cell.control == control
    [judged] = judge([cell], margin=0.5, alpha=0.025)
    assert judged.leak.mean == pytest.approx(5.0)
    assert judged.outcome is Outcome.LEAKS


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


def with_outcome(outcome):
    return Cell(**vars(measured(ZERO)), leak=Leak(0.0, 0.0, 0.0, 1.0, 0.5), outcome=outcome)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ((Outcome.NO_LEAK_FOUND, Outcome.NO_LEAK_FOUND), Verdict.NO_LEAK_FOUND),
        ((Outcome.NO_LEAK_FOUND, Outcome.LEAKS), Verdict.LEAKS),
        ((Outcome.TOO_WEAK, Outcome.LEAKS, Outcome.INCONCLUSIVE), Verdict.LEAKS),
        ((Outcome.NO_LEAK_FOUND, Outcome.TOO_WEAK), Verdict.INCONCLUSIVE),
        ((Outcome.NO_LEAK_FOUND, Outcome.INCONCLUSIVE), Verdict.INCONCLUSIVE),
        ((Outcome.TOO_WEAK,), Verdict.INCONCLUSIVE),
        ((), Verdict.INCONCLUSIVE),
    ],
)
def test_verdict(outcomes, verdict):
    assert verdict_of([with_outcome(outcome) for outcome in outcomes]) is verdict


def test_every_outcome_has_a_sentence():
    assert len({outcome.sentence for outcome in Outcome}) == len(Outcome) == 4


def test_without_a_placebo_the_reference_is_the_control():
    ls, knockoff = accuracies(90, 91, 90, 92), accuracies(93.1, 94, 92.9, 95)
    [cell] = judge([Measured("kd", "mlp-4", knockoff, ls, None, 95.0, 10)], margin=0.5, alpha=0.025)
    assert (cell.control, cell.best_control, cell.outcome) == ("ls", ls, Outcome.LEAKS)
    better = accuracies(93, 94, 93, 95, validation=91.0)
    [cell] = judge([Measured("kd", "mlp-4", knockoff, ls, better, 95.0, 10)], margin=0.5, alpha=0.025)
    assert (cell.control, cell.best_control) == ("placebo", better)
