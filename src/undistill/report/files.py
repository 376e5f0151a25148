"""What an audit left on disk, read back: the result, the evidence, and the learning curves of its students."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from undistill.audit import SCHEMA
from undistill.audit.run import EVIDENCE, MARK
from undistill.errors import InputError
from undistill.utility.evidence import SCHEMA as EVIDENCE_SCHEMA

Kind = Literal["knockoff", "ls", "placebo"]
ROLES: dict[Kind, str] = {"knockoff": "knockoff", "ls": "reference", "placebo": "placebo"}


@dataclass(frozen=True)
class Curves:
    """How students of one kind learnt, one line per seed.

    Attributes:
        train_accuracy: per seed and epoch, in percent.
        loss: per seed and epoch, in nats; each attack has a loss of its own.
    """

    train_accuracy: tuple[tuple[float, ...], ...]
    loss: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class AuditFiles:
    """An audit of one teacher as it lies on disk.

    Attributes:
        path: of its ``audit.json``.
        result: the content.
        evidence: the content of ``evidence.json``; None if the audit was made before there was one.
    """

    path: Path
    result: dict[str, Any]
    evidence: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Of the teacher."""
        return self.result["teacher"]["name"]

    @property
    def trial_names(self) -> list[str]:
        """Of the stored trials; a name is the hash of what was trained."""
        return [file.stem for file in self._trial_files]

    @cached_property
    def _trial_files(self) -> list[Path]:
        places = (self.path.parent / "trials", self.path.parent.parent / "trials")
        folder = next((place for place in places if place.is_dir()), None)
        return [] if folder is None else sorted(folder.glob("*.json"))

    @cached_property
    def _trials(self) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        """Stored trials by role, student, attack, teacher and seed; those that cannot be read are left out."""
        found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for file in self._trial_files:
            try:
                content = json.loads(file.read_bytes())
                trial, outcome = content["trial"], content["outcome"]
                attack = None if trial["attack"] is None else trial["attack"]["name"]
                key = (trial["role"], trial["student"], attack, trial["teacher"], trial["seed"])
                found.setdefault(key, []).append(
                    {
                        "setting": _setting(trial),
                        "accuracy": outcome["accuracy"],
                        "train_accuracy": outcome["train_accuracy"],
                        "loss": outcome["loss"],
                    }
                )
            except (ValueError, KeyError, TypeError):
                continue  # an audit that runs again finds it and says so; a picture can do without
        return found

    def curves(self, cell: Mapping[str, Any], kind: Kind) -> Curves | None:
        """The learning curves of a cell's students, as far as they are stored.

        A stored trial is one of them if it is of the same kind, student, attack, seed and setting, and has the very
        test accuracy that the cell holds.

        Args:
            cell: of ``audit.json``.
            kind: of students.
        """
        students = cell[kind]
        if students is None:
            return None
        lines = []
        first = self.result["protocol"]["first_seed"]
        for place, accuracy in enumerate(students["seeds"]):
            key = (
                ROLES[kind],
                cell["student"],
                None if kind == "ls" else cell["attack"],
                self.result["teacher"]["fingerprint"] if kind == "knockoff" else None,
                first + place,
            )
            for stored in self._trials.get(key, []):
                same = stored["setting"] == students["setting"] and stored["accuracy"] == accuracy
                if same and stored["loss"]:
                    lines.append((tuple(stored["train_accuracy"]), tuple(stored["loss"])))
                    break
        length = max((len(loss) for _, loss in lines), default=0)
        lines = [line for line in lines if len(line[1]) == length]  # a training that broke off is shorter
        return Curves(tuple(line[0] for line in lines), tuple(line[1] for line in lines)) if lines else None


def _setting(trial: Mapping[str, Any]) -> str:
    """A stored trial's setting in the words of ``audit.json`` (:attr:`undistill.audit.Trial.setting`)."""
    words = [] if trial["attack"] is None else [_words(trial["attack"])]
    if trial["smoothing"] is not None:
        words.append(f"smoothing={trial['smoothing']}")
    return ", ".join(filter(None, words))


def _words(method: Mapping[str, Any]) -> str:
    """:func:`undistill.settings.settings_in_words` of a method as JSON.

    >>> _words({"name": "kd", "temperature": 2.0, "hard": 0.1, "code": "a0"})
    'temperature=2.0, hard=0.1'
    """

    def value_in_words(value: Any) -> Any:
        if isinstance(value, Mapping):
            return f"{value['name']}({_words(value)})"
        return tuple(value) if isinstance(value, list) else value

    return ", ".join(
        f"{name}={value_in_words(value)}" for name, value in method.items() if name not in ("name", "code")
    )


def read_audits(places: Sequence[str | Path]) -> list[AuditFiles]:
    """The audits that lie in some folders, in their order.

    Args:
        places: folders of audits (a folder of several teachers holds one for each), or ``audit.json`` files.

    Raises:
        InputError: a place that holds no audit, or a file that is damaged, of another version, or of an audit that is
            not finished.
    """
    if not places:
        raise InputError("there is no audit to report on; name at least one folder")
    files = list(dict.fromkeys(path.resolve() for place in places for path in _results(Path(place))))
    return [_read(path) for path in files]


def _results(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    own = place / "audit.json"
    # A folder with a mark of its own is another audit, which its user may name as well.
    below = [path for path in sorted(place.glob("*/audit.json")) if not (path.parent / MARK).exists()]
    if not own.exists() and not below:
        raise InputError(f"{place} holds no audit.json; name the folder that was given to `undistill audit --out`")
    if own.exists():
        yield own
    yield from below


def _read(path: Path) -> AuditFiles:
    result = _json(path)
    if result.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is of schema {result.get('schema')!r}, but {SCHEMA!r} is needed; run the audit again with this "
            "version (what is stored is used where it can be)"
        )
    if result.get("state") != "finished":
        raise InputError(
            f"{path} is of an audit that is {result.get('state')}, not finished; wait for it, or run its command again"
        )
    evidence = None
    if path.with_name(EVIDENCE).exists():
        evidence = _json(path.with_name(EVIDENCE))
        if evidence.get("schema") != EVIDENCE_SCHEMA:
            raise InputError(
                f"{path.with_name(EVIDENCE)} is of schema {evidence.get('schema')!r}, but {EVIDENCE_SCHEMA!r} is "
                "needed; run the audit again with this version"
            )
    return AuditFiles(path, result, evidence)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}); delete it and run the audit again, which only writes it anew"
        ) from error
    return content
