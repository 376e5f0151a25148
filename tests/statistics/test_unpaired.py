import math

import numpy as np
import pytest
from scipy import stats

from undistill.errors import InputError
from undistill.statistics import unpaired_interval


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 8), (5, 5)])
def test_it_is_welchs_interval(sizes, confidence):
    random = np.random.default_rng(0)
    a, b = random.normal(2, 1, sizes[0]), random.normal(0, 3, sizes[1])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)
    found = unpaired_interval(a, b, confidence)
    assert found == pytest.approx((a.mean() - b.mean(), expected.low, expected.high))


def test_one_value_says_nothing_of_the_spread():
    assert unpaired_interval([3.0], [1.0, 2.0]) == (1.5, -math.inf, math.inf)
    assert unpaired_interval([3.0, 4.0], [1.0]) == (2.5, -math.inf, math.inf)


def test_equal_values_leave_no_doubt():
    assert unpaired_interval([0.1] * 3, [0.3] * 4) == (pytest.approx(-0.2),) * 3


def test_one_side_without_spread_leaves_the_others():
    a, b = [1.0, 2.0, 4.0], [0.5, 0.5]
    expected = stats.ttest_1samp(a, 0.0).confidence_interval(0.95)
    assert unpaired_interval(a, b)[1:] == pytest.approx((expected.low - 0.5, expected.high - 0.5))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(InputError, match=f"confidence is {confidence}, but must lie strictly between 0 and 1"):
        unpaired_interval([1.0, 2.0], [1.0, 2.0], confidence)


def test_values_must_be_finite():
    with pytest.raises(InputError, match="1 of the 2 numbers in b are not finite"):
        unpaired_interval([1.0, 2.0], [1.0, math.inf])
