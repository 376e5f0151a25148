"""Tables for a terminal of 80 columns."""

import textwrap
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from undistill.audit import Audit, Cell, Flag, Outcome
from undistill.information import Spectrum

WIDTH = 80
ACCURACIES = {"knockoff": 8, "LS": 6, "placebo": 7}  # columns of an audit and their widths
LEAK_WIDTH = len("+0.00 [-10.00, +10.00]")
ATTACK_WIDTH = WIDTH - sum(column + 1 for column in (*ACCURACIES.values(), LEAK_WIDTH)) - len(Outcome.TOO_WEAK.value)

COLOURS = {
    Outcome.LEAKS: "red",
    Outcome.NO_LEAK_FOUND: "green",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.TOO_WEAK: "yellow",
}


def audit_tables(audits: Sequence[Audit]) -> Group:
    """A table per teacher, with a row per cell: accuracies, the leak with its interval, the outcome."""
    labels = [_cell_labels(audit.cells) for audit in audits]
    widest = max((len(label) for of_audit in labels for label in of_audit), default=0)
    parts: list[RenderableType] = []
    for audit, of_audit in zip(audits, labels, strict=True):
        title = Text(audit.teacher.name, "bold not italic")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
        # What does not fit takes two lines; nothing is cut off. The same widths for all, so that columns stand in line.
        table.add_column("attack", overflow="fold", min_width=min(widest, ATTACK_WIDTH))
        for column, width in ACCURACIES.items():
            table.add_column(column, justify="right", no_wrap=True, width=width)
        table.add_column(escape("leak [interval]"), justify="right", min_width=LEAK_WIDTH)
        table.add_column("outcome", no_wrap=True)
        for label, cell in zip(of_audit, audit.cells, strict=True):
            table.add_row(
                Text(label),
                f"{cell.knockoff.mean:.2f}",
                f"{cell.ls.mean:.2f}",
                "-" if cell.placebo is None else f"{cell.placebo.mean:.2f}",
                escape(str(cell.leak)),
                f"[{COLOURS[cell.outcome]}]{cell.outcome.value}[/]",
            )
        parts += [table] if not parts else ["", table]
    return Group(*parts)


def _cell_labels(cells: Sequence[Cell]) -> list[str]:
    """The attack of each cell, and what else tells it from the others of its audit."""
    several = len({cell.student for cell in cells}) > 1
    regimes = len({cell.data for cell in cells}) > 1
    return [
        cell.attack + (f" > {cell.student}" if several else "") + (f", {cell.data}" if regimes else "")
        for cell in cells
    ]


def flag_lines(audit: Audit) -> list[str]:
    """A line for each kind of flag that an audit raises, the gravest first: its sentence, or where it was raised."""
    kinds: dict[str, list[Flag]] = {}
    for flag in audit.flags:
        kinds.setdefault(flag.name, []).append(flag)
    return [_flag_line(raised) for raised in kinds.values()]


def _flag_line(raised: Sequence[Flag]) -> str:
    first = raised[0]
    if len(raised) == 1:
        return f"{first.severity.value}, {first.name}: {first.sentence}"
    attacks = dict.fromkeys(flag.attack or flag.student or "the teacher" for flag in raised)
    head = f"{first.severity.value}, {first.name}: {len(raised)} times, "
    return textwrap.shorten(head + ", ".join(attacks), WIDTH, placeholder=" ...")


def threat_card_table(audit: Audit) -> Table:
    """What the attacker of an audit was given, a row each."""
    card = audit.threat_card
    controls = card["control_tuning"]
    rows = {
        "sees": card["access"],
        "output defences": "; ".join(card["output_defences"]) or "none",
        "has": card["data"],
        "left out": "; ".join(card["left_out"]) or "nothing",
        "unseen by teacher": card["unseen"],
        "labels": card["labels"],
        "asks": f"{card['queries']}: at most {card['queries_per_knockoff']:,} images for one knockoff",
        "tunes": f"{_tries(card['tuning'], 'attack')}; {_tries(controls['placebo'], 'placebo')}; label smoothing with "
        f"{_count(controls['ls'], 'setting')}; on validation images and {_count(card['tuning_seeds'], 'seed')}",
        "students": f"{', '.join(card['students'])}, {_count(card['epochs'], 'epoch')}",
    }
    table = Table(box=None, pad_edge=False, show_header=False, title="The attacker", title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in rows.items():
        table.add_row(name, escape(words))
    return table


def _tries(settings: Mapping[str, int], what: str) -> str:
    """How many of something there are, with how many settings each."""
    numbers = sorted(set(settings.values()))
    each = f" with {numbers[0]} to {numbers[-1]} settings" if len(numbers) > 1 else ""
    return _count(len(settings), what) + (each or "".join(f" with {_count(number, 'setting')}" for number in numbers))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def spectrum_table(spectra: Mapping[str, tuple[float, Spectrum]]) -> Table:
    """One row per model or split: accuracy in percent, and the numbers of its spectrum in nats.

    Args:
        spectra: accuracy and spectrum by name.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("answers", overflow="fold")
    for column in ("accuracy", "CMI(1)", "sup CMI", "at a", "T=4", "T=20", "W/2"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, (accuracy, spectrum) in spectra.items():
        numbers = [
            spectrum.at(1.0),
            spectrum.supremum,
            spectrum.supremum_power,
            spectrum.residual(4.0),
            spectrum.residual(20.0),
            spectrum.within_variance / 2,
        ]
        table.add_row(escape(name), f"{accuracy:.2f}", *(f"{number:.3g}" for number in numbers))
    return table
