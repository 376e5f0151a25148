"""A learned noise transition matrix: answers pass through one matrix, the same for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from undistill.defences.output.decision import (
    changed_share,
    drawn_back,
    first,
    logarithms,
    probabilities,
    surrogate_log_probs,
)
from undistill.defences.output.defence import OutputDefence, OwnData, Transform
from undistill.errors import InputError, check_whole

FLOOR = -14.0  # least log-probability that a feature shows; e^-14 is about 1e-6
RIDGE = 1e-3  # of the student's regression, with features of unit variance
SHARPNESS = 10.0  # of the softmax through which the student's predictions are judged
RATE = 0.1  # of Adam
QUERIES = 256  # images that a surrogate is asked about at once
ENTRIES = 1 << 18  # of the student's predictions that a step looks at
FEWEST_ROWS = 64  # of them, however many classes there are


@dataclass(frozen=True)
class NoiseTransition(OutputDefence):
    """Serves p T with a row-stochastic C x C matrix T, learned so that a student taught with it errs.

        y = p T,   T = kept * I + (1 - kept) * R,   R row-stochastic with a diagonal of zeros

    R solves a problem in two levels, on the owner's answers p and labels:

        upper:  maximise over R   mean CE(softmax(10 * s_i T), label_i)
        lower:  s_i T = x_i W(T),  W(T) = the ridge regression of p T on the student's features x

    The student of the lower level is a linear last layer. Ridge regression is linear in what it is taught, so a student
    taught p T predicts s T, where s is what it predicts when taught p: the lower level is solved exactly, once. Each
    half of the data is predicted by the student of the other half. The upper level takes ``steps`` steps of Adam.

    The features are a surrogate's log-probabilities at the owner's images, cut off at -14, where one is handed over
    (:class:`~undistill.defences.output.defence.OwnData`), and otherwise the teacher's own: a student that sees what
    the teacher sees.

    With ``keeps_top1``, a row whose decision T would change is drawn back towards p just as far as the decision needs.
    A row whose largest probability is at least 1 / (2 kept) never needs it.

    Args:
        kept: share of its probability that a class keeps, in [0, 1).
        keeps_top1: keep the predicted class.
        steps: of the upper level.
        seed: of the halves of the data, and of the rows that a step looks at.

    Raises:
        InputError: a setting outside of its range; on setting up, a surrogate of another number of classes, or fewer
            than two answers.

    Example:
        >>> log_probs = torch.log_softmax(10 * torch.eye(3), 1).repeat(4, 1)
        >>> own = OwnData(torch.zeros(12, 1, 2, 2, dtype=torch.uint8), log_probs, torch.arange(3).repeat(4))
        >>> matrix = NoiseTransition(kept=0.7).set_up(own).matrix
        >>> matrix.diagonal(), matrix.sum(1)
        (tensor([0.7000, 0.7000, 0.7000], dtype=torch.float64), tensor([1., 1., 1.], dtype=torch.float64))

    Source: our reading of Wu et al., CVPR 2024, DOI 10.1109/CVPR52733.2024.02294, of which only the abstract could be
    had: p T, with T learned in two levels against a surrogate. The objective, the student of the lower level and the
    way to keep decisions are ours.
    """

    name: ClassVar[str] = "noise-transition"
    summary: ClassVar[str] = "a learned matrix mixes each class's probability with that of others"
    source: ClassVar[str] = "our reading of Wu et al., CVPR 2024, DOI 10.1109/CVPR52733.2024.02294"
    idempotent = False
    takes_surrogate = True

    kept: float = 0.6
    keeps_top1: bool = True
    steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.kept < 1:
            raise InputError(f"kept is a share of probability and must lie in [0, 1), got {self.kept}")
        for what, count in (("steps", self.steps), ("seed", self.seed)):
            check_whole(f"{what} of noise-transition", count)
        if self.steps < 1:
            raise InputError(f"steps of noise-transition is {self.steps}, must be at least 1")

    def set_up(self, own: OwnData) -> "Mixed":
        own.check_enough(self.name, least=2)
        generator = torch.Generator().manual_seed(self.seed)
        predictions = _student(_features(own), probabilities(own.log_probs), generator).float()
        classes = predictions.shape[1]
        diagonal = torch.eye(classes, dtype=torch.bool)
        scores = torch.zeros(classes, classes, requires_grad=True)
        optimiser = torch.optim.Adam([scores], RATE, maximize=True)
        count = min(len(predictions), max(FEWEST_ROWS, ENTRIES // classes))
        with torch.enable_grad():
            for _ in range(self.steps):
                rows = torch.randperm(len(predictions), generator=generator)[:count]
                taught = predictions[rows] @ self.matrix(scores.masked_fill(diagonal, -torch.inf))
                optimiser.zero_grad()
                F.cross_entropy(SHARPNESS * taught, own.labels[rows]).backward()
                optimiser.step()
        matrix = self.matrix(scores.detach().double().masked_fill(diagonal, -torch.inf))
        share = changed_share(probabilities(own.log_probs) @ matrix, own.log_probs.argmax(1))
        return Mixed(matrix, self.keeps_top1, share)

    def restore(self, state: Mapping[str, Tensor]) -> "Mixed":
        return Mixed(state["matrix"], self.keeps_top1, state["changed"].item())

    def matrix(self, scores: Float[Tensor, "classes classes"]) -> Float[Tensor, "classes classes"]:
        """T, where R is the softmax of ``scores`` by rows."""
        return self.kept * torch.eye(len(scores), dtype=scores.dtype) + (1 - self.kept) * torch.softmax(scores, 1)


@dataclass(frozen=True)
class Mixed(Transform):
    """Answers times a matrix.

    Args:
        matrix: T, row-stochastic (classes, classes).
        keeps_top1: draw rows back whose decision it would change.
        changed: share of the owner's answers whose decision it would change.
    """

    matrix: Float64[Tensor, "classes classes"]
    keeps_top1: bool
    changed: float

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        probs, decision = probabilities(log_probs), log_probs.argmax(1)
        # In double precision, rounded at the end: products of matrices add up in an order that depends on the batch.
        mixed = probs @ self.matrix
        if not self.keeps_top1:
            return logarithms(mixed, log_probs)
        return first(logarithms(drawn_back(mixed, probs, decision), log_probs), decision)

    def facts(self) -> dict[str, Any]:
        return {"decisions_changed_by_matrix": self.changed}

    def state(self) -> dict[str, Tensor]:
        return {"matrix": self.matrix, "changed": torch.tensor(self.changed, dtype=torch.float64)}


def _features(own: OwnData) -> Float64[Tensor, "n columns"]:
    """Of the student: log-probabilities of unit variance, and a column of ones."""
    log_probs, classes = own.log_probs, own.log_probs.shape[1]
    if own.surrogate is not None:
        parts = [part.float().div(255) for part in own.images.split(QUERIES)]
        log_probs = torch.cat(
            [surrogate_log_probs(own.surrogate, part, classes, NoiseTransition.name) for part in parts]
        )
    columns = log_probs.double().clamp_min(FLOOR)
    columns = columns - columns.mean(1, keepdim=True)
    spread = columns.std().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.cat([columns / spread, torch.ones_like(columns[:, :1])], 1)


def _student(features: Tensor, probs: Tensor, generator: torch.Generator) -> Float64[Tensor, "n classes"]:
    """What a linear student predicts that was taught ``probs`` on the other half of the rows."""
    halves = torch.randperm(len(features), generator=generator).tensor_split(2)
    predictions = torch.empty_like(probs)
    for taught, asked in (halves, halves[::-1]):
        x = features[taught]
        ridge = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        predictions[asked] = features[asked] @ torch.linalg.solve(x.T @ x + ridge, x.T @ probs[taught])
    return predictions
