"""Tables for a terminal of 80 columns."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from undistill.audit import Audit, Outcome
from undistill.information import Spectrum

COLOURS = {
    Outcome.LEAKS: "red",
    Outcome.NO_LEAK_FOUND: "green",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.TOO_WEAK: "yellow",
}


def audit_table(audits: Sequence[Audit]) -> Table:
    """One row per teacher and cell: accuracies, the leak with its interval, the outcome."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    # What does not fit takes two lines; nothing is cut off.
    table.add_column("teacher", overflow="fold")
    table.add_column("attack", overflow="fold", min_width=12)
    for column in ("knockoff", "LS", "placebo"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(escape("leak [interval]"), justify="right")
    table.add_column("outcome", width=13)  # only "attack too weak" takes two lines
    for audit in audits:
        several = len({cell.student for cell in audit.cells}) > 1
        regimes = len({cell.data for cell in audit.cells}) > 1
        for cell in audit.cells:
            table.add_row(
                escape(audit.teacher.name),
                cell.attack + (f" > {escape(cell.student)}" if several else "") + (f", {cell.data}" if regimes else ""),
                f"{cell.knockoff.mean:.2f}",
                f"{cell.ls.mean:.2f}",
                "-" if cell.placebo is None else f"{cell.placebo.mean:.2f}",
                escape(f"{cell.leak.mean:+.2f} [{cell.leak.low:+.2f}, {cell.leak.high:+.2f}]"),
                f"[{COLOURS[cell.outcome]}]{cell.outcome.value}[/]",
            )
    return table


def flag_lines(audits: Sequence[Audit]) -> list[str]:
    """A line for every cell of which some knockoffs noted something."""
    return [
        f"{audit.teacher.name}, {cell.attack} with {cell.student}: {flag.replace('_', ' ')} in {count} of "
        f"{len(cell.knockoff.seeds)} knockoffs"
        for audit in audits
        for cell in audit.cells
        for flag, count in cell.flags.items()
    ]


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
