"""Fisher's exact test against its definition and against SciPy's own."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from undistill.errors import InputError
from undistill.statistics import share_p_value


@st.composite
def parts(draw):
    of, of_other = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    return draw(st.integers(0, of)), of, draw(st.integers(0, of_other)), of_other


@given(parts())
def test_the_p_value_counts_the_ways(counts):
    """Of all ways to choose who is in the first part, those with at least as many right ones."""
    right, of, other_right, of_other = counts
    all_right, everyone = right + other_right, of + of_other
    ways = sum(comb(all_right, k) * comb(everyone - all_right, of - k) for k in range(right, min(of, all_right) + 1))
    assert share_p_value(*counts) == pytest.approx(float(Fraction(ways, comb(everyone, of))), rel=1e-9)


@pytest.mark.parametrize("counts", [(1998, 2000, 960, 1000), (9000, 10000, 4400, 5000), (0, 5, 0, 7), (7, 7, 9, 9)])
def test_the_p_value_is_that_of_scipys_table(counts):
    right, of, other_right, of_other = counts
    table = [[right, of - right], [other_right, of_other - other_right]]
    assert share_p_value(*counts) == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "words"), [((3, 2, 1, 1), "3 of 2"), ((0, 1, -1, 4), "-1 of 4"), ((0, 0, 1, 1), "0 of 0")]
)
def test_counts_that_are_no_share_are_refused(counts, words):
    with pytest.raises(InputError, match=f"{words} is no share; counts must be 0 or more, of at least 1"):
        share_p_value(*counts)
