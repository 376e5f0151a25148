import json
import math
from dataclasses import replace

import pytest
from scipy import stats

from undistill.blackbox import CallableBlackBox, LimitedBlackBox, TopK, defend
from undistill.defences.output import KeepTopK
from undistill.defences.training import CMIM, MCMI, CrossEntropy
from undistill.errors import InputError
from undistill.training import Recipe
from undistill.utility import FIGURES, Group, compare, difference, measure_teacher, origin_of, plan_comparison


def labels(plan):
    return [row.label for row in plan.rows]


def test_seeds_share_a_row(ce, cmim):
    plan = plan_comparison([*cmim[1.0], *ce[::-1], *cmim[0.3]])
    assert labels(plan) == ["cmim:weight=1", "ce", "cmim:weight=0.3"]
    assert [[origin.seed for origin in row.origins] for row in plan.rows] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    assert plan.against == 1
    assert plan.curves == {"cmim": (2, 0)}


def test_whatever_else_differs_is_another_row(ce, teacher, task):
    others = [
        teacher("longer", CrossEntropy(), recipe=Recipe(epochs=80)),
        teacher("fine", CMIM(), start={"fingerprint": "a"}),
        teacher("scratch", CMIM()),
        teacher("sharp", CMIM(powers=(0.25, 1.0), centroids="symmetric")),
        teacher("elsewhere", CMIM(), task_fingerprint="b" * 64),
        defend(ce[0], [KeepTopK(2)], task),
        LimitedBlackBox(ce[0], TopK(2)),
    ]
    plan = plan_comparison([ce[0], *others])
    assert labels(plan) == [
        "ce (ce-0)",
        "ce (longer)",
        "cmim:weight=1 (fine-tuned)",
        "cmim:weight=1 (scratch)",
        "cmim:weight=1,powers=0.25:1,centroids=symmetric",
        "cmim:weight=1 (elsewhere)",
        "ce + top-k (k=2, renormalised=True)",
        "ce + top-k:2",
    ]
    assert plan.against is None  # two kinds of cross entropy
    assert plan.curves == {}


def test_a_defence_on_the_answers_has_a_curve_of_its_own(cmim, task):
    boxes = [cmim[weight][0] for weight in (1.0, 0.3)]
    plan = plan_comparison([*boxes, *(defend(box, [KeepTopK(2)], task) for box in boxes)])
    assert plan.curves == {"cmim": (1, 0), "cmim + top-k (k=2, renormalised=True)": (3, 2)}


def test_the_seed_of_a_defended_teacher_is_the_teachers(ce, task):
    origin = origin_of(defend(ce[2], [KeepTopK(2)], task))
    assert (origin.seed, origin.name, origin.defence) == (2, "ce-2", {"name": "ce"})
    assert math.isclose(origin.training_seconds, 5.5)


def test_the_seconds_of_what_a_teacher_was_built_on_are_told_apart_from_its_own(ce, teacher, task):
    mcmi = teacher("mcmi", MCMI(), 1, needed_seconds=20.0)
    facts = measure_teacher(mcmi, task)
    assert (facts.utility.training_seconds, facts.utility.total_seconds) == (4.5, 24.5)
    assert FIGURES["total_seconds"](facts) == 24.5
    assert facts.to_json()["utility"]["needed_seconds"] == 20.0
    assert origin_of(ce[0]).needed_seconds == 0
    for old in (teacher("old", MCMI()), teacher("older", CMIM(), start={"fingerprint": "a"})):
        assert math.isnan(origin_of(old).needed_seconds), "it was built on others, and does not say for how long"


def test_what_to_compare_with_can_be_named(ce, cmim):
    plan = plan_comparison([*ce, *cmim[1.0]], against=cmim[1.0])
    assert labels(plan) == ["cmim:weight=1", "ce"]
    assert plan.against == 0
    with pytest.raises(InputError, match=r"are of 2 kinds \(ce, cmim:weight=1\); name one, or seeds of one training"):
        plan_comparison([ce[0]], against=[ce[1], cmim[1.0][0]])


def test_provenance_that_is_not_ours_is_no_claim(teacher):
    box = teacher("foreign")
    for made in (
        {"defence": "ce"},
        {"defence": {"weight": 3}},
        {"records": 3, "seed": "x"},
        {"records": [{"loss": 1}], "defence": None},
    ):
        box.classifier.provenance = made
        origin = origin_of(box)
        assert (origin.label, origin.seed, origin.weight) == ("foreign", None, None)
        assert math.isnan(origin.training_seconds)


def test_what_cannot_be_compared_is_refused(ce, teacher, task):
    with pytest.raises(InputError, match="there is no teacher to measure"):
        plan_comparison([])
    with pytest.raises(InputError, match="teachers 'ce-0', 'ce-0' answer alike; give each once"):
        plan_comparison([ce[0], ce[0]])
    again = teacher("again", CrossEntropy(), 0)
    with pytest.raises(InputError, match=r"teachers 'ce-0', 'again' cannot be told apart: .* the same seed \(0\)"):
        plan_comparison([ce[0], again])
    probe = task.test.images[:4] / 255
    apis = [
        CallableBlackBox("api", lambda images, k=k: images.flatten(1)[:, k : k + 3].softmax(1), 3, probe)
        for k in (20, 30)
    ]
    with pytest.raises(InputError, match=r"teachers 'api', 'api' cannot be told apart: .* do not say their seed"):
        plan_comparison(apis)


@pytest.fixture(scope="module")
def comparison(ce, cmim, task):
    return compare(plan_comparison([*cmim[1.0], *cmim[0.3], *ce]), task)


def test_rows_are_means_over_seeds_with_an_interval(comparison):
    for group in comparison.groups:
        for figure in ("accuracy", "ece", "test_supremum"):
            values = group.values(figure)
            expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
            assert group.summary(figure) == pytest.approx((sum(values) / 3, expected.low, expected.high))


def test_differences_are_paired_by_seed(comparison):
    found, reference = comparison.groups[0], comparison.reference
    assert reference.label == "ce"
    for figure in FIGURES:
        if figure != "other_auroc":
            expected = stats.ttest_rel(found.values(figure), reference.values(figure)).confidence_interval(0.95)
            given = difference(found, reference, figure)
            assert given.seeds == (0, 1, 2)
            assert given.interval[1:] == pytest.approx((expected.low, expected.high))
    turned = Group(found.label, found.origins[::-1], found.teachers[::-1])
    assert difference(turned, reference, "ece").interval == pytest.approx(difference(found, reference, "ece").interval)


def only(group, *places):
    return Group(
        group.label, tuple(group.origins[place] for place in places), tuple(group.teachers[place] for place in places)
    )


def test_teachers_of_other_seeds_are_left_out_or_not_paired(comparison):
    found, reference = comparison.groups[0], comparison.reference
    assert difference(only(found, 1, 2), reference, "ece").seeds == (1, 2)
    one = difference(only(found, 1), only(reference, 1), "ece")
    assert (one.seeds, one.interval.low, one.interval.high) == ((1,), -math.inf, math.inf)
    elsewhere = [replace(origin, seed=origin.seed + 2) for origin in reference.origins]
    apart = Group("ce", tuple(elsewhere), reference.teachers)
    unpaired = difference(found, apart, "ece")
    welch = stats.ttest_ind(found.values("ece"), apart.values("ece"), equal_var=False).confidence_interval(0.95)
    assert unpaired.seeds == ()
    assert unpaired.interval[1:] == pytest.approx((welch.low, welch.high))
    assert difference(found, reference, "other_auroc") is None  # nobody was shown another task


def test_json_holds_every_figure(comparison):
    def fail(word):
        pytest.fail(f"{word} is not JSON")

    written = json.loads(json.dumps(comparison.to_json(), allow_nan=False), parse_constant=fail)
    assert written["schema"] == "undistill.utility/1"
    assert written["against"] == "ce"
    assert written["curves"] == [
        {"defence": "cmim", "weights": [0.3, 1.0], "groups": ["cmim:weight=0.3", "cmim:weight=1"]}
    ]
    found, _, reference = written["groups"]
    assert [teacher["seed"] for teacher in found["teachers"]] == [0, 1, 2]
    assert set(found["figures"]) == set(found["differences"]) == set(FIGURES)
    assert found["differences"]["accuracy"]["paired_by_seeds"] == [0, 1, 2]
    assert found["differences"]["other_auroc"] is None
    assert found["figures"]["other_auroc"] == {"mean": None, "low": None, "high": None}
    assert found["training"]["defence"]["weight"] == 1.0
    assert reference["differences"] == {}
