"""The power transform P -> P^(a), a = 1/T, and the grid of powers at which spectra are read."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.errors import InputError

DEFAULT_TEMPERATURES = (100, 64, 40, 28, 20, 14, 10, 8, 5.6, 4, 2.8, 2, 1.4, 1, 0.7, 0.5, 0.35, 0.25, 0.175, 0.125)
DEFAULT_POWERS = tuple(1 / temperature for temperature in DEFAULT_TEMPERATURES)
"""Twenty powers a = 1/T from 1/100 to 8, a factor of about sqrt(2) apart; a = 1, 1/2, 1/4, 1/8 and 1/20 are among
them."""


def check_powers(powers: Sequence[float]) -> tuple[float, ...]:
    """The powers as a tuple of floats.

    Args:
        powers: powers a = 1/T, no unit, in any order.

    Returns:
        The same numbers, in the same order.

    Raises:
        InputError: no power at all, one that is not a finite number above 0, or one that occurs twice.

    >>> check_powers([0.25, 1.0])
    (0.25, 1.0)
    """
    values = tuple(float(power) for power in powers)
    if not values:
        raise InputError("at least one power is needed, and none was given; a = 1 is the served distribution itself.")
    bad = [power for power in values if not (math.isfinite(power) and power > 0)]
    if bad:
        raise InputError(
            f"powers must be finite numbers above 0 (a = 1/T), but {len(bad)} of {len(values)} are not: "
            f"{', '.join(map(str, bad[:3]))}."
        )
    if len(set(values)) < len(values):
        raise InputError(
            f"each power may be given once, but {len(values) - len(set(values))} of {values} are repeated."
        )
    return values


def temper(logits: Float[Tensor, "*batch classes"], power: float) -> Float[Tensor, "*batch classes"]:
    """Log of P^(a), the distribution P raised to the power a = 1/T and renormalised.

    ``log P^(a) = log_softmax(a * z)``. Logits and log-probabilities of the same P give the same result, since they
    differ by a constant per row. A probability of exactly 0 (log -inf) stays 0.

    Args:
        logits: logits or log-probabilities, one row per sample; 16-bit numbers are computed in float32.
        power: a = 1/T, above 0, no unit.

    Returns:
        Log-probabilities in nats, of the shape of ``logits``, float32 or float64.

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531 (temperature T =
    1/a).

    >>> temper(torch.tensor([0.8, 0.2]).log(), 2.0).exp()
    tensor([0.9412, 0.0588])
    """
    return torch.log_softmax(power * at_least_float32(logits), dim=-1)


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Numbers of 16 bits in float32; others as they are.

    >>> at_least_float32(torch.tensor([0.5], dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
