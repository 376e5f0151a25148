"""What a network is trained towards: labels (teachers, references) or answers (knockoffs, placebos)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from undistill.attacks import Answers, Attack, AttackLoss
from undistill.attacks.warmup import WarmUp
from undistill.tasks import Task, View


class Objective(nn.Module, ABC):
    """A loss per example that may change from epoch to epoch. Its buffers are part of a resumable training."""

    def begin_epoch(self, task: Task, seed: int, epoch: int, epochs: int, device: torch.device) -> "View | Views":
        """Called before the first step of each epoch (counted from 0); returns what the epoch sees."""
        return task.view(seed, epoch, device)

    def before_step(self, images: Float[Tensor, "m *shape"], indices: Int64[Tensor, "b"]) -> None:
        """Called before each step, in the step's precision, with the images in [0, 1] that the network is about to
        see. An objective that asks another network about them does so here."""

    @abstractmethod
    def forward(
        self, logits: Float[Tensor, "m classes"], labels: Int64[Tensor, "b"], indices: Int64[Tensor, "b"]
    ) -> Float[Tensor, "rows"]:
        """One value per example, or per row of logits; the loop takes the mean.

        Args:
            logits: of the network, one or several blocks of b rows; the first block is the student's own answer to
                the usual view.
            labels: true classes.
            indices: places in the training split.
        """

    def after_step(self, learning_rate: float) -> None:
        """Called after each step of the network, at its learning rate."""

    @property
    def blocks(self) -> int:
        """How many views of each image a step sees."""
        return 1

    @property
    def rows_key(self) -> Hashable | None:
        """Objectives with equal keys have one loss, which looks at each row alone: :meth:`rows_loss` of any of them
        serves the rows of all. None for a loss that looks at the batch, or that learns or remembers something."""
        return None

    def rows_beside(self, indices: Int64[Tensor, "n"]) -> Float[Tensor, "n classes"] | None:
        """What :meth:`rows_loss` takes beside the logits and labels of these images in this epoch, if anything."""
        return None

    def rows_loss(
        self,
        logits: Float[Tensor, "n classes"],
        labels: Int64[Tensor, "n"],
        beside: Float[Tensor, "n classes"] | None,
    ) -> Float[Tensor, "n"]:
        """The loss of each row, given :meth:`rows_beside`; only where there is a :attr:`rows_key`."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of single rows")


class FromLabels(Objective):
    """A teacher's or a reference's objective: a module that maps (logits, labels) to one loss per example.

    Args:
        loss: that module.
        beside: given the images of a step and their places in the training split, what ``loss`` takes as its third
            argument, or None where it takes none; called without gradients.
        second_view: a word of :data:`undistill.defences.training.SECOND_VIEWS`.
    """

    def __init__(
        self,
        loss: nn.Module,
        beside: Callable[[Tensor, Tensor], Tensor | None] | None = None,
        *,
        second_view: str = "none",
    ) -> None:
        super().__init__()
        self.loss = loss
        self.second_view = second_view
        self._ask = beside
        self._beside: Tensor | None = None

    def begin_epoch(self, task: Task, seed: int, epoch: int, epochs: int, device: torch.device) -> "View | Views":
        view = task.view(seed, epoch, device)
        if self.second_view == "none":
            return view
        second = {"strong": task.strong_view, "mixed": task.mixed_view}[self.second_view]
        return Views(view, second(seed, epoch, device))

    def before_step(self, images: Float[Tensor, "m *shape"], indices: Int64[Tensor, "b"]) -> None:
        if self._ask is not None:
            with torch.no_grad():
                self._beside = self._ask(images, indices)

    def forward(
        self, logits: Float[Tensor, "m classes"], labels: Int64[Tensor, "b"], indices: Int64[Tensor, "b"]
    ) -> Float[Tensor, "m"]:
        labels = labels.repeat(self.blocks)
        return self.loss(logits, labels) if self._beside is None else self.loss(logits, labels, self._beside.float())

    @property
    def blocks(self) -> int:
        return 1 if self.second_view == "none" else 2

    @property
    def rows_key(self) -> Hashable | None:
        loss = self.loss
        if type(self) is not FromLabels or type(loss) is not nn.CrossEntropyLoss or self._ask is not None:
            return None
        if self.blocks > 1:
            return None
        return ("labels", loss.label_smoothing) if loss.weight is None and loss.reduction == "none" else None

    def rows_loss(
        self,
        logits: Float[Tensor, "n classes"],
        labels: Int64[Tensor, "n"],
        beside: Float[Tensor, "n classes"] | None,
    ) -> Float[Tensor, "n"]:
        return self.loss(logits, labels)


class Views:
    """Several views of the same images, as one: the blocks of their batches stand one after the other."""

    def __init__(self, *views: View) -> None:
        self.views = views
        self.order = views[0].order

    def images(self, indices: Int64[Tensor, "b"]) -> UInt8[Tensor, "m *shape"]:
        batches = [view.images(indices) for view in self.views]
        if batches[0].ndim == 4:
            return torch.cat(batches).contiguous(memory_format=torch.channels_last)
        return torch.cat(batches)


class FromAnswers(Objective):
    """A knockoff's or a placebo's objective: an attack on the answers that belong to the epoch's views.

    Args:
        attack: the attack.
        answers: gives, for an epoch and the number of a view, the log-probabilities (n, classes) of every training
            image, in the order of the training split.
        num_classes: C.
        seed: of what the attack itself draws.
        views: how many different views there are; epoch e sees view e modulo this. None: a new one every epoch.
    """

    def __init__(
        self, attack: Attack, answers: Answers, *, num_classes: int, seed: int, views: int | None = None
    ) -> None:
        super().__init__()
        self.attack = attack
        self.answers = answers
        self.views = views
        self.loss = attack.start(num_classes, seed)

    def begin_epoch(self, task: Task, seed: int, epoch: int, epochs: int, device: torch.device) -> "View | Views":
        self.loss.begin_epoch(epoch, epochs)
        parts = [self.attack.prepare(self.answers(epoch, k), task.train.labels) for k in range(self.attack.views)]
        self.log_probs = torch.stack(parts).to(device)
        seen = epoch if self.views is None else epoch % self.views
        view = task.view(seed, epoch, device, crops=seen)
        return view if self.attack.views == 1 else Views(view, task.strong_view(seed, epoch, device, crops=seen))

    def forward(
        self, logits: Float[Tensor, "m classes"], labels: Int64[Tensor, "b"], indices: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return self.loss(logits, self.log_probs[:, indices].flatten(0, 1), labels)

    def after_step(self, learning_rate: float) -> None:
        self.loss.after_step(learning_rate)

    @property
    def blocks(self) -> int:
        return self.attack.views

    @property
    def rows_key(self) -> Hashable | None:
        alone = vars(type(self.attack)).get("row_wise", False)  # what a parent class says is not said of this loss
        return ("answers", self.attack) if alone and type(self.loss) in (AttackLoss, WarmUp) else None

    def rows_beside(self, indices: Int64[Tensor, "n"]) -> Float[Tensor, "n classes"]:
        return self.log_probs[0, indices]

    def rows_loss(
        self,
        logits: Float[Tensor, "n classes"],
        labels: Int64[Tensor, "n"],
        beside: Float[Tensor, "n classes"] | None,
    ) -> Float[Tensor, "n"]:
        return self.loss(logits, beside, labels)
