"""Which trials one worker trains at once."""

from collections.abc import Sequence
from itertools import pairwise

from undistill.audit.trial import Trial
from undistill.training import stacks

LARGEST_PACK = 16
"""Trials of a pack: more gain little, and a killed worker loses its whole pack."""


def pack(trials: Sequence[Trial], workers: int) -> list[tuple[Trial, ...]]:
    """The trials in packs, each of which one worker runs at once (:func:`undistill.audit.trial.run_pack`).

    Trials go together that train small students of one architecture by one recipe on one task and ask in one way: seeds
    and settings of one attack first, then neighbours in the list. Packs are of about one size, and as many for each
    worker. Students that gain nothing (:func:`undistill.training.stacks`) have packs of their own, so that a kill costs
    one training. The outcome of a trial is the same in any pack.

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
        views = 1 if trial.attack is None else trial.attack.views
        kind = (trial.task, trial.student, trial.recipe, trial.queries, views) if stacks(trial.student) else trial
        kinds.setdefault(kind, []).append(trial)
    packs: list[tuple[Trial, ...]] = []
    for together in kinds.values():
        # One loss serves all students that share it.
        places = {attack: place for place, attack in enumerate(dict.fromkeys(trial.attack for trial in together))}
        together.sort(key=lambda trial: places[trial.attack])
        least = -(-len(together) // LARGEST_PACK)
        count = min(len(together), least + -least % workers)
        starts = [place * len(together) // count for place in range(count + 1)]
        packs += [tuple(together[start:end]) for start, end in pairwise(starts)]
    return packs
