"""What every attack is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor


class Attack(ABC):
    """A way to train a student on a black box's answers. Subclasses are frozen dataclasses of hyper-parameters.

    Class attributes:
        name: what the command line, reports and registries call it.
        summary: one line for ``undistill list attacks``.
        source: paper and, where there is one, official code.
        needs_labels: whether ``loss`` reads the true labels.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_labels: ClassVar[bool]

    @abstractmethod
    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """One value per example, in float32.

        Args:
            logits: the student's, with gradient.
            log_probs: the black box's answers at temperature 1; ``-inf`` where it answered an exact zero. Constants:
                no gradient flows into them, and they are not written to (other trials read them too).
            labels: the true classes; an attack with ``needs_labels = False`` must not read them.
        """

    @classmethod
    @abstractmethod
    def grid(cls) -> "tuple[Attack, ...]":
        """The settings among which an audit chooses on validation data. Frozen with the protocol version."""
