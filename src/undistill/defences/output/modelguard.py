"""ModelGuard-W: the answer that tells least, by a linear program, within reach of the true one."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from undistill.defences.output.decision import logarithms
from undistill.defences.output.defence import FixedDefence
from undistill.errors import InputError

FLOOR = 1e-6  # added to a probability before its logarithm is taken: the published objective
MARGIN = 1e-4  # by which the predicted class leads, as published
STEPS = 60  # of the search: the golden ratio to this power is below 1e-12
ENTRIES = 1 << 16  # of rows that are searched at once; they stay in a core's cache
GOLDEN = (math.sqrt(5) - 1) / 2
RESIDUE = 1e-11  # what the search may leave of a probability that is taken whole
EQUAL = 1e-12  # differences of the objective that decide nothing, so that rounding does not either


@dataclass(frozen=True)
class ModelGuardW(FixedDefence):
    """Serves the distribution within an L1 distance that puts most on what the teacher deems least likely.

    Per row, with k the predicted class and p the teacher's probabilities, the linear program

        minimise over y   sum_c y_c log(p_c + 1e-6)
        subject to        sum_c y_c = 1,  y >= 0,  sum_c abs(y_c - p_c) <= distance,  y_k >= y_c + 1e-4 for c != k

    It is solved exactly. For a given t = y_k: whatever exceeds t - 1e-4 is cut off; what has become free goes to the
    least likely classes, each up to t - 1e-4; and what is left of the distance takes from the likeliest other classes
    and gives to the least likely ones. The least value for t is convex in t, which golden section searches. Of equal
    probabilities the lower class counts as less likely; where several are largest, the lowest is the predicted one.

    Args:
        distance: largest L1 distance between the true and the served row, above 0.0002 (less leaves no room for the
            margin where two classes tie) and at most 2, which no two distributions exceed.

    Raises:
        InputError: ``distance`` outside of this range.

    Example:
        >>> served = least_telling(torch.tensor([[0.9, 0.07, 0.03]]).double(), distance=0.8)
        >>> served.round(decimals=3)
        tensor([[0.5000, 0.0700, 0.4300]], dtype=torch.float64)

    Source: Tang et al., "ModelGuard: Information-Theoretic Defense Against Model Extraction Attacks", USENIX Security
    2024, variant W. Deviations: the exact solution in place of a solver's, and no budget pooled over a batch, with
    which a row's answer would depend on its neighbours. Variant S, a growing memory of earlier answers, is left out:
    its answers depend on the order of the questions.
    """

    name: ClassVar[str] = "modelguard-w"
    summary: ClassVar[str] = "the distribution near the answer that puts most on the least likely classes (top-1 kept)"
    source: ClassVar[str] = "Tang et al. (ModelGuard), USENIX Security 2024"
    keeps_top1 = True
    idempotent = False

    distance: float = 1.0

    def __post_init__(self) -> None:
        if not 2 * MARGIN < self.distance <= 2:
            raise InputError(
                f"modelguard-w cannot serve answers within an L1 distance of {self.distance}; distance must be above "
                f"{2 * MARGIN} (the margin of the predicted class needs as much) and at most 2; 1 is usual"
            )

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        rows = log_probs.double().split(max(1, ENTRIES // log_probs.shape[1]))
        served = [least_telling(torch.softmax(part, 1), self.distance) for part in rows]
        return logarithms(torch.cat(served), log_probs)


def least_telling(probs: Float64[Tensor, "n classes"], distance: float) -> Float64[Tensor, "n classes"]:
    """The solution of the linear program of :class:`ModelGuardW`, row by row.

    Args:
        probs: the teacher's probabilities (n, classes), of at least two classes.
        distance: largest L1 distance, above 0.0002.

    Returns:
        The served probabilities (n, classes), exact zeros included.
    """
    column = probs.argmax(1, keepdim=True)
    order = probs.scatter(1, column, torch.inf).argsort(dim=1, stable=True)[:, :-1]
    costs = (probs + FLOOR).log()
    rest = _Rest(
        probs.gather(1, column), probs.gather(1, order), costs.gather(1, column), costs.gather(1, order), distance
    )
    low, high = rest.range()
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    values = [rest.objective(inner[0]), rest.objective(inner[1])]
    ends = [(low, rest.objective(low)), (high, rest.objective(high))]
    for _ in range(STEPS):
        left = values[0] <= values[1] + EQUAL
        low, high = torch.where(left, low, inner[0]), torch.where(left, inner[1], high)
        new = torch.where(left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        value = rest.objective(new)
        inner = [torch.where(left, new, inner[1]), torch.where(left, inner[0], new)]
        values = [torch.where(left, value, values[1]), torch.where(left, values[0], value)]
    best, least = inner[0], values[0]
    for end, value in ends:
        best, least = torch.where(value <= least + EQUAL, end, best), torch.minimum(value, least)
    given = rest.given(best)
    given = torch.where((given < RESIDUE) & (given < rest.probs), 0.0, given)
    return torch.empty_like(probs).scatter(1, order, given).scatter(1, column, 1 - given.sum(1, keepdim=True))


@dataclass(frozen=True)
class _Rest:
    """The classes besides the predicted one, in ascending order of probability, and what becomes of them."""

    largest: Float64[Tensor, "n 1"]
    probs: Float64[Tensor, "n others"]
    cost_of_largest: Float64[Tensor, "n 1"]
    costs: Float64[Tensor, "n others"]
    distance: float

    def range(self) -> tuple[Float64[Tensor, "n 1"], Float64[Tensor, "n 1"]]:
        """Between which values the probability t of the predicted class can lie."""
        # Cutting the others to t - MARGIN and the largest to t moves sum (a - t)_+, which must not exceed distance / 2.
        levels = torch.cat([self.largest, self.probs + MARGIN], 1).sort(1, descending=True).values.cumsum(1)
        counts = torch.arange(1, levels.shape[1] + 1, device=levels.device)
        low = ((levels - self.distance / 2) / counts).amax(1, keepdim=True)
        # Below, the others could not hold what the predicted class leaves them.
        low = low.clamp_min((1 + self.probs.shape[1] * MARGIN) / levels.shape[1])
        return low, (self.largest + self.distance / 2).clamp_max(1)

    def given(self, top: Float64[Tensor, "n 1"]) -> Float64[Tensor, "n others"]:
        """The others' best probabilities where the predicted class has ``top``."""
        most = top - MARGIN
        cut = torch.minimum(self.probs, most)
        places = torch.arange(self.probs.shape[1], device=top.device)
        # Without a limit on the distance, the least likely classes would be filled up in turn.
        filled = torch.minimum((1 - top - places * most).clamp_min(0), most)
        room, excess = (filled - cut).clamp_min(0), (cut - filled).clamp_min(0)
        rise = top - self.largest
        before, above = room.cumsum(1), excess.flip(1).cumsum(1).flip(1)
        given = torch.minimum(self.distance / 2 - rise.clamp_min(0), before[:, -1:])
        taken = given + rise - (self.probs - cut).sum(1, keepdim=True)
        given_each = torch.minimum((given - (before - room)).clamp_min(0), room)
        return cut + given_each - torch.minimum((taken - (above - excess)).clamp_min(0), excess)

    def objective(self, top: Float64[Tensor, "n 1"]) -> Float64[Tensor, "n 1"]:
        """The least value of the linear program where the predicted class has ``top``."""
        return (self.given(top) * self.costs).sum(1, keepdim=True) + top * self.cost_of_largest
