import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undistill.errors import InputError
from undistill.statistics import Interval, interval


@given(st.lists(st.floats(-100, 100).map(lambda x: round(x, 2)), min_size=2, max_size=12), st.floats(0.01, 0.999))
def test_agrees_with_scipy(values, confidence):
    if np.ptp(values) == 0:
        return
    found = interval(values, confidence)
    expected = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-7, abs=1e-7)
    test = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((test.low, test.high), rel=1e-7, abs=1e-7)


def test_one_value_and_equal_values():
    assert interval([3.0]) == Interval(3.0, -math.inf, math.inf)
    assert interval(np.full(3, 0.1)) == Interval(0.1, 0.1, 0.1)


def test_refuses_bad_input():
    with pytest.raises(InputError, match=r"confidence is 95\.0, but must lie strictly between 0 and 1 \(say 0\.95\)"):
        interval([1.0, 2.0], 95.0)
    with pytest.raises(InputError, match="values holds nothing; give at least one"):
        interval([])
    with pytest.raises(
        InputError, match=r"1 of the 2 numbers in values are not finite \(the first is inf at position 0\)"
    ):
        interval([math.inf, 1.0])
