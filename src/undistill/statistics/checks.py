"""Refusals shared by the functions of this room."""

from collections.abc import Sequence
from math import isfinite

import numpy as np
from jaxtyping import Float

from undistill.errors import InputError

Values = Sequence[float] | Float[np.ndarray, "_"]
"""A row of numbers: any sequence of floats, or a one-dimensional array."""


def finite_values(name: str, values: Values) -> list[float]:
    """``values`` as Python floats, all of them finite and at least one.

    >>> finite_values("a", [1.0, float("nan"), float("inf")])
    Traceback (most recent call last):
    undistill.errors.InputError: 2 of the 3 numbers in a are not finite (the first is nan at position 1); ...
    """
    numbers = [float(value) for value in values]
    if not numbers:
        raise InputError(f"{name} holds nothing; give at least one")
    bad = [position for position, number in enumerate(numbers) if not isfinite(number)]
    if bad:
        raise InputError(
            f"{len(bad)} of the {len(numbers)} numbers in {name} are not finite "
            f"(the first is {numbers[bad[0]]} at position {bad[0]}); leave out the runs that failed, or repeat them"
        )
    return numbers


def check_alpha(alpha: float) -> None:
    """Refuse an error rate outside (0, 0.5), such as a confidence of 0.95 given in its place."""
    if not 0 < alpha < 0.5:
        raise InputError(
            f"alpha is {alpha}, but must lie strictly between 0 and 0.5: it is the error rate (say 0.05), "
            "not the confidence (0.95)"
        )
