import io
import math

import pytest
import torch
from rich.console import Console

from undistill.information import spectrum_compute, spectrum_update
from undistill.report import utility_notes, utility_tables
from undistill.tasks import load_task
from undistill.utility import (
    Comparison,
    Group,
    Origin,
    OtherTask,
    Plan,
    Quality,
    Row,
    ServingTime,
    TeacherFacts,
    Utility,
)


@pytest.fixture(scope="module")
def spectrum():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return spectrum_compute(spectrum_update(logits, torch.arange(40) % 3))


@pytest.fixture
def group(spectrum):
    """Makes a group with one teacher of each accuracy."""

    def make(label, accuracies, *, seeds=None, nll=0.25, auroc=0.9, seconds=10.0, serving=0.5, other=None, needed=0.0):
        facts = tuple(
            TeacherFacts(
                f"{label}-{place}",
                "f" * 64,
                99.0,
                spectrum,
                spectrum,
                Utility(
                    Quality(200, accuracy, nll, 3 if nll == math.inf else 0, 0.0123, 0.0456, auroc, 0.0078),
                    ServingTime(serving, 64, 7, "cpu", 1, "2.6"),
                    seconds,
                    None if other is None else OtherTask("other", "o" * 64, 100, other),
                    needed,
                ),
            )
            for place, accuracy in enumerate(accuracies)
        )
        seeds = seeds or range(len(accuracies))
        return Group(label, tuple(Origin(label, "mlp-4", {}, (), seed, seconds) for seed in seeds), facts)

    return make


@pytest.fixture
def shown():
    """The tables and notes of some groups, in 80 columns; the first is what the others are compared with."""

    def show(*groups, against=0):
        plan = Plan(tuple(Row(group.label, (), group.origins) for group in groups), against)
        comparison = Comparison(load_task("digits", classes=3), plan, groups)
        file = io.StringIO()
        for table in utility_tables(comparison):
            Console(file=file, width=80).print(table)
        assert all(len(line) <= 80 for line in file.getvalue().splitlines())
        return [" ".join(line.split()) for line in file.getvalue().splitlines()], utility_notes(comparison)

    return show


def test_rows_hold_means_with_half_an_interval(group, shown):
    # Two values d apart: t(0.975, 1) * d / 2 = 12.7062 * d / 2.
    ce = group("ce", (96.0, 97.0))
    cmim = group("cmim:weight=1", (97.0, 97.5), seconds=15.0, serving=0.25, other=0.75)
    rows, notes = shown(ce, cmim)
    assert "ce 2 96.50 ±6.35 - 0.2500 ±0.0000 0.0123 ±0.0000" in rows
    assert "cmim:weight=1 2 97.25 ±3.18 +0.75 ±3.18 0.2500 ±0.0000 0.0123 ±0.0000" in rows
    assert "ce 0.0456 ±0.0000 0.9000 ±0.0000 0.0078 ±0.0000 -" in rows
    assert "cmim:weight=1 0.0456 ±0.0000 0.9000 ±0.0000 0.0078 ±0.0000 0.7500 ±0.0000" in rows
    assert "cmim:weight=1 15.0 ±0.0 15.0 ±0.0 1.50 0.25 ±0 0.50" in rows
    assert notes == ["Difference to ce paired by seed (0, 1): cmim:weight=1."]


def test_a_teacher_that_needs_another_one_is_no_quicker_than_that(group, shown):
    mcmi, old = group("mcmi", (96.0, 97.0), seconds=2.0, needed=10.0), group("nasty", (96.0, 97.0), needed=math.nan)
    rows, _ = shown(group("ce", (96.0, 97.0)), mcmi, old)
    assert "mcmi 2.0 ±0.0 12.0 ±0.0 1.20 0.5 ±0 1.00" in rows
    assert "nasty 10.0 ±0.0 - - 0.5 ±0 1.00" in rows, "a checkpoint that does not say it"


def test_a_spectrum_stands_for_both_splits(group, shown, spectrum):
    rows, _ = shown(group("ce", (96.0, 97.0)))
    numbers = [
        spectrum.at(1.0),
        spectrum.supremum,
        spectrum.residual(4.0),
        spectrum.residual(20.0),
        spectrum.within_variance / 2,
    ]
    for split in ("train", "test"):
        assert f"ce, {split} {' '.join(f'{number:.3g}' for number in numbers)}" in rows


def test_one_teacher_has_no_interval(group, shown):
    rows, notes = shown(group("ce", (96.0,)), group("lone", (97.0,), seeds=(7,)))
    assert "lone 1 97.00 +1.00 0.2500 0.0123" in rows
    assert notes == [
        "One teacher says nothing of the spread over seeds, so there is no interval: ce, lone.",
        "Difference to ce not paired, for too few seeds are shared: lone.",
    ]


def test_what_is_not_finite_is_said_why(group, shown):
    rows, notes = shown(group("ce", (100.0, 100.0), nll=math.inf, auroc=math.nan, seconds=math.nan), against=None)
    assert "ce 2 100.00 ±0.00 - inf 0.0123 ±0.0000" in rows
    assert "ce 0.0456 ±0.0000 - 0.0078 ±0.0000 -" in rows
    assert "ce - - - 0.5 ±0 -" in rows
    assert notes == [
        "There is nothing to compare with: name one teacher trained with cross entropy, or --against one.",
        "ce: no finite NLL for 2 of 2 teachers (3 of 200 answers give their true class the probability 0, so it is "
        "infinite).",
        "ce: no finite AUROC for 2 of 2 teachers (none of 200 answers is wrong, so there is nothing to tell apart).",
    ]


@pytest.mark.parametrize("label", ["[red]x[/red]", "[/]", "a" * 100, "cmim:weight=10,powers=0.05:0.125:0.25 + top-k"])
def test_labels_appear_as_they_are(group, shown, label):
    rows, _ = shown(group(label, (96.0, 97.0)))
    assert label.replace(" ", "")[:12] in "".join(rows).replace(" ", "")
