"""A teacher's answers to the views of an epoch, asked once and shared by every trial that sees the same views."""

from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from undistill.blackbox.box import QUERY_BATCH, BlackBox
from undistill.files import write_atomic
from undistill.tasks import Task


@dataclass(frozen=True)
class AnswerCache:
    """Answers on disk, one file per (black box, task, seed, epoch).

    The view of a training image is a function of (seed, epoch), so attacks, settings and students of one seed ask the
    same questions. The first process that needs an epoch asks; the others wait for the file.

    Args:
        folder: where the files live. They can be deleted at any time between runs.
    """

    folder: Path

    def get(
        self, box: BlackBox, task: Task, seed: int, epoch: int, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "n classes"]:
        """Log-probabilities (float32) of ``box`` for the epoch's view of every training image, in the split's order."""
        folder = self.folder / f"{box.fingerprint[:16]}-{task.fingerprint[:16]}-{seed}"
        path = folder / f"{epoch}.safetensors"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{epoch}.lock"):
                if not path.exists():
                    write_atomic(path, save({"log_probs": ask(box, task, seed, epoch, device)}))
        return load_file(path)["log_probs"]


def ask(
    box: BlackBox, task: Task, seed: int, epoch: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "n classes"]:
    """Ask ``box`` for the epoch's view of every training image."""
    view = task.view(seed, epoch, device)
    indices = torch.arange(len(task.train), device=device)
    rows = [box.log_probs(view.images(part).float().div_(255)).cpu() for part in indices.split(QUERY_BATCH)]
    return torch.cat(rows)
