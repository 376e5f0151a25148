"""A teacher's answers to a page of questions, asked once and shared by every trial that asks the same."""

import inspect
import os
import sys
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from undistill.blackbox.box import QUERY_BATCH, BlackBox
from undistill.blackbox.queries import Page
from undistill.errors import InputError
from undistill.files import STALE, content_hash, write_atomic
from undistill.tasks import StrongView, Task, View

ANSWER_SPACE = 20 * 2**30
LOCKS = 64  # files by which processes wait for each other: two pages may share one, which costs a wait and no more
WRITERS = 8  # processes that fill up a folder together, unless more are told
HEADROOM = 1 / 16  # of the space, that is free again after pages were removed


class SharedAnswers(ABC):
    """Where trials find a black box's answers, so that no question is asked twice.

    The view of a training image is a function of (seed, epoch), so attacks, settings and students of one seed ask the
    same questions.
    """

    @abstractmethod
    def get(self, box: BlackBox, task: Task, page: Page) -> Float[Tensor, "n classes"]:
        """Log-probabilities (float32) of ``box`` for every image of the page, in the order of their split."""


@dataclass
class _Allowance:
    """Bytes that a process may write before it looks how full the folder is: to look takes time for every page."""

    left: int = 0


@dataclass(frozen=True)
class AnswerCache(SharedAnswers):
    """Answers on disk, one memory-mapped file per (black box, task, page), shared by all processes.

    The first process that needs a page asks; the others wait for the file. A file says whose answers it holds and has a
    checksum; one that is damaged, or of another teacher, other data or an earlier version, is asked for again.

    Args:
        folder: where the files live. They can be deleted at any time.
        space: bytes that they may take in all. Beyond it, the pages that were not read for longest are removed, and
            asked for again should they be needed; a process that reads one at that moment still has it.
        writers: processes that may write at the same time. Before it looks how full the folder is, each writes no more
            than its share of what was left.

    Raises:
        InputError: (when answers are kept) the disk is full or the folder cannot be written.
    """

    folder: Path
    space: int = ANSWER_SPACE
    writers: int = WRITERS
    _allowance: _Allowance = field(default_factory=_Allowance, init=False, repr=False, compare=False)

    def get(self, box: BlackBox, task: Task, page: Page) -> Float[Tensor, "n classes"]:
        about = _identity(box, task, page)
        folder = self.folder / f"{box.fingerprint[:16]}-{task.fingerprint[:16]}-{page.seed}"
        path = folder / f"{page.kind}-{page.crops}.safetensors"
        found = _read(path, about)
        if found is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{int(content_hash(about)[:8], 16) % LOCKS}.lock"):
                found = _read(path, about)
                if found is None:
                    found = self._asked(path, about, box, task, page)
                    held = _packed(found, about)
                    self._write(path, held)
                    _begun(path).unlink(missing_ok=True)
                    self._allowance.left -= len(held)
                    if self._allowance.left < 0:
                        self._make_room(path)
        return found

    def _asked(
        self, path: Path, about: dict[str, str], box: BlackBox, task: Task, page: Page
    ) -> Float[Tensor, "n classes"]:
        """The answers to a whole page. Those that came before an interruption are kept, and not asked for again: a box
        may allow so many questions in an hour and no more."""
        kept = _read(_begun(path), about)
        parts = [] if kept is None else [kept]
        try:
            return ask(box, task, page, parts)
        except BaseException:
            if parts:
                with suppress(InputError):  # what interrupted is what should be told
                    self._write(_begun(path), _packed(torch.cat(parts), about))
            raise

    def _write(self, path: Path, held: bytes) -> None:
        try:
            write_atomic(path, held)
        except OSError as error:
            raise InputError(
                f"{self.folder}: answers of the teacher cannot be kept ({error.strerror or error}); free space, or "
                "allow them less, and run the same command again: finished trials are stored"
            ) from error

    def _make_room(self, newest: Path) -> None:
        """If the pages do not fit, remove those that were not read for longest, but for ``newest``."""
        with suppress(Timeout), FileLock(self.folder / "room.lock", timeout=0):  # one process at a time suffices
            pages, taken = [], 0
            for path in self.folder.glob("*/*"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    if path.name.startswith(".") and time.time() - status.st_mtime > STALE:
                        path.unlink()
                        continue
                    taken += status.st_size
                    if path != newest and not path.name.startswith("."):
                        pages.append((status.st_mtime, status.st_size, path))
            if taken > self.space:
                for _, size, path in sorted(pages):
                    if taken <= (1 - HEADROOM) * self.space:
                        break
                    with suppress(OSError):  # gone already; or held open, on a system that then refuses
                        path.unlink()
                        taken -= size
            self._allowance.left = max(0, self.space - taken) // self.writers


def _identity(box: BlackBox, task: Task, page: Page) -> dict[str, str]:
    """All that the answers depend on."""
    return {
        "box": box.fingerprint,
        "task": task.fingerprint,
        "page": f"{page.kind} {page.seed} {page.crops}",
        "views": _views_code(),
    }


@cache
def _views_code() -> str:
    """The code that makes the views: if it changes, the same page is other images."""
    modules = (sys.modules[kind.__module__] for kind in (View, StrongView))
    return content_hash([inspect.getsource(module) for module in modules])


def _read(path: Path, about: dict[str, str]) -> Float[Tensor, "n classes"] | None:
    """The page at ``path``, mapped into memory; None if there is none that can be used."""
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
            log_probs = file.get_tensor("log_probs")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError):  # cut off
        return None
    if held != {**about, "crc32": str(_checksum(log_probs))}:
        return None
    with suppress(OSError):
        os.utime(path)  # read just now, for :meth:`AnswerCache._make_room`
    return log_probs


def _begun(path: Path) -> Path:
    """Where the first answers of a page are kept until it is whole."""
    return path.with_name(f"{path.name}.begun")


def _packed(log_probs: Float[Tensor, "n classes"], about: dict[str, str]) -> bytes:
    return save({"log_probs": log_probs}, metadata=about | {"crc32": str(_checksum(log_probs))})


def _checksum(log_probs: Float[Tensor, "n classes"]) -> int:
    return zlib.crc32(log_probs.contiguous().numpy().data)


def page_images(task: Task, page: Page, device: torch.device | str = "cpu") -> Iterator[UInt8[Tensor, "b *shape"]]:
    """The images of a page, in the order of their split, batch by batch."""
    if page.kind in ("clean", "test"):
        images = task.train.images if page.kind == "clean" else task.test.images
        yield from (part.to(device) for part in images.split(QUERY_BATCH))
        return
    view = (task.view if page.kind == "usual" else task.strong_view)(page.seed, page.crops, device)
    yield from map(view.images, torch.arange(len(task.train), device=device).split(QUERY_BATCH))


def ask(box: BlackBox, task: Task, page: Page, parts: list[Tensor] | None = None) -> Float[Tensor, "n classes"]:
    """Ask ``box`` about every image of a page.

    Args:
        box: whom.
        task: whose images.
        page: which.
        parts: answers to the first images, which are not asked about again; all answers are appended as they come.
    """
    parts = [] if parts is None else parts
    known = sum(map(len, parts))
    for images in page_images(task, page):
        if known > 0:  # whole batches
            known -= len(images)
        else:
            parts.append(box.log_probs(images.float().div_(255)).cpu())
    return torch.cat(parts)
