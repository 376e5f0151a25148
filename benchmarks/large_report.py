"""A report of 60 attacks x 6 students x 10 seeds: how long it takes to make, and to open in a browser."""

import json
import math
import random
import tempfile
import time
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
TARGET = 3.0  # seconds
OUTCOMES = ("leaks", "no leak found", "inconclusive", "attack too weak")


def large_report() -> list[Figure]:
    """A report of 60 attacks x 6 students x 10 seeds with learning curves of 100 epochs: made, and opened."""
    with tempfile.TemporaryDirectory() as folder:
        out = make_audit(Path(folder) / "audit", attacks=60, students=6, seeds=10, classes=100, epochs=100)
        made, opened = [], []
        for _ in range(5):
            started = time.perf_counter()
            page = write_report(out)
            made.append(time.perf_counter() - started)
        size = page.stat().st_size / 2**20
        with browser() as chromium:
            for _ in range(6):
                opened.append(opening_time(chromium, page))
        return [
            Figure("make the page", "s", made),
            Figure("open it, first figures drawn", "s", opened[1:], target=TARGET, at_most=True),
            Figure("size of the page", "MiB", [size], target=8.0, at_most=True),
        ]


def browser() -> Any:
    """A headless Chromium, as a context."""
    path = next((path for path in CHROMIUM if Path(path).exists()), None)
    if path is None:
        raise InputError("there is no Chromium to open a report with; run: apt-get install chromium")
    return _Browser(path)


class _Browser:
    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Any:
        self._playwright = require("playwright.sync_api", "dev").sync_playwright().start()
        arguments = ["--no-sandbox", "--disable-gpu"]
        self._chromium = self._playwright.chromium.launch(executable_path=self.path, args=arguments)
        return self._chromium

    def __exit__(self, *exception: object) -> None:
        self._chromium.close()
        self._playwright.stop()


def opening_time(chromium: Any, page: Path) -> float:
    """Seconds until the page is loaded and every figure on the first screens is drawn."""
    tab = chromium.new_page(viewport={"width": 1440, "height": 900})
    started = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="load")
    tab.wait_for_selector("#plot-matrix button")
    taken = time.perf_counter() - started
    tab.wait_for_function("document.documentElement.dataset.ready === 'yes'")
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

    fingerprint = (name.encode().hex() + "f" * 64)[:64]
    cells = []
    for student in architectures:
        ls = accuracies(student, None, None, 70.0)
        for attack in names:
            placebo = accuracies(student, attack, None, 69.8)
            knockoff = accuracies(student, attack, fingerprint, 70.0 + leak + drawn.gauss(0, 0.3))
            mean = knockoff["mean"] - ls["mean"]
            high, low = mean + 0.45, mean - 0.5
            outcome = "leaks" if low > 0 else "no leak found" if high < 0.5 else "inconclusive"
            cells.append(
                {
                    "attack": attack,
                    "student": student,
                    "outcome": "attack too weak" if attack == "attack-1" and outcome != "leaks" else outcome,
                    "knockoff": knockoff,
                    "ls": ls,
                    "placebo": placebo,
                    "control": "ls",
                    "leak": {"mean": mean, "low": low, "high": high, "p": 0.04, "detectable": 0.6},
                    "knockoff_minus_ls": mean,
                    "agreement": 80.0 + drawn.random(),
                    "queries": budget or 50_000 * epochs,
                    "flags": {},
                }
            )
    labels = torch.arange(40 * classes) % classes
    generator = torch.Generator().manual_seed(len(name))
    found = {}
    for who, width in ((name, 0.6), ("ce", 2.0)):
        answers, spectra = {}, {}
        for split in ("train", "test"):
            logits = width * torch.randn(len(labels), classes, generator=generator)
            logits[torch.arange(len(labels)), labels] += 4.0
            answers[split] = torch.log_softmax(logits, 1)
            spectra[split] = spectrum_compute(spectrum_update(answers[split], labels))
        mark = fingerprint if who == name else "0" * 64
        found[who] = evidence_of(who, mark, answers, {"train": labels, "test": labels}, spectra)
    utility = {
        **{"n": len(labels), "accuracy": 91.25, "nll": 0.31, "zero_truths": 0, "ece": 0.02, "brier": 0.12},
        **{"auroc": 0.91, "aurc": 0.011, "undefined": {}, "other_task": None, "training_seconds": 100.0},
        "serving": {"seconds_per_1000": 0.4, "batch": 64, "repetitions": 7, "hardware": "cpu", "threads": 1},
    }
    utility["serving"]["torch"] = torch.__version__
    verdicts = {cell["outcome"] for cell in cells}
    verdict = "leaks" if "leaks" in verdicts else "no leak found" if verdicts == {"no leak found"} else "inconclusive"
    spectrum = {split: spectrum_json(found[name].spectra[split]) for split in ("train", "test")}
    result = {
        "schema": SCHEMA,
        "task": {"name": "invented", "fingerprint": "7" * 64, "source": {"name": "invented", "classes": classes}},
        "teacher": {
            **{"name": name, "fingerprint": fingerprint, "output_defences": [], "accuracy": 91.25},
            **{"train_accuracy": 99.5, "utility": utility, "spectrum": spectrum},
        },
        "undefended": {"name": "ce", "accuracy": 90.5, "utility": utility | {"accuracy": 90.5, "ece": 0.05}},
        "verdict": verdict,
        "sentence": f"The audit of {name} shows: {verdict}, in {len(cells)} cells of {seeds} seeds.",
        "detectable": 0.6,
        "threat_card": {
            **{"access": "the probabilities of all classes", "output_defences": [], "data": "the training images"},
            **{"labels": "known", "queries": "about a new view in every epoch", "queries_per_knockoff": budget or 50_000},
            **{"tuning": dict.fromkeys(names, 3), "students": architectures},
        },
        "protocol": {
            **{"students": architectures, "recipe": recipe, "access": "full"},
            **{"data": {"name": "train", "sentence": "the training images", "controls": "the training images"}},
            "queries": {"mode": "fresh-views", "views": 8, "budget": budget},
            "attacks": [[{"name": attack, "temperature": 4.0, "code": "c" * 64}] for attack in names],
            **{"smoothings": [0.0, 0.1], "placebo_smoothings": [0.1], "seeds": seeds, "first_seed": 0},
            **{"tuning_seeds": 1, "margin": 0.5, "alpha": 0.025},
        },
        "cells": cells,
    }
    shown = class_names or tuple(f"class {place}" for place in range(classes))
    (out / "trials").mkdir(parents=True)
    for place, trial in enumerate(trials):
        (out / "trials" / f"{place:06d}.json").write_text(json.dumps(trial))
    (out / "evidence.json").write_text(json.dumps(evidence_json(shown, found[name], found["ce"])))
    (out / "audit.json").write_text(json.dumps(result | (changes or {})))
    return out
