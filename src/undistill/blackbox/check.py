"""Whether a black box is a function of the image, found out before hours are spent on it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.blackbox.box import BlackBox
from undistill.blackbox.defended import DefendedBlackBox
from undistill.errors import InputError

CHECKED_IMAGES = 8

# Largest difference between two answers to one image, in probability, that arithmetic may make: sums in another order
# in float32, TF32 or float16 stay below it. What a defence draws at random, or takes from the rest of the batch, does
# not.
ANSWER_TOLERANCE = 0.01


# The same for two answers to the same question: nothing but the order of sums inside one operation may differ.
REPEAT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Steadiness:
    """By how much answers to the same image differed, as probabilities, beyond what rounding may make of nothing.

    Args:
        repeated: between two answers to the same question.
        company: between an image alone, in a batch, and in the same batch in another order.
        images: that were asked about.
    """

    repeated: float
    company: float
    images: int


def check_black_box(box: BlackBox, images: Float[Tensor, "n *shape"]) -> Steadiness:
    """Refuse a box that answers differently to the same image, or differently in other company.

    Asks about all images at once, again, in reversed order, and about each alone: 4 n images. Answers are kept and
    shared by all trainings, so those of such a box would mean nothing. Of a box with output defences, what lies behind
    them is asked, and the defences are tried on its answers as they came: near a tie, or at a cutoff, noise of the
    arithmetic that the defences did not make could change what they serve.

    Args:
        box: what is going to be asked; where an access policy limits it here, what lies behind that.
        images: a few different ones, raw values in [0, 1].

    Returns:
        By how much answers differed that passed.

    Raises:
        InputError: how many answers differ, by how much, and what to do.
    """
    box = box.unlimited
    serve, behind = _serve(box, images)
    rows = torch.arange(len(images))
    batch, again = serve(rows), serve(rows)
    turned = serve(rows.flip(0)).flip(0)
    alone = torch.cat([serve(row[None]) for row in rows])
    questions = (
        (
            again,
            REPEAT_TOLERANCE,
            "answers differently when it is asked about the same images again",
            "switch off what it draws at random, or audit what it draws around",
        ),
        (
            alone,
            ANSWER_TOLERANCE,
            "answers differently about an image alone than in a batch",
            "let it use no statistics of the batch (an nn.Module: call eval() on it)",
        ),
        (
            turned,
            ANSWER_TOLERANCE,
            "answers differently when the images of a batch come in another order",
            "let each answer depend on its own image alone",
        ),
    )
    largest = []
    for others, noise, what, advice in questions:
        tolerance = noise + box.policy.step
        gaps = (others.exp() - batch.exp()).abs().amax(1)
        if (gaps > tolerance).any():
            raise InputError(
                f"{box.name} {what}: the probabilities of {int((gaps > tolerance).sum())} of {len(images)} images "
                f"differ, by up to {gaps.max().item():.3g} (allowed: {tolerance:g}); {advice}"
            )
        largest.append(max(0.0, gaps.max().item() - box.policy.step))
    repeated, alone_gap, turned_gap = largest
    return Steadiness(max(repeated, behind.repeated), max(alone_gap, turned_gap, behind.company), images=len(images))


def _serve(box: BlackBox, images: Float[Tensor, "n *shape"]) -> tuple[Callable[[Tensor], Tensor], Steadiness]:
    """What gives the answers to some of ``images``, by their places; and how steady is what lies behind defences."""
    if not isinstance(box, DefendedBlackBox):
        return lambda rows: box.log_probs(images[rows]).cpu(), Steadiness(0.0, 0.0, len(images))
    behind = check_black_box(box.box, images)
    log_probs = box.box.log_probs(images).cpu()
    return lambda rows: box.serve(log_probs[rows], images[rows]), behind
