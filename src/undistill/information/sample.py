"""A few answers of each class, kept while many stream past: the clusters themselves, for pictures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SAMPLE_NUMBERS = 2**20
"""About so many numbers a sample holds at most, answers times classes (4 MB)."""
LEAST, MOST = 4, 100  # answers of a class, whatever the number of classes


@dataclass(frozen=True)
class ClusterSample:
    """A random sample of each class's answers, of bounded size.

    Each answer comes with a random key, and those with the smallest keys of their class are kept. So the sample of
    joined data is made of their samples, and does not depend on how the data were divided.

    Attributes:
        log_probs: the answers, natural log-probabilities, float32.
        labels: their true classes, in rising order.
        keys: their keys, uniform in [0, 1).
    """

    log_probs: Float[Tensor, "m classes"]
    labels: Int64[Tensor, " m"]
    keys: Float[Tensor, " m"]


def answers_per_class(classes: int) -> int:
    """How many answers of each class a sample keeps: 100, fewer where there are many classes, and at least 4.

    >>> [answers_per_class(classes) for classes in (10, 100, 1000)]
    [100, 100, 4]
    """
    return max(LEAST, min(MOST, SAMPLE_NUMBERS // classes**2))


def sample_join(first: ClusterSample, second: ClusterSample) -> ClusterSample:
    """The sample of two data sets together, of which one may be a batch that is not sampled yet.

    Args:
        first: of as many classes as ``second``.
        second: likewise.

    Returns:
        Of each class the answers with the smallest keys, sorted by class and key.

    >>> log_probs, keys = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log(), torch.rand(2, dtype=torch.float64)
    >>> batch = ClusterSample(log_probs, torch.tensor([1, 0]), keys)
    >>> sample_join(empty_sample(2), batch).labels.tolist()
    [0, 1]
    """
    labels, keys = torch.cat([first.labels, second.labels]), torch.cat([first.keys, second.keys])
    order = keys.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    sorted_labels = labels[order]
    rank = torch.arange(len(order)) - torch.searchsorted(sorted_labels, sorted_labels)
    kept = order[rank < answers_per_class(first.log_probs.shape[1])]
    here, there = kept[kept < len(first.labels)], kept[kept >= len(first.labels)] - len(first.labels)
    log_probs = first.log_probs.new_empty(len(kept), first.log_probs.shape[1])
    log_probs[kept < len(first.labels)] = first.log_probs[here]
    log_probs[kept >= len(first.labels)] = second.log_probs[there]
    return ClusterSample(log_probs, labels[kept], keys[kept])


def empty_sample(classes: int) -> ClusterSample:
    """The sample of no answers."""
    return ClusterSample(
        torch.empty(0, classes), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
    )
