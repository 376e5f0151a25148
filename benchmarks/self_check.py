"""``python -m benchmarks.self_check``: does every attack work on an undefended teacher?

``run`` audits a cross-entropy teacher with attacks at their frozen grids and records what was measured; ``pages``
judges all records by the present rule and turns them into the tables of the documentation.
"""

import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

from cyclopts import App, Parameter

from benchmarks.__main__ import describe_setting
from undistill.attacks import ATTACKS
from undistill.audit import Accuracies, Audit, Cell, Measured, Outcome, Protocol, audit, judge
from undistill.cli.methods import parse_grids
from undistill.cli.options import RecipeOptions, TaskOptions, Whole
from undistill.cli.watch import TerminalWatcher
from undistill.defences.training import CrossEntropy
from undistill.files import write_json
from undistill.training import defaults_for, train_teacher

RECORDS = Path(__file__).parents[1] / "docs" / "results" / "self-check"

app = App(name="python -m benchmarks.self_check", help="Check every attack on an undefended teacher.", version_flags=[])


@app.command
def run(
    task: TaskOptions,
    *,
    out: Path,
    record: str,
    attack: list[str] | None = None,
    student: str | None = None,
    model: str | None = None,
    smoothing: list[float] | None = None,
    placebo_smoothing: list[float] | None = None,
    seeds: Whole = 8,
    tuning_seeds: Whole = 1,
    teacher: Path | None = None,
    recipe: Annotated[RecipeOptions | None, Parameter(name="*")] = None,
    workers: Whole | None = None,
) -> None:
    """Audit an undefended teacher and write ``docs/results/self-check/RECORD.json``.

    Args:
        out: folder of teacher, trials and audit; the same command goes on where it was.
        record: name of the record.
        attack: as for ``undistill audit``; by default every attack that is not slow.
        student: architecture.
        model: architecture of the teacher.
        smoothing: of the reference students.
        placebo_smoothing: of the placebos.
        seeds: paired seeds on which attacks are judged.
        tuning_seeds: seeds on which settings are chosen.
        teacher: a checkpoint; by default one is trained.
        recipe: of the students, and of the teacher if it is trained here.
        workers: processes.
    """
    data = task.load()
    defaults = defaults_for(data.input_shape)
    chosen = (recipe or RecipeOptions()).over(defaults.recipe)
    if teacher is None:
        teacher = out / "teacher"
        train_teacher(data, model or defaults.teacher, CrossEntropy(), defaults.recipe, seed=0, folder=teacher)
    grids = parse_grids("attack", ATTACKS, attack or [name for name, kind in ATTACKS.items() if not kind.slow])
    given = {"smoothings": smoothing, "placebo_smoothings": placebo_smoothing}
    protocol = Protocol(
        (student or defaults.student,),
        chosen,
        grids,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        **{name: tuple(values) for name, values in given.items() if values is not None},  # type: ignore[arg-type]
    )
    with TerminalWatcher() as watcher:
        result = audit(teacher, data, out=out, name="ce", protocol=protocol, workers=workers, watcher=watcher)
    setting = describe_setting() | {"command": shlex.join(["python", "-m", "benchmarks.self_check", *sys.argv[1:]])}
    write_json(RECORDS / f"{record}.json", as_record(result, setting, seconds_of(out / "trials")))


def seconds_of(folder: Path) -> dict[str, float]:
    """Mean time of one knockoff per attack, as the trials measured it."""
    seconds = defaultdict(list)
    for file in folder.glob("*.json"):
        held = json.loads(file.read_text())
        if held["trial"]["role"] == "knockoff":
            seconds[held["trial"]["attack"]["name"]].append(held["outcome"]["seconds"])
    return {name: mean(values) for name, values in seconds.items()}


JUDGED = ("outcome", "control", "leak")


def as_record(result: Audit, setting: dict[str, str], seconds: dict[str, float]) -> dict[str, Any]:
    """What was measured in an audit of an undefended teacher, without what a rule says of it."""
    audited = result.to_json()
    cells = [{key: value for key, value in cell.items() if key not in JUDGED} for cell in audited["cells"]]
    return {
        "setting": setting,
        "task": audited["task"],
        "teacher": {"accuracy": audited["teacher"]["accuracy"]},
        "protocol": {key: value for key, value in audited["protocol"].items() if key != "attacks"},
        "cells": [{**cell, "seconds": seconds[cell["attack"]]} for cell in cells],
    }


def judged(record: dict[str, Any]) -> tuple[Cell, ...]:
    """The cells of a record, judged together by the present rule."""
    protocol = record["protocol"]
    measured = []
    for cell in record["cells"]:
        kinds = [accuracies(cell[kind]) for kind in ("knockoff", "ls", "placebo")]
        measured.append(Measured(cell["attack"], cell["student"], *kinds, cell["agreement"], cell["queries"]))  # type: ignore[arg-type]
    looks = (*protocol.get("looks", ()), protocol["seeds"])
    return judge(measured, margin=protocol["margin"], alpha=protocol["alpha"], looks=looks)


def accuracies(held: dict[str, Any] | None) -> Accuracies | None:
    """Those of one kind of student; None for a placebo that there is not."""
    return None if held is None else Accuracies(held["setting"], tuple(held["seeds"]), held["validation"])


HEAD = "| attack | knockoff | placebo | LS | leak | | queries | seconds |\n|---|---|---|---|---|---|---|---|"


def row(first: str, cell: Cell, seconds: float) -> str:
    """One line of a table; an attack that does not leak on an undefended teacher is weak there."""
    placebo = cell.placebo
    return (
        f"| {first} | {cell.knockoff.mean:.2f} | {'' if placebo is None else format(placebo.mean, '.2f')} | "
        f"{cell.ls.mean:.2f} | {cell.leak} | "
        f"{'leaks' if cell.outcome is Outcome.LEAKS else 'weak here'} | {cell.queries:,} | {seconds:.1f} |"
    )


def table_of_record(record: dict[str, Any]) -> str:
    """All attacks of one record, the largest leak first, and how they were measured."""
    seconds = {cell["attack"]: cell["seconds"] for cell in record["cells"]}
    cells = sorted(judged(record), key=lambda cell: -cell.leak.mean)
    rows = [row(f"[{cell.attack}](attacks/{cell.attack}.md)", cell, seconds[cell.attack]) for cell in cells]
    setting, protocol = record["setting"], record["protocol"]
    source = (
        f"Teacher: {record['teacher']['accuracy']:.2f}% of {record['task']['test']:,} test images. Student: "
        f"{protocol['students'][0]}, {protocol['recipe']['epochs']} epochs of {record['task']['train']:,} images; "
        f"n = {protocol['seeds']} paired seeds. {setting['date']}; {setting['processor']}, {setting['cores']}; "
        f"{setting['versions']}.\n\n```console\n$ {setting['command']}\n```"
    )
    return "\n".join([HEAD, *rows, "", source])


def table_of_attack(name: str, records: dict[str, dict[str, Any]]) -> str:
    """One attack in all records."""
    rows = []
    for title, record in records.items():
        seconds = {cell["attack"]: cell["seconds"] for cell in record["cells"]}
        rows += [row(title, cell, seconds[name]) for cell in judged(record) if cell.attack == name]
    if not rows:
        return "Not measured: the self-check does not run it.\n"
    head = HEAD.replace("| attack |", "| task |", 1)
    return "\n".join([head, *rows, "", "See [the self-check](../self-check.md) for what was done.", ""])


@app.command
def pages() -> None:
    """Write the tables of all records into ``docs/results/self-check``."""
    records = {file.stem: json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))}
    for title, record in records.items():
        (RECORDS / f"table-{title}.md").write_text(table_of_record(record) + "\n")
    for name in ATTACKS:
        (RECORDS / f"{name}.md").write_text(table_of_attack(name, records))


if __name__ == "__main__":
    app()
