"""A black box behind an output defence."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.attacks import AccessKind
from undistill.blackbox.access import FULL, Access, Decimals, LabelAccess, TopK
from undistill.blackbox.box import BlackBox
from undistill.blackbox.validate import check_log_probs
from undistill.defences.output import OutputDefence, Transform
from undistill.defences.output.truncation import MOST_DECIMALS
from undistill.files import content_hash


@dataclass(frozen=True)
class Served(Access):
    """What comes through of answers behind output defences; made by :class:`DefendedBlackBox`.

    Args:
        kind: of the answers. A defence that only leaves out leaves a label alone as it is.
        last: the last defence.
    """

    kind: AccessKind  # type: ignore[misc]  # of the value, not of the class
    last: OutputDefence

    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        raise NotImplementedError("what output defences serve depends on the image, too; ask the box's `limit`")

    @property
    def sentence(self) -> str:
        return {
            "full": "the probabilities of all classes",
            "decimals": "rounded probabilities",
            "top-k": "the largest probabilities, renormalised",
            "top-k-raw": "the largest probabilities, as they are",
            "label": "the predicted class alone",
        }[self.kind]

    def sums(self, num_classes: int) -> tuple[float, float]:
        return self.last.sums(num_classes)

    def equivalent(self, num_classes: int) -> Access:
        """The access by which somebody who does not know the defences sees the same: what a server says of itself."""
        if self.kind == "full":
            return FULL
        if self.kind == "label":
            return LabelAccess()
        if self.kind == "decimals":
            return Decimals(getattr(self.last, "places", MOST_DECIMALS))
        return TopK(min(getattr(self.last, "k", num_classes), num_classes), renormalised=self.kind == "top-k")

    def __str__(self) -> str:
        return self.kind


@dataclass
class DefendedBlackBox(BlackBox):
    """Another black box, behind an output defence, as :func:`~undistill.blackbox.defend` makes it. A stack of defences
    is one box in another.

    Args:
        box: the other one. What it answers is renormalised where it does not sum to 1 (rounded, or cut off).
        defence: the defence.
        transform: the same, set up for this box.
        learnt_from: what else determines the transform (training images, surrogate), as JSON; None if nothing does.

    Attributes:
        name: that of the box, ``+``, and that of the defence.
        fingerprint: follows from the box's, the settings, and ``learnt_from``. Defences are set up without chance, so
            it stands for what was learnt, too; being a name on every machine, it must not depend on the last bits.
    """

    box: BlackBox
    defence: OutputDefence
    transform: Transform
    learnt_from: Any = None
    name: str = field(init=False)
    fingerprint: str = field(init=False)
    policy: Access = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.box.name}+{self.defence.name}"
        self.fingerprint = content_hash(
            ["defended", self.box.fingerprint, self.defence.description(), self.learnt_from]
        )
        after_label = self.box.access == "label" and self.defence.serves != "full"
        kind: AccessKind = "label" if after_label else self.defence.serves
        self.policy = FULL if kind == "full" and self.defence.normalised else Served(kind, self.defence)

    @property
    def undefended(self) -> BlackBox:
        return self.box.undefended

    @property
    def defences(self) -> tuple[dict[str, Any], ...]:
        own = self.defence.description() | {"words": str(self.defence), "learnt": self.transform.facts()}
        return *self.box.defences, own

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        return self.serve(self.box.log_probs(images), images)

    def limit(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return self.serve(self.box.limit(log_probs, images), images)

    def serve(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        """What is served to ``images`` where the other box answers ``log_probs``.

        Raises:
            InputError: the defence gives NaN, or rows that do not sum to what it says.
        """
        classes = log_probs.shape[1]
        whole = self.box.policy.sums(classes) == (1.0, 1.0)
        served = self.transform.apply(log_probs if whole else torch.log_softmax(log_probs, 1), images)
        check_log_probs(served, self.name, self.policy.sums(classes))
        return served
