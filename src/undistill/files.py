"""Files that are either whole or absent, and names that depend on content alone."""

import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from undistill.errors import InputError

STALE = 3600.0  # seconds after which a file that is still being written is one that a killed process has left


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader, or a crash at any moment, sees all of it or nothing.

    Raises:
        OSError: the disk is full or the folder cannot be written; an existing file at ``path`` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask, which Python can only tell by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write ``value`` as JSON, readable or ``compact``, atomically. NaN and infinities are refused."""
    form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    write_atomic(path, (json.dumps(value, allow_nan=False, **form) + "\n").encode())


def json_number(value: int | float) -> int | float | None:
    """A number as JSON holds it: null where it is not finite.

    >>> json_number(0.5), json_number(float("inf")), json_number(float("nan"))
    (0.5, None, None)
    """
    return value if math.isfinite(value) else None


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces), as 64 hexadecimal digits.

    >>> content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def read_arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file by name: all of them, or those named in ``only`` as far as they are there.

    Raises:
        InputError: the file cannot be opened, is no archive of arrays or is damaged, or an array that is asked for
            holds Python objects, which are never loaded, for they can run code.
    """
    with _npz(path) as archive, np.load(archive, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if only is None or name in only}


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array of an ``.npz`` file that is read row by row, in order.

    Attributes:
        shape: of the whole array.
        dtype: of its numbers.
        stream: where the next row begins.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    stream: IO[bytes] | io.BufferedIOBase

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: int) -> np.ndarray:
        """The next ``rows`` rows, of which so many must be left.

        Raises:
            EOFError: the file ends before.
        """
        shape = (rows, *self.shape[1:])
        size = math.prod(shape) * self.dtype.itemsize
        content = self.stream.read(size)
        if len(content) < size:
            raise EOFError("it is cut off")
        return np.frombuffer(content, self.dtype).reshape(shape)


@contextmanager
def open_arrays(path: Path, only: Collection[str]) -> Iterator[dict[str, StoredArray]]:
    """Those of the arrays named in ``only`` that an ``.npz`` file holds, to be read by rows, compressed or not.

    An array that was stored by columns (Fortran order) has no rows to go by, and is read into memory whole.

    Raises:
        InputError: as :func:`read_arrays`, at any time while the file is open.
    """
    with _npz(path) as archive, zipfile.ZipFile(archive) as members:
        names = [name for name in only if f"{name}.npy" in members.namelist()]
        yield {name: _stored(members.open(f"{name}.npy")) for name in names}


def _stored(stream: IO[bytes] | io.BufferedIOBase) -> StoredArray:
    first = np.lib.format.read_magic(stream) == (1, 0)
    header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = header(stream)
    if dtype.hasobject:
        raise ValueError("allow_pickle is off")
    if by_columns:
        whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
        stream = io.BytesIO(np.ascontiguousarray(whole).data)
    return StoredArray(shape, dtype, stream)


@contextmanager
def _npz(path: Path) -> Iterator[io.BufferedIOBase]:
    """The open file; whatever turns out to be wrong with it is said in one sentence."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no such archive; write it with numpy.savez")
            file.seek(0)
            yield file
    except InputError:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds Python objects; save numbers or strings" if "allow_pickle" in str(error) else error
        raise InputError(f"{path} cannot be read as an .npz file of plain arrays ({reason})") from error
