"""What a network is trained towards: labels (teachers, references) or answers (knockoffs, placebos)."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.attacks import Attack


class Objective(nn.Module, ABC):
    """A loss per example that may change from epoch to epoch. Its buffers are part of a resumable training."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of each epoch (counted from 0)."""

    @abstractmethod
    def forward(
        self, logits: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"], indices: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """One value per example; the loop takes the mean. ``indices`` point into the training split."""


class FromLabels(Objective):
    """A teacher's or a reference's objective: a module that maps (logits, labels) to one loss per example."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, logits: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"], indices: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return self.loss(logits, labels)


class FromAnswers(Objective):
    """A knockoff's or a placebo's objective: an attack on the answers that belong to the epoch's views.

    Args:
        attack: the attack.
        answers: gives, for an epoch, the log-probabilities (n, classes) for the view of every training image, in the
            order of the training split.
    """

    def __init__(self, attack: Attack, answers: Callable[[int], Float[Tensor, "n classes"]]) -> None:
        super().__init__()
        self.attack = attack
        self.answers = answers

    def begin_epoch(self, epoch: int) -> None:
        self.log_probs = self.answers(epoch)

    def forward(
        self, logits: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"], indices: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        answers = self.log_probs[indices.to(self.log_probs.device)].to(logits.device)
        return self.attack.loss(logits, answers, labels)
