"""Reverse sigmoid: what is likely is served as less likely, and the other way round."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from undistill.defences.output.decision import logarithms, probabilities
from undistill.defences.output.defence import OutputDefence, OwnData, Transform
from undistill.errors import InputError

DEFAULT_MOVE = 1.0  # mean L1, the budget that ModelGuard compares its defences at
SMALLEST_BETA, LARGEST_BETA = 1e-6, 1e4  # between which the strength is searched
GRID = 61  # strengths that are tried in that range, and as many again around the best, if none suffices
STEP = (LARGEST_BETA / SMALLEST_BETA) ** (1 / (GRID - 1))  # factor from one to the next: six to a decade
STEPS = 40  # of the bisection: a relative error of 1e-10
ROWS = 10_000  # of the owner's answers, on which the strength is chosen


@dataclass(frozen=True)
class ReverseSigmoid(OutputDefence):
    """Takes from each probability a sigmoid of its own log-odds, so that the largest lose and the smallest gain.

        u_c = log p_c - log(1 - p_c),    r_c = beta (sigmoid(gamma u_c) - 1/2)
        p'_c proportional to min(1, max(0, p_c - r_c))

    The log-odds are computed from log-probabilities: for the largest class, 1 - p is the sum of the others, not a
    difference, so nothing is lost where a teacher is sure; exact zeros and ones are their limits.

    Every one of the C classes in the tail gains about beta / 2 before the row is normalised, so confidence collapses
    long before the predicted class changes, the sooner the more classes there are: one beta does not fit all. Give
    one of ``beta``, ``l1`` and ``kept``; with ``l1`` or ``kept``, beta is found between 1e-6 and 10,000 on the
    teacher's answers to the owner's training images (10,000 of them where there are more). Without any, ``l1`` is 1.

    Args:
        beta: strength, above 0.
        gamma: slope on the log-odds, above 0.
        l1: the mean L1 distance by which answers are to be moved, above 0 and below 2. It need not grow with beta:
            a large beta serves answers without a class above 1/2 as uniform ones. So strengths are tried on a grid, and
            beta is found by bisection below the first of them that moves the answers so far.
        kept: the least share of answers whose predicted class must stay, above 0 and at most 1; beta is then 10,000
            where that keeps so many, and otherwise found by bisection: it keeps so many, and a slightly larger one does
            not. It need not be the largest that does, for further up the share can rise again.

    Raises:
        InputError: a value out of range, or more than one of ``beta``, ``l1`` and ``kept``; when it is set up, no
            answers, or a target that no beta of the grid reaches, with what is reachable.

    Example:
        >>> served = reverse_sigmoid(torch.tensor([[0.9, 0.09, 0.01]]).log(), beta=0.5, gamma=0.2)
        >>> served.round(decimals=3)
        tensor([[0.7620, 0.1320, 0.1060]], dtype=torch.float64)

    Source: Lee, Edwards, Molloy, Su, "Defending Against Neural Network Model Stealing Attacks Using Deceptive
    Perturbations", arXiv 1806.00054. Deviation: the strength is chosen, since what implementations take by default
    (beta = 1 in ART) changes predicted classes where there are many classes.
    """

    name: ClassVar[str] = "reverse-sigmoid"
    summary: ClassVar[str] = "takes from each probability a sigmoid of its log-odds; strength chosen on own answers"
    source: ClassVar[str] = "Lee et al. 2019, arXiv 1806.00054"
    keeps_top1 = False
    idempotent = False

    beta: float | None = None
    gamma: float = 0.2
    l1: float | None = None
    kept: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name in ("beta", "l1", "kept") if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            words = ", ".join(f"{name}={value}" for name, value in given.items())
            raise InputError(f"reverse-sigmoid takes one of beta, l1 and kept, got {words}; leave out all but one")
        if not given:
            object.__setattr__(self, "l1", DEFAULT_MOVE)
        for name, most, words in (
            ("beta", math.inf, "finite and above 0"),
            ("gamma", math.inf, "finite and above 0"),
            ("l1", 2.0, "above 0 and below 2, the distance of two answers that share no class"),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < most:
                raise InputError(f"reverse-sigmoid: {name} is {value}, must be {words}")
        if self.kept is not None and not 0 < self.kept <= 1:
            raise InputError(f"reverse-sigmoid: kept is {self.kept}, must be a share above 0 and at most 1")

    @property
    def learns(self) -> bool:  # type: ignore[override]  # of the value, not of the class
        return self.beta is None

    def set_up(self, own: OwnData) -> Transform:
        if self.beta is not None:
            return _ReverseSigmoid(self.beta, self.gamma)
        own.check_enough(self.name)
        return _ReverseSigmoid(self._chosen(own.log_probs), self.gamma)

    def restore(self, state: Mapping[str, Tensor]) -> Transform:
        return _ReverseSigmoid(state["beta"].item(), self.gamma)

    def _chosen(self, log_probs: Float[Tensor, "n classes"]) -> float:
        rows = log_probs[:: -(-len(log_probs) // ROWS)]
        probs, predicted, lean = probabilities(rows), rows.argmax(1), _lean(rows, self.gamma)

        def move(beta: float) -> float:
            return (_leant(*lean, beta) - probs).abs().sum(1).mean().item()

        def kept(beta: float) -> float:
            return (_leant(*lean, beta).argmax(1) == predicted).double().mean().item()

        if self.l1 is not None:
            target, tried = self.l1, {beta: move(beta) for beta in _grid(SMALLEST_BETA, LARGEST_BETA)}
            top = max(tried, key=tried.__getitem__)
            if tried[top] < target:  # the most that can be reached lies between two strengths of the grid
                around = _grid(max(SMALLEST_BETA, top / STEP), min(LARGEST_BETA, top * STEP))
                tried |= {beta: move(beta) for beta in around}
            betas = sorted(tried)
            least, most = tried[betas[0]], max(tried.values())
            if not least <= target <= most:
                raise InputError(
                    f"reverse-sigmoid cannot move these answers by {target:g} in the mean of L1: from {least:.3g} to "
                    f"{most:.4g} can be reached with gamma={self.gamma:g}; choose l1 in between"
                )
            place = next(i for i, beta in enumerate(betas) if tried[beta] >= target)
            return _bisected(betas[max(0, place - 1)], betas[place], lambda beta: move(beta) <= target)
        share = self.kept if self.kept is not None else 1.0
        if kept(LARGEST_BETA) >= share:
            return LARGEST_BETA
        most = kept(SMALLEST_BETA)
        if most < share:
            raise InputError(
                f"reverse-sigmoid cannot be set to keep the predicted class of a share {share:g} of these answers: "
                f"beta={SMALLEST_BETA:g} keeps {most:.4g} with gamma={self.gamma:g}; choose kept up to that"
            )
        return _bisected(SMALLEST_BETA, LARGEST_BETA, lambda beta: kept(beta) >= share)


@dataclass(frozen=True)
class _ReverseSigmoid(Transform):
    beta: float
    gamma: float

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return logarithms(reverse_sigmoid(log_probs, self.beta, self.gamma), log_probs)

    def facts(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def state(self) -> dict[str, Tensor]:
        return {"beta": torch.tensor(self.beta, dtype=torch.float64)}


def reverse_sigmoid(log_probs: Float[Tensor, "n classes"], beta: float, gamma: float) -> Float64[Tensor, "n classes"]:
    """The served probabilities of :class:`ReverseSigmoid` for full answers ``log_probs``."""
    return _leant(*_lean(log_probs, gamma), beta)


def _lean(
    log_probs: Float[Tensor, "n classes"], gamma: float
) -> tuple[Float64[Tensor, "n classes"], Float64[Tensor, "n classes"]]:
    """The probabilities, and what is taken from each at a strength of 1."""
    logs = torch.log_softmax(log_probs.double(), 1)
    top = logs.argmax(1, keepdim=True)
    complement = torch.log1p(-logs.exp()).scatter(1, top, logs.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True))
    return logs.exp(), torch.sigmoid(gamma * (logs - complement)) - 0.5


def _leant(
    probs: Float64[Tensor, "n classes"], lean: Float64[Tensor, "n classes"], beta: float
) -> Float64[Tensor, "n classes"]:
    served = (probs - beta * lean).clamp(0, 1)
    return served / served.sum(1, keepdim=True)


def _grid(smallest: float, largest: float) -> list[float]:
    """Strengths from the smallest to the largest, each the same factor above the one before."""
    return [smallest * (largest / smallest) ** (i / (GRID - 1)) for i in range(GRID)]


def _bisected(smallest: float, largest: float, holds: Callable[[float], bool]) -> float:
    """A strength up to which ``holds`` is true and above which it is not; it is true of the smallest, not the largest.

    Where it changes several times in between, one of the places is found.
    """
    low, high = math.log(smallest), math.log(largest)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(math.exp(middle)) else (low, middle)
    return math.exp(low)
