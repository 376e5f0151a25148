"""The spectrum against a brute-force oracle, and against the identities that define it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from undistill.errors import InputError
from undistill.information import DEFAULT_POWERS, cmi, merge, spectrum, spectrum_compute, spectrum_update, temper

GRID = (1 / 20, 1 / 4, 1.0, 3.0)


def draw(seed, n=40, classes=5, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(n), labels] += 2 * scale
    return logits.to(dtype), labels


def of(logits, labels, powers=GRID):
    return spectrum_compute(spectrum_update(logits, labels, powers))


def oracle(logits, labels, power):
    """CMI per class, CMI, Gamma by loops over samples and pairs, straight from their definitions."""
    z, y = logits.double().numpy(), labels.numpy()
    n, classes = z.shape
    log_p = np.array([power * row - np.logaddexp.reduce(power * row) for row in z])
    p = np.exp(log_p)
    per_class = np.full(classes, np.nan)
    for c in set(y):
        centroid = p[y == c].mean(axis=0)
        per_class[c] = np.mean(
            [np.sum(row * (log_row - np.log(centroid))) for row, log_row in zip(p[y == c], log_p[y == c], strict=True)]
        )
    total = sum(np.mean(y == c) * per_class[c] for c in set(y))
    gamma = sum(-p[i] @ log_p[j] for i in range(n) for j in range(n) if y[i] != y[j]) / n**2
    return per_class, total, gamma


@pytest.mark.parametrize("power", [1 / 100, 1 / 4, 1.0, 8.0])
def test_agrees_with_the_definitions_by_loops(power):
    logits, labels = draw(0)
    per_class, total, gamma = oracle(logits, labels, power)
    result = of(logits, labels, [power])
    np.testing.assert_allclose(result.cmi_per_class[0], per_class, rtol=1e-8)
    np.testing.assert_allclose(result.cmi[0], total, rtol=1e-8)
    np.testing.assert_allclose(result.separation[0], gamma, rtol=1e-10)
    np.testing.assert_allclose(result.ncmi[0], total / gamma, rtol=1e-8)
    assert cmi(logits, labels, power) == result.at(power)


def test_within_variance_by_loops():
    logits, labels = draw(1)
    centred = (logits - logits.mean(dim=1, keepdim=True)).numpy()
    expected = np.mean(
        [np.mean((row - centred[labels == y].mean(axis=0)) ** 2) for row, y in zip(centred, labels, strict=True)]
    )
    np.testing.assert_allclose(of(logits, labels).within_variance, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residual_tends_to_half_the_within_class_variance(dtype):
    logits, labels = draw(2, n=500, dtype=dtype)
    # The next term of the expansion in a is odd; the mean over +z and -z leaves an error of order a^2.
    temperature = 1000.0
    residuals = [of(sign * logits, labels, [1 / temperature]).residual(temperature) for sign in (1, -1)]
    assert np.mean(residuals) == pytest.approx(of(logits, labels).within_variance / 2, rel=2e-5)
    assert residuals[0] == pytest.approx(of(logits, labels).within_variance / 2, rel=1e-2)


def test_small_spread_at_a_small_power_keeps_its_digits():
    logits, labels = draw(3, n=200)
    tight = logits.mean(dim=0) + 0.01 * logits
    _, expected, _ = oracle(tight, labels, 1 / 100)
    assert expected < 1e-7
    assert cmi(tight, labels, 1 / 100) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10.0), power=st.floats(0.05, 4.0))
def test_scaling_logits_slides_the_curve(seed, scale, power):
    logits, labels = draw(seed)
    assert cmi(scale * logits, labels, power) == pytest.approx(cmi(logits, labels, scale * power), rel=1e-7, abs=1e-13)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.floats(0.05, 4.0))
def test_any_fixed_distribution_bounds_cmi_from_above_by_its_own_distance(seed, power):
    logits, labels = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.randn(5, 5, generator=generator, dtype=torch.float64).softmax(dim=1)
    log_p = temper(logits, power)
    bound = (log_p.exp() * (log_p - fixed.log()[labels])).sum(dim=1).mean()
    sums = spectrum_update(logits, labels, [power])
    result = spectrum_compute(sums)
    centroids = sums.probs[0] / sums.counts[:, None].clamp_min(1)
    gap = (torch.xlogy(centroids, centroids) - centroids * fixed.log()).sum(dim=1) @ sums.counts / len(labels)
    assert bound >= result.cmi[0]
    assert float(bound - gap) == pytest.approx(float(result.cmi[0]), rel=1e-8, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_of_samples_names_of_classes_and_shifts_do_not_matter(seed):
    logits, labels = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    samples, classes = torch.randperm(40, generator=generator), torch.randperm(5, generator=generator)
    shift = 10 * torch.randn(40, 1, generator=generator, dtype=torch.float64)
    renamed = torch.empty(5, dtype=torch.long)
    renamed[classes] = torch.arange(5)
    other = of((logits + shift)[samples][:, classes], renamed[labels[samples]])
    result = of(logits, labels)
    torch.testing.assert_close(other.cmi, result.cmi, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(other.separation, result.separation, rtol=1e-8, atol=1e-12)
    assert other.within_variance == pytest.approx(result.within_variance, rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 40))
def test_merged_batches_are_the_whole(seed, cut):
    logits, labels = draw(seed)
    first, second = (spectrum_update(logits[part], labels[part], GRID) for part in (slice(cut), slice(cut, None)))
    whole, merged = of(logits, labels), spectrum_compute(merge(first, second))
    torch.testing.assert_close(merged.cmi, whole.cmi, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(merged.ncmi, whole.ncmi, rtol=1e-10, atol=1e-13)
    assert merged.within_variance == pytest.approx(whole.within_variance, rel=1e-10)
    assert merged.absent == whole.absent


def test_blocks_of_rows_do_not_show(monkeypatch):
    logits, labels = draw(4)
    whole = of(logits, labels)
    monkeypatch.setattr(spectrum, "BLOCK_NUMBERS", 35)
    torch.testing.assert_close(of(logits, labels).cmi, whole.cmi, rtol=1e-12, atol=0)


def test_logits_and_log_probs_give_the_same_from_any_precision():
    logits, labels = draw(5, dtype=torch.float32)
    expected = of(logits.double(), labels).cmi
    torch.testing.assert_close(of(logits, labels).cmi, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(of(logits.log_softmax(dim=1), labels).cmi, expected, rtol=1e-4, atol=0)
    half = logits.bfloat16()
    torch.testing.assert_close(of(half, labels).cmi, of(half.double(), labels).cmi, rtol=0, atol=0)


def test_absent_classes_are_reported():
    logits, _ = draw(6, classes=6)
    labels = torch.arange(40) % 2 * 3
    result = of(logits, labels)
    assert result.absent == (1, 2, 4, 5)
    assert result.counts.tolist() == [20, 0, 0, 20, 0, 0]
    assert result.cmi_per_class[:, list(result.absent)].isnan().all()
    torch.testing.assert_close(result.cmi, result.cmi_per_class[:, [0, 3]].mean(dim=1))


def test_one_class_alone_has_no_separation():
    logits, labels = draw(7)
    result = of(logits, torch.zeros_like(labels))
    assert (result.separation == 0).all()
    assert result.ncmi.isnan().all()
    assert (result.cmi > 0).all()


def test_collapsed_clusters_have_no_spread():
    _, labels = draw(8)
    result = of(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()[labels], labels)
    assert (result.cmi < 1e-14).all()
    assert (result.cmi >= 0).all()
    assert result.within_variance < 1e-14


def test_probabilities_of_zero():
    log_probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]).log()
    labels = torch.tensor([0, 0, 1])
    result = of(log_probs, labels, [0.25, 1.0])
    assert result.at(1.0) == pytest.approx(2 / 3 * (-0.75 * math.log(0.75) - 0.25 * math.log(0.25) - 0.5 * math.log(2)))
    assert result.cmi.isfinite().all()
    assert result.within_variance == math.inf
    assert result.separation.isinf().all()
    assert result.ncmi.isnan().all()


def test_large_logits_stay_finite():
    logits, labels = draw(9)
    result = of(200 * logits.sign(), labels, DEFAULT_POWERS)
    assert result.cmi.isfinite().all()
    assert result.separation.isfinite().all()


def test_supremum_and_whether_it_is_at_the_edge():
    logits, labels = draw(10, n=300)
    # Without errors of prediction, the spectrum falls to 0 at large powers too.
    logits = logits + 15 * torch.nn.functional.one_hot(labels)
    result = of(logits, labels, DEFAULT_POWERS)
    assert result.supremum == result.at(result.supremum_power) == max(map(result.at, DEFAULT_POWERS))
    assert not result.supremum_at_edge
    assert of(logits, labels, [1 / 100, 1 / 50]).supremum_at_edge
    assert result.residual(20.0) == pytest.approx(400 * result.at(1 / 20))


def test_default_grid():
    assert len(DEFAULT_POWERS) == 20
    assert {1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 20} <= set(DEFAULT_POWERS)


def test_temper_renormalises_powers():
    probs = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64)
    expected = probs**0.5 / (probs**0.5).sum(dim=1, keepdim=True)
    torch.testing.assert_close(temper(probs.log(), 0.5).exp(), expected)
    assert temper(probs.log().half(), 0.5).dtype == torch.float32


def test_bad_inputs_are_named():
    logits, labels = draw(11)
    broken = logits.clone()
    broken[3, 1], broken[7, 0], broken[8] = math.nan, math.inf, -math.inf
    with pytest.raises(InputError, match=r"3 of 40 rows hold NaN or \+inf.*first: row 3"):
        spectrum_update(broken, labels)
    with pytest.raises(InputError, match=r"labels must lie in \[0, 5\), but 2 of 40 .*first: 9.*; 3 of 40 rows"):
        spectrum_update(broken, labels.index_fill(0, torch.tensor([1, 2]), 9))
    with pytest.raises(InputError, match="these are probabilities; give their logarithm"):
        spectrum_update(logits.softmax(dim=1), labels)
    with pytest.raises(InputError, match="at least one power"):
        spectrum_update(logits, labels, [])
    with pytest.raises(InputError, match=r"2 of 3 are not: 0\.0, nan"):
        spectrum_update(logits, labels, [0.0, 1.0, math.nan])
    with pytest.raises(InputError, match="each power may be given once"):
        spectrum_update(logits, labels, [1.0, 1.0])
    with pytest.raises(InputError, match="no samples is undefined"):
        spectrum_compute(spectrum_update(logits[:0], labels[:0]))
    with pytest.raises(InputError, match="cannot be merged"):
        merge(spectrum_update(logits, labels, [1.0]), spectrum_update(logits, labels, [2.0]))
    with pytest.raises(InputError, match=r"power 0\.3 is not in the grid"):
        of(logits, labels).at(0.3)
