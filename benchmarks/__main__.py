"""``python -m benchmarks [NAME ...] [--json FILE]``."""

import os
import platform
import sys
import time
from datetime import UTC, datetime
from inspect import getdoc
from pathlib import Path
from typing import Literal

import torch
from cyclopts import App
from rich.console import Console
from rich.table import Table

import undistill
from benchmarks import BENCHMARKS, Figure
from undistill.files import write_json
from undistill.training.recipe import has_bfloat16

WIDTH_OF_FILES = 120  # where the output goes to a file, which has no width of its own

app = App(name="python -m benchmarks", help="Measure the speed of undistill, on one core.", version_flags=[])


@app.default
def run(
    *names: Literal[tuple(BENCHMARKS)],  # type: ignore[valid-type]
    json: Path | None = None,
) -> None:
    """Run benchmarks and print their figures.

    Args:
        names: which; all of them by default.
        json: a file for all figures, each with every repeat.
    """
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    setting = describe_setting()
    for key, value in setting.items():
        console.print(f"{key}: {value}", highlight=False)
    results = {}
    for name in names or BENCHMARKS:
        console.rule(name)
        console.print((getdoc(BENCHMARKS[name]) or "").partition("\n")[0], highlight=False)
        started, started_computing = time.perf_counter(), time.process_time()
        figures = BENCHMARKS[name]()
        share = (time.process_time() - started_computing) / (time.perf_counter() - started)
        console.print(as_table(figures))
        console.print(f"The benchmark had its core for {share:.0%} of the time.", highlight=False)
        results[name] = {"share_of_core": share, "figures": [figure.as_json() for figure in figures]}
    if json is not None:
        write_json(json, {"setting": setting, "benchmarks": results})
        console.print(f"figures written to {json}", highlight=False)


def describe_setting() -> dict[str, str]:
    """What a published figure must come with: date, command, machine, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "processor": models[0].split(":", 1)[1].strip() if models else platform.processor() or platform.machine(),
        "cores": f"{os.cpu_count()}, of which one is used (threads: {torch.get_num_threads()})",
        "bfloat16 in hardware": "yes" if has_bfloat16(torch.device("cpu")) else "no",
        "versions": f"undistill {undistill.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def as_table(figures: list[Figure]) -> Table:
    table = Table("figure", "unit", "n", "min", "median", "max", "target (median)")
    for column in table.columns[2:6]:
        column.justify = "right"
    for figure in figures:
        numbers = (
            f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
            for value in (figure.minimum, figure.median, figure.maximum)
        )
        table.add_row(figure.name, figure.unit, str(len(figure.values)), *numbers, figure.target)
    return table


if __name__ == "__main__":
    app()
