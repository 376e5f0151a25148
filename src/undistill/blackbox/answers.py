"""A teacher's answers to a page of questions, asked once and shared by every trial that asks the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save
from torch import Tensor

from undistill.blackbox.box import QUERY_BATCH, BlackBox
from undistill.blackbox.queries import Page
from undistill.files import write_atomic
from undistill.tasks import Task


@dataclass(frozen=True)
class AnswerCache:
    """Answers on disk, one file per (black box, task, page).

    The view of a training image is a function of (seed, epoch), so attacks, settings and students of one seed ask the
    same questions. The first process that needs a page asks; the others wait for the file.

    Args:
        folder: where the files live. They can be deleted at any time between runs.
    """

    folder: Path

    def get(
        self, box: BlackBox, task: Task, page: Page, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "n classes"]:
        """Log-probabilities (float32) of ``box`` for the page's view of every training image, in the split's order."""
        folder = self.folder / f"{box.fingerprint[:16]}-{task.fingerprint[:16]}-{page.seed}"
        path = folder / f"{page.kind}-{page.crops}.safetensors"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    write_atomic(path, save({"log_probs": ask(box, task, page, device)}))
        return load_file(path)["log_probs"]


def page_images(task: Task, page: Page, device: torch.device | str = "cpu") -> Iterator[UInt8[Tensor, "b *shape"]]:
    """The images of a page, in the order of the training split, batch by batch."""
    if page.kind == "clean":
        yield from (images.to(device) for images in task.train.images.split(QUERY_BATCH))
        return
    view = (task.view if page.kind == "usual" else task.strong_view)(page.seed, page.crops, device)
    yield from map(view.images, torch.arange(len(task.train), device=device).split(QUERY_BATCH))


def ask(box: BlackBox, task: Task, page: Page, device: torch.device | str = "cpu") -> Float[Tensor, "n classes"]:
    """Ask ``box`` about the page's view of every training image."""
    return torch.cat([box.log_probs(images.float().div_(255)).cpu() for images in page_images(task, page, device)])
