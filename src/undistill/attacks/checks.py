"""Settings that many attacks have, and what is wrong with some values of them."""

import math

from undistill.errors import InputError


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not finite and above 0."""
    if not 0 < temperature < math.inf:
        raise InputError(f"the temperature is {temperature}, must be finite and above 0 (usual values: 1 to 20)")


def check_share(what: str, share: float) -> None:
    """Refuse a share that does not lie in [0, 1]."""
    if not 0 <= share <= 1:
        raise InputError(f"the {what} is {share}, must lie between 0 and 1")


def check_weight(what: str, weight: float) -> None:
    """Refuse a weight that is negative or not finite."""
    if not 0 <= weight < math.inf:
        raise InputError(f"the {what} is {weight}, must be finite and at least 0")


def check_count(what: str, count: int, least: int) -> None:
    """Refuse a count that is too small."""
    if count < least:
        raise InputError(f"the {what} is {count}, must be at least {least}")


def check_positive(what: str, value: float) -> None:
    """Refuse a value that is not finite and above 0."""
    if not 0 < value < math.inf:
        raise InputError(f"the {what} is {value}, must be finite and above 0")
