import math

import numpy as np
import pytest
from scipy import integrate, stats

from undistill.errors import InputError
from undistill.statistics import smallest_detectable


def power_by_integration(gap, n, alpha):
    """P(T > critical): average P(Z + shift > critical * s) over the distribution of the sample deviation s."""
    critical, shift = stats.t.isf(alpha, n - 1), gap * math.sqrt(n)

    def density(s):
        return stats.norm.sf(critical * s - shift) * stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)

    knee = shift / critical  # the integrand falls off here
    return integrate.quad(density, 0, knee)[0] + integrate.quad(density, knee, knee + 10)[0]


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.05 / 12])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_power_at_the_gap_by_integration(n, alpha, power):
    gap = smallest_detectable(1.0, n, alpha=alpha, power=power)
    assert power_by_integration(gap, n, alpha) == pytest.approx(power, abs=1e-5)


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (6, 0.01)])
def test_power_at_the_gap_by_simulation(n, alpha):
    gap = smallest_detectable(0.7, n, alpha=alpha, power=0.8)
    samples = np.random.default_rng(3).normal(gap, 0.7, size=(20000, n))
    found = stats.ttest_1samp(samples, 0.0, axis=1, alternative="greater").pvalue < alpha
    assert found.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20000))


@pytest.mark.parametrize("power", [0.3, 0.8, 0.95])
def test_nears_the_normal_approximation(power):
    n = 5000
    textbook = (stats.norm.isf(0.05) + stats.norm.ppf(power)) * 2.0 / math.sqrt(n)
    assert smallest_detectable(2.0, n, alpha=0.05, power=power) == pytest.approx(textbook, rel=2e-3)


def test_falls_with_more_pairs_and_scales_with_the_deviation():
    gaps = [smallest_detectable(1.0, n, alpha=0.05) for n in range(2, 30)]
    assert gaps == sorted(gaps, reverse=True)
    assert smallest_detectable(2.5, 4, alpha=0.05) == pytest.approx(2.5 * smallest_detectable(1.0, 4, alpha=0.05))
    assert smallest_detectable(0.0, 4, alpha=0.05) == 0.0


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_is_detectable_below_two_pairs(n):
    assert smallest_detectable(math.nan, n, alpha=0.05) == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"standard_deviation": -1.0, "n": 3, "alpha": 0.05},
            r"standard_deviation is -1\.0, but must be finite and 0 or more",
        ),
        ({"standard_deviation": math.nan, "n": 3, "alpha": 0.05}, "standard_deviation is nan"),
        ({"standard_deviation": 1.0, "n": -1, "alpha": 0.05}, "n is -1, but is a number of pairs"),
        ({"standard_deviation": 1.0, "n": 3, "alpha": 0.8}, r"alpha is 0\.8, but must lie strictly between 0 and 0\.5"),
        (
            {"standard_deviation": 1.0, "n": 3, "alpha": 0.05, "power": 0.05},
            r"power is 0\.05, but must lie strictly between alpha \(0\.05\) and 1",
        ),
        ({"standard_deviation": 1.0, "n": 3, "alpha": 0.05, "power": 1.0}, r"power is 1\.0"),
    ],
)
def test_refuses_bad_settings(arguments, message):
    with pytest.raises(InputError, match=message):
        smallest_detectable(**arguments)
