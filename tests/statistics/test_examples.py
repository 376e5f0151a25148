import numpy as np
import pytest
from scipy import stats

from undistill.errors import InputError
from undistill.statistics import example_interval


def test_one_seed_is_the_interval_of_agresti_and_min():
    both, a_alone, b_alone, neither = 70, 12, 5, 13
    a = np.repeat([True, True, False, False], [both, a_alone, b_alone, neither])[None]
    b = np.repeat([True, False, True, False], [both, a_alone, b_alone, neither])[None]
    found = example_interval(a, b, alpha=0.025)
    n, c, d = 102, a_alone + 0.5, b_alone + 0.5
    centre = (c - d) / n
    reach = stats.norm.ppf(0.975) * np.sqrt((c + d) - (c - d) ** 2 / n) / n
    assert found.mean == pytest.approx(7.0)
    assert (found.low, found.high) == pytest.approx((100 * (centre - reach), 100 * (centre + reach)))


def test_several_seeds_are_averaged_image_by_image():
    draws = np.random.default_rng(0)
    a, b = draws.random((3, 5000)) < 0.9, draws.random((3, 5000)) < 0.88
    found = example_interval(a, b, alpha=0.05)
    differences = 100 * (a.mean(0) - b.mean(0))
    assert found.mean == pytest.approx(differences.mean())
    plain = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(plain), abs=0.02)


def test_it_covers_the_difference_of_all_images_that_could_have_been_drawn():
    draws, repeats, alpha = np.random.default_rng(1), 400, 0.05
    images = draws.random((2, 4, 20000)) < np.where(draws.random(20000) < 0.8, 0.97, 0.5)
    truth = 100 * (images[0].mean() - images[1].mean())
    missed = 0
    for _ in range(repeats):
        a, b = images[:, :, draws.integers(20000, size=300)]
        _, low, high = example_interval(a, b, alpha=alpha)
        missed += not low <= truth <= high
    assert stats.binom.ppf(0.001, repeats, alpha) <= missed <= stats.binom.ppf(0.999, repeats, 2 * alpha)


def test_networks_that_agree_on_every_image_claim_no_certainty():
    right = np.ones((5, 100), dtype=bool)
    found = example_interval(right, right, alpha=0.025)
    assert found.mean == 0
    assert found.low == -found.high < -1


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"a is of shape \(1, 3\) and b of \(1, 4\); give the same images and seeds"):
        example_interval(np.ones((1, 3), bool), np.ones((1, 4), bool), alpha=0.025)
    with pytest.raises(InputError, match=r"alpha is 0\.95"):
        example_interval(np.ones((1, 3), bool), np.ones((1, 3), bool), alpha=0.95)
