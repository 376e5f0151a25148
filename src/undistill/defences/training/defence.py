"""What every defence by training is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn


class Defence(ABC):
    """A loss that a teacher is trained with; a frozen dataclass whose fields are its settings.

    ``name`` is its name on the command line, ``summary`` one line on what it does.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def loss(self, num_classes: int, steps: int) -> nn.Module:
        """The loss of one training.

        Args:
            num_classes: number of classes C.
            steps: number of optimiser steps of the whole training; schedules inside the loss are fractions of it.

        Returns:
            A module that maps logits [b, C] and integer targets [b] to one loss per example [b], in nats. Its buffers,
            if any, belong into a checkpoint from which training resumes.
        """
