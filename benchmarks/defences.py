"""``python -m benchmarks.defences``: all defences side by side: accuracy, what they cost, spectrum and leak.

``run`` trains teachers, attacks each with a small fixed set of attacks and writes one record; ``pages`` turns all
records into the tables of the documentation.
"""

import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import App, Parameter
from loky import get_reusable_executor
from scipy import stats

from benchmarks.__main__ import describe_setting
from undistill.attacks import ATTACKS, Attack
from undistill.audit import Accuracies, Audit, Cell, Measured, Outcome, Protocol, audit_all, judge
from undistill.blackbox import BlackBox, defend, open_black_box
from undistill.cli.methods import parse_grids, parse_method
from undistill.cli.options import RecipeOptions, TaskOptions, Whole
from undistill.cli.watch import TerminalWatcher
from undistill.defences.output import OUTPUT_DEFENCES, OutputDefence
from undistill.defences.training import DEFENCES
from undistill.errors import InputError
from undistill.files import json_number, write_json
from undistill.statistics import Interval, interval
from undistill.tasks import FreshImages, QueryData, Task, TrainingImages
from undistill.training import Recipe, accuracy, defaults_for, train_teacher
from undistill.utility import FIGURES

RECORDS = Path(__file__).parents[1] / "docs" / "results" / "defences"
UNDEFENDED = "ce"
ATTACK_SET = ("kd", "dkd:temperature=4", "dist:temperature=4", "lskd:temperature=2", "label-only:hard=0.5")
ATTACK_SET += ("averager-full:temperature=20",)
ON = " on "  # "top-k:k=3 on ce": an output defence in front of a teacher
SEARCHED = {"digits": "combined-digits", "MNIST-1D": "search-mnist1d", "CIFAR-100/20": "cifar100-20-long"}
ORDER = (("mcmi", UNDEFENDED), (UNDEFENDED, "cmim"), (UNDEFENDED, "cmim:weight=10"))  # more is expected of the first
PREDICTORS = ("supremum", "residual_T4", "within_class_variance")
RESAMPLES = 2000

app = App(name="python -m benchmarks.defences", help="All defences side by side.", version_flags=[])


@dataclass(frozen=True)
class Work:
    """What is trained and attacked."""

    task: Task
    architecture: str
    recipe: Recipe  # of the teachers
    out: Path

    def teacher(self, defence: str, seed: int) -> Path:
        """Train one teacher, unless it is there."""
        torch.set_num_threads(1)
        folder = self.out / "teachers" / f"{slug(defence)}-{seed}"
        method = parse_method("defence", DEFENCES, defence)
        normal = None if method.name == UNDEFENDED else self.out / "teachers" / f"{UNDEFENDED}-{seed}"
        train_teacher(self.task, self.architecture, method, self.recipe, seed=seed, folder=folder, normal=normal)
        return folder

    def box(self, label: str, seed: int) -> BlackBox:
        """A defended teacher by its label."""
        transform, teacher = parts_of(label)
        box = open_black_box(
            self.out / "teachers" / f"{slug(teacher)}-{seed}",
            class_names=self.task.class_names,
            probe=self.task.validation.images[:8].float().div(255),
        )
        if transform is not None:
            box = defend(box, [transform], self.task)
            box.name = f"{slug(label)}-{seed}"  # two settings of one defence have the same name by themselves
        return box


def parts_of(label: str) -> tuple[OutputDefence | None, str]:
    """The output defence of a label, if any, and its teacher.

    >>> parts_of("top-k:k=3 on ce")[1], parts_of("ce")
    ('ce', (None, 'ce'))
    """
    transform, on, teacher = label.rpartition(ON)
    return (parse_method("output defence", OUTPUT_DEFENCES, transform) if on else None), teacher


def slug(label: str) -> str:
    """A label as the name of a folder."""
    return label.replace(ON, "-on-").translate(str.maketrans({":": "-", "=": "-", ",": "-"}))


@app.command
def run(
    task: TaskOptions,
    *,
    out: Path,
    record: str,
    defence: list[str] | None = None,
    output_defence: list[str] | None = None,
    attack: list[str] | None = None,
    data: list[str] | None = None,
    model: str | None = None,
    teacher_epochs: Whole | None = None,
    student: str | None = None,
    seeds: Whole = 5,
    students: Whole = 2,
    smoothing: list[float] | None = None,
    placebo_smoothing: list[float] | None = None,
    margin: float = 0.5,
    recipe: Annotated[RecipeOptions | None, Parameter(name="*")] = None,
    workers: Whole = 2,
) -> None:
    """Train and attack every defence, and write ``docs/results/defences/RECORD.json``.

    Args:
        out: folder of teachers, trials and audits; the same command goes on where it was.
        record: name of the record.
        defence: training defences, as for ``undistill train``; ce is always among them. By default all.
        output_defence: output defences, each in front of a teacher: "NAME:... on TEACHER". By default all, on ce.
        attack: as for ``undistill audit``.
        data: query data: train, fresh. By default both, where the task has fresh images.
        model: architecture of the teachers.
        teacher_epochs: of the teachers; by default those of the students.
        student: architecture of the students.
        seeds: of the teachers.
        students: paired student seeds for each teacher; no two teachers of one defence share one.
        smoothing: of the reference students.
        placebo_smoothing: of the placebos.
        margin: in points.
        recipe: of students and, but for the epochs, of teachers.
        workers: processes.
    """
    loaded = task.load()
    defaults = defaults_for(loaded.input_shape)
    chosen = (recipe or RecipeOptions()).over(defaults.recipe)
    own = chosen if teacher_epochs is None else replace(chosen, epochs=teacher_epochs)
    work = Work(loaded, model or defaults.teacher, own, out)
    trained = list(dict.fromkeys([UNDEFENDED, *(DEFENCES if defence is None else defence)]))
    served = [f"{name}{ON}{UNDEFENDED}" for name in OUTPUT_DEFENCES] if output_defence is None else output_defence
    labels = trained + served
    # Whatever is wrong with the words is told before anything is trained.
    if seeds < 2:
        raise InputError(f"--seeds is {seeds}, must be at least 2: an interval over teachers needs two")
    for label in labels:
        _, teacher = parts_of(label)
        parse_method("defence", DEFENCES, teacher)
        if teacher not in trained:
            raise InputError(f"{label!r} needs a teacher that is not trained here; add --defence {teacher}")
    given = {"smoothings": smoothing, "placebo_smoothings": placebo_smoothing}
    protocol = Protocol(
        (student or defaults.student,),
        chosen,
        parse_grids("attack", ATTACKS, attack or ATTACK_SET),
        seeds=students,
        margin=margin,
        **{name: tuple(values) for name, values in given.items() if values is not None},  # type: ignore[arg-type]
    )
    pool = get_reusable_executor(max_workers=workers)
    for names in ([UNDEFENDED], [name for name in trained if name != UNDEFENDED]):
        jobs = [(name, seed) for name in names for seed in range(seeds)]
        for folder in pool.map(work.teacher, *zip(*jobs, strict=True)):
            print(f"{folder.name} is trained", flush=True)
    pool.shutdown()

    boxes = {(label, seed): work.box(label, seed) for label in labels for seed in range(seeds)}
    groups = usable_together(boxes, protocol.attacks)
    results: dict[str, list[dict[str, Audit]]] = {}
    for name in data or (["train"] if loaded.fresh is None else ["train", "fresh"]):
        for seed in range(seeds):
            found: dict[str, Audit] = {}
            for number, (grids, members) in enumerate(groups.items()):
                folder = out / name / f"teachers-{seed}-{number}"
                share_trials(out / name / "trials", folder)
                with TerminalWatcher() as watcher:
                    audits = audit_all(
                        [boxes[label, seed] for label in members],
                        loaded,
                        out=folder,
                        names=[slug(label) for label in members],
                        protocol=replace(protocol, attacks=grids, data=(QUERY_DATA[name],), first_seed=students * seed),
                        undefended=boxes[UNDEFENDED, seed],
                        workers=workers,
                        watcher=watcher,
                    )
                found |= dict(zip(members, audits, strict=True))
            results.setdefault(name, []).append(found)
    setting = describe_setting() | {"command": shlex.join(["python", "-m", "benchmarks.defences", *sys.argv[1:]])}
    setting["teacher_epochs"] = str(own.epochs)
    validation = {
        label: [accuracy(boxes[label, seed].answers(loaded.validation), loaded.validation) for seed in range(seeds)]
        for label in labels
    }
    write_json(RECORDS / f"{record}.json", as_record(results, validation, setting))


QUERY_DATA: dict[str, QueryData] = {"train": TrainingImages(), "fresh": FreshImages()}


def usable_together(
    boxes: dict[tuple[str, int], BlackBox], grids: tuple[tuple[Attack, ...], ...]
) -> dict[tuple[tuple[Attack, ...], ...], list[str]]:
    """Labels by the attacks that can use what such boxes answer."""

    def usable(box: BlackBox, attack: Attack) -> bool:
        try:
            attack.check_access(box.access)
        except InputError:
            return False
        return True

    groups = defaultdict(list)
    for label in dict.fromkeys(label for label, _ in boxes):
        box = boxes[label, 0]
        fitting = (tuple(attack for attack in grid if usable(box, attack)) for grid in grids)
        groups[tuple(grid for grid in fitting if grid)].append(label)
    return groups


def share_trials(trials: Path, folder: Path) -> None:
    """References and placebos are the same for all teachers: one store serves every audit of the same query data."""
    trials.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "trials"
    if not link.is_symlink():
        link.symlink_to(trials.resolve())


def as_record(
    results: dict[str, list[dict[str, Audit]]], validation: dict[str, list[float]], setting: dict[str, str]
) -> dict[str, Any]:
    """What the tables need: figures of every teacher, and the cells of each defence over all its teachers.

    Args:
        results: by query data, one dict by label for each seed of the teachers.
        validation: accuracy of every teacher on the validation split, by label.
        setting: date, machine, versions, command.
    """
    regimes, labels = list(results), list(validation)
    first = results[regimes[0]][0][labels[0]].to_json()
    entries: dict[str, dict[str, Any]] = {}
    for label in labels:
        facts = [found[label].teacher for found in results[regimes[0]]]
        teachers = [{name: json_number(figure(fact)) for name, figure in FIGURES.items()} for fact in facts]
        for teacher, accurate in zip(teachers, validation[label], strict=True):
            teacher["validation_accuracy"] = accurate
        entries[label] = {"label": label, "teachers": teachers, "cells": {}}
    for regime, by_seed in results.items():
        weak: frozenset[tuple[str, str, str]] = frozenset()
        for label in labels:  # the undefended one first
            cells = judge_teachers([found[label] for found in by_seed], weak)
            if label == UNDEFENDED:
                weak = frozenset(cell.key for cell in cells if cell.outcome is not Outcome.LEAKS)
            entries[label]["cells"][regime] = [cell_json(cell) for cell in cells]
    record = {
        "setting": setting,
        "task": first["task"],
        "protocol": {key: value for key, value in first["protocol"].items() if key not in ("data", "first_seed")},
        "defences": list(entries.values()),
    }
    return record | {"correlations": {regime: correlations(record, regime) for regime in regimes}}


def judge_teachers(audits: Sequence[Audit], weak: frozenset[tuple[str, str, str]]) -> tuple[Cell, ...]:
    """One defence's cells over its teachers: a pair of knockoffs and controls is the mean over a teacher's students."""
    protocol = audits[0].protocol
    cells = [
        replace(
            of_teachers[0],
            knockoff=over_teachers([cell.knockoff for cell in of_teachers]),
            ls=over_teachers([cell.ls for cell in of_teachers]),
            placebo=over_teachers([cell.placebo for cell in of_teachers if cell.placebo is not None]),
        )
        for of_teachers in zip(*(audit.cells for audit in audits), strict=True)
    ]
    measured = [Measured(**{field.name: getattr(cell, field.name) for field in fields(Measured)}) for cell in cells]
    return judge(measured, margin=protocol.margin, alpha=protocol.alpha, weak=weak)


def over_teachers(of_each: Sequence[Accuracies]) -> Accuracies | None:
    """The accuracies of one kind of student, one per teacher."""
    if not of_each:
        return None
    settings = list(dict.fromkeys(entry.setting for entry in of_each))
    return Accuracies("; ".join(settings), tuple(entry.mean for entry in of_each), mean(e.validation for e in of_each))


def cell_json(cell: Cell) -> dict[str, Any]:
    """What a table says of a cell."""
    return {
        "attack": cell.attack,
        "outcome": cell.outcome.value,
        "leak": {"mean": cell.leak.mean, "low": cell.leak.low, "high": cell.leak.high},
        "knockoff": list(cell.knockoff.seeds),
        "control": list(cell.controls[cell.control].seeds),
        "validation_leak": cell.knockoff.validation - max(control.validation for control in cell.controls.values()),
        "setting": cell.knockoff.setting,
    }


def correlations(record: dict[str, Any], regime: str) -> list[dict[str, Any]]:
    """Rank correlation, over teachers, of a spectrum's numbers with the largest leak of any attack.

    Over all teachers, and over those without an output defence. The interval is a percentile bootstrap over defences:
    teachers of one defence are alike.
    """
    found = []
    every = [
        (entry, np.max([np.subtract(c["knockoff"], c["control"]) for c in entry["cells"][regime]], axis=0))
        for entry in record["defences"]
    ]
    trained = [(entry, leaks) for entry, leaks in every if ON not in entry["label"]]
    for over, entries in (("all", every), ("no output defence", trained)):
        for part, name in product(("train", "test"), PREDICTORS):
            groups = []
            for entry, leaks in entries:
                values = [teacher[f"{part}_{name}"] for teacher in entry["teachers"]]
                pairs = [(v, leak) for v, leak in zip(values, leaks, strict=True) if v is not None]
                groups += [np.array(pairs)] if pairs else []
            draws = np.random.default_rng(0)
            resampled = [
                rank_correlation([groups[i] for i in draws.integers(len(groups), size=len(groups))])
                for _ in range(RESAMPLES)
            ]
            low, high = np.nanquantile(resampled, (0.025, 0.975))
            found.append(
                {
                    "predictor": name,
                    "images": part,
                    "over": over,
                    "rho": rank_correlation(groups),
                    "low": float(low),
                    "high": float(high),
                    "defences": len(groups),
                    "teachers": sum(map(len, groups)),
                }
            )
    return found


def rank_correlation(groups: Sequence[np.ndarray]) -> float:
    """Spearman's rho of pairs; nan where one side is constant."""
    pairs = np.concatenate(groups)
    if min(len(set(pairs[:, 0])), len(set(pairs[:, 1]))) < 2:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(pairs, axis=0).T)[0, 1])  # Spearman's, without its p-value: far quicker


@app.command
def pages() -> None:
    """Write the tables of all records into ``docs/results/defences``, and that over tasks where all are searched."""
    records = {file.stem: json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))}
    for title, record in records.items():
        for name, table in tables(record).items():
            (RECORDS / f"{title}-{name}.md").write_text("\n".join(table) + "\n")
    if records.keys() >= set(SEARCHED.values()):
        lines = tasks_table({task: records[name] for task, name in SEARCHED.items()})
        (RECORDS / "over-tasks.md").write_text("\n".join(lines) + "\n")


def tables(record: dict[str, Any]) -> dict[str, list[str]]:
    """All tables of a record, by what they show."""
    entries = record["defences"]
    found = {"utility": utility_table(entries), "spectrum": spectrum_table(entries), "source": source_lines(record)}
    for regime in record["correlations"]:
        found |= {f"leak-{regime}": leak_table(entries, regime), f"choice-{regime}": choice_table(entries, regime)}
        if order := order_table(entries, regime):
            found[f"order-{regime}"] = order
    return found | {"correlations": correlation_table(record["correlations"])}


def head(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def leak_table(entries: Sequence[dict[str, Any]], regime: str) -> list[str]:
    """Defences by attacks: the leak with its interval, and the outcome in letters."""
    attacks = [cell["attack"] for cell in entries[0]["cells"][regime]]
    lines = head(["defence", *attacks])
    for entry in entries:
        cells = {cell["attack"]: cell for cell in entry["cells"][regime]}
        row = [f"`{entry['label']}`", *(leak_words(cells.get(name)) for name in attacks)]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def order_table(entries: Sequence[dict[str, Any]], regime: str) -> list[str]:
    """Differences of leaks between the poles, paired by the teachers' seeds; nothing if a record holds no such pair."""
    by_label = {entry["label"]: entry for entry in entries}
    pairs = [pair for pair in ORDER if by_label.keys() >= set(pair)]
    if not pairs:
        return []
    attacks = [cell["attack"] for cell in by_label[UNDEFENDED]["cells"][regime]]
    lines = head(["leak of", "teachers", "mean over attacks", *attacks])
    for more, less in pairs:
        found = leak_differences(by_label[more], by_label[less], regime)
        overall = interval(np.mean(list(found.values()), axis=0).tolist(), 0.95)
        row = [f"`{more}` less `{less}`", str(len(by_label[more]["teachers"])), signed(overall)]
        row += [signed(interval(found[name], 0.95)) if name in found else "" for name in attacks]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def leak_differences(more: dict[str, Any], less: dict[str, Any], regime: str) -> dict[str, list[float]]:
    """By how much one defence leaks more than another, through each attack that both have: one value per seed."""
    leaks = [
        {cell["attack"]: np.subtract(cell["knockoff"], cell["control"]) for cell in entry["cells"][regime]}
        for entry in (more, less)
    ]
    return {name: (leak - leaks[1][name]).tolist() for name, leak in leaks[0].items() if name in leaks[1]}


def choice_table(entries: Sequence[dict[str, Any]], regime: str) -> list[str]:
    """What a recipe may be chosen by: accuracy and leaks on validation images alone."""
    attacks = [cell["attack"] for cell in entries[0]["cells"][regime]]
    lines = head(["defence", "validation accuracy", "largest leak", *attacks])
    for entry in entries:
        leaks = {cell["attack"]: cell["validation_leak"] for cell in entry["cells"][regime]}
        row = [f"`{entry['label']}`", f"{validation_accuracy(entry):.2f}", f"{largest_leak(entry, regime):+z.2f}"]
        row += [*(f"{leaks[name]:+z.2f}" if name in leaks else "" for name in attacks)]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def tasks_table(records: dict[str, dict[str, Any]]) -> list[str]:
    """Largest leak on validation images and accuracy there less CE's, of the defences that stand in all records."""
    found = [{entry["label"]: entry for entry in record["defences"]} for record in records.values()]
    columns = [f"{task}: {what}" for task in records for what in ("train", "fresh", "accuracy less CE's")]
    lines = head(["defence", *columns])
    for label in [label for label in found[0] if all(label in entries for entries in found)]:
        row = [f"`{label}`"]
        for entries in found:
            gap = validation_accuracy(entries[label]) - validation_accuracy(entries[UNDEFENDED])
            row += [f"{value:+z.2f}" for value in (*(largest_leak(entries[label], kind) for kind in QUERY_DATA), gap)]
        lines.append(f"| {' | '.join(row)} |")
    rule = "accuracy of at least CE's on every task, and then the smallest of the largest leaks with training images"
    return [*lines, "", f"Picked by the rule ({rule}): `{picked(found)}`."]


def picked(found: Sequence[dict[str, dict[str, Any]]]) -> str:
    """The defence to recommend, by validation images alone.

    Args:
        found: for each task, its entries by label.
    """
    labels = [label for label in found[0] if all(label in entries for entries in found)]
    accurate = [
        label
        for label in labels
        if all(validation_accuracy(entries[label]) >= validation_accuracy(entries[UNDEFENDED]) for entries in found)
    ]
    return min(accurate, key=lambda label: max(largest_leak(entries[label], "train") for entries in found))


def validation_accuracy(entry: dict[str, Any]) -> float:
    """The mean of a defence's teachers."""
    return mean(teacher["validation_accuracy"] for teacher in entry["teachers"])


def largest_leak(entry: dict[str, Any], regime: str) -> float:
    """Of a defence through any attack, on validation images."""
    return max(cell["validation_leak"] for cell in entry["cells"][regime])


OUTCOME_WORDS = {
    Outcome.LEAKS.value: "**leaks**",
    Outcome.NO_LEAK_FOUND.value: "no leak found",
    Outcome.INCONCLUSIVE.value: "inconclusive",
    Outcome.TOO_WEAK.value: "weak",
}


def leak_words(cell: dict[str, Any] | None) -> str:
    """
    >>> leak_words(None)
    'cannot be run'
    """
    if cell is None:
        return "cannot be run"
    return f"{signed(Interval(**cell['leak']))} {OUTCOME_WORDS[cell['outcome']]}"


def signed(found: Interval) -> str:
    """With signs, and the interval on one line of its cell."""
    return f"{found:+z.2f}".replace(", ", ",\N{NO-BREAK SPACE}")


def utility_table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """What each defence costs: means over its teachers, and the difference of accuracy to the undefended ones."""
    columns = {"nll": 3, "ece": 3, "brier": 3, "auroc": 3, "aurc": 4, "training_seconds": 1, "serving_seconds": 3}
    names = ["NLL", "ECE", "Brier", "AUROC", "AURC", "training, s", "serving 1,000, s"]
    plain = [teacher["accuracy"] for teacher in entries[0]["teachers"]]
    lines = head(["defence", "accuracy", "less CE's", *names])
    for entry in entries:
        accuracies = [teacher["accuracy"] for teacher in entry["teachers"]]
        gap = interval([a - b for a, b in zip(accuracies, plain, strict=True)], 0.95)
        row = [
            f"`{entry['label']}`",
            f"{mean(accuracies):.2f}",
            signed(gap),
        ]
        row += [mean_words([teacher[name] for teacher in entry["teachers"]], d) for name, d in columns.items()]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def spectrum_table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """The numbers of the spectra on training and test images, means over a defence's teachers."""
    columns = {
        f"{part}_{name}": f"{words}, {part}"
        for part in ("train", "test")
        for name, words in (
            ("cmi_1", "CMI(1)"),
            ("supremum", "sup CMI"),
            ("residual_T4", "T² CMI(1/T), T = 4"),
            ("within_class_variance", "W"),
        )
    }
    lines = head(["defence", *columns.values()])
    for entry in entries:
        row = [mean_words([teacher[name] for teacher in entry["teachers"]], 3) for name in columns]
        lines.append(f"| `{entry['label']}` | {' | '.join(row)} |")
    return lines


def mean_words(values: Sequence[float | None], digits: int) -> str:
    """
    >>> mean_words([0.5, None], 2), mean_words([0.5, 1.0], 2)
    ('not finite', '0.75')
    """
    finite = [value for value in values if value is not None]
    return f"{mean(finite):.{digits}f}" if len(finite) == len(values) else "not finite"


def correlation_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Spearman's rho of each number with the largest leak."""
    words = {"supremum": "sup CMI", "residual_T4": "T² CMI(1/T), T = 4", "within_class_variance": "W"}
    lines = head(["queries", "teachers", "number", "measured on", "rho", "95% interval", "defences", "n"])
    for regime, rows in found.items():
        for row in rows:
            lines.append(
                f"| {regime} | {row['over']} | {words[row['predictor']]} | {row['images']} | {row['rho']:+z.2f} | "
                f"[{row['low']:+z.2f}, {row['high']:+z.2f}] | {row['defences']} | {row['teachers']} |"
            )
    return lines


def source_lines(record: dict[str, Any]) -> list[str]:
    """How the record was made."""
    setting, protocol, task = record["setting"], record["protocol"], record["task"]
    teachers = len(record["defences"][0]["teachers"])
    epochs = str(protocol["recipe"]["epochs"])
    own = setting.get("teacher_epochs", epochs)
    of_whom = epochs if own == epochs else f"{own} (teachers) and {epochs} (students)"
    return [
        f"{teachers} teachers of each defence, {protocol['seeds']} students ({protocol['students'][0]}) of each "
        f"teacher for every attack; {task['train']:,} training and {task['test']:,} test images, {task['fresh']:,} "
        f"fresh ones; {of_whom} epochs. {setting['date']}; {setting['processor']}, "
        f"{setting['cores']}; "
        f"{setting['versions']}.",
        "",
        "```console",
        f"$ {setting['command']}",
        "```",
    ]


if __name__ == "__main__":
    app()
