"""What protection costs, as tables and lines for a terminal of 80 columns."""

import math
from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table

from undistill.audit import Audit
from undistill.statistics import Interval
from undistill.utility import Comparison, Group, difference

Cell = Callable[[Group], str]


def utility_tables(comparison: Comparison) -> list[Table]:
    """Four tables with one row per group of teachers: what answers are worth, how far confidence can be trusted, what
    time it takes, and the spectrum. A mean over seeds has half the width of its 95% t-interval behind it."""
    reference = comparison.reference

    def gain(group: Group) -> str:
        if reference is None or group is reference:
            return "-"
        found = difference(group, reference, "accuracy")
        return "-" if found is None else _cell(found.interval, "+z.2f", ".2f")

    def ratio(figure: str) -> Cell:
        def cell(group: Group) -> str:
            if reference is None:
                return "-"
            times = group.summary(figure).mean / reference.summary(figure).mean
            return "-" if math.isnan(times) else f"{times:.2f}"

        return cell

    def plain(figure: str, form: str) -> Cell:
        return lambda group: _cell(group.summary(figure), form, form)

    answers: dict[str, Cell] = {
        "seeds": lambda group: str(len(group.teachers)),
        "accuracy": plain("accuracy", ".2f"),
        "difference": gain,
        "NLL": plain("nll", ".4f"),
        "ECE": plain("ece", ".4f"),
    }
    trust: dict[str, Cell] = {
        "Brier": plain("brier", ".4f"),
        "AUROC": plain("auroc", ".4f"),
        "AURC": plain("aurc", ".4f"),
        "other task": plain("other_auroc", ".4f"),
    }
    costs: dict[str, Cell] = {
        "training s": plain("training_seconds", ".1f"),
        "in all": plain("total_seconds", ".1f"),
        "ratio": ratio("total_seconds"),
        "serving s/1000": plain("serving_seconds", ".3g"),
        "ratio ": ratio("serving_seconds"),
    }
    return [
        *(_table(comparison.groups, columns) for columns in (answers, trust, costs)),
        _spectra(comparison.groups),
    ]


def _table(groups: Sequence[Group], columns: dict[str, Cell]) -> Table:
    table = _empty("teacher")
    for column in columns:
        table.add_column(column.strip(), justify="right", no_wrap=True)
    for group in groups:
        table.add_row(escape(group.label), *(cell(group) for cell in columns.values()))
    return table


def _spectra(groups: Sequence[Group]) -> Table:
    table = _empty("answers")
    for column in ("CMI(1)", "sup CMI", "T=4", "T=20", "W/2"):
        table.add_column(column, justify="right", no_wrap=True)
    for group in groups:
        for split in ("train", "test"):
            means = [
                group.summary(f"{split}_{figure}").mean
                for figure in ("cmi_1", "supremum", "residual_T4", "residual_T20", "within_class_variance")
            ]
            means[-1] /= 2
            table.add_row(escape(f"{group.label}, {split}"), *(f"{mean:.3g}" for mean in means))
    return table


def _empty(title: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")  # what does not fit takes two lines; nothing is cut off
    return table


def _cell(found: Interval, mean: str, reach: str) -> str:
    if math.isnan(found.mean):
        return "-"
    half = found.high - found.mean
    return f"{found.mean:{mean}}" + (f" ±{half:{reach}}" if math.isfinite(half) else "")


def utility_notes(comparison: Comparison) -> list[str]:
    """What a reader of the tables has to know: what has no interval, what is paired, what is not defined and why."""
    notes = []
    alone = [group.label for group in comparison.groups if len(group.teachers) == 1]
    if alone:
        notes.append(f"One teacher says nothing of the spread over seeds, so there is no interval: {', '.join(alone)}.")
    reference = comparison.reference
    if reference is None:
        notes.append("There is nothing to compare with: name one teacher trained with cross entropy, or --against one.")
    else:
        pairings: dict[str, list[str]] = {}
        for group in comparison.groups:
            if group is not reference:
                pairings.setdefault(_pairing(group, reference), []).append(group.label)
        notes += [f"Difference to {reference.label} {how}: {', '.join(whose)}." for how, whose in pairings.items()]
    for group in comparison.groups:
        undefined = [facts.utility.quality.undefined for facts in group.teachers]
        for figure in ("nll", "auroc"):
            reasons = [reasons[figure] for reasons in undefined if figure in reasons]
            if reasons:
                whose = f"{len(reasons)} of {len(group.teachers)} teachers"
                notes.append(f"{group.label}: no finite {figure.upper()} for {whose} ({reasons[0]}).")
    return notes


def _pairing(group: Group, reference: Group) -> str:
    found = difference(group, reference, "accuracy")
    seeds = () if found is None else found.seeds
    return f"paired by seed ({', '.join(map(str, seeds))})" if seeds else "not paired, for too few seeds are shared"


def cost_line(audit: Audit) -> str:
    """What protection costs, in a line: the audited teacher's figures, those of the undefended one in brackets."""
    ours, theirs = audit.teacher.utility, audit.undefended.utility
    beside = ours != theirs  # the undefended teacher itself has nothing to stand beside

    def figure(words: str, name: str, form: str) -> str:
        value, other = (getattr(utility.quality, name) for utility in (ours, theirs))
        return f"{words} {_number(value, form)}" + (f" ({_number(other, form)})" if beside else "")

    figures = [
        figure("accuracy", "accuracy", ".2f"),
        figure("NLL", "nll", ".4f"),
        figure("ECE", "ece", ".4f"),
        figure("Brier", "brier", ".4f"),
        figure("AUROC of confidence", "auroc", ".4f"),
        figure("AURC", "aurc", ".4f"),
    ]
    against = f" (in brackets: {audit.undefended.name}, undefended)" if beside else ""
    return f"Utility of {audit.teacher.name}{against}: {', '.join(figures)}."


def _number(value: float, form: str) -> str:
    return "undefined" if math.isnan(value) else f"{value:{form}}"
