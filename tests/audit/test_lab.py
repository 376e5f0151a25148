"""What an attacker has at hand, and what it costs him: the meter, the budget, the views."""

from dataclasses import dataclass, replace

import pytest
import torch

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Trial, run_trial
from undistill.audit.lab import AuditLab
from undistill.blackbox import AnswerCache, LimitedBlackBox, Queries, TopK
from undistill.errors import InputError
from undistill.tasks import OtherImages, load_task
from undistill.training import Recipe

RECIPE = Recipe(epochs=3, batch_size=25, learning_rate=0.1)


@dataclass(frozen=True)
class TwoViews(KD):
    """Learns both views."""

    views = 2
    blocks = 2

    def loss(self, logits, log_probs, labels):
        usual, strong = (
            super(TwoViews, self).loss(z, p, labels) for z, p in zip(logits.chunk(2), log_probs.chunk(2), strict=True)
        )
        return usual + strong


@pytest.fixture
def lab(task, counting_box, tmp_path):
    def make(attack=KD(4.0), queries=Queries(), box=counting_box, task=task, recipe=RECIPE, **more):  # noqa: B008
        return AuditLab(
            task, "mlp-4", recipe, 5, queries, attack, cache=AnswerCache(tmp_path / "answers"), box=box, **more
        )

    return make


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        (Queries(), 3 * 150),
        (Queries("cached-views", views=2), 2 * 150),
        (Queries("cached-views", views=8), 3 * 150),
        (Queries("clean"), 150),
        (Queries(budget=449), 2 * 150),
        (Queries(budget=100), 100),
        (Queries("clean", budget=100), 100),
    ],
    ids=str,
)
def test_the_meter_counts_every_image_once(lab, counting_box, task, queries, expected):
    made = lab(queries=queries)
    made.fit(KD(4.0), made.answers)
    assert made.queries == counting_box.asked == expected
    made.fit(KD(2.0), made.answers, generation=1)
    assert made.queries == counting_box.asked == expected, "answers that are used again are not counted again"
    again = lab(queries=queries)
    again.fit(KD(4.0), again.answers)
    assert (again.queries, counting_box.asked) == (expected, expected), "a cache that others filled saves questions"


@pytest.mark.parametrize(
    ("queries", "expected"), [(Queries(), 900), (Queries("clean"), 150), (Queries(budget=899), 600)]
)
def test_two_views_are_two_questions(lab, counting_box, queries, expected):
    made = lab(attack=TwoViews(), queries=queries)
    made.fit(TwoViews(), made.answers)
    assert made.queries == counting_box.asked == expected


def test_what_the_attack_makes_up_is_counted_and_limited(lab, counting_box):
    made = lab(queries=Queries(budget=60))
    made.ask(torch.rand(50, 1, 8, 8))
    assert made.queries == counting_box.asked == 50
    with pytest.raises(InputError, match="the query budget of 60 images is spent after 50; give the attack a smaller"):
        made.ask(torch.rand(11, 1, 8, 8))
    assert counting_box.asked == 50


def test_a_small_budget_keeps_a_stratified_part_and_its_labels(lab, task):
    made = lab(queries=Queries(budget=60))
    assert len(made.labels) == 60
    assert torch.bincount(made.labels).tolist() == [20, 20, 20]
    assert lab(queries=Queries(budget=60)).task.fingerprint == made.task.fingerprint


def test_a_placebo_sees_what_the_knockoff_sees(lab, task):
    stand_in = torch.zeros(150, 3)
    made = lab(queries=Queries("cached-views", views=1), box=None, stand_in=stand_in)
    assert made.answers(0, 0) is stand_in
    assert made.queries == 0
    assert made.access == "full"
    with pytest.raises(InputError, match="a placebo has no teacher to ask"):
        made.ask(torch.rand(1, 1, 8, 8))


def test_cached_views_are_seen_with_their_own_answers(lab, task, counting_box):
    """A student of answers that belong to other crops would learn something else."""
    made = lab(queries=Queries("cached-views", views=2))
    seen = [made.answers(epoch, 0) for epoch in range(3)]
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    for epoch in range(3):
        images = task.view(5, 9, crops=epoch % 2).images(torch.arange(150))
        torch.testing.assert_close(seen[epoch], counting_box.log_probs(images.float() / 255))


def test_access_is_that_of_the_box(lab, counting_box):
    made = lab(box=LimitedBlackBox(counting_box, TopK(2)))
    assert made.access == "top-k"
    log_probs = torch.log_softmax(torch.randn(4, 3), 1)
    assert torch.equal(made.limit(log_probs), TopK(2).apply(log_probs))
    assert set((made.answers(0, 0) > -torch.inf).sum(1).tolist()) == {2}
    assert lab(box=None, stand_in=torch.zeros(150, 3)).limit(log_probs) is log_probs

    @dataclass(frozen=True)
    class FullOnly(KD):
        name = "full-only"
        access = {"full": "as published"}  # noqa: RUF012

    with pytest.raises(InputError, match=r"attack full-only cannot use access 'top-k' \(it can use: full\)"):
        lab(attack=FullOnly(), box=LimitedBlackBox(counting_box, TopK(2)))


def test_an_attack_that_needs_labels_is_refused_where_there_are_none(lab, task):
    unlabelled = OtherImages(load_task("digits", classes=["7", "8", "9"])).attackers_task(task)
    with pytest.raises(InputError, match="attack kd needs labels, but the images of 'digits for digits' have none"):
        lab(task=unlabelled)
    lab(attack=KDWithoutLabels(), task=unlabelled)


def test_a_student_can_be_the_teacher_of_the_next(lab, task):
    made = lab()
    student = made.fit(KD(4.0), made.answers, generation=1)
    answers = made.answers_of(student)(1, 0)
    with torch.no_grad():
        expected = torch.log_softmax(student(task.view(5, 1).images(torch.arange(150)).float() / 255), 1)
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-5)


def test_generations_start_from_weights_of_their_own(lab):
    made = lab(recipe=replace(RECIPE, epochs=1, learning_rate=1e-12))
    first, second, again = (made.fit(KD(4.0), made.answers, generation) for generation in (0, 1, 1))
    fresh = made.fresh_student()
    gaps = [
        max((a - b).abs().max().item() for a, b in zip(student.parameters(), other.parameters(), strict=True))
        for student, other in ((first, fresh), (second, fresh), (second, again))
    ]
    assert gaps[0] < 1e-6 < gaps[1]
    assert gaps[2] == 0


@pytest.mark.parametrize(
    "queries", [Queries(), Queries("clean"), Queries("cached-views", 2), Queries(budget=100)], ids=str
)
def test_an_outcome_names_its_queries(task, counting_box, tmp_path, queries):
    trial = Trial(task.fingerprint, "mlp-4", RECIPE, 1, KD(4.0), teacher=counting_box.fingerprint, queries=queries)
    outcomes = [
        run_trial(trial, {task.fingerprint: task}, {counting_box.fingerprint: counting_box}, AnswerCache(tmp_path))
        for _ in range(2)
    ]
    assert counting_box.asked == outcomes[0]["queries"] + len(task.test), "the test images are the judge's question"
    assert outcomes[0]["queries"] == outcomes[1]["queries"]
    assert outcomes[0]["loss"] == outcomes[1]["loss"]


def test_a_training_that_diverges_is_an_outcome_and_not_the_end_of_the_audit(task, counting_box, tmp_path):
    recipe = Recipe(epochs=2, batch_size=25, learning_rate=1e12)
    trial = Trial(task.fingerprint, "mlp-4", recipe, seed=0, attack=KD(), teacher=counting_box.fingerprint)
    outcome = run_trial(
        trial,
        {task.fingerprint: task},
        {counting_box.fingerprint: counting_box},
        AnswerCache(tmp_path),
    )
    assert "became" in outcome["notes"]["diverged"]
    assert outcome["loss"] == []
    assert 0 <= outcome["accuracy"] <= 100
