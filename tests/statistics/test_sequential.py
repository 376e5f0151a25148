import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undistill.errors import InputError
from undistill.statistics import look_shares, paired_difference, sequential_difference

LOOKS = (3, 6, 12)
rows = st.lists(st.floats(-5, 5), min_size=6, max_size=6)


@given(rows, st.sampled_from([0.01, 0.05, 0.2]))
def test_one_look_is_the_plain_paired_test(row, alpha):
    plain = paired_difference(row, [0.0] * 6)
    once = sequential_difference(row, [0.0] * 6, looks=(6,))
    assert (once.mean, once.standard_deviation, once.n) == (plain.mean, plain.standard_deviation, plain.n)
    assert (once.lower(alpha), once.upper(alpha), once.p_value) == (
        plain.lower(alpha),
        plain.upper(alpha),
        plain.p_value,
    )


@given(rows, st.sampled_from([0.01, 0.05, 0.2]))
def test_p_value_and_lower_bound_are_one_statement(row, alpha):
    found = sequential_difference(row, [0.0] * 6, looks=LOOKS)
    if abs(found.p_value - alpha) > 1e-9:
        assert (found.p_value < alpha) == (found.lower(alpha) > 0)


def test_numbers_are_those_of_scipy_at_each_look():
    row, alpha = np.array([1.0, 2.5, 0.5, 1.5, 1.0, -0.2]), 0.04
    found = sequential_difference(row, np.zeros(6), looks=LOOKS)
    tests = [stats.ttest_1samp(row[:n], 0, alternative="greater") for n in (3, 6)]
    assert found.p_value == pytest.approx(min(test.pvalue * 4 for test in tests))
    assert found.lower(alpha) == pytest.approx(max(test.confidence_interval(1 - alpha / 4).low for test in tests))


def test_all_looks_together_err_as_seldom_as_they_say():
    draws, audits, alpha = np.random.default_rng(0), 500, 0.1
    wrong = 0
    for row in draws.normal(size=(audits, 12)):
        wrong += sequential_difference(row, np.zeros(12), looks=LOOKS).lower(alpha) > 0  # the best of all looks
    assert stats.binom.ppf(0.001, audits, alpha / 2) <= wrong <= stats.binom.ppf(0.999, audits, alpha)


def test_looking_each_time_at_the_full_level_would_err_more_often():
    draws, audits, alpha = np.random.default_rng(0), 500, 0.1
    wrong = 0
    for row in draws.normal(size=(audits, 12)):
        wrong += any(paired_difference(row[:n], np.zeros(n)).lower(alpha) > 0 for n in LOOKS)
    assert wrong > stats.binom.ppf(0.999, audits, alpha)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True))
def test_shares_sum_to_one(sizes):
    assert sum(look_shares(sorted(sizes))) == pytest.approx(1)


@pytest.mark.parametrize("looks", [(), (0, 3), (3, 3), (6, 3)])
def test_looks_that_do_not_rise_are_refused(looks):
    with pytest.raises(InputError, match="must be rising numbers of pairs"):
        look_shares(looks)


def test_pairs_between_looks_are_refused():
    with pytest.raises(InputError, match=r"4 pairs, which is none of the planned looks \(3, 6, 12\)"):
        sequential_difference([1.0] * 4, [1.0] * 4, looks=LOOKS)
    with pytest.raises(InputError, match="a holds 3 values and b 4"):
        sequential_difference([1.0] * 3, [1.0] * 4, looks=LOOKS)
    with pytest.raises(InputError, match=r"alpha is 0\.95"):
        sequential_difference([1.0] * 3, [1.0] * 3, looks=LOOKS).upper(0.95)
