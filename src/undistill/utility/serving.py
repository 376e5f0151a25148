"""How long a black box takes to answer."""

import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from undistill.blackbox import BlackBox
from undistill.blackbox.box import QUERY_BATCH
from undistill.errors import InputError
from undistill.files import write_json
from undistill.tasks import Split

REPETITIONS = 7


@dataclass(frozen=True)
class ServingTime:
    """How long answers took; made by :func:`measure_serving`.

    Attributes:
        seconds_per_1000: wall-clock seconds for 1,000 answers: the median of the repetitions.
        batch: images that were asked about at once.
        repetitions: how often.
        hardware: the processor.
        threads: of PyTorch.
        torch: its version.
    """

    seconds_per_1000: float
    batch: int
    repetitions: int
    hardware: str
    threads: int
    torch: str


def measure_serving(box: BlackBox, split: Split) -> ServingTime:
    """Ask about one batch of a split's images again and again.

    The first time warms up and is not counted: 8 batches of 64 images are asked about in all. What else runs on the
    machine counts, and so does the network in front of a remote teacher.

    Args:
        box: what is asked; all that it does to its answers is part of the time.
        split: images of the task.

    >>> from undistill.blackbox import CallableBlackBox
    >>> box = CallableBlackBox("api", lambda images: images.flatten(1).softmax(1), 4, torch.rand(1, 1, 2, 2))
    >>> split = Split(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10) % 4)
    >>> found = measure_serving(box, split)
    >>> found.batch, found.repetitions, found.seconds_per_1000 > 0
    (10, 7, True)
    """
    images = split.images[:QUERY_BATCH].float().div(255)
    seconds = []
    for _ in range(1 + REPETITIONS):
        started = time.perf_counter()
        box.log_probs(images)
        seconds.append(time.perf_counter() - started)
    return ServingTime(
        1000 * statistics.median(seconds[1:]) / len(images),
        len(images),
        REPETITIONS,
        _processor(),
        torch.get_num_threads(),
        str(torch.__version__),
    )


def kept_serving(path: Path, box: BlackBox, split: Split) -> ServingTime:
    """The time that is kept at ``path``; where there is none, it is measured and kept.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        found = measure_serving(box, split)
        write_json(path, asdict(found))
        return found
    try:
        return ServingTime(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run the same command again") from error


def _processor() -> str:
    """The processor's name as Linux gives it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
