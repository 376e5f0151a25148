"""Whether a training collapses: a watch on its validation accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from undistill.training.loop import EpochRecord
from undistill.training.progress import Progress

COLLAPSED = 0.5  # share of the expected accuracy


@dataclass(frozen=True)
class CollapseWatch:
    """What validation accuracy is expected of a training; less than half of it is a collapse.

    Args:
        expected: after each epoch, in percent; the last one stands for all later epochs. Empty: nothing is known, and
            nothing is watched.
        source: whose accuracy that is, in words; or why nothing is known.
    """

    expected: tuple[float, ...]
    source: str

    def collapsed(self, record: EpochRecord) -> bool:
        """Whether this epoch's validation accuracy is under half of what is expected.

        >>> watch = CollapseWatch((40.0, 80.0), "")
        >>> [watch.collapsed({"epoch": epoch, "validation_accuracy": 30.0}) for epoch in (0, 1, 2)]
        [False, True, True]
        """
        return bool(self.expected) and record["validation_accuracy"] < COLLAPSED * self._expected(record["epoch"])

    def sentence(self, record: EpochRecord) -> str:
        """What is said of a collapse when it begins."""
        epoch, reached = record["epoch"], record["validation_accuracy"]
        return (
            f"collapse: after epoch {epoch + 1} the validation accuracy is {reached:.2f}%, under half of "
            f"{self._expected(epoch):.2f}%, that of {self.source}"
        )

    def facts(self, records: Sequence[EpochRecord]) -> dict[str, Any]:
        """The collapsed epochs, as JSON: for a provenance."""
        return {
            "watched": bool(self.expected),
            "against": self.source,
            "epochs": [record["epoch"] for record in records if self.collapsed(record)],
        }

    def over(self, progress: Progress) -> Progress:
        """``progress``, which is also told when a collapse begins and ends."""
        return _Watched(self, progress)

    def _expected(self, epoch: int) -> float:
        return self.expected[min(epoch, len(self.expected) - 1)]


class _Watched:
    def __init__(self, watch: CollapseWatch, progress: Progress) -> None:
        self.watch, self.progress = watch, progress
        self.collapsed = False

    def __enter__(self) -> Progress:
        self.progress.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.__exit__(*exception)

    def step(self, epoch: int, step: int, images: int) -> None:
        self.progress.step(epoch, step, images)

    def epoch(self, record: Any) -> None:
        self.progress.epoch(record)
        before, self.collapsed = self.collapsed, self.watch.collapsed(record)
        if self.collapsed and not before:
            self.progress.warn(self.watch.sentence(record))
        elif before and not self.collapsed:
            self.progress.warn(f"out of the collapse after epoch {record['epoch'] + 1}")

    def warn(self, sentence: str) -> None:
        self.progress.warn(sentence)
