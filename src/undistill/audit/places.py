"""A folder of small files, on this machine or at a URL, in which every file is whole or absent."""

import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from undistill.errors import InputError, require
from undistill.files import write_atomic

UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.json\.\w+")  # other hidden files are not ours


class Listed(NamedTuple):
    """A file as a listing shows it: its size in bytes, and when it was last written, in seconds since 1970."""

    size: int
    modified: float


class Place(ABC):
    """Where files lie. Names that begin with a dot are those of files that are still being written."""

    def list(self) -> dict[str, Listed]:
        """All whole files by name; empty where the place does not exist yet."""
        return {name: listed for name, listed in self._found().items() if not name.startswith(".")}

    def unfinished(self) -> dict[str, Listed]:
        """Outcomes by name that are being written, or that a killed writer has left."""
        return {name: listed for name, listed in self._found().items() if UNFINISHED.fullmatch(name)}

    @abstractmethod
    def _found(self) -> dict[str, Listed]:
        """All files by name, hidden ones included."""

    @property
    @abstractmethod
    def address(self) -> str:
        """By which the place is found again from any folder of this machine."""

    @abstractmethod
    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of those files that are there."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file, so that a reader sees all of it or nothing. A file of this name is replaced."""

    @abstractmethod
    def rename(self, name: str, new: str) -> None:
        """Give a file another name; nothing happens if it is gone."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is gone."""


@dataclass(frozen=True)
class LocalPlace(Place):
    """A folder that the operating system knows, on a disk of this machine or one that is shared.

    Args:
        folder: it need not exist yet.
    """

    folder: Path

    def _found(self) -> dict[str, Listed]:
        found = {}
        for path in self.folder.glob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # removed by another process since it was listed
                continue
            found[path.name] = Listed(status.st_size, status.st_mtime)
        return found

    @property
    def address(self) -> str:
        return str(self.folder.resolve())

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            try:
                found[name] = (self.folder / name).read_bytes()
            except FileNotFoundError:
                continue
        return found

    def write(self, name: str, content: bytes) -> None:
        write_atomic(self.folder / name, content)

    def rename(self, name: str, new: str) -> None:
        with suppress(FileNotFoundError):
            (self.folder / name).replace(self.folder / new)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class RemotePlace(Place):
    """A folder at a URL that fsspec knows, such as ``s3://bucket/trials``.

    Args:
        url: with its protocol. The package that speaks it (``s3fs``, ``gcsfs``, ...) must be installed.

    Raises:
        InputError: the protocol is unknown, or its package is not installed.
    """

    url: str
    _files: Any = field(init=False, repr=False, compare=False)
    _root: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fsspec = require("fsspec", "remote")
        try:
            files, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"{self.url} cannot be used as a store ({error}); install the package that speaks its protocol, or "
                "name a folder"
            ) from error
        object.__setattr__(self, "_files", files)
        object.__setattr__(self, "_root", root.rstrip("/"))

    def _found(self) -> dict[str, Listed]:
        self._files.invalidate_cache(self._root)  # other machines write, too
        try:
            entries = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        names = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries if entry["type"] == "file"}
        return {name: Listed(entry["size"] or 0, _seconds(entry)) for name, entry in names.items()}

    @property
    def address(self) -> str:
        return self.url

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        contents = self._files.cat(list(paths), on_error="return")  # many at once, where the protocol allows it
        failed = [value for value in contents.values() if isinstance(value, Exception)]
        for error in failed:
            if not isinstance(error, FileNotFoundError):
                raise error
        return {paths[path]: value for path, value in contents.items() if isinstance(value, bytes)}

    def write(self, name: str, content: bytes) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        unfinished = self._path(f".{name}.{uuid.uuid4().hex}")
        try:
            self._files.pipe_file(unfinished, content)
            self._files.mv(unfinished, self._path(name))
        except BaseException:
            if self._files.exists(unfinished):
                self._files.rm(unfinished)
            raise

    def rename(self, name: str, new: str) -> None:
        with suppress(FileNotFoundError):
            self._files.mv(self._path(name), self._path(new))

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def __str__(self) -> str:
        return self.url


def place_at(where: str | Path) -> Place:
    """The place that a path or a URL names; ``file://`` is a path like any other.

    >>> place_at("audits/cmim/trials"), place_at("file:///tmp/trials")
    (LocalPlace(folder=PosixPath('audits/cmim/trials')), LocalPlace(folder=PosixPath('/tmp/trials')))
    """
    text = str(where)
    if "://" not in text or isinstance(where, Path):
        return LocalPlace(Path(where))
    return LocalPlace(Path(text.removeprefix("file://"))) if text.startswith("file://") else RemotePlace(text)


def _seconds(entry: dict[str, Any]) -> float:
    """When a file was written, by whatever name a protocol calls that; now, so that it is young, if it does not say."""
    for name in ("mtime", "created", "LastModified", "last_modified", "updated"):
        value = entry.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    return time.time()
