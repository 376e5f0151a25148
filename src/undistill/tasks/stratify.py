"""Choosing a part of a data set so that every class keeps its share."""

import numpy as np
from jaxtyping import Int64

from undistill.files import content_hash


def stratified(labels: Int64[np.ndarray, " n"], size: int, *, seed: int, purpose: str) -> Int64[np.ndarray, " size"]:
    """Choose ``size`` rows at random so that each class is chosen from in proportion to its size.

    A class of n_c rows has the quota q_c = size * n_c / n. It gives floor(q_c) rows, and the rows still missing come
    one each from the classes with the largest remainders q_c - floor(q_c), the lower label first among equals; so every
    class is within one row of its quota. Which rows of a class are chosen depends on (seed, purpose) and n.

    Args:
        labels: The label of each row, any integers, shape (n,).
        size: How many rows to choose, 0..n.
        seed: Fixes the choice.
        purpose: A word that keeps choices made with the same seed for different ends apart.

    Returns:
        The chosen rows in ascending order, shape (size,).

    Example:
        >>> labels = np.array([0] * 6 + [1] * 4)
        >>> np.bincount(labels[stratified(labels, 5, seed=0, purpose="test")]).tolist()
        [3, 2]
    """
    if size == 0:
        return np.empty(0, dtype=np.int64)
    _, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # size * counts as integers: remainders are compared exactly.
    chosen, remainders = np.divmod(size * counts, len(labels))
    chosen[np.argsort(-remainders, kind="stable")[: size - chosen.sum()]] += 1
    # RandomState's stream is frozen for ever by NumPy's policy, a Generator's is not.
    random = np.random.RandomState(int(content_hash([purpose, seed])[:8], 16))
    by_class = np.lexsort((random.random_sample(len(labels)), members))
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[place_in_class < np.repeat(chosen, counts)])
