"""Trials that run together."""

from collections.abc import Sequence

from undistill.audit.trial import Trial


def pack(trials: Sequence[Trial], workers: int) -> list[tuple[Trial, ...]]:
    """The trials in packs, each of which one worker runs at once.

    Args:
        trials: what is to be run.
        workers: how many packs run at the same time.
    """
    return [(trial,) for trial in trials]
