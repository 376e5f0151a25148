"""The teacher with smoothed labels."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from undistill.defences.training.defence import Defence
from undistill.errors import InputError


@dataclass(frozen=True)
class LabelSmoothing(Defence):
    """Cross entropy to a smoothed label: ``-(1 - s) log P_y - (s / C) sum_c log P_c``.

    Args:
        smoothing: s, the share of probability that is spread over all C classes (the right one included), in [0, 1).

    Raises:
        InputError: ``smoothing`` outside [0, 1).

    Reference: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv 1512.00567, section 7.

    >>> LabelSmoothing(0.1).loss(num_classes=10, steps=100).label_smoothing
    0.1
    """

    smoothing: float = 0.1

    name: ClassVar[str] = "label-smoothing"
    summary: ClassVar[str] = "cross entropy to labels whose probability is partly spread over all classes"
    source: ClassVar[str] = "arXiv 1512.00567, section 7"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing must lie in [0, 1), got {self.smoothing}; 0.1 is usual, 0 is cross entropy.")

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="none", label_smoothing=self.smoothing)
