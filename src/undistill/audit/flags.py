"""What makes an audit less than it seems, found from its own numbers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from undistill.audit.judgement import Accuracies, Cell, Outcome
from undistill.audit.protocol import Protocol
from undistill.statistics import paired_difference, share_p_value
from undistill.tasks import Task
from undistill.utility import TeacherFacts

# Sums of float32 probabilities, stored as logarithms, stay 20 times below it for a thousand classes.
SUM_NOISE = 1e-5

# What is above is refused (REPEAT_TOLERANCE). One device repeats its arithmetic to the last bit, or nearly so.
REPEAT_NOISE = 1e-6

# What is above 0.01 is refused (ANSWER_TOLERANCE). Arithmetic in half precision is mostly below this, in float32 far.
BATCH_NOISE = 0.002

# Of the tests between splits, and of those of one student against another: an audit makes a handful of them, and a
# false alarm costs trust. What they look for is large: tens of standard errors where a teacher learnt the test images.
SPLIT_ALPHA, STUDENT_ALPHA = 0.001, 0.01

# Where students that saw neither split show half of the teacher's gap between them, the splits differ, not the teacher.
EXPLAINED = 0.5

# Of what an LS student reaches above chance. In the recorded self-checks (80 placebos, most of them above 0.9, see
# docs/self-check.md) two fall below.
PLACEBO_SHARE = 0.75

# Of the same, below which knockoffs have learnt nothing, whatever their losses say.
KNOCKOFF_SHARE = 0.1


class Severity(Enum):
    """How much a flag weighs. The value is the word, ``sentence`` says what it means."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTE = "note"

    @property
    def sentence(self) -> str:
        return {
            Severity.CRITICAL: "the verdict should not be used before this is settled",
            Severity.WARNING: "the verdict says less than it seems to",
            Severity.NOTE: "worth knowing; the verdict stands",
        }[self]


Place = tuple[str, str]
"""A student, and which images the attacker has."""


@dataclass(frozen=True)
class Findings:
    """What an audit measured, as far as flags look at it.

    Args:
        task: the data.
        protocol: what was done.
        teacher: the audited one.
        cells: of the audited teacher.
        undefended: name of the undefended teacher.
        undefended_cells: the same attacks, students and images on the undefended teacher.
        undefended_known: whether that one is known to have been trained on this task with cross entropy.
    """

    task: Task
    protocol: Protocol
    teacher: TeacherFacts
    cells: tuple[Cell, ...]
    undefended: str
    undefended_cells: tuple[Cell, ...]
    undefended_known: bool = True

    @property
    def places(self) -> dict[Place, list[Cell]]:
        """The cells by student and data: those that share their LS students."""
        cells: dict[Place, list[Cell]] = {}
        for cell in self.cells:
            cells.setdefault((cell.student, cell.data), []).append(cell)
        return cells

    @property
    def references(self) -> dict[Place, Accuracies]:
        """The LS students, over as many seeds as any cell was judged on."""
        return {
            place: max((cell.ls for cell in cells), key=lambda ls: len(ls.seeds))
            for place, cells in self.places.items()
        }

    def title(self, student: str, data: str, attack: str | None = None) -> str:
        """What sentences call a cell, or the cells of a student; its data where there are several kinds."""
        words = student if attack is None else f"{attack} with {student}"
        return words if len({cell.data for cell in self.cells}) == 1 else f"{words} (data {data})"


@dataclass(frozen=True)
class Raised:
    """What a finder found: a sentence with values, and where."""

    sentence: str
    attack: str | None = None
    student: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class FlagKind:
    """A kind of flag.

    Args:
        name: stable; also the name of its page.
        severity: how much it weighs.
        summary: when it is raised, in a line.
        find: finds all cases in what an audit measured.
    """

    name: str
    severity: Severity
    summary: str
    find: Callable[[Findings], Iterator[Raised]]

    @property
    def docs(self) -> str:
        """The page that says when it is raised, why it matters and what to do."""
        return f"docs/flags/{self.name}.md"


@dataclass(frozen=True)
class Flag:
    """One reason to doubt an audit.

    Args:
        kind: one of :data:`FLAGS`.
        sentence: what was found, with the values that raised it.
        teacher: the audited one.
        attack: of the cell; None if it is not about one attack.
        student: of the cell; None if it is not about one student.
        data: which images the attacker has, as in the cell; None if it is not about one kind of them.
    """

    kind: FlagKind
    sentence: str
    teacher: str
    attack: str | None = None
    student: str | None = None
    data: str | None = None

    @property
    def name(self) -> str:
        """Of its kind."""
        return self.kind.name

    @property
    def severity(self) -> Severity:
        """Of its kind."""
        return self.kind.severity

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "severity": self.severity.value,
            "sentence": self.sentence,
            "teacher": self.teacher,
            "attack": self.attack,
            "student": self.student,
            "data": self.data,
            "docs": self.kind.docs,
        }


def find_flags(findings: Findings) -> tuple[Flag, ...]:
    """All flags of an audit, the gravest first. They are a function of what was measured, and change no outcome.

    Args:
        findings: what was measured.
    """
    return tuple(
        Flag(kind, raised.sentence, findings.teacher.name, raised.attack, raised.student, raised.data)
        for kind in FLAGS.values()
        for raised in kind.find(findings)
    )


# The teacher's answers.


def _not_probabilities(findings: Findings) -> Iterator[Raised]:
    found = findings.teacher.answers
    if found is None or found.kind != "full" or _grain(findings) is not None:
        return
    if max(1 - found.least_sum, found.largest_sum - 1) > SUM_NOISE:
        yield Raised(
            f"The probabilities of an answer sum to {found.least_sum:.6f} up to {found.largest_sum:.6f}, not to 1, and "
            "rounding does not explain it."
        )


def _truncated(findings: Findings) -> Iterator[Raised]:
    found = findings.teacher.answers
    if found is None or found.kind != "full" or _grain(findings) is not None or not found.with_zeros:
        return
    classes = f"at most {found.most_classes} of {findings.task.num_classes} classes are above zero"
    if found.most_classes == 1:
        classes = "each names one class alone"
    yield Raised(
        f"{found.with_zeros:,} of {found.images:,} answers hold exact zeros ({classes}), but the access says full."
    )


def _rounded(findings: Findings) -> Iterator[Raised]:
    found, grain = findings.teacher.answers, _grain(findings)
    if found is None or grain is None:
        return
    said = f"access says {found.places} decimals" if found.places is not None else "access says nothing of rounding"
    yield Raised(
        f"Every probability {grain} (an answer sums to {found.least_sum:.6g} up to {found.largest_sum:.6g}), but the "
        f"{said}."
    )


def _grain(findings: Findings) -> str | None:
    """What grid all answers lie on, if the access does not say so."""
    found = findings.teacher.answers
    if found is None or found.most_classes == 1 or found.kind == "label":
        return None
    if found.kind == "decimals":  # without a number of places, an output defence says how it rounds
        finer = found.places is not None and found.decimals is not None and found.decimals < found.places
        return f"has at most {found.decimals} decimals" if finer else None
    if found.decimals is not None:
        return f"has at most {found.decimals} decimals"
    return None if found.float_type is None else f"is a {found.float_type} number"


def _not_repeatable(findings: Findings) -> Iterator[Raised]:
    found = findings.teacher.steadiness
    if found is not None and found.repeated > REPEAT_NOISE:
        yield Raised(
            f"Asked again about the same {found.images} images, probabilities differ by up to {found.repeated:.2g} "
            f"(noise of arithmetic: {REPEAT_NOISE:g})."
        )


def _depend_on_batch(findings: Findings) -> Iterator[Raised]:
    found = findings.teacher.steadiness
    if found is not None and found.company > BATCH_NOISE:
        yield Raised(
            f"Probabilities of the same image differ by up to {found.company:.2g} with the batch around it (noise of "
            f"arithmetic: {BATCH_NOISE:g})."
        )


# The teacher's images.


def _trained_on_test(findings: Findings) -> Iterator[Raised]:
    return _trained_on(findings, "test")


def _trained_on_validation(findings: Findings) -> Iterator[Raised]:
    return _trained_on(findings, "validation")


def _trained_on(findings: Findings, suspect: Literal["validation", "test"]) -> Iterator[Raised]:
    """A teacher that is better on one split than on the other, by more than chance and than its students."""
    teacher, task, sign = findings.teacher, findings.task, 1 if suspect == "test" else -1
    if teacher.validation_accuracy is None:
        return
    validation, test = (teacher.validation_accuracy, len(task.validation)), (teacher.accuracy, len(task.test))
    better, worse = (test, validation) if suspect == "test" else (validation, test)
    p = _p_value(better, worse)
    students = max((sign * (ls.mean - ls.validation) for ls in findings.references.values()), default=0.0)
    if p < SPLIT_ALPHA and students < EXPLAINED * (better[0] - worse[0]):
        yield Raised(
            f"Accuracy is {test[0]:.2f}% on test and {validation[0]:.2f}% on validation images (p = {p:.1g}); that of "
            f"LS students differs by {sign * students:+z.2f} points."
        )


def _splits_disagree(findings: Findings) -> Iterator[Raised]:
    sizes = len(findings.task.validation), len(findings.task.test)
    for place, ls in findings.references.items():
        validation, test = (ls.validation, sizes[0]), (ls.mean, sizes[1])
        p = 2 * min(_p_value(validation, test), _p_value(test, validation))
        if p < SPLIT_ALPHA / len(findings.references):
            yield Raised(
                f"LS students of {findings.title(*place)} reach {ls.validation:.2f}% on validation and {ls.mean:.2f}% "
                f"on test images (p = {p:.1g}).",
                None,
                *place,
            )


def _few_images(findings: Findings) -> Iterator[Raised]:
    margin = findings.protocol.margin
    for cell in findings.cells:
        if cell.leak.test_low is None or cell.leak.test_high is None:
            continue
        reach = max(cell.leak.test_high - cell.leak.mean, cell.leak.mean - cell.leak.test_low)
        if reach > margin:
            yield Raised(
                f"Other {len(findings.task.test):,} test images could move the leak of {_title(findings, cell)} by "
                f"{reach:.2f} points (margin: {margin:g}).",
                *cell.key,
            )


def _p_value(better: tuple[float, int], worse: tuple[float, int]) -> float:
    """Of accuracies in percent, each with a number of images. A mean over seeds varies less than one network's."""
    (right, of), (other, of_other) = ((round(accuracy / 100 * count), count) for accuracy, count in (better, worse))
    return share_p_value(right, of, other, of_other)


# The students without a teacher.


def _ls_at_edge(findings: Findings) -> Iterator[Raised]:
    for place, ls in findings.references.items():
        edge = _edge(ls.smoothing, findings.protocol.smoothings)
        if edge is not None:
            yield Raised(
                f"The LS bar of {findings.title(*place)} has smoothing {ls.smoothing:g}, {edge}.", None, *place
            )


def _placebo_at_edge(findings: Findings) -> Iterator[Raised]:
    protocol = findings.protocol
    tried = {grid[0].name: [s for _, s in protocol.placebo_settings(grid)] for grid in protocol.attacks}
    for cell in findings.cells:
        if cell.placebo is None or cell.control != "placebo":
            continue
        edge = _edge(cell.placebo.smoothing, tried[cell.attack])
        if edge is not None:
            yield Raised(
                f"The placebo that is the better control of {_title(findings, cell)} has smoothing "
                f"{cell.placebo.smoothing:g}, {edge}.",
                *cell.key,
            )


def _edge(chosen: float | None, grid: Sequence[float]) -> str | None:
    """Which edge of its grid a smoothing lies on. There is nothing below 0, so that is none."""
    if len(set(grid)) == 1:
        return "the only one that was tried"
    if chosen == max(grid):
        return "the largest that was tried"
    return "the smallest that was tried" if chosen == min(grid) > 0 else None


def _placebo_collapsed(findings: Findings) -> Iterator[Raised]:
    chance = 100 / findings.task.num_classes
    for cell in findings.cells:
        if cell.placebo is None:
            continue
        if cell.placebo.mean - chance < PLACEBO_SHARE * (cell.ls.mean - chance):
            yield Raised(
                f"The placebo of {_title(findings, cell)} reaches {cell.placebo.mean:.2f}%, the LS student "
                f"{cell.ls.mean:.2f}% (chance: {chance:.3g}%).",
                *cell.key,
            )


def _student_above_teacher(findings: Findings) -> Iterator[Raised]:
    accuracy = findings.teacher.accuracy
    for place, cells in findings.places.items():
        controls = [control for cell in cells for control in cell.controls.values()]
        best = max(controls, key=lambda control: control.validation)  # on validation, so that chance has no say
        if paired_difference(best.seeds, [accuracy] * len(best.seeds)).lower(STUDENT_ALPHA) > 0:
            yield Raised(
                f"{findings.title(*place)} reaches {best.mean:.2f}% without a teacher, the teacher itself "
                f"{accuracy:.2f}%.",
                None,
                *place,
            )


# The attacks.


def _too_weak(findings: Findings) -> Iterator[Raised]:
    plain = {cell.key: cell for cell in findings.undefended_cells}
    for cell in findings.cells:
        if cell.outcome is not Outcome.LEAKS and plain[cell.key].outcome is not Outcome.LEAKS:
            yield Raised(
                f"{_title(findings, cell)} gains {plain[cell.key].leak} points from the undefended teacher "
                f"({findings.undefended}).",
                *cell.key,
            )


def _undefended_unknown(findings: Findings) -> Iterator[Raised]:
    if not findings.undefended_known:
        yield Raised(
            f"Which attacks count as able was decided by {findings.undefended}, of which nothing says that it was "
            "trained on this task with cross entropy."
        )


def _labels_beat_soft_answers(findings: Findings) -> Iterator[Raised]:
    hard = {grid[0].name for grid in findings.protocol.attacks if grid[0].label_only}
    if findings.teacher.answers is not None and findings.teacher.answers.most_classes == 1:
        return
    for place, cells in findings.places.items():
        labels = [cell for cell in cells if cell.attack in hard]
        soft = [cell for cell in cells if cell.attack not in hard]
        if not labels or not soft:
            continue
        label = max(labels, key=lambda cell: cell.knockoff.validation)
        best = max(soft, key=lambda cell: cell.knockoff.mean)  # on test, which favours the soft answers
        seeds = min(len(label.knockoff.seeds), len(best.knockoff.seeds))
        gap = paired_difference(label.knockoff.seeds[:seeds], best.knockoff.seeds[:seeds])
        if gap.lower(STUDENT_ALPHA) > 0:
            yield Raised(
                f"With {findings.title(*place)}, {label.attack} reaches {label.knockoff.mean:.2f}%, and the best of "
                f"{len(soft)} soft attacks ({best.attack}) {best.knockoff.mean:.2f}%.",
                *label.key,
            )


def _diverged(findings: Findings) -> Iterator[Raised]:
    chance = 100 / findings.task.num_classes
    for cell in findings.cells:
        learnt, bar = cell.knockoff.mean - chance, KNOCKOFF_SHARE * (cell.ls.mean - chance)
        if "diverged" not in cell.flags and bar > 0 and learnt < bar:
            yield Raised(
                f"The knockoffs of {_title(findings, cell)} reach {cell.knockoff.mean:.2f}%, the LS student "
                f"{cell.ls.mean:.2f}% (chance: {chance:.3g}%): they have learnt nothing, with finite losses.",
                *cell.key,
            )
        for name, what in (("diverged", "knockoffs"), ("placebo_diverged", "placebos")):
            if name in cell.flags:
                count = f"{cell.flags[name]} of {len(cell.knockoff.seeds)} {what}"
                yield Raised(f"The loss became NaN in {count} of {_title(findings, cell)}.", *cell.key)


def _temperature_collapsed(findings: Findings) -> Iterator[Raised]:
    for cell in findings.cells:
        if "temperature_collapsed" in cell.flags:
            yield Raised(
                f"The temperature stayed at an end of its range in {cell.flags['temperature_collapsed']} of "
                f"{len(cell.knockoff.seeds)} knockoffs of {_title(findings, cell)}.",
                *cell.key,
            )


def _title(findings: Findings, cell: Cell) -> str:
    return findings.title(cell.student, cell.data, cell.attack)


_KINDS = (
    FlagKind(
        "trained-on-test",
        Severity.CRITICAL,
        "the teacher is better on test than on validation images, beyond chance and beyond its students",
        _trained_on_test,
    ),
    FlagKind(
        "student-above-teacher",
        Severity.CRITICAL,
        "students that never saw the teacher are more accurate than it",
        _student_above_teacher,
    ),
    FlagKind(
        "trained-on-validation",
        Severity.WARNING,
        "the teacher is better on validation than on test images, beyond chance and beyond its students",
        _trained_on_validation,
    ),
    FlagKind(
        "validation-and-test-disagree",
        Severity.WARNING,
        "students are better on one of the two splits, beyond chance",
        _splits_disagree,
    ),
    FlagKind(
        "few-test-images",
        Severity.WARNING,
        "another set of as many test images could move a leak by more than the margin",
        _few_images,
    ),
    FlagKind(
        "answers-not-probabilities",
        Severity.WARNING,
        "the teacher's probabilities do not quite sum to 1",
        _not_probabilities,
    ),
    FlagKind(
        "answers-truncated",
        Severity.WARNING,
        "the teacher's answers hold exact zeros that its access does not explain",
        _truncated,
    ),
    FlagKind(
        "answers-rounded",
        Severity.WARNING,
        "the teacher's probabilities are rounded to decimals, or to a short float, and its access does not say so",
        _rounded,
    ),
    FlagKind(
        "answers-not-repeatable",
        Severity.WARNING,
        "the teacher answers the same question a little differently each time",
        _not_repeatable,
    ),
    FlagKind(
        "answers-depend-on-batch",
        Severity.WARNING,
        "the teacher's answer to an image depends a little on the batch that it comes in",
        _depend_on_batch,
    ),
    FlagKind(
        "attack-too-weak",
        Severity.WARNING,
        "the attack does not gain from the undefended teacher either",
        _too_weak,
    ),
    FlagKind(
        "undefended-unknown",
        Severity.WARNING,
        "the undefended teacher was given, and is not known to be one",
        _undefended_unknown,
    ),
    FlagKind(
        "labels-beat-soft-answers",
        Severity.WARNING,
        "an attack that reads the predicted class alone beats every attack that reads probabilities",
        _labels_beat_soft_answers,
    ),
    FlagKind(
        "ls-at-edge",
        Severity.WARNING,
        "the best label smoothing is the last of its grid",
        _ls_at_edge,
    ),
    FlagKind(
        "placebo-collapsed",
        Severity.WARNING,
        "a placebo is far below the LS student",
        _placebo_collapsed,
    ),
    FlagKind(
        "training-diverged",
        Severity.WARNING,
        "trainings of a cell ended in NaN, or its knockoffs at chance",
        _diverged,
    ),
    FlagKind(
        "placebo-at-edge",
        Severity.NOTE,
        "the smoothing of a placebo that is the better control is the first or last of its grid",
        _placebo_at_edge,
    ),
    FlagKind(
        "temperature-collapsed",
        Severity.NOTE,
        "the learnt temperature of an attack stayed at an end of its range",
        _temperature_collapsed,
    ),
)

FLAGS: dict[str, FlagKind] = {kind.name: kind for kind in _KINDS}
"""All kinds of flags by name, in the order of their severity."""
