"""What a report shows, as plain data: made of files alone, and the same for the page and for static figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undistill.report.files import ROLES, AuditFiles, Curves

MARKS = {"leaks": "▲", "no leak found": "●", "inconclusive": "◆", "attack too weak": "○"}
NUMBERS_OF_CURVES = 120_000  # numbers on the page for learning curves: under a megabyte
EPOCHS_SHOWN = 60


@dataclass(frozen=True)
class Shown:
    """An audit under the name that it has in this report.

    Attributes:
        label: tells it from the others.
        files: what it left.
    """

    label: str
    files: AuditFiles

    @property
    def result(self) -> dict[str, Any]:
        return self.files.result

    @property
    def worst(self) -> dict[str, Any]:
        """The cell with the largest mean leak."""
        return max(self.result["cells"], key=lambda cell: cell["leak"]["mean"])

    @property
    def is_undefended(self) -> bool:
        """Whether the audited teacher is the undefended one."""
        return self.result["undefended"]["utility"] == self.result["teacher"]["utility"]


def label_audits(audits: Sequence[AuditFiles]) -> list[Shown]:
    """Audits under their teachers' names; where several share one, what else tells them apart is added."""
    features: list[Callable[[AuditFiles], str]] = [
        lambda audit: " + ".join(defence["words"] for defence in audit.result["teacher"]["output_defences"]),
        lambda audit: f"access {audit.result['protocol']['access']}",
        lambda audit: f"data {', '.join(data['name'] for data in audit.result['protocol']['data'])}",
        lambda audit: audit.result["protocol"]["queries"]["mode"],
        lambda audit: f"budget {audit.result['protocol']['queries']['budget'] or 'none'}",
        lambda audit: str(audit.result["protocol"].get("version", "")),
        lambda audit: f"{audit.result['protocol']['seeds']} seeds",
        lambda audit: f"task {audit.result['task']['fingerprint'][:8]}",
    ]
    shown = []
    for audit in audits:
        namesakes = [other for other in audits if other.name == audit.name]
        extra = [feature(audit) for feature in features if len({feature(other) for other in namesakes}) > 1]
        shown.append(Shown(", ".join([audit.name, *filter(None, extra)]), audit))
    counts: dict[str, int] = {}
    for place, one in enumerate(shown):  # the same audit again, or one made elsewhere
        counts[one.label] = counts.get(one.label, 0) + 1
        if counts[one.label] > 1:
            shown[place] = Shown(f"{one.label} ({counts[one.label]})", one.files)
    return shown


def cells_of(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """All cells of all audits, each with the place of its audit."""
    return [{"data": None, "audit": place, **cell} for place, one in enumerate(shown) for cell in one.result["cells"]]


def curves_of(
    shown: Sequence[Shown], cells: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, int | None]], list[dict[str, Any]]]:
    """For each cell the places of its learning curves, by the kind of students, and the curves: over seeds, the mean,
    the lowest and the highest. Long trainings are thinned, so that all of them together stay small."""
    found: dict[tuple[Any, ...], Curves | None] = {}
    keys = []
    for cell in cells:
        here: dict[str, tuple[Any, ...]] = {}
        for kind in ROLES:
            # References are the same for all attacks on a student.
            here[kind] = (cell["audit"], cell["student"], cell.get("data"), kind, kind == "ls" or cell["attack"])
            if here[kind] not in found:
                found[here[kind]] = shown[cell["audit"]].files.curves(cell, kind)
        keys.append(here)
    stored = {key: curves for key, curves in found.items() if curves is not None}
    most = max(8, min(EPOCHS_SHOWN, NUMBERS_OF_CURVES // (5 * max(len(stored), 1))))
    places = {key: place for place, key in enumerate(stored)}
    return (
        [{kind: places.get(key) for kind, key in here.items()} for here in keys],
        [_thinned(curves, most) for curves in stored.values()],
    )


def _thinned(curves: Curves, most: int) -> dict[str, Any]:
    epochs = len(curves.loss[0])
    kept = sorted({round(place * (epochs - 1) / max(most - 1, 1)) for place in range(most)} & set(range(epochs)))

    def over_seeds(lines: Sequence[Sequence[float]], function: Callable[[list[float]], float]) -> list[float]:
        return [_short(function([line[epoch] for line in lines])) for epoch in kept]

    return {
        "epochs": [epoch + 1 for epoch in kept],
        "seeds": len(curves.loss),
        "accuracy": over_seeds(curves.train_accuracy, _mean),
        "lowest": over_seeds(curves.train_accuracy, min),
        "highest": over_seeds(curves.train_accuracy, max),
        "loss": over_seeds(curves.loss, _mean),
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def teachers_of(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """All teachers of which there is evidence, each once; those that served as undefended ones first.

    An audit that was made before there was evidence has the spectrum of its teacher at least.
    """
    found: dict[str, dict[str, Any]] = {}
    audited: dict[str, str] = {}
    for one in shown:  # a teacher that was audited twice is still one teacher
        mark = one.result["teacher"]["fingerprint"]
        audited[mark] = one.files.name if mark in audited else one.label
    for one in shown:
        evidence, mark = one.files.evidence, one.result["teacher"]["fingerprint"]
        common = {"task": one.result["task"]["fingerprint"]}
        if evidence is None:
            spectra = one.result["teacher"]["spectrum"]
            found.setdefault(mark, common | {"label": audited[mark], "undefended": False, "spectra": spectra})
            continue
        common |= {"class_names": evidence["class_names"], "shown": evidence["shown"]}
        plain = evidence["undefended"]
        if plain is not None:
            label = audited.get(plain["fingerprint"], f"{plain['name']} (undefended)")
            found.setdefault(plain["fingerprint"], {**common, **plain, "label": label, "undefended": True})
            found[plain["fingerprint"]]["undefended"] = True
        own = {**common, **evidence["audited"], "label": audited[mark], "undefended": plain is None}
        found.setdefault(mark, own)
    return sorted(found.values(), key=lambda teacher: not teacher["undefended"])


def three_classes(teacher: Mapping[str, Any]) -> list[int]:
    """Classes to begin with: the one that the teacher spreads most at T = 4, and the two that its answers lean to.

    Args:
        teacher: with clusters, of :func:`teachers_of`.
    """
    clusters, shown = teacher["clusters"]["test"], teacher["shown"]
    spectra = teacher["spectra"]["test"]
    power = min(range(len(spectra["powers"])), key=lambda place: abs(spectra["powers"][place] - 0.25))
    spread = {index: line[power] for index, line in zip(spectra["classes"], spectra["cmi_per_class"], strict=True)}
    widest = max(shown, key=lambda index: spread.get(index, -1.0))
    rows = [row for label, row in zip(clusters["labels"], clusters["log_probs"], strict=True) if label == widest]
    leaning = {
        index: _mean([math.exp(row[place] / 4) if row[place] is not None else 0.0 for row in rows]) if rows else 0.0
        for place, index in enumerate(shown)
        if index != widest
    }
    return [widest, *sorted(sorted(leaning, key=lambda index: -leaning[index])[:2])]


def trade_off(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Accuracy and largest leak of every audited teacher."""
    return [
        {
            "label": one.label,
            "accuracy": one.result["teacher"]["accuracy"],
            "leak": one.worst["leak"],
            "attack": one.worst["attack"],
            "student": one.worst["student"],
            "verdict": one.result["verdict"],
        }
        for one in shown
    ]


def query_curves(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Leak over the number of queries: one line for each teacher, attack and student of which there are two or more.

    What the attacker asks about must be of one kind: shares of the training images are.
    """
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in shown:
        result = one.result
        defences = " + ".join(defence["words"] for defence in result["teacher"]["output_defences"])
        for cell in result["cells"]:
            data = cell["data"].partition(":")[0]
            task = result["task"]["fingerprint"]
            key = (task, result["teacher"]["name"], defences, cell["attack"], cell["student"], data)
            lines.setdefault(key, []).append({"queries": cell["queries"], "audit": one.label, **cell["leak"]})
    found = []
    for (_, teacher, defences, attack, student, data), points in lines.items():
        if len({point["queries"] for point in points}) > 1:
            points.sort(key=lambda point: point["queries"])
            label = ", ".join(filter(None, [teacher, defences]))
            line = {"teacher": label, "attack": attack, "student": student, "data": data, "points": points}
            found.append(line)
    return found


def rows_of(value: Any, name: str = "") -> list[tuple[str, str]]:
    """JSON as rows of name and value, those of objects inside joined by dots; lists of plain values stay in one row.

    >>> rows_of({"recipe": {"epochs": 3}, "students": ["a", "b"], "budget": None})
    [('recipe.epochs', '3'), ('students', 'a, b'), ('budget', 'none')]
    """
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in rows_of(inner, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        return [row for place, inner in enumerate(value, 1) for row in rows_of(inner, f"{name} {place}")]
    return [(name, in_words(value))]


def in_words(value: Any) -> str:
    """A plain JSON value as people write it.

    >>> in_words([1, "a"]), in_words(None), in_words(True), in_words({"kd": 3})
    ('1, a', 'none', 'yes', 'kd 3')
    """
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(inner)}" for name, inner in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
