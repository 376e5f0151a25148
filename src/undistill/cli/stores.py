"""``undistill store``: what lies in a store of finished trials."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from undistill.audit import MARK, Entry, Store, used_trials
from undistill.errors import InputError

store = App(
    name="store", help="List, check and clean a store of finished trials: an audit's folder, or a folder or URL."
)
Json = Annotated[bool, Parameter(name="--json", negative=())]
DAMAGED = 1
SHOWN = 12  # digits of a fingerprint


class Kind(NamedTuple):
    """What is counted together. A damaged file is a role of its own, and so is one that a killed writer has left."""

    role: str
    attack: str | None = None
    student: str | None = None
    teacher: str | None = None

    def words(self, names: dict[str, str]) -> str:
        parts = [self.role, self.attack and f"of {self.attack}", self.student and f"with {self.student}"]
        return " ".join(filter(None, parts)) + (f" ({_teacher(self.teacher, names)})" if self.teacher else "")


@store.command
def ls(where: str, *, json_: Json = False) -> int:
    """Count the outcomes of a store by role, attack, student and teacher.

    Parameters
    ----------
    where: str
        The OUT of an audit, or a store itself: a folder, or the URL of one.
    json_: bool
        Print JSON instead of a table.
    """
    opened, names = _open(where)
    entries = [*opened.entries(), *opened.leftovers()]
    files: dict[Kind, list[int]] = {}
    for entry in entries:
        files.setdefault(_kind(entry), []).append(entry.size)
    kinds = sorted(files, key=str)
    if json_:
        rows = [kind._asdict() | {"files": len(files[kind]), "bytes": sum(files[kind])} for kind in kinds]
        print(json.dumps({"store": str(opened.place), "rows": rows}, indent=2))
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("role", "attack", "student", "teacher", "files", "size"):
        table.add_column(title, justify="right" if title in ("files", "size") else "left")
    for kind in kinds:
        cells = kind.role, kind.attack or "-", kind.student or "-", _teacher(kind.teacher, names)
        table.add_row(*cells, str(len(files[kind])), _kilobytes(sum(files[kind])))
    console = Console()
    if kinds:
        console.print(table)
    _say(console, f"{opened.place}: {len(entries)} files, {_kilobytes(sum(entry.size for entry in entries))}.")
    return 0


@store.command
def verify(where: str, *, json_: Json = False) -> int:
    """Check every outcome of a store against its checksum and its name; changes nothing.

    Exits with status 1 if a file is damaged. The next audit that needs it sets it aside and trains it again.

    Parameters
    ----------
    where: str
        The OUT of an audit, or a store itself: a folder, or the URL of one.
    json_: bool
        Print JSON.
    """
    opened, _ = _open(where)
    entries = list(opened.entries())
    damaged = [entry for entry in entries if entry.problem is not None]
    if json_:
        found = [{"name": entry.name, "problem": entry.problem} for entry in damaged]
        print(json.dumps({"store": str(opened.place), "files": len(entries), "damaged": found}, indent=2))
    else:
        console = Console()
        for entry in damaged:
            _say(console, f"{entry.name}: {entry.problem}")
        _say(console, f"{opened.place}: {len(entries)} files, {len(damaged)} damaged.")
    return DAMAGED if damaged else 0


@store.command
def prune(
    where: str,
    *,
    unused_by: list[Path] | None = None,
    older_than: float | None = None,
    teacher: str | None = None,
    attack: str | None = None,
    damaged: bool = False,
    yes: bool = False,
    json_: Json = False,
) -> int:
    """Remove outcomes from a store; without --yes, only say which.

    Files are removed to which all that is named applies.

    Parameters
    ----------
    where: str
        The OUT of an audit, or a store itself: a folder, or the URL of one.
    unused_by: list[Path]
        OUT of a finished audit: outcomes on which its result does not rest. Repeat for all audits that share the store.
    older_than: float
        Written more than so many days ago.
    teacher: str
        Knockoffs of a teacher: its name in the audit of this folder, or the first digits of its fingerprint.
    attack: str
        Of one attack, placebos included.
    damaged: bool
        Damaged files, those that were set aside, those of another version, and those that a killed writer has left
        unfinished more than an hour ago.
    yes: bool
        Remove them.
    json_: bool
        Print JSON.
    """
    if not (unused_by or damaged or older_than is not None or teacher is not None or attack is not None):
        raise InputError(
            "nothing says what to remove; add --unused-by OUT, --older-than DAYS, --teacher NAME, --attack NAME or "
            "--damaged"
        )
    opened, names = _open(where)
    entries = list(opened.entries())
    chosen = [*entries, *opened.leftovers()] if damaged else entries
    if unused_by:
        kept = set().union(*map(_used, unused_by))
        chosen = [entry for entry in chosen if entry.key not in kept]
    if older_than is not None:
        if not older_than >= 0:
            raise InputError(f"--older-than is {older_than}, must be a number of days, 0 or more")
        chosen = [entry for entry in chosen if time.time() - entry.modified > 86400 * older_than]
    if teacher is not None:
        fingerprint = {name: mark for mark, name in names.items()}.get(teacher, teacher)
        if not any(_asked(entry, fingerprint) for entry in entries):
            raise InputError(
                f"{opened.place} holds no knockoff of a teacher {teacher!r}; see: undistill store ls {where}"
            )
        chosen = [entry for entry in chosen if _asked(entry, fingerprint)]
    if attack is not None:
        chosen = [entry for entry in chosen if _attack(entry) == attack]
    if damaged:
        chosen = [entry for entry in chosen if entry.problem is not None]
    if yes:
        opened.delete(chosen)
    size = sum(entry.size for entry in chosen)
    if json_:
        files = [entry.name for entry in chosen]
        print(json.dumps({"store": str(opened.place), "removed": yes, "bytes": size, "files": files}, indent=2))
        return 0
    console = Console()
    for kind, count in sorted(Counter(map(_kind, chosen)).items(), key=str):
        _say(console, f"{count} {kind.words(names)}")
    end = "removed." if yes else "would be removed; add --yes to do so."
    _say(console, f"{opened.place}: {len(chosen)} files, {_kilobytes(size)}, {end}")
    return 0


def _open(where: str) -> tuple[Store, dict[str, str]]:
    """The store, and names of teachers by fingerprint, as far as an audit's folder knows them."""
    folder = Path(where)
    if "://" in where:
        return Store(where), {}
    if not folder.is_dir():
        raise InputError(f"there is no folder {where}; name the OUT of an audit, or its store")
    if not (folder / MARK).exists():
        return Store(folder), {}
    try:
        mark = json.loads((folder / MARK).read_bytes())
        names = {str(fingerprint): str(name) for name, fingerprint in mark["teachers"].items()}
        elsewhere = mark.get("store")  # an earlier version did not say, and knew the folder's own trials only
    except (ValueError, KeyError, TypeError, AttributeError):
        names, elsewhere = {}, None  # the audit itself says what is wrong with that file
    if elsewhere is None:
        return Store(folder / "trials"), names
    if "://" not in elsewhere and not Path(elsewhere).is_dir():
        raise InputError(
            f"the audit of {where} keeps its trials in {elsewhere}, and there is no such folder: nothing is stored "
            "yet, or it was moved; name the folder where they are now"
        )
    return Store(elsewhere), names


def _used(out: Path) -> set[str]:
    used = used_trials(out)
    if not used:
        raise InputError(f"{out} holds no finished audit, so it does not say which outcomes it needs; finish it first")
    return {key for keys in used.values() for key in keys}


def _kind(entry: Entry) -> Kind:
    if entry.problem is not None or entry.trial is None:
        return Kind("unfinished" if entry.unfinished else "damaged")
    return Kind(entry.trial["role"], _attack(entry), entry.trial["student"], entry.trial["teacher"])


def _attack(entry: Entry) -> str | None:
    attack = (entry.trial or {}).get("attack")
    return attack["name"] if isinstance(attack, dict) else None


def _asked(entry: Entry, fingerprint: str) -> bool:
    """Whether it is a knockoff of a teacher whose fingerprint begins like this."""
    teacher = (entry.trial or {}).get("teacher")
    return isinstance(teacher, str) and teacher.startswith(fingerprint)


def _teacher(fingerprint: str | None, names: dict[str, str]) -> str:
    return "-" if fingerprint is None else names.get(fingerprint, fingerprint[:SHOWN])


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.0f} kB"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
