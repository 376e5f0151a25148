from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undistill.errors import InputError
from undistill.statistics import holm_adjust, holm_levels, paired_difference

p_lists = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.05, 1.0]), max_size=6)
alphas = st.sampled_from([0.011, 0.0507, 0.1003, 0.3301])


def closed_testing(p_values):
    """Adjusted p-values by the definition: reject i if Bonferroni rejects every subset of hypotheses that holds i."""
    everyone = range(len(p_values))
    subsets = [subset for size in range(1, len(p_values) + 1) for subset in combinations(everyone, size)]
    bonferroni = {subset: min(1.0, len(subset) * min(p_values[i] for i in subset)) for subset in subsets}
    return [max(p for subset, p in bonferroni.items() if i in subset) for i in everyone]


@given(p_lists)
def test_adjusted_p_values_are_those_of_closed_testing(p_values):
    assert holm_adjust(p_values) == pytest.approx(closed_testing(p_values), abs=1e-12)


@given(p_lists, alphas)
def test_level_decides_as_closed_testing_does(p_values, alpha):
    adjusted = closed_testing(p_values)
    for p, level, oracle in zip(p_values, holm_levels(p_values, alpha), adjusted, strict=True):
        if abs(oracle - alpha) > 1e-9:
            assert (p < level) == (oracle < alpha)


def test_levels_written_out():
    assert holm_levels([0.001, 0.04, 0.02, 0.012], 0.05) == pytest.approx([0.05 / 4, 0.05, 0.05 / 2, 0.05 / 3])
    # 0.03 is the first to fail, at 0.05 / 2; 0.04 keeps that level although it would pass at 0.05
    assert holm_levels([0.03, 0.001, 0.04], 0.05) == pytest.approx([0.05 / 2, 0.05 / 3, 0.05 / 2])
    assert holm_levels([0.2, 0.9, 0.5], 0.06) == pytest.approx([0.02, 0.02, 0.02])
    assert holm_levels([], 0.05) == holm_adjust([]) == []


def test_sign_of_the_bound_is_the_decision():
    generator = np.random.default_rng(1)
    decisions = 0
    for _ in range(60):
        shifts = generator.choice([0.0, 0.5, 1.0], size=5)
        cells = [paired_difference(generator.normal(shift, 0.4, 4), np.zeros(4)) for shift in shifts]
        p_values = [cell.p_value for cell in cells]
        rejected = [p < 0.05 for p in closed_testing(p_values)]
        assert [
            cell.lower(level) > 0 for cell, level in zip(cells, holm_levels(p_values, 0.05), strict=True)
        ] == rejected
        decisions += sum(rejected)
    assert 20 < decisions < 280  # the case holds both decisions


def test_a_p_value_at_its_level_does_not_reject():
    assert holm_levels([0.05, 0.025], 0.05) == [0.025, 0.025]


def test_family_wise_error_rate():
    generator = np.random.default_rng(2)
    families = generator.uniform(size=(4000, 5))
    wrong = np.mean([min(holm_adjust(family)) < 0.1 for family in families])
    assert wrong == pytest.approx(1 - 0.98**5, abs=0.015)  # independent p-values: 1 - (1 - 0.1 / 5)^5


@pytest.mark.parametrize("function", [holm_adjust, lambda p: holm_levels(p, 0.05)])
def test_refuses_what_is_no_p_value(function):
    with pytest.raises(InputError, match=r"2 of the 3 p-values lie outside \[0, 1\] \(the first is 1\.5\)"):
        function([1.5, 0.2, -0.1])
    with pytest.raises(
        InputError, match=r"1 of the 2 numbers in p_values are not finite \(the first is nan at position 1\)"
    ):
        function([0.2, float("nan")])


def test_refuses_a_confidence_in_place_of_alpha():
    with pytest.raises(InputError, match=r"alpha is 0\.95, but must lie strictly between 0 and 0\.5"):
        holm_levels([0.2], 0.95)
