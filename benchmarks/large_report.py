"""A report of 60 attacks x 6 students x 10 seeds: how long it takes to make, and to open in a browser."""

import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Figure
from undistill.audit import SCHEMA
from undistill.errors import InputError, require
from undistill.information import spectrum_compute, spectrum_json, spectrum_update
from undistill.report import write_report
from undistill.utility import evidence_json, evidence_of

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
SECONDS_TO_OPEN, MEGABYTES = 3.0, 8.0  # the targets


def large_report(
    *, attacks: int = 60, students: int = 6, seeds: int = 10, classes: int = 100, epochs: int = 100, repeats: int = 5
) -> list[Figure]:
    """A report of 60 attacks x 6 students x 10 seeds with learning curves: made from files, and opened in Chromium."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        out = make_audit(
            Path(folder) / "audit", attacks=attacks, students=students, seeds=seeds, classes=classes, epochs=epochs
        )
        made, opened, sizes = [], [], []
        for _ in range(repeats):
            started = time.perf_counter()
            page = write_report(out)
            made.append(time.perf_counter() - started)
            opened.append(seconds_to_open(browser, page))
            sizes.append(page.stat().st_size / 2**20)
        return [
            Figure("make the page", "s", tuple(made)),
            Figure("open the page", "s", tuple(opened), at_most=SECONDS_TO_OPEN),
            Figure("size of the page", "MiB", tuple(sizes), at_most=MEGABYTES),
        ]


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium, driven by playwright.

    Raises:
        InputError: there is none.
    """
    path = next((path for path in CHROMIUM if Path(path).exists()), None)
    if path is None:
        raise InputError("there is no Chromium to open a report with; run: apt-get install chromium")
    with require("playwright.sync_api", "dev").sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def seconds_to_open(browser: Any, page: Path) -> float:
    """Seconds until the page is loaded: all of its text is there, and its scripts answer. Figures follow one by one."""
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    started = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="load")
    taken = time.perf_counter() - started
    tab.wait_for_selector("html[data-ready=yes]", state="attached", timeout=120_000)
    tab.close()
    return taken


def make_audit(
    out: Path,
    *,
    name: str = "cmim",
    attacks: int = 3,
    students: int = 2,
    seeds: int = 3,
    classes: int = 3,
    epochs: int = 5,
    leak: float = 0.0,
    budget: int | None = None,
    class_names: tuple[str, ...] | None = None,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write what an audit leaves behind, with invented numbers, and return the folder.

    Args:
        out: the folder.
        name: of the teacher.
        attacks: number of them.
        students: number of them.
        seeds: number of them.
        classes: of the task.
        epochs: of every training.
        leak: mean of the leaks, in points.
        budget: of queries.
        class_names: instead of class 0, class 1 and so on.
        changes: fields of ``audit.json`` to replace or add.
    """
    drawn = random.Random(f"{name} {attacks} {leak} {budget}")
    architectures = [f"resnet{8 + 6 * place}" for place in range(students)]
    names = [f"attack-{place}" for place in range(attacks)]
    recipe = {"epochs": epochs, "batch_size": 128, "learning_rate": 0.1, "milestones": [0.5, 0.75]}
    trials = []

    def accuracies(student: str, attack: str | None, teacher: str | None, mean: float) -> dict[str, Any]:
        setting = {"temperature": 4.0} if attack else {}
        smoothing = None if teacher else 0.1
        values = [round(mean + drawn.gauss(0, 0.4), 2) for _ in range(seeds)]
        for seed, value in enumerate(values):
            trial = {
                "role": "knockoff" if teacher else "placebo" if attack else "reference",
                "student": student,
                "seed": seed,
                "attack": None if attack is None else {"name": attack, **setting, "code": "c" * 64},
                "smoothing": smoothing,
                "teacher": teacher,
            }
            curve = [round(mean * (1 - math.exp(-4 * (epoch + 1) / epochs)), 3) for epoch in range(epochs)]
            loss = [round(2.3 * math.exp(-3 * (epoch + 1) / epochs) + 0.01, 4) for epoch in range(epochs)]
            trials.append({"trial": trial, "outcome": {"accuracy": value, "train_accuracy": curve, "loss": loss}})
        words = ", ".join(filter(None, ["temperature=4.0" if attack else "", "" if teacher else "smoothing=0.1"]))
        return {"mean": math.fsum(values) / seeds, "seeds": values, "setting": words, "validation": mean}

    fingerprint = "0" * 64 if name == "ce" else (name.encode().hex() + "f" * 64)[:64]
    cells = []
    for student in architectures:
        ls = accuracies(student, None, None, 70.0)
        for attack in names:
            placebo = accuracies(student, attack, None, 69.8)
            knockoff = accuracies(student, attack, fingerprint, 70.0 + leak + drawn.gauss(0, 0.3))
            mean = knockoff["mean"] - ls["mean"]
            high, low = mean + 0.45, mean - 0.5
            doubt = {"p": 0.04, "detectable": 0.6, "test_low": mean - 0.7, "test_high": mean + 0.7}
            outcome = "leaks" if low > 0 else "no leak found" if high < 0.5 else "inconclusive"
            cells.append(
                {
                    "attack": attack,
                    "data": "train",
                    "student": student,
                    "outcome": "attack too weak" if attack == "attack-1" and outcome != "leaks" else outcome,
                    "knockoff": knockoff,
                    "ls": ls,
                    "placebo": placebo,
                    "control": "ls",
                    "leak": {"mean": mean, "low": low, "high": high, **doubt},
                    "knockoff_minus_ls": mean,
                    "agreement": 80.0 + drawn.random(),
                    "queries": budget or 50_000 * epochs,
                    "flags": {},
                }
            )
    labels = torch.arange(40 * classes) % classes
    found = {}
    for who, width in ((name, 0.6), ("ce", 2.0)):
        generator = torch.Generator().manual_seed(len(who))
        answers, spectra = {}, {}
        for split in ("train", "test"):
            logits = width * torch.randn(len(labels), classes, generator=generator)
            logits[torch.arange(len(labels)), labels] += 4.0
            answers[split] = torch.log_softmax(logits, 1)
            spectra[split] = spectrum_compute(spectrum_update(answers[split], labels))
        mark = fingerprint if who == name else "0" * 64
        found[who] = evidence_of(who, mark, answers, {"train": labels, "test": labels}, spectra)
    utility = {
        "n": len(labels),
        "accuracy": 91.25,
        "nll": 0.31,
        "zero_truths": 0,
        "ece": 0.02,
        "brier": 0.12,
        "auroc": 0.91,
        "aurc": 0.011,
        "undefined": {},
        "other_task": None,
        "training_seconds": 100.0,
        "serving": {"seconds_per_1000": 0.4, "batch": 64, "repetitions": 7, "hardware": "cpu", "threads": 1},
    }
    utility["serving"]["torch"] = torch.__version__
    worth = {name: utility, "ce": utility | {"accuracy": 90.5, "ece": 0.05}}
    verdicts = {cell["outcome"] for cell in cells}
    verdict = "leaks" if "leaks" in verdicts else "no leak found" if verdicts == {"no leak found"} else "inconclusive"
    spectrum = {split: spectrum_json(found[name].spectra[split]) for split in ("train", "test")}
    result = {
        "schema": SCHEMA,
        "state": "finished",
        "task": {"name": "invented", "fingerprint": "7" * 64, "source": {"name": "invented", "classes": classes}},
        "teacher": {
            "name": name,
            "fingerprint": fingerprint,
            "output_defences": [],
            "accuracy": worth[name]["accuracy"],
            "train_accuracy": 99.5,
            "utility": worth[name],
            "spectrum": spectrum,
        },
        "undefended": {"name": "ce", "accuracy": 90.5, "utility": worth["ce"]},
        "verdict": verdict,
        "sentence": f"The audit of {name} shows: {verdict}, in {len(cells)} cells of {seeds} seeds.",
        "detectable": 0.6,
        "threat_card": {
            "access": "the probabilities of all classes",
            "output_defences": [],
            "data": "the training images",
            "labels": "known",
            "queries": "about a new view in every epoch",
            "queries_per_knockoff": budget or 50_000,
            "tuning": dict.fromkeys(names, 3),
            "students": architectures,
        },
        "protocol": {
            "students": architectures,
            "recipe": recipe,
            "access": "full",
            "version": "custom",
            "hash": "0" * 64,
            "data": [{"name": "train", "sentence": "the training images", "controls": "the training images"}],
            "queries": {"mode": "fresh-views", "views": 8, "budget": budget},
            "attacks": [[{"name": attack, "temperature": 4.0, "code": "c" * 64}] for attack in names],
            "smoothings": [0.0, 0.1],
            "placebo_smoothings": [0.1],
            "seeds": seeds,
            "first_seed": 0,
            "tuning_seeds": 1,
            "margin": 0.5,
            "alpha": 0.025,
        },
        "cells": cells,
    }
    shown = class_names or tuple(f"class {place}" for place in range(classes))
    (out / "trials").mkdir(parents=True)
    for place, trial in enumerate(trials):
        (out / "trials" / f"{place:06d}.json").write_text(json.dumps(trial))
    plain = None if name == "ce" else found["ce"]
    (out / "evidence.json").write_text(json.dumps(evidence_json(shown, found[name], plain)))
    (out / "audit.json").write_text(json.dumps(result | (changes or {})))
    return out


if __name__ == "__main__":
    from rich.console import Console

    from benchmarks.__main__ import as_table, describe_setting

    console = Console()
    for key, value in describe_setting().items():
        console.print(f"{key}: {value}", highlight=False)
    console.print(as_table(large_report()))
