"""Stratified choice: every class keeps its share."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from undistill.tasks import stratified

label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=60)


def largest_remainder(counts: dict[int, int], size: int) -> dict[int, int]:
    """The textbook procedure in exact fractions."""
    total = sum(counts.values())
    quotas = {label: Fraction(size * count, total) for label, count in counts.items()}
    seats = {label: math.floor(quota) for label, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda label: (seats[label] - quotas[label], label))
    for label in by_remainder[: size - sum(seats.values())]:
        seats[label] += 1
    return seats


@given(labels=label_lists, share=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_classes_get_their_share(labels: list[int], share: float, seed: int) -> None:
    size = round(share * len(labels))
    rows = stratified(np.array(labels), size, seed=seed, purpose="test")
    assert len(rows) == size
    assert (np.diff(rows) > 0).all()  # ascending, so none twice
    chosen = Counter(labels[row] for row in rows)
    assert {label: chosen[label] for label in set(labels)} == largest_remainder(Counter(labels), size)


def test_same_seed_same_choice() -> None:
    labels = np.arange(1000) % 7
    first = stratified(labels, 100, seed=3, purpose="test")
    assert np.array_equal(first, stratified(labels, 100, seed=3, purpose="test"))
    assert not np.array_equal(first, stratified(labels, 100, seed=4, purpose="test"))
    assert not np.array_equal(first, stratified(labels, 100, seed=3, purpose="validation"))


def test_every_row_is_equally_likely() -> None:
    labels = np.array([0] * 8 + [1] * 4)
    times = sum(np.bincount(stratified(labels, 6, seed=seed, purpose="test"), minlength=12) for seed in range(400))
    assert np.all(np.abs(times - 200) < 50)  # five standard deviations of Binomial(400, 1/2)
