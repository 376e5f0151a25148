"""The spectrum of a large data set."""

from collections.abc import Callable

import torch

from benchmarks.timing import Figure, quotients, stopwatch, take_turns
from undistill.information import DEFAULT_POWERS, CMISpectrum


def spectrum(
    *, samples: int = 1_000_000, classes: int = 100, batch_size: int = 10_000, repeats: int = 3
) -> list[Figure]:
    """``CMISpectrum`` at the 20 default powers, beside one bare ``log_softmax`` per power over the same batches.

    The metric computes in float64 and checks its input; the bare pass is float32.
    """
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows in torch.arange(samples).split(batch_size):
        labels = torch.randint(classes, (len(rows),), generator=generator)
        logits = torch.randn(len(rows), classes, generator=generator).scatter_add_(
            1, labels[:, None], torch.full((len(rows), 1), 5.0)
        )
        batches.append((torch.log_softmax(logits, dim=1), labels))

    def measure() -> None:
        metric = CMISpectrum(classes)
        for log_probs, labels in batches:
            metric.update(log_probs, labels)
        metric.compute()

    def bare() -> None:
        for log_probs, _ in batches:
            for _ in DEFAULT_POWERS:
                torch.log_softmax(log_probs, dim=1)

    pieces: dict[str, Callable[[], float]] = {"CMISpectrum": stopwatch(measure), "bare log_softmax": stopwatch(bare)}
    seconds = take_turns(pieces, repeats=repeats)
    return [
        *(Figure(name, "s", values) for name, values in seconds.items()),
        Figure("CMISpectrum / bare log_softmax", "x", quotients(seconds["CMISpectrum"], seconds["bare log_softmax"])),
    ]
