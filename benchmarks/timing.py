"""One way to time: all that is compared takes turns in one run, and every repeat is kept."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Piece = Callable[[], float]
"""Runs something once and returns the seconds that it took."""


@dataclass(frozen=True)
class Figure:
    """One measured quantity with all its repeats.

    Args:
        name: what was measured.
        unit: of the values: "ms", "images/s", "%" or "x" (a ratio).
        values: one per repeat.
        at_least, at_most: the target, for the median; at most one of the two.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def minimum(self) -> float:
        return min(self.values)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def maximum(self) -> float:
        return max(self.values)

    @property
    def target(self) -> str:
        """The target and whether the median meets it; empty without one."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}: {'met' if self.median >= self.at_least else 'missed'}"
        if self.at_most is not None:
            return f"at most {self.at_most:g}: {'met' if self.median <= self.at_most else 'missed'}"
        return ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "n": len(self.values),
            "minimum": self.minimum,
            "median": self.median,
            "maximum": self.maximum,
            "target": self.target,
            "values": list(self.values),
        }


def stopwatch(function: Callable[[], object]) -> Piece:
    """``function`` as a piece that is timed from call to return."""

    def timed() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return timed


def take_turns(pieces: Mapping[str, Piece], *, repeats: int, warmups: int = 1) -> dict[str, tuple[float, ...]]:
    """Run every piece once per round, and return its seconds in each round.

    Every other round runs in reverse order, so that neither a machine that slows down nor what one piece leaves in the
    caches favours another. Quotients and differences are taken within a round. The first ``warmups`` rounds are not
    counted.
    """
    rounds = []
    names = list(pieces)
    for number in range(warmups + repeats):
        order = names if number % 2 == 0 else names[::-1]
        rounds.append({name: pieces[name]() for name in order})
    return {name: tuple(seconds[name] for seconds in rounds[warmups:]) for name in names}


def milliseconds(seconds: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(1e3 * value for value in seconds)


def quotients(above: tuple[float, ...], below: tuple[float, ...]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def differences(whole: tuple[float, ...], part: tuple[float, ...]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(w - p for w, p in zip(whole, part, strict=True))
