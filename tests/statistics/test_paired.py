import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undistill.errors import InputError
from undistill.statistics import PairedDifference, paired_difference

points = st.floats(-100, 100).map(lambda x: round(x, 2))
rows = st.integers(2, 12).flatmap(
    lambda n: st.tuples(st.lists(points, min_size=n, max_size=n), st.lists(points, min_size=n, max_size=n))
)
alphas = st.floats(1e-6, 0.499)


@given(rows, alphas)
def test_agrees_with_scipy(row, alpha):
    a, b = row
    found = paired_difference(a, b)
    differences = np.subtract(a, b)
    if np.ptp(differences) < 1e-9:
        return
    assert found.n == len(a)
    assert found.mean == pytest.approx(differences.mean(), abs=1e-9)
    assert found.standard_deviation == pytest.approx(differences.std(ddof=1), rel=1e-9)
    test = stats.ttest_rel(a, b, alternative="greater")
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-6, abs=1e-300)
    assert found.lower(alpha) == pytest.approx(test.confidence_interval(1 - alpha).low, rel=1e-6, abs=1e-6)
    other = stats.ttest_rel(a, b, alternative="less")
    assert found.upper(alpha) == pytest.approx(other.confidence_interval(1 - alpha).high, rel=1e-6, abs=1e-6)


@given(rows, alphas)
def test_lower_bound_is_above_zero_exactly_when_the_p_value_is_below_alpha(row, alpha):
    found = paired_difference(*row)
    if abs(found.p_value - alpha) > 1e-9:
        assert (found.lower(alpha) > 0) == (found.p_value < alpha)


@given(rows, alphas)
def test_swapping_the_rows_mirrors_the_bounds(row, alpha):
    a, b = row
    assert paired_difference(a, b).lower(alpha) == -paired_difference(b, a).upper(alpha)


def test_bounds_cover_the_true_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    samples = generator.normal(0.3, 1.0, size=(4000, 4))
    covered = [paired_difference(row, np.zeros(4)).lower(0.1) < 0.3 for row in samples]
    assert np.mean(covered) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 4000))


def test_one_pair_bounds_nothing():
    found = paired_difference([80.0], [70.0])
    assert (found.mean, found.n) == (10.0, 1)
    assert math.isnan(found.standard_deviation)
    assert found.lower(0.05) == -math.inf
    assert found.upper(0.05) == math.inf
    assert found.p_value == 1.0


@pytest.mark.parametrize(("a", "p_value"), [(0.1, 0.0), (0.0, 1.0), (-0.1, 1.0)])
def test_equal_differences_are_their_own_bounds(a, p_value):
    found = paired_difference([a] * 3, [0.0] * 3)  # the mean of three times 0.1 is not 0.1 in plain floating point
    assert found == PairedDifference(a, 0.0, 3)
    assert found.lower(0.05) == found.upper(0.05) == a
    assert found.p_value == p_value


def test_takes_arrays_and_lists_alike():
    a, b = [3.0, 2.0, 4.0], [1.0, 1.0, 1.5]
    assert paired_difference(np.array(a), np.array(b, dtype=np.float32)) == paired_difference(a, b)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], "a holds 2 values and b 1; pairs need one value of each per seed"),
        ([], [], "a holds nothing; give at least one"),
        (
            [1.0, math.nan, math.inf],
            [1.0, 1.0, 1.0],
            r"2 of the 3 numbers in a are not finite \(the first is nan at position 1\)",
        ),
        ([1.0], [-math.inf], r"1 of the 1 numbers in b are not finite \(the first is -inf at position 0\)"),
    ],
)
def test_refuses_bad_rows(a, b, message):
    with pytest.raises(InputError, match=message):
        paired_difference(a, b)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 0.5, 0.95, math.nan])
def test_refuses_an_alpha_that_is_no_error_rate(alpha):
    with pytest.raises(
        InputError, match=r"alpha is .*, but must lie strictly between 0 and 0\.5: it is the error rate"
    ):
        paired_difference([1.0, 2.0], [0.0, 0.0]).lower(alpha)
