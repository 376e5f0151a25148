"""Which trials one worker trains at once."""

from collections.abc import Sequence
from itertools import pairwise

from undistill.audit.trial import Trial

LARGEST_PACK = 16
"""Trials of a pack: more gain little, and a killed worker loses its whole pack."""


def pack(trials: Sequence[Trial], workers: int) -> list[tuple[Trial, ...]]:
    """The trials in packs, each of which one worker runs at once (:func:`undistill.audit.trial.run_pack`).

    Trials go together that train students of one architecture by one recipe on one task and ask in one way: seeds and
    settings of one attack first, then neighbours in the list. No pack is so large that a worker would have none.
    Whether trials in a pack are computed together is decided later, training by training; the outcome of each is
    the same in any pack.

    Args:
        trials: what is to be run.
        workers: how many packs run at the same time.

    Example:
        >>> from undistill.training import Recipe
        >>> references = [Trial("task", "mlp-16", Recipe(), seed, smoothing=0.1) for seed in range(5)]
        >>> [len(trials) for trials in pack(references, workers=2)]
        [2, 3]
    """
    kinds: dict[object, list[Trial]] = {}
    for trial in trials:
        kinds.setdefault((trial.task, trial.student, trial.recipe, trial.queries, _views(trial)), []).append(trial)
    packs: list[tuple[Trial, ...]] = []
    for kind in kinds.values():
        # One loss serves all students that share it.
        places = {attack: place for place, attack in enumerate(dict.fromkeys(trial.attack for trial in kind))}
        kind.sort(key=lambda trial: places[trial.attack])
        count = max(-(-len(kind) // LARGEST_PACK), min(workers, len(kind)))
        starts = [place * len(kind) // count for place in range(count + 1)]
        packs += [tuple(kind[start:end]) for start, end in pairwise(starts)]
    return packs


def _views(trial: Trial) -> int:
    return 1 if trial.attack is None else trial.attack.views
