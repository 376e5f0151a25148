"""Every flag is raised by what it is for, with its values, and by nothing near it."""

import json
import math
from dataclasses import replace

import pytest
import torch

from undistill.attacks import CTKD, DKD, KD, KnockoffHard, LabelOnly
from undistill.audit import (
    FLAGS,
    Accuracies,
    Cell,
    Findings,
    Leak,
    Outcome,
    Protocol,
    Severity,
    audit,
    find_flags,
)
from undistill.blackbox import AnswerFacts, Steadiness
from undistill.information import spectrum_compute, spectrum_update
from undistill.tasks import Split, Task
from undistill.training import Recipe
from undistill.utility import Quality, ServingTime, TeacherFacts, Utility


def split(size):
    return Split(torch.zeros(size, 1, 4, 4, dtype=torch.uint8), torch.arange(size) % 10)


TASK = Task("blank", tuple("abcdefghij"), split(20), split(1000), split(2000))
ANSWERS = AnswerFacts(3000, "full", None, 0, 10, None, None, 1.0, 1.0)
PROTOCOL = Protocol(("mlp", "cnn"), Recipe(), ((KD(),), (LabelOnly(),)), seeds=3)


def students(level, validation=None, smoothing=None, spread=0.1):
    seeds = (level - spread, level, level + spread)
    return Accuracies("setting", seeds, level if validation is None else validation, smoothing=smoothing)


def cell(
    attack="kd", student="mlp", *, ls=90.0, placebo=88.0, knockoff=90.0, outcome=Outcome.NO_LEAK_FOUND, flags=None
):
    controls = {"ls": students(ls, smoothing=0.1), "placebo": students(placebo, smoothing=0.1)}
    return Cell(
        attack,
        student,
        knockoff=students(knockoff),
        **controls,
        agreement=95.0,
        queries=100,
        flags=flags or {},
        leak=Leak(0.125, -0.25, 0.5, 0.4, 0.3),
        outcome=outcome,
    )


def make_teacher():
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    spectrum = spectrum_compute(spectrum_update(logits, torch.arange(20) % 10))
    serving = ServingTime(0.1, 64, 7, "cpu", 1, "2")
    utility = Utility(Quality(2000, 96.0, 0.25, 0, 0.01, 0.05, 0.9, 0.005), serving, 1.0)
    steady = Steadiness(0.0, 1e-7, 8)
    # It knows its training images by heart, as is usual: that raises no flag.
    return TeacherFacts(
        "ce",
        "f" * 64,
        100.0,
        spectrum,
        spectrum,
        utility,
        validation_accuracy=96.0,
        answers=ANSWERS,
        steadiness=steady,
    )


TEACHER = make_teacher()


def teacher(accuracy=96.0, validation=96.0, answers=ANSWERS, steadiness=TEACHER.steadiness):
    utility = replace(TEACHER.utility, quality=replace(TEACHER.utility.quality, accuracy=accuracy))
    return replace(TEACHER, utility=utility, validation_accuracy=validation, answers=answers, steadiness=steadiness)


def findings(cells=None, *, protocol=PROTOCOL, task=TASK, plain=None, **facts):
    """Of an undefended teacher that leaks everywhere, unless its cells are given."""
    cells = (cell(), cell("label-only"), cell(student="cnn")) if cells is None else cells
    plain = [replace(one, outcome=Outcome.LEAKS) for one in cells] if plain is None else plain
    return Findings(task, protocol, teacher(**facts), tuple(cells), "plain", tuple(plain))


def answering(**facts):
    return replace(ANSWERS, **facts)


def with_ls(ls, **protocol):
    """Two students whose LS accuracies are given."""
    cells = [replace(cell(student=student), ls=accuracies) for student, accuracies in ls.items()]
    return findings(cells, protocol=replace(PROTOCOL, **protocol))


def with_placebo(smoothing, placebo=91.0):
    controls = {"ls": students(90.0, smoothing=0.1), "placebo": students(placebo, smoothing=smoothing)}
    return findings([replace(cell(), **controls)])


KD_AND_LABELS = {"kd": 90.0, "dkd": 91.0, "label-only": 92.0, "knockoff-hard": 91.5}


def with_knockoffs(levels=KD_AND_LABELS, answers=ANSWERS):
    kinds = {kind.name: (kind(),) for kind in (KD, DKD, LabelOnly, KnockoffHard)}
    cells = [
        replace(cell(name), knockoff=students(level, spread=0.1 if kinds[name][0].label_only else -0.1))
        for name, level in levels.items()
    ]
    attacks = tuple(kinds[name] for name in levels)
    return findings(cells, protocol=replace(PROTOCOL, attacks=attacks), answers=answers)


SILENT_CELLS = [cell(outcome=Outcome.TOO_WEAK), cell("label-only", outcome=Outcome.INCONCLUSIVE)]


def over_images(low, high):
    """A cell whose leak of 0.125 has that interval over test images."""
    return replace(cell(), leak=replace(cell().leak, test_low=low, test_high=high))


# Of each kind: what raises it, and the sentences it then says.
RAISED = {
    "trained-on-test": [
        (
            findings(accuracy=99.9, validation=96.0),
            ["Accuracy is 99.90% on test and 96.00% on validation images (p = 2e-17); that of LS students differs by "
             "+0.00 points."],
        ),
    ],
    "student-above-teacher": [
        (findings(accuracy=89.0, validation=89.0),
         ["mlp reaches 90.00% without a teacher, the teacher itself 89.00%.",
          "cnn reaches 90.00% without a teacher, the teacher itself 89.00%."]),
        # A placebo is a student without a teacher, too.
        (with_placebo(0.1, placebo=97.0), ["mlp reaches 97.00% without a teacher, the teacher itself 96.00%."]),
    ],
    "trained-on-validation": [
        (
            findings(accuracy=96.0, validation=99.9),
            ["Accuracy is 96.00% on test and 99.90% on validation images (p = 1e-13); that of LS students differs by "
             "+0.00 points."],
        ),
    ],
    "validation-and-test-disagree": [
        (
            with_ls({"mlp": students(85.0, validation=90.0, smoothing=0.1), "cnn": students(85.0, smoothing=0.1)}),
            ["LS students of mlp reach 90.00% on validation and 85.00% on test images (p = 0.0001)."],
        ),
    ],
    "few-test-images": [
        (
            findings([over_images(-0.4, 0.65)]),
            ["Other 2,000 test images could move the leak of kd with mlp by 0.53 points (margin: 0.5)."],
        ),
    ],
    "answers-not-probabilities": [
        (
            findings(answers=answering(least_sum=0.9995, largest_sum=1.0)),
            ["The probabilities of an answer sum to 0.999500 up to 1.000000, not to 1, and rounding does not explain "
             "it."],
        ),
    ],
    "answers-truncated": [
        (
            findings(answers=answering(with_zeros=2999, most_classes=5)),
            ["2,999 of 3,000 answers hold exact zeros (at most 5 of 10 classes are above zero), but the access says "
             "full."],
        ),
        (
            findings(answers=answering(with_zeros=3000, most_classes=1, decimals=0)),
            ["3,000 of 3,000 answers hold exact zeros (each names one class alone), but the access says full."],
        ),
    ],
    "answers-rounded": [
        (
            findings(answers=answering(decimals=3, with_zeros=2000, least_sum=0.9991, largest_sum=1.0008)),
            ["Every probability has at most 3 decimals (an answer sums to 0.9991 up to 1.0008), but the access says "
             "nothing of rounding."],
        ),
        (
            findings(answers=answering(float_type="float16", largest_sum=1.0003)),
            ["Every probability is a float16 number (an answer sums to 1 up to 1.0003), but the access says nothing of "
             "rounding."],
        ),
        (
            findings(answers=answering(kind="decimals", places=6, decimals=2, with_zeros=9)),
            ["Every probability has at most 2 decimals (an answer sums to 1 up to 1), but the access says 6 decimals."],
        ),
    ],
    "answers-not-repeatable": [
        (
            findings(steadiness=Steadiness(3e-5, 3e-5, 8)),
            ["Asked again about the same 8 images, probabilities differ by up to 3e-05 (noise of arithmetic: 1e-06)."],
        ),
    ],
    "answers-depend-on-batch": [
        (
            findings(steadiness=Steadiness(0.0, 0.0042, 8)),
            ["Probabilities of the same image differ by up to 0.0042 with the batch around it (noise of arithmetic: "
             "0.002)."],
        ),
    ],
    "attack-too-weak": [
        (
            findings(SILENT_CELLS, plain=SILENT_CELLS),
            ["kd with mlp gains +0.12 [-0.25, +0.50] points from the undefended teacher (plain).",
             "label-only with mlp gains +0.12 [-0.25, +0.50] points from the undefended teacher (plain)."],
        ),
    ],
    "undefended-unknown": [
        (
            replace(findings(), undefended_known=False),
            ["Which attacks count as able was decided by plain, of which nothing says that it was trained on this task "
             "with cross entropy."],
        ),
    ],
    "labels-beat-soft-answers": [
        (
            with_knockoffs(),
            ["With mlp, label-only reaches 92.00%, and the best of 2 soft attacks (dkd) 91.00%."],
        ),
    ],
    "ls-at-edge": [
        (
            with_ls({"mlp": students(90.0, smoothing=0.4), "cnn": students(90.0, smoothing=0.2)}),
            ["The LS bar of mlp has smoothing 0.4, the largest that was tried."],
        ),
        (
            with_ls({"mlp": students(90.0, smoothing=0.1)}, smoothings=(0.1, 0.2)),
            ["The LS bar of mlp has smoothing 0.1, the smallest that was tried."],
        ),
        (
            with_ls({"mlp": students(90.0, smoothing=0.0)}, smoothings=(0.0,)),
            ["The LS bar of mlp has smoothing 0, the only one that was tried."],
        ),
    ],
    "placebo-collapsed": [
        # 0.75 of 90 - 10 above chance is 60: under 70 % it counts as collapsed.
        (findings([cell(placebo=69.5)]),
         ["The placebo of kd with mlp reaches 69.50%, the LS student 90.00% (chance: 10%)."]),
    ],
    "training-diverged": [
        (
            findings([cell(flags={"diverged": 2, "placebo_diverged": 1})]),
            ["The loss became NaN in 2 of 3 knockoffs of kd with mlp.",
             "The loss became NaN in 1 of 3 placebos of kd with mlp."],
        ),
        # A tenth of 90 - 10 above chance is 8: under 18 % they have learnt nothing.
        (
            findings([cell(knockoff=17.5)]),
            ["The knockoffs of kd with mlp reach 17.50%, the LS student 90.00% (chance: 10%): they have learnt "
             "nothing, with finite losses."],
        ),
    ],
    "placebo-at-edge": [
        (
            with_placebo(0.3),
            ["The placebo that is the better control of kd with mlp has smoothing 0.3, the largest that was tried."],
        ),
        (
            with_placebo(0.01),
            ["The placebo that is the better control of kd with mlp has smoothing 0.01, the smallest that was tried."],
        ),
    ],
    "temperature-collapsed": [
        (
            findings([cell("ctkd", flags={"temperature_collapsed": 2, "placebo_temperature_collapsed": 3})],
                     protocol=replace(PROTOCOL, attacks=((CTKD(),),))),
            ["The temperature stayed at an end of its range in 2 of 3 knockoffs of ctkd with mlp."],
        ),
    ],
}  # fmt: skip

# What comes near, and must not raise it.
SILENT = {
    "trained-on-test": [
        findings(accuracy=97.0, validation=96.0),  # chance
        findings(accuracy=96.0, validation=99.9),  # the other way round
        # The test split is an easier one: students find so, too.
        replace(with_ls({"mlp": students(94.0, validation=91.0, smoothing=0.1)}), teacher=teacher(99.9, 96.0)),
        findings(accuracy=99.9, validation=None),
        # One error in 50 images and none in 2,000 are six standard errors of the usual approximation, and yet chance.
        findings(accuracy=100.0, validation=98.0, task=replace(TASK, validation=split(50))),
    ],
    "student-above-teacher": [
        findings(accuracy=90.0, validation=90.0),
        findings(accuracy=89.95, validation=89.95),  # within the spread of the seeds
        findings([cell(knockoff=99.0)]),  # a knockoff that is better than its teacher has leaked, which is no flag
    ],
    "trained-on-validation": [findings(accuracy=96.0, validation=97.0), findings(accuracy=99.9, validation=96.0)],
    "validation-and-test-disagree": [
        with_ls({"mlp": students(89.0, validation=91.0, smoothing=0.1)}),
        # Of one student this would be beyond chance (p = 0.0006), of the larger of two it is not.
        with_ls({"mlp": students(85.7, validation=90.1, smoothing=0.1), "cnn": students(90.0, smoothing=0.1)}),
    ],
    "few-test-images": [
        findings([over_images(-0.3, 0.6)]),
        findings([over_images(-0.4, 0.65)], protocol=replace(PROTOCOL, margin=0.6)),
        findings([cell()]),  # it is not known image by image
    ],
    "answers-not-probabilities": [
        findings(answers=answering(least_sum=0.999999, largest_sum=1.000001)),
        findings(answers=answering(least_sum=0.9995, decimals=4)),  # said by answers-rounded
        findings(answers=answering(kind="decimals", places=2, least_sum=0.98)),
        findings(answers=None),
    ],
    "answers-truncated": [
        findings(answers=answering(with_zeros=2999, decimals=3)),  # said by answers-rounded
        findings(answers=answering(kind="top-k", with_zeros=3000, most_classes=5)),
        findings(answers=answering(kind="label", with_zeros=3000, most_classes=1, decimals=0)),
        findings(answers=None),
    ],
    "answers-rounded": [
        findings(answers=answering(kind="decimals", places=3, decimals=3)),
        findings(answers=answering(kind="decimals", places=None, decimals=3)),  # an output defence, on the threat card
        findings(answers=answering(with_zeros=3000, most_classes=1, decimals=0)),  # said by answers-truncated
        findings(answers=answering(kind="label", most_classes=1, decimals=0)),
        findings(answers=None),
    ],
    "answers-not-repeatable": [findings(steadiness=Steadiness(1e-7, 1e-4, 8))],
    "answers-depend-on-batch": [findings(steadiness=Steadiness(1e-7, 1e-3, 8))],
    "attack-too-weak": [
        findings([cell(outcome=Outcome.LEAKS)], plain=[cell(outcome=Outcome.INCONCLUSIVE)]),
        findings([cell()], plain=[cell(outcome=Outcome.LEAKS)]),
    ],
    "undefended-unknown": [findings()],
    "labels-beat-soft-answers": [
        with_knockoffs(KD_AND_LABELS | {"dkd": 91.95}),  # within the spread of the seeds
        with_knockoffs({"kd": 93.0, "label-only": 92.0}),
        with_knockoffs({"kd": 90.0, "dkd": 91.0}),  # there is no such attack
        with_knockoffs({"label-only": 92.0, "knockoff-hard": 90.0}),  # there is no other attack
        with_knockoffs(answers=answering(kind="label", most_classes=1, decimals=0)),  # there are no soft answers
    ],
    "ls-at-edge": [
        with_ls({"mlp": students(90.0, smoothing=0.0), "cnn": students(90.0, smoothing=0.2)})  # nothing is below 0
    ],
    "placebo-collapsed": [findings([cell(placebo=70.5)]), findings([replace(cell(), placebo=None)])],
    "training-diverged": [findings(), findings([cell(knockoff=18.5)]), findings([cell(ls=9.0, knockoff=8.0)])],
    "placebo-at-edge": [
        with_placebo(0.1),
        with_placebo(0.3, placebo=89.0),  # it is not the control
        findings([replace(cell(), placebo=None)]),
    ],
    "temperature-collapsed": [findings([cell("ctkd", flags={"placebo_temperature_collapsed": 3})])],
}


def test_a_usual_audit_raises_none():
    assert find_flags(findings()) == ()


def test_every_kind_is_tested():
    assert list(RAISED) == list(SILENT) == list(FLAGS)
    assert all(RAISED.values())
    assert all(SILENT.values())


@pytest.mark.parametrize(("name", "found", "sentences"), [(name, *case) for name in RAISED for case in RAISED[name]])
def test_a_flag_is_raised(name, found, sentences):
    raised = [flag for flag in find_flags(found) if flag.name == name]
    assert [flag.sentence for flag in raised] == sentences
    for flag in raised:
        assert flag.severity is FLAGS[name].severity
        assert flag.teacher == "ce"
        assert flag.student in (None, *(cell.student for cell in found.cells))
        assert flag.attack in (None, *(cell.attack for cell in found.cells))


@pytest.mark.parametrize(("name", "found"), [(name, case) for name in SILENT for case in SILENT[name]])
def test_a_flag_is_not_raised(name, found):
    assert [flag.sentence for flag in find_flags(found) if flag.name == name] == []


@pytest.mark.parametrize("name", RAISED)
def test_what_raises_one_flag_raises_no_other(name):
    assert {flag.name for found, _ in RAISED[name] for flag in find_flags(found)} == {name}


def test_cells_and_students_are_named():
    [weak] = find_flags(findings([cell()], plain=[cell()]))
    assert weak.to_json() == {
        "name": "attack-too-weak",
        "severity": "warning",
        "sentence": weak.sentence,
        "teacher": "ce",
        "attack": "kd",
        "student": "mlp",
        "data": "train",
        "docs": "docs/flags/attack-too-weak.md",
    }
    [seen] = find_flags(findings(accuracy=96.0, validation=99.9))
    assert (seen.attack, seen.student, seen.data) == (None, None, None)


def test_kinds_of_images_are_told_apart():
    """Each has LS students of its own, and of its cells some may have come to more seeds than others."""
    fresh = replace(cell(), data="fresh", ls=students(85.0, smoothing=0.4))
    longer = replace(fresh, attack="label-only", ls=replace(fresh.ls, seeds=(*fresh.ls.seeds, 80.0)))
    found = findings([cell(), fresh, longer])
    assert {place: len(ls.seeds) for place, ls in found.references.items()} == {
        ("mlp", "train"): 3,
        ("mlp", "fresh"): 4,
    }
    [flag] = find_flags(found)
    assert flag.sentence == "The LS bar of mlp (data fresh) has smoothing 0.4, the largest that was tried."
    assert (flag.attack, flag.student, flag.data) == (None, "mlp", "fresh")


def test_the_gravest_flags_come_first():
    order = list(Severity)
    places = [order.index(kind.severity) for kind in FLAGS.values()]
    assert places == sorted(places)
    assert all(severity.sentence for severity in Severity)


def test_honest_teachers_are_seldom_suspected():
    """Of 600 honest teachers, with accuracies from 50 to 100% and splits of 100 to 1,000 images."""
    generator = torch.Generator().manual_seed(0)
    tasks = {size: replace(TASK, validation=split(size), test=split(1100 - size)) for size in (100, 300, 1000)}

    def draw(size, share):
        return 100 * (torch.rand(size, generator=generator) < share).double().mean().item()

    suspected = 0
    for task in 200 * list(tasks.values()):
        share = float(torch.rand((), generator=generator) * 0.5 + 0.5)
        validation, test = len(task.validation), len(task.test)
        facts = teacher(draw(test, share), draw(validation, share))
        ls = students(draw(test, share - 0.1), validation=draw(validation, share - 0.1), smoothing=0.1)
        ours = replace(cell(placebo=50.0, outcome=Outcome.LEAKS), ls=ls)
        found = Findings(task, PROTOCOL, facts, (ours,), "plain", (ours,))
        suspected += any(flag.name.startswith("trained-on-") for flag in find_flags(found))
    assert suspected <= 4  # 600 x 2 x 0.001 = 1.2 are expected at most: more than 4 have a probability of 0.008


@pytest.mark.parametrize(("validation", "test"), [(0.6, 0.8), (0.8, 0.95), (0.9, 0.99)])
def test_a_teacher_that_has_learnt_the_test_images_is_found(validation, test):
    found = findings([cell(ls=50.0, placebo=50.0)], accuracy=100 * test, validation=100 * validation)
    assert [flag.name for flag in find_flags(found)] == ["trained-on-test"]


def test_a_whole_audit_writes_its_flags(task, protocol, teachers, tmp_path):
    """A box that rounds, and grids of one value."""

    def api(images):
        return images.flatten(1)[:, 20:23].softmax(1).mul(1e6).round().div(1e6)

    result = audit(api, task, out=tmp_path, protocol=protocol, undefended=teachers / "ce", workers=1)
    found = json.loads((tmp_path / "audit.json").read_text())["flags"]
    assert found == [flag.to_json() for flag in result.flags]
    assert {"answers-rounded", "ls-at-edge"} <= {flag["name"] for flag in found}
    assert not {"answers-truncated", "answers-not-probabilities"} & {flag["name"] for flag in found}
    assert result.teacher.validation_accuracy is not None
    assert math.isfinite(result.teacher.validation_accuracy)


def test_numbers_that_raised_a_flag_are_in_the_result(finished):
    _, audits = finished
    for result in audits:
        written = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert written["teacher"]["answers"]["images"] == len(result.task.validation) + len(result.task.test)
        assert written["teacher"]["validation_accuracy"] == result.teacher.validation_accuracy
        assert [(cell["attack"], cell["student"]) for cell in written["undefended"]["cells"]] == [
            (cell["attack"], cell["student"]) for cell in written["cells"]
        ]
        weak = {(flag["attack"], flag["student"]) for flag in written["flags"] if flag["name"] == "attack-too-weak"}
        pairs = zip(written["cells"], written["undefended"]["cells"], strict=True)
        assert weak == {
            (cell["attack"], cell["student"])
            for cell, plain in pairs
            if "leaks" not in (cell["outcome"], plain["outcome"])
        }
