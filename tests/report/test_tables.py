import io
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Accuracies, Audit, Measured, Outcome, Protocol, Undefended, judge
from undistill.information import spectrum_compute, spectrum_update
from undistill.report import audit_tables, cost_line, flag_lines, spectrum_table, threat_card_table
from undistill.tasks import load_task
from undistill.training import Recipe
from undistill.utility import Quality, ServingTime, TeacherFacts, Utility

STUDENTS = ("cnn1d-small", "mlp-128-64-32")


@pytest.fixture(scope="module")
def spectrum():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return spectrum_compute(spectrum_update(logits, torch.arange(40) % 3))


@pytest.fixture(scope="module")
def make(spectrum):
    task = load_task("digits", classes=3)
    serving = ServingTime(0.25, 64, 7, "cpu", 1, "2.6")
    utility = Utility(Quality(200, 97.5, math.inf, 2, 0.0123, 0.05, math.nan, 0.004), serving, 12.0)
    undefended = Utility(Quality(200, 96.5, 0.25, 0, 0.0234, 0.06, 0.9, 0.005), serving, 6.0)

    def audit(name="ce", leaks=(5.0, 5.1, 4.9), level=90.0, students=("mlp-4",), weak=False, flags=None):
        control = Accuracies("smoothing=0.1", (level,) * 3, level)
        knockoff = Accuracies("temperature=4.0", tuple(level + leak for leak in leaks), level)
        names = [(attack, student) for student in students for attack in ("kd", "kd-no-labels")]
        cells = judge(
            [
                Measured(attack, student, knockoff, control, control, 95.0, 100, flags=flags or {})
                for attack, student in names
            ],
            margin=0.5,
            alpha=0.025,
            weak=frozenset((*name, "train") for name in names if weak),
        )
        facts = TeacherFacts(name, "f" * 64, 99.0, spectrum, spectrum, utility)
        protocol = Protocol(students, Recipe(), ((KD(),), (KDWithoutLabels(),)), seeds=3)
        return Audit(task, facts, Undefended("ce", undefended), protocol, cells)

    return audit


def shown(table, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def test_a_flag_is_a_line_with_its_sentence(make):
    assert flag_lines(make()) == []
    audit = make()
    [cell, other] = audit.cells
    noted = replace(audit, cells=(replace(cell, flags={"diverged": 2}), other))
    assert flag_lines(noted) == [
        "warning, training-diverged: The loss became NaN in 2 of 3 knockoffs of kd with mlp-4."
    ]


def test_flags_of_a_kind_share_a_line(make):
    assert flag_lines(make(flags={"temperature_collapsed": 2})) == [
        "note, temperature-collapsed: 2 times, kd, kd-no-labels"
    ]
    names = tuple(f"network-{index}" for index in range(20))
    [line] = flag_lines(make(flags={"diverged": 1}, students=names))
    assert line == "warning, training-diverged: 40 times, kd, kd-no-labels"
    weak = make(leaks=(-0.1, 0.0, 0.1), weak=True, students=names)
    attacks = [replace(cell, attack=f"attack-{index}") for index, cell in enumerate(weak.cells)]
    plain = replace(weak.undefended, cells=tuple(attacks))
    [line] = flag_lines(replace(weak, cells=tuple(attacks), undefended=plain))
    assert line.startswith("warning, attack-too-weak: 40 times, attack-0, attack-1, ")
    assert line.endswith(" ...")
    assert len(line) <= 80


def test_the_threat_card_is_a_table(make):
    audit = make()
    audit = replace(audit, protocol=replace(audit.protocol, attacks=((KD(1.0), KD(4.0)), (KDWithoutLabels(),))))
    text = shown(threat_card_table(audit))
    assert all(len(line) <= 80 for line in text.splitlines())
    words = " ".join(text.split())
    for expected in (
        "sees the probabilities of all classes",
        "output defences none",
        "has the teacher's training images, with labels",
        "left out nothing",
        "unseen by teacher none: this audit holds no image that the teacher has not seen",
        "labels known; not used by kd-no-labels",
        "asks about a new augmented view of every image in every epoch: at most 100 images for one knockoff",
        "tunes 2 attacks with 1 to 2 settings; 2 placebos with 3 to 6 settings; label smoothing with 5 settings; on "
        "validation images and 1 seed",
        f"students mlp-4, {audit.protocol.recipe.epochs} epochs",
    ):
        assert expected in words
    assert set(audit.threat_card) == {
        "access",
        "output_defences",
        "data",
        "left_out",
        "unseen",
        "labels",
        "queries",
        "queries_per_knockoff",
        "tuning",
        "control_tuning",
        "tuning_seeds",
        "students",
        "epochs",
    }


def test_what_protection_costs_is_said_in_a_line(make):
    audit = make(name="cmim")
    assert cost_line(audit) == (
        "Utility of cmim (in brackets: ce, undefended): accuracy 97.50 (96.50), NLL inf (0.2500), ECE 0.0123 (0.0234), "
        "Brier 0.0500 (0.0600), AUROC of confidence undefined (0.9000), AURC 0.0040 (0.0050)."
    )
    itself = replace(audit, undefended=Undefended("cmim", audit.teacher.utility))
    assert cost_line(itself).startswith("Utility of cmim: accuracy 97.50, NLL inf, ECE 0.0123,")


def test_a_row_holds_the_numbers_of_a_cell(make):
    text = shown(audit_tables([make()]))
    for words in (
        "knockoff",
        "LS",
        "placebo",
        "leak [interval]",
        "outcome",
        "kd-no-labels",
        "95.00",
        "90.00",
        "+5.00 [",
    ):
        assert words in text
    assert text.count(Outcome.LEAKS.value) == 2


def test_a_cell_without_a_placebo_has_a_dash(make):
    audit = make()
    cells = tuple(replace(cell, placebo=None) for cell in audit.cells)
    rows = shown(audit_tables([replace(audit, cells=cells)])).splitlines()[2:]
    assert [row.split()[3] for row in rows] == ["-", "-"]


def test_outcomes_are_whole_words_in_80_columns(make):
    wide = make(leaks=(-60.0, 40.0, 20.0), level=55.0)
    weak = make(name="cmim", leaks=(-40.0, -40.1, -39.9), level=50.0, weak=True)
    clear = make(name="cmim-2", leaks=(0.0, 0.0, 0.0), level=100.0)
    text = shown(audit_tables([wide, weak, clear]))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert [line.split()[0] for line in text.split("\n\n")] == ["ce", "cmim", "cmim-2"]
    for words in ("inconclusive", "attack too weak", "no leak found", "100.00"):
        assert words in text, "on one line"
    assert "…" not in text


def test_several_students_are_told_apart(make):
    text = shown(audit_tables([make(students=STUDENTS)]))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "".join(text.split()).count("kd-no-labels>") == 2
    assert all(student in "".join(text.split()) for student in STUDENTS)


@pytest.mark.parametrize("name", ["[red]x[/red]", "<script>", "[/]", "[bold", "a" * 60])
def test_names_appear_as_they_are(make, spectrum, name):
    one_line = shown(audit_tables([make(name=name)]), width=200)
    assert name in one_line
    assert name in shown(spectrum_table({name: (97.5, spectrum)}), width=200)
    for table in (audit_tables([make(name=name)]), spectrum_table({name: (97.5, spectrum)})):
        assert all(len(line) <= 80 for line in shown(table).splitlines())
    assert name in make(name=name).sentence


def test_a_spectrum_row_holds_its_numbers(spectrum):
    numbers = shown(spectrum_table({"ce": (97.5, spectrum)})).splitlines()[1].split()
    expected = [97.5, spectrum.at(1.0), spectrum.supremum, spectrum.supremum_power, spectrum.residual(4.0)]
    assert numbers[0] == "ce"
    assert [float(number) for number in numbers[1:6]] == pytest.approx(expected, rel=0.01)
