"""What output defences share: arithmetic in double precision, the way back to the teacher's decision, surrogates."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from undistill.errors import InputError

Probs = Float64[Tensor, "n classes"]


def probabilities(log_probs: Float[Tensor, "n classes"]) -> Probs:
    """Probabilities in double precision that sum to 1, also where 16 bits have rounded them."""
    return torch.softmax(log_probs.double(), 1)


def logarithms(probs: Probs, like: Tensor) -> Float[Tensor, "n classes"]:
    """Log-probabilities in the precision of ``like``, but never in 16 bits, which cannot tell close classes apart."""
    return probs.log().to(like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32)


def drawn_back(probs: Probs, honest: Probs, decision: Int64[Tensor, "n"]) -> Probs:
    """The rows moved towards the honest ones, as little as lets the class decided on have the largest probability.

    ``(1 - a) probs + a honest`` with the least a in [0, 1] for which no class exceeds that of ``decision``.

    Example:
        >>> probs, honest = torch.tensor([[0.2, 0.8]]).double(), torch.tensor([[0.8, 0.2]]).double()
        >>> drawn_back(probs, honest, torch.tensor([0]))
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    column = decision[:, None]
    excess = (probs - probs.gather(1, column)).clamp_min(0)
    lead = honest.gather(1, column) - honest
    back = torch.where(excess > 0, excess / (excess + lead), 0.0).amax(1, keepdim=True)
    return probs + back * (honest - probs)


def first(log_probs: Float[Tensor, "n classes"], decision: Int64[Tensor, "n"]) -> Float[Tensor, "n classes"]:
    """The class decided on has the largest entry alone: what equals or exceeds it by rounding becomes the next smaller.

    Example:
        >>> first(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1])).argmax(1)
        tensor([1])
    """
    column = decision[:, None]
    top = log_probs.gather(1, column)
    return torch.minimum(log_probs, torch.nextafter(top, torch.full_like(top, -torch.inf))).scatter(1, column, top)


@torch.no_grad()
def surrogate_log_probs(
    surrogate: Callable[[Tensor], Tensor], images: Float[Tensor, "n *shape"], classes: int, name: str
) -> Float[Tensor, "n classes"]:
    """What a surrogate says of images in [0, 1].

    Raises:
        InputError: it tells another number of classes apart than the teacher that ``name`` defends.
    """
    log_probs = surrogate(images)
    if log_probs.shape[1] != classes:
        raise InputError(
            f"the surrogate tells {log_probs.shape[1]} classes apart and the teacher {classes}; {name} needs a "
            "surrogate for the teacher's own task"
        )
    return log_probs


def changed_share(probs: Probs, decision: Int64[Tensor, "n"]) -> float:
    """In what share of the rows another class exceeds that of ``decision``."""
    return (probs.amax(1) > probs.gather(1, decision[:, None])[:, 0]).double().mean().item()
