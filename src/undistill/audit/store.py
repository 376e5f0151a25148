"""Outcomes on disk, one file per trial under its content hash."""

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undistill.audit.trial import Trial
from undistill.errors import InputError
from undistill.files import write_json


@dataclass(frozen=True)
class Store:
    """A folder of outcomes. Each file is written whole or not at all, so a kill costs only the running trials.

    Args:
        folder: where the files live.
    """

    folder: Path

    def _path(self, trial: Trial) -> Path:
        return self.folder / f"{trial.key}.json"

    def __contains__(self, trial: Trial) -> bool:
        return self._path(trial).exists()

    def write(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Store an outcome.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        try:
            write_json(self._path(trial), {"trial": trial.description(), "outcome": outcome})
        except OSError as error:
            cause = "the disk is full" if error.errno == errno.ENOSPC else f"it cannot be written ({error.strerror})"
            raise InputError(
                f"{self.folder}: {cause}; finished trials are safe there, so free space or mend the folder and run "
                "the same command again: it runs only what is missing"
            ) from error

    def read(self, trial: Trial) -> dict[str, Any]:
        """The stored outcome.

        Raises:
            InputError: the file is damaged.
        """
        path = self._path(trial)
        try:
            return json.loads(path.read_text())["outcome"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({error}); delete it and run the same command again: it re-runs that trial alone"
            ) from error
