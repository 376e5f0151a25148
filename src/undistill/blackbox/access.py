"""What a black box lets through of its answers: an access policy."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from undistill.attacks import AccessKind
from undistill.defences.output.truncation import (
    MOST_DECIMALS,
    KeepTopK,
    label_alone,
    largest,
    rounded,
    sums_of_rounded,
)
from undistill.errors import InputError, check_whole, unknown_name

# Rounding that a box which serves k entries may do on top, without being told: half of the second decimal each.
ROUNDING = 0.005


class Access(ABC):
    """A function of full log-probabilities, row by row: what a box answers in their place.

    It is deterministic, and applying it twice is applying it once. An entry that is not served is an exact zero
    (``-inf``), never a small number. ``str`` gives the words by which the command line knows it.
    """

    kind: ClassVar[AccessKind]

    @abstractmethod
    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """What is answered where ``log_probs`` are the full answers."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What the attacker sees, in words."""

    def check(self, num_classes: int) -> None:  # noqa: B027 (most fit any number)
        """Refuse a policy that does not fit the number of classes.

        Raises:
            InputError: it keeps more classes than there are.
        """

    def sums(self, num_classes: int) -> tuple[float, float]:
        """The least and the largest sum that the probabilities of a box with this policy may have."""
        return 1.0, 1.0

    @property
    def step(self) -> float:
        """By how much two answers of a box with this policy may differ whose full answers are as good as equal."""
        return 0.0


@dataclass(frozen=True)
class FullAccess(Access):
    """All log-probabilities, as they are."""

    kind: ClassVar[AccessKind] = "full"

    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        return log_probs

    @property
    def sentence(self) -> str:
        return "the probabilities of all classes"

    def __str__(self) -> str:
        return "full"


@dataclass(frozen=True)
class Decimals(Access):
    """Probabilities rounded to some decimals; they need not sum to 1.

    Where all probabilities of a row round to zero, the predicted class is answered with probability 1: a server that
    answers nothing would answer that.

    Args:
        places: decimals, 1 to 7.

    Example:
        >>> import torch
        >>> Decimals(1).apply(torch.tensor([[0.72, 0.24, 0.04]]).log()).exp()
        tensor([[0.7000, 0.2000, 0.0000]])
    """

    kind: ClassVar[AccessKind] = "decimals"

    places: int

    def __post_init__(self) -> None:
        check_whole("the number of decimals", self.places)
        if not 1 <= self.places <= MOST_DECIMALS:
            raise InputError(
                f"access to {self.places} decimals is not possible; the number of decimals must be 1 to {MOST_DECIMALS}"
            )

    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        return rounded(log_probs, self.places)

    @property
    def sentence(self) -> str:
        return f"the probabilities of all classes, rounded to {self.places} decimals"

    def sums(self, num_classes: int) -> tuple[float, float]:
        return sums_of_rounded(num_classes, self.places)

    @property
    def step(self) -> float:
        return 10.0**-self.places

    def __str__(self) -> str:
        return f"decimals:{self.places}"


@dataclass(frozen=True)
class TopK(Access):
    """The k largest probabilities; all others are exact zeros. Of equal ones the lower class is served.

    Args:
        k: how many, at least 1.
        renormalised: make the served ones sum to 1; otherwise they are served as they are.

    Example:
        >>> import torch
        >>> log_probs = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> TopK(2).apply(log_probs).exp()
        tensor([[0.6250, 0.3750, 0.0000]])
        >>> TopK(2, renormalised=False).apply(log_probs).exp()
        tensor([[0.5000, 0.3000, 0.0000]])
    """

    k: int
    renormalised: bool = True

    def __post_init__(self) -> None:
        check_whole("k of an access", self.k)
        if self.k < 1:
            raise InputError(f"access to the top {self.k} classes is not possible; k must be at least 1")

    @property
    def kind(self) -> AccessKind:  # type: ignore[override]  # of the value, not of the class
        return KeepTopK(self.k, self.renormalised).serves

    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        return largest(log_probs, self.k, self.renormalised)

    @property
    def sentence(self) -> str:
        which = f"the {self.k} largest probabilities" if self.k > 1 else "the largest probability"
        return f"{which}, {'renormalised' if self.renormalised else 'as they are' if self.k > 1 else 'as it is'}"

    def check(self, num_classes: int) -> None:
        if self.k > num_classes:
            raise InputError(
                f"access '{self}' keeps {self.k} classes, but there are {num_classes}; k must be 1 to {num_classes}"
            )

    def sums(self, num_classes: int) -> tuple[float, float]:
        return 0.0, 1 + ROUNDING * self.k

    def __str__(self) -> str:
        return f"top-k{'' if self.renormalised else '-raw'}:{self.k}"


@dataclass(frozen=True)
class LabelAccess(Access):
    """The predicted class alone, as probability 1; of equal ones the lower class."""

    kind: ClassVar[AccessKind] = "label"

    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        return label_alone(log_probs)

    @property
    def sentence(self) -> str:
        return "the predicted class alone"

    def __str__(self) -> str:
        return "label"


FULL = FullAccess()


def parse_access(text: str) -> Access:
    """``full``, ``decimals:D``, ``top-k:K``, ``top-k-raw:K`` or ``label`` as a value.

    >>> parse_access("top-k-raw:5")
    TopK(k=5, renormalised=False)

    Raises:
        InputError: another word, no number, or one that is not possible.
    """
    numbered: dict[str, Callable[[int], Access]] = {
        "decimals": Decimals,
        "top-k": TopK,
        "top-k-raw": partial(TopK, renormalised=False),
    }
    plain: dict[str, Callable[[], Access]] = {"full": FullAccess, "label": LabelAccess}
    name, colon, number = text.partition(":")
    if name in plain:
        if colon:
            raise InputError(f"access {text!r} takes no number; write {name}")
        return plain[name]()
    if name not in numbered:
        raise unknown_name("access", name, [*plain, *numbered])
    if not number:
        raise InputError(f"access {text!r} needs a number; write {name}:3, for example")
    try:
        count = int(number)
    except ValueError:
        raise InputError(f"access {text!r}: the number is {number!r}, must be a whole number") from None
    return numbered[name](count)
