"""The undefended teacher: plain cross entropy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from undistill.defences.training.defence import Defence


@dataclass(frozen=True)
class CrossEntropy(Defence):
    """Plain cross entropy, ``-log P_y``: no defence, and the teacher against which attacks must show their strength.

    >>> CrossEntropy().loss(num_classes=10, steps=100)
    CrossEntropyLoss()
    """

    name: ClassVar[str] = "ce"
    summary: ClassVar[str] = "plain cross entropy, no defence"
    source: ClassVar[str] = "standard"

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="none")
