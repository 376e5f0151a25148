"""The demo: a plain and a protected teacher on embedded data, both audited."""

from pathlib import Path

import torch
from rich.console import Console

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Protocol, audit_all, audit_path, count_workers
from undistill.cli.watch import TerminalWatcher, show_training
from undistill.defences.training import CMIM, CrossEntropy, Defence
from undistill.report import REPORT, audit_tables, plot_spectra, spectrum_table, write_report
from undistill.tasks import load_task
from undistill.training import defaults_for, train_teacher

# The settings were chosen on validation data, for a clear contrast within minutes (docs/demo.md says how).
TASK = "digits"
DEFENCES: dict[str, Defence] = {"ce": CrossEntropy(), "cmim": CMIM(weight=10.0)}
SEEDS, TUNING_SEEDS = 20, 3


def run_demo(out: Path, workers: int | None) -> None:
    """Train, audit, print, draw."""
    workers = count_workers(workers)
    torch.set_num_threads(1)  # with layers this small, threads wait for each other longer than they work
    console = Console()
    task = load_task(TASK)
    defaults = defaults_for(task.input_shape)
    console.print(
        f"Task {task.name}: {len(task.train)} training, {len(task.validation)} validation and {len(task.test)} test "
        "images. "
        f"Teachers: {defaults.teacher}, trained with cross entropy (ce) and with CMIM (cmim). "
        f"Student: {defaults.student}.",
        highlight=False,
    )
    folders = []
    for name, defence in DEFENCES.items():
        folders.append(out / "teachers" / name)
        train_teacher(
            task,
            defaults.teacher,
            defence,
            defaults.recipe,
            seed=0,
            folder=folders[-1],
            progress=show_training,
        )
    protocol = Protocol(
        (defaults.student,),
        defaults.recipe,
        (KD.grid(), KDWithoutLabels.grid()),
        seeds=SEEDS,
        tuning_seeds=TUNING_SEEDS,
    )
    with TerminalWatcher() as watcher:
        audits = audit_all(folders, task, out=out, protocol=protocol, workers=workers, watcher=watcher)
    console.print()
    console.print(
        spectrum_table(
            {
                f"{audit.teacher.name}, {split}": (accuracy, spectrum)
                for audit in audits
                for split, accuracy, spectrum in (
                    ("train", audit.teacher.train_accuracy, audit.teacher.train),
                    ("test", audit.teacher.accuracy, audit.teacher.test),
                )
            }
        )
    )
    console.print()
    console.print(audit_tables(audits))
    for audit in audits:
        console.print()
        console.print(audit.sentence, highlight=False, markup=False)
    spectra = {f"{audit.teacher.name}, test": audit.teacher.test for audit in audits} | {
        f"{audit.teacher.name}, train": audit.teacher.train for audit in audits
    }
    files = [audit_path(out, audit.teacher.name, alone=False) for audit in audits]
    for suffix in (".png", ".svg"):
        files.append(out / f"spectrum{suffix}")
        plot_spectra(spectra, files[-1])
    console.print()
    console.print("Written: " + ", ".join(map(str, files)), highlight=False, markup=False, soft_wrap=True)
    page = write_report([audit_path(out, audit.teacher.name, alone=False) for audit in audits], out / REPORT)
    console.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)
