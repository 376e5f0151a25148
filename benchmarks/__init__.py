"""Measurements of what the package claims about its speed. ``python -m benchmarks`` runs them; see docs/benchmarks.md.

Each benchmark is one file with one function, whose arguments are sizes and which returns :class:`Figure` objects. What
is compared runs in turns within one process, on one core.
"""

from collections.abc import Callable

from benchmarks.attack_step import attack_step
from benchmarks.cmim_loss import cmim_loss
from benchmarks.cmim_step import cmim_step
from benchmarks.packing import packing
from benchmarks.plain_way import plain_way
from benchmarks.precision import precision
from benchmarks.running import running
from benchmarks.serving import serving
from benchmarks.spectrum import spectrum
from benchmarks.step import step
from benchmarks.throughput import throughput
from benchmarks.timing import Figure

BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "throughput": throughput,
    "cmim-step": cmim_step,
    "cmim-loss": cmim_loss,
    "spectrum": spectrum,
    "step": step,
    "attack-step": attack_step,
    "precision": precision,
    "packing": packing,
    "plain-way": plain_way,
    "running": running,
    "serving": serving,
}

__all__ = ["BENCHMARKS", "Figure"]
