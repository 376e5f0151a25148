"""Output defences that leave out a part of the answer: the label alone, the top k, some decimals, what is likely."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.defences.output.decision import logarithms, probabilities
from undistill.defences.output.defence import FixedDefence, Form
from undistill.errors import InputError, check_whole

MOST_DECIMALS = 7  # float32 logarithms hold no more
ROUNDING = 1e-6  # nats; a probability this near to the cutoff is one that reaches it


def label_alone(log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """The predicted class with probability 1; of equal ones the lower class.

    >>> label_alone(torch.tensor([[0.4, 0.4, 0.2]]).log()).exp()
    tensor([[1., 0., 0.]])
    """
    return torch.full_like(_precise(log_probs), -torch.inf).scatter(1, log_probs.argmax(1, keepdim=True), 0.0)


def largest(log_probs: Float[Tensor, "n classes"], k: int, renormalised: bool) -> Float[Tensor, "n classes"]:
    """The k largest probabilities; all others are exact zeros. Of equal ones the lower class is kept.

    >>> largest(torch.tensor([[0.5, 0.3, 0.2]]).log(), k=2, renormalised=True).exp()
    tensor([[0.6250, 0.3750, 0.0000]])
    """
    log_probs = _precise(log_probs)
    kept = log_probs.argsort(dim=1, descending=True, stable=True)[:, :k]
    served = torch.full_like(log_probs, -torch.inf).scatter(1, kept, log_probs.gather(1, kept))
    return torch.log_softmax(served, 1) if renormalised else served


def rounded(log_probs: Float[Tensor, "n classes"], places: int) -> Float[Tensor, "n classes"]:
    """Probabilities rounded to decimals; where all of a row round to zero, the predicted class has probability 1.

    >>> rounded(torch.tensor([[0.72, 0.24, 0.04]]).log(), places=1).exp()
    tensor([[0.7000, 0.2000, 0.0000]])
    """
    scale = 10.0**places
    probs = (log_probs.double().exp() * scale).round() / scale
    nothing = (probs == 0).all(1, keepdim=True)
    return torch.where(nothing, label_alone(log_probs), logarithms(probs, log_probs))


def sums_of_rounded(num_classes: int, places: int) -> tuple[float, float]:
    """The least and the largest sum of rounded probabilities.

    >>> sums_of_rounded(20, 2)
    (0.9, 1.1)
    """
    most = num_classes * 10.0**-places / 2
    return max(0.0, 1 - most), 1 + most


def _precise(log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    return log_probs if log_probs.dtype == torch.float64 else log_probs.float()


@dataclass(frozen=True)
class LabelOnly(FixedDefence):
    """Serves the predicted class alone, as probability 1; of equal ones the lower class.

    Every image of a predicted class gets the same answer, so CMI given the prediction is 0 at every power. It remains
    stealable all the same: a student that learns from labels is what every attack can fall back on.

    Example:
        >>> LabelOnly().apply(torch.tensor([[0.2, 0.7, 0.1]]).log(), torch.zeros(1, 1, 2, 2)).exp()
        tensor([[0., 1., 0.]])

    Source: Tramer et al., "Stealing Machine Learning Models via Prediction APIs", USENIX Security 2016, as a
    countermeasure; ART's ``ClassLabels``, which in a batch gives every row the classes of all rows.
    """

    name: ClassVar[str] = "label-only"
    summary: ClassVar[str] = "the predicted class alone, as probability 1"
    source: ClassVar[str] = "Tramer et al., USENIX Security 2016"
    keeps_top1 = True
    idempotent = True
    serves = "label"

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return label_alone(log_probs)


@dataclass(frozen=True)
class KeepTopK(FixedDefence):
    """Serves the k largest probabilities, renormalised (Stingy Teacher) or as they are; all others are exact zeros.

        p'_c = p_c / sum of the k largest    for the k largest, 0 for all others

    Of equal probabilities the lower class is kept, whatever the order in memory.

    Args:
        k: how many, at least 1. Stingy Teacher keeps a share r of the C classes: k = max(1, int(r C)), with r = 0.2 for
            10 classes and 0.1 for 100 or more.
        renormalised: make the served ones sum to 1.

    Raises:
        InputError: ``k`` is no whole number, or below 1, or, where the teacher is known, above the number of its
            classes.

    Example:
        >>> KeepTopK(2).apply(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.zeros(1, 1, 2, 2)).exp()
        tensor([[0.6250, 0.3750, 0.0000]])

    Source: Ma et al., "Stingy Teacher: Sparse Logits Suffice to Fail Knowledge Distillation", ICLR 2022 workshop;
    HowieMa/stingy-teacher. Deviation: a number of classes in place of a share, which came to 0 below 10 classes.
    """

    name: ClassVar[str] = "top-k"
    summary: ClassVar[str] = "the k largest probabilities, renormalised or as they are (Stingy Teacher)"
    source: ClassVar[str] = "Ma et al. (Stingy Teacher), ICLR 2022 workshop; HowieMa/stingy-teacher"
    keeps_top1 = True
    idempotent = True

    k: int = 2
    renormalised: bool = True

    def __post_init__(self) -> None:
        check_whole("k of top-k", self.k)
        if self.k < 1:
            raise InputError(f"top-k cannot serve {self.k} classes; k must be at least 1")

    @property
    def normalised(self) -> bool:  # type: ignore[override]  # of the value, not of the class
        return self.renormalised

    @property
    def serves(self) -> Form:  # type: ignore[override]
        if not self.renormalised:
            return "top-k-raw"
        return "label" if self.k == 1 else "top-k"  # one class of probability 1 says no more than its name

    def check(self, num_classes: int) -> None:
        if self.k > num_classes:
            raise InputError(
                f"top-k cannot serve {self.k} classes where there are {num_classes}; k must be 1 to {num_classes}"
            )

    def sums(self, num_classes: int) -> tuple[float, float]:
        return (1.0, 1.0) if self.renormalised else (0.0, 1.0)

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return largest(log_probs, self.k, self.renormalised)


@dataclass(frozen=True)
class Rounding(FixedDefence):
    """Serves probabilities rounded to some decimals; they need not sum to 1.

    A row of which all probabilities round to zero stays an answer: its predicted class is served with probability 1.

    Args:
        places: decimals, 1 to 7.

    Raises:
        InputError: another number of decimals, or no whole one.

    Example:
        >>> Rounding(1).apply(torch.tensor([[0.72, 0.24, 0.04]]).log(), torch.zeros(1, 1, 2, 2)).exp()
        tensor([[0.7000, 0.2000, 0.0000]])

    Source: Tramer et al., "Stealing Machine Learning Models via Prediction APIs", USENIX Security 2016, with the
    default of ART's ``Rounded``. Deviation: no row is served as nothing but zeros. Several classes can round to one
    number, of which the lower then counts as predicted, so the predicted class is not always kept.
    """

    name: ClassVar[str] = "rounding"
    summary: ClassVar[str] = "all probabilities, rounded to some decimals"
    source: ClassVar[str] = "Tramer et al., USENIX Security 2016; ART Rounded"
    keeps_top1 = False
    idempotent = True
    normalised = False
    serves = "decimals"

    places: int = 3

    def __post_init__(self) -> None:
        check_whole("places of rounding", self.places)
        if not 1 <= self.places <= MOST_DECIMALS:
            raise InputError(f"rounding to {self.places} decimals is not possible; places must be 1 to {MOST_DECIMALS}")

    def sums(self, num_classes: int) -> tuple[float, float]:
        return sums_of_rounded(num_classes, self.places)

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return rounded(log_probs, self.places)


@dataclass(frozen=True)
class HighConfidence(FixedDefence):
    """Serves the probabilities that reach a cutoff, renormalised; all others are exact zeros.

        p'_c = p_c / sum over { k : p_k >= cutoff } of p_k    where p_c >= cutoff, else 0

    Where none reaches it, the predicted class is served with probability 1.

    Args:
        cutoff: least probability that is served, above 0 and below 1.

    Raises:
        InputError: another cutoff.

    Example:
        >>> rows = torch.tensor([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33]]).log()
        >>> HighConfidence(0.4).apply(rows, torch.zeros(2, 1, 2, 2)).exp()
        tensor([[1., 0., 0.],
                [1., 0., 0.]])

    Source: ART's ``HighConfidence``, with its default. Deviation: ART does not renormalise, and answers nothing but
    zeros where no probability reaches the cutoff; here every answer is a distribution.
    """

    name: ClassVar[str] = "high-confidence"
    summary: ClassVar[str] = "the probabilities that reach a cutoff, renormalised"
    source: ClassVar[str] = "ART HighConfidence (Nicolae et al., arXiv 1807.01069)"
    keeps_top1 = True
    idempotent = True
    serves = "top-k"

    cutoff: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.cutoff < 1:
            raise InputError(f"high-confidence cannot cut at {self.cutoff}; cutoff must lie between 0 and 1")

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        probs = probabilities(log_probs)
        served = probs >= self.cutoff * math.exp(-ROUNDING)
        served = served.scatter(1, log_probs.argmax(1, keepdim=True), True)
        kept = torch.where(served, probs, 0.0)
        return logarithms(kept / kept.sum(1, keepdim=True), log_probs)
