"""MAD, prediction poisoning: answers that turn the gradient of whoever learns from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from undistill.defences.output.decision import drawn_back, first, logarithms, probabilities, surrogate_log_probs
from undistill.defences.output.defence import OutputDefence, OwnData, Transform
from undistill.errors import InputError

FEW_CLASSES = 10  # up to here all sets of classes are tried
EVALUATIONS = 1024  # of the objective per row, where there are more classes
LEAD = 1e-5  # weight that the predicted class gets on top in a set of equals, as released
NO_LENGTH = 1e-7  # a difference of two distributions that is shorter has no direction in double precision
EQUAL = 1e-9  # cosines that differ less are equal, so that rounding decides nothing


@dataclass(frozen=True)
class MAD(OutputDefence):
    """Serves, within an L1 distance, what turns the gradient of an attacker's last layer from the honest direction.

    The honest answer p and the served y give the attacker's student the gradients G'p and G'y, where row c of G is the
    gradient of -log q_c and q the student's probabilities. MAD, maximising angular deviation, looks for

        max over y   || G'y / ||G'y|| - G'p / ||G'p|| ||^2 = 2 - 2 cos(G'y, G'p)
        subject to   y a distribution, sum_c abs(y_c - p_c) <= distance [, argmax y = argmax p]

    For the weights (and biases) of a last layer with features h, row c of G is (q - e_c) h', so G'y = (q - y) h'. The
    length of h cancels, and the cosine is that of q - y and q - p, vectors of length C: no network is run backwards.

    As published, the best extreme point y* is looked for first, without regard to the distance, and the row goes as far
    towards it as the distance allows:

        y = (1 - a) p + a y*,   a = min(1, distance / sum_c abs(p_c - y*_c))

    Extreme points are the C single classes. With ``keeps_top1`` they are the sets of classes that hold the predicted
    one, of equal probability but for 0.00001 more on the predicted class: for C up to 10 all of them are tried; beyond,
    the set grows by the class that turns the gradient most as long as it turns further, within 1,024 evaluations.

    A row is served as it is where its honest gradient vanishes (q = p, as for a certain answer that the surrogate
    agrees with) or where no extreme point turns it. Of equally good points that of the lower classes is taken.

    Args:
        distance: largest L1 distance between the true and the served row, above 0 and at most 2.
        keeps_top1: keep the predicted class.

    Raises:
        InputError: ``distance`` outside of this range; later, a surrogate of another number of classes.

    The surrogate, which stands for the attacker's student, is handed over when the defence is set up
    (:class:`~undistill.defences.output.defence.OwnData`). Without one, q is uniform, about what an untrained network
    says: the released code uses an untrained one.

    Example:
        >>> deviation = angular_deviation(
        ...     torch.tensor([[0.9, 0.1, 0.0]]).double(),
        ...     served=torch.tensor([[0.5, 0.1, 0.4]]).double(),
        ...     surrogate=torch.full((1, 3), 1 / 3).double(),
        ... )
        >>> deviation.round(decimals=3)
        tensor([0.7660], dtype=torch.float64)

    Source: Orekondy, Schiele, Fritz, "Prediction Poisoning", ICLR 2020, arXiv 1906.10908. Deviations: the closed form,
    where the released code runs the surrogate backwards C times per question (for its last layer only, too); ties and
    vanishing gradients are decided as above, where that code divides by zero.
    """

    name: ClassVar[str] = "mad"
    summary: ClassVar[str] = "turns the gradient that an attacker's last layer would take from the answer"
    source: ClassVar[str] = "Orekondy et al., ICLR 2020, arXiv 1906.10908"
    idempotent = False
    learns = False
    takes_surrogate = True

    distance: float = 1.0
    keeps_top1: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.distance <= 2:
            raise InputError(
                f"mad cannot serve answers within an L1 distance of {self.distance}; distance must be above 0 and at "
                "most 2, which no two distributions exceed; 1 is usual"
            )

    def set_up(self, own: OwnData) -> Transform:
        if own.surrogate is not None and len(own.images):
            surrogate_log_probs(own.surrogate, own.images[:1].float().div(255), own.log_probs.shape[1], self.name)
        return _Turned(self.distance, self.keeps_top1, own.surrogate)

    def restore(self, state: Mapping[str, Tensor]) -> Transform:
        return _Turned(self.distance, self.keeps_top1, None)


@dataclass(frozen=True)
class _Turned(Transform):
    distance: float
    keeps_top1: bool
    surrogate: Callable[[Tensor], Tensor] | None

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        if self.surrogate is None:
            surrogate = torch.full_like(log_probs, 1 / log_probs.shape[1], dtype=torch.float64)
        else:
            theirs = surrogate_log_probs(self.surrogate, images, log_probs.shape[1], MAD.name)
            surrogate = probabilities(theirs.to(log_probs.device))
        probs, decision = probabilities(log_probs), log_probs.argmax(1)
        served = turned(probs, surrogate, self.distance, self.keeps_top1)
        if not self.keeps_top1:
            return logarithms(served, log_probs)
        return first(logarithms(drawn_back(served, probs, decision), log_probs), decision)

    def state(self) -> dict[str, Tensor]:
        if self.surrogate is not None:
            raise InputError(
                "mad with a surrogate cannot be saved, for it asks the surrogate about every image; leave it out"
            )
        return {}


def angular_deviation(
    probs: Float64[Tensor, "n classes"], served: Float64[Tensor, "n classes"], surrogate: Float64[Tensor, "n classes"]
) -> Float64[Tensor, "n"]:
    """What MAD maximises: the squared distance of the unit gradients of a last layer, 2 - 2 cos(q - y, q - p).

    Args:
        probs: the teacher's probabilities p (n, classes).
        served: what is served in their place, y (n, classes).
        surrogate: the student's probabilities q (n, classes).

    Returns:
        From 0 (the gradient keeps its direction) to 4 (it is reversed); NaN where one of the two vanishes.
    """
    honest, turned_to = surrogate - probs, surrogate - served
    return 2 - 2 * (honest * turned_to).sum(1) / (honest.norm(dim=1) * turned_to.norm(dim=1))


def turned(
    probs: Float64[Tensor, "n classes"],
    surrogate: Float64[Tensor, "n classes"],
    distance: float,
    keeps_top1: bool,
) -> Float64[Tensor, "n classes"]:
    """The served probabilities of :class:`MAD`, row by row.

    Args:
        probs: the teacher's probabilities (n, classes).
        surrogate: the student's probabilities at the same images (n, classes).
        distance: largest L1 distance.
        keeps_top1: choose among extreme points that keep the predicted class.

    Returns:
        Probabilities (n, classes).
    """
    gradient = _Gradient(probs, surrogate)
    if not keeps_top1:
        extreme, turns = gradient.best_class()
    elif probs.shape[1] <= FEW_CLASSES:
        extreme, turns = gradient.best_set()
    else:
        extreme, turns = gradient.grown_set()
    length = (extreme - probs).abs().sum(1, keepdim=True)
    share = torch.where(turns[:, None] & (length > 0), distance / length, 0.0).clamp_max(1)
    return (1 - share) * probs + share * extreme


class _Gradient:
    """The honest gradient q - p of each row, and the cosines of other gradients to it."""

    def __init__(self, probs: Float64[Tensor, "n classes"], surrogate: Float64[Tensor, "n classes"]) -> None:
        self.surrogate, self.honest = surrogate, surrogate - probs
        self.along = (surrogate * self.honest).sum(1, keepdim=True)
        self.squared = surrogate.square().sum(1, keepdim=True)
        self.length = self.honest.norm(dim=1, keepdim=True)
        self.decision = probs.argmax(1, keepdim=True)

    def cosines(self, honest: Tensor, surrogate: Tensor, count: Tensor | int) -> Tensor:
        """Cosines of q - y where y is uniform over ``count`` classes, over which q - p and q have these sums.

        1, no deviation, where y is q or p is q.
        """
        length = (self.squared - 2 * surrogate / count + 1 / count).clamp_min(0).sqrt()
        lengths = length * self.length
        usable = (length > NO_LENGTH) & (self.length > NO_LENGTH)
        return torch.where(usable, (self.along - honest / count) / lengths, 1.0)

    def best_class(self) -> tuple[Tensor, Tensor]:
        """The single class that turns the gradient most, and whether it turns it at all."""
        place, cosine = _least(self.cosines(self.honest, self.surrogate, 1))
        return torch.zeros_like(self.surrogate).scatter(1, place, 1.0), cosine < 1 - EQUAL

    def best_set(self) -> tuple[Tensor, Tensor]:
        """The same of all sets that hold the predicted class: set b holds the j-th other class if b has bit j."""
        classes = torch.arange(self.surrogate.shape[1], device=self.surrogate.device)
        others = classes.expand_as(self.surrogate)[classes != self.decision].view(len(self.surrogate), -1)
        honest, surrogate = self.honest.gather(1, self.decision), self.surrogate.gather(1, self.decision)
        for other in others.split(1, dim=1):
            honest = torch.cat([honest, honest + self.honest.gather(1, other)], 1)
            surrogate = torch.cat([surrogate, surrogate + self.surrogate.gather(1, other)], 1)
        number = torch.arange(honest.shape[1], device=honest.device)
        bits = number[:, None] >> classes[:-1] & 1
        place, cosine = _least(self.cosines(honest, surrogate, bits.sum(1) + 1))
        member = torch.zeros_like(self.surrogate).scatter(1, others, bits[place[:, 0]].double())
        return self._uniform(member.scatter(1, self.decision, 1.0)), cosine < 1 - EQUAL

    def grown_set(self) -> tuple[Tensor, Tensor]:
        """The same of a set that grows greedily from the predicted class."""
        member = torch.zeros_like(self.surrogate).scatter(1, self.decision, 1.0)
        honest, surrogate = self.honest.gather(1, self.decision), self.surrogate.gather(1, self.decision)
        cosine = self.cosines(honest, surrogate, 1)[:, 0]
        grows = torch.ones_like(cosine, dtype=torch.bool)
        left, count = EVALUATIONS, 1
        while count < member.shape[1] and grows.any() and (count == 1 or left >= member.shape[1] - count):
            left, count = left - (member.shape[1] - count), count + 1
            cosines = self.cosines(honest + self.honest, surrogate + self.surrogate, count)
            place, least = _least(cosines.masked_fill(member > 0, torch.inf))
            grows = grows & (least < cosine - EQUAL)
            cosine = torch.where(grows, least, cosine)
            member = member.scatter_add(1, place, grows[:, None].double())
            honest, surrogate = honest + self.honest.gather(1, place), surrogate + self.surrogate.gather(1, place)
        return self._uniform(member), cosine < 1 - EQUAL

    def _uniform(self, member: Tensor) -> Tensor:
        uniform = member / member.sum(1, keepdim=True)
        return uniform.scatter_add(1, self.decision, torch.full_like(uniform[:, :1], LEAD)) / (1 + LEAD)


def _least(cosines: Float64[Tensor, "n points"]) -> tuple[Tensor, Float64[Tensor, "n"]]:
    """The first of the places (n, 1) whose cosine is least, up to rounding, and the least cosine."""
    least = cosines.amin(1)
    return (cosines <= least[:, None] + EQUAL).byte().argmax(1, keepdim=True), least
