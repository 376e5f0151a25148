"""Outcomes, one file per trial under its content hash, in a folder or at a URL."""

import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from undistill.audit.places import Listed, Place, place_at
from undistill.audit.trial import OUTCOME_FORMAT, Trial
from undistill.errors import InputError
from undistill.files import STALE, content_hash

SUFFIX, DAMAGED = ".json", ".damaged"


@dataclass(frozen=True)
class Entry:
    """A file of a store, as ``undistill store`` sees it.

    Attributes:
        name: of the file.
        size: in bytes.
        modified: when it was written, in seconds since 1970.
        trial: the trial's description; None where it cannot be read.
        problem: what is wrong with the file; None for an outcome that can be used.
    """

    name: str
    size: int
    modified: float
    trial: dict[str, Any] | None
    problem: str | None

    @property
    def key(self) -> str:
        """The trial's content hash."""
        return self.name.lstrip(".").partition(".")[0]

    @property
    def unfinished(self) -> bool:
        """Whether a killed writer has left the file before it was whole."""
        return self.name.startswith(".")


@dataclass(frozen=True)
class Store:
    """Outcomes of trials, one file each under the trial's content hash; any number of processes may write.

    A file is written whole or not at all, so a kill costs only the running trials. It holds the trial, the outcome and
    a checksum of both, and it is checked before it is used.

    Args:
        where: a folder, or the URL of one (``s3://bucket/trials``) of which fsspec knows the protocol.

    Raises:
        InputError: a URL of an unknown protocol.
    """

    where: str | Path
    place: Place = field(init=False, repr=False, compare=False)
    # An outcome never changes, so each file is read and checked once.
    _read: dict[str, dict[str, Any]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", place_at(self.where))

    def __contains__(self, trial: Trial) -> bool:
        """Whether there is an outcome that can be used; a damaged file is none."""
        self.fetch([trial])
        return trial.key in self._read

    def fetch(self, trials: Iterable[Trial]) -> None:
        """Read the outcomes of these trials, as far as they are there: at a URL, all at once takes far less time than
        one after another."""
        names = [trial.key + SUFFIX for trial in trials if trial.key not in self._read]
        for name, content in self.place.read(names).items():
            self._take(name, content)

    def missing(self, trials: Iterable[Trial], note: Callable[[str], None]) -> list[Trial]:
        """The trials, each once, whose outcomes have yet to be made.

        A damaged file is set aside: it is renamed to ``KEY.json.damaged``, and its trial is missing.

        Args:
            trials: what is wanted.
            note: told each file that is set aside, in a sentence.
        """
        wanted = {trial.key: trial for trial in trials}
        held = self.place.list()
        unread = [key for key in wanted if key not in self._read and key + SUFFIX in held]
        for name, content in self.place.read([key + SUFFIX for key in unread]).items():
            problem = self._take(name, content)
            if problem is not None:
                self.place.rename(name, name + DAMAGED)
                note(
                    f"{self.place}/{name} is damaged ({problem}): it is set aside as {name + DAMAGED}, and "
                    f"{wanted[name.removesuffix(SUFFIX)].title} runs again"
                )
        return [trial for key, trial in wanted.items() if key not in self._read]

    def count(self, trials: Iterable[Trial]) -> int:
        """How many of these trials have a file; it is not opened."""
        held = self.place.list()
        return sum(trial.key + SUFFIX in held for trial in set(trials))

    def write(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Store an outcome.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        # As it will be read again: JSON has no tuples, and its names are texts.
        content = json.loads(json.dumps({"trial": trial.description(), "outcome": outcome}, allow_nan=False))
        text = json.dumps({**content, "checksum": content_hash(content)}, indent=2) + "\n"
        try:
            self.place.write(trial.key + SUFFIX, text.encode())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cause = "the disk is full" if full else f"it cannot be written ({error.strerror or error})"
            raise InputError(
                f"{self.place}: {cause}; finished trials are safe there, so free space or mend the folder and run "
                "the same command again: it runs only what is missing"
            ) from error
        self._read[trial.key] = content["outcome"]

    def read(self, trial: Trial) -> dict[str, Any]:
        """The stored outcome.

        Raises:
            InputError: there is none, or its file is damaged.
        """
        if trial.key not in self._read:
            name = trial.key + SUFFIX
            found = self.place.read([name])
            if not found:
                raise InputError(f"{self.place} holds no outcome of {trial.title}; run the same command again")
            problem = self._take(name, found[name])
            if problem is not None:
                raise InputError(
                    f"{self.place}/{name} is damaged ({problem}); run the same command again: it sets the file aside "
                    "and re-runs that trial alone"
                )
        return self._read[trial.key]

    def _take(self, name: str, content: bytes) -> str | None:
        """Keep a file's outcome, or say what is wrong with it."""
        file, problem = _parse(name, content)
        if problem is None:
            self._read[name.removesuffix(SUFFIX)] = file["outcome"]
        return problem

    def entries(self) -> Iterator[Entry]:
        """Every file, read and checked, in the order of names."""
        listed = self.place.list()
        names = sorted(name for name in listed if name.endswith((SUFFIX, SUFFIX + DAMAGED)))
        for start in range(0, len(names), 256):
            part = names[start : start + 256]
            contents = self.place.read(part)
            yield from (_entry(name, listed[name], contents[name]) for name in part if name in contents)

    def leftovers(self) -> list[Entry]:
        """What killed writers have left, in the order of names. Younger than an hour, it may still be written."""
        return [
            Entry(name, listed.size, listed.modified, None, "a killed writer has left it unfinished")
            for name, listed in sorted(self.place.unfinished().items())
            if time.time() - listed.modified > STALE
        ]

    def delete(self, entries: Sequence[Entry]) -> None:
        """Remove files; those that are gone already are no matter."""
        for entry in entries:
            self.place.delete(entry.name)
            self._read.pop(entry.key, None)


def _entry(name: str, listed: Listed, content: bytes) -> Entry:
    file, problem = _parse(name.removesuffix(DAMAGED), content)
    trial = file.get("trial")
    if name.endswith(DAMAGED):
        problem = f"set aside: {problem}" if problem else "set aside"
    return Entry(name, listed.size, listed.modified, trial if isinstance(trial, dict) else None, problem)


def _parse(name: str, content: bytes) -> tuple[dict[str, Any], str | None]:
    """A file's content, and what is wrong with it."""
    try:
        file = json.loads(content)
        checked = {"trial": file["trial"], "outcome": file["outcome"]}
        if file["trial"].get("format") != OUTCOME_FORMAT:
            return file, f"of another version (format {file['trial'].get('format')}, here {OUTCOME_FORMAT})"
        if file["checksum"] != content_hash(checked):
            return file, "its checksum is another one"
        if content_hash(file["trial"]) + SUFFIX != name:
            return file, "it is another trial's"
    except KeyError as error:
        return file, f"it lacks {error}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return {}, f"it is no JSON of an outcome: {error}" if content else "it is empty"
    return file, None
