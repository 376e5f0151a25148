"""How an attacker asks: what a plan promises, and that the budget holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undistill.blackbox import Page, Queries, QueryPlan
from undistill.errors import InputError

modes = st.sampled_from(["fresh-views", "cached-views", "clean"])
sizes = {
    "images": st.integers(1, 5000),
    "epochs": st.integers(1, 60),
    "views": st.sampled_from([1, 2]),
    "batch_size": st.integers(1, 200),
}


def asked(plan, sizes):
    """Every question of a training: (page, image)."""
    pages = {
        plan.pages(seed=7, epoch=epoch, view=view) for epoch in range(sizes["epochs"]) for view in range(sizes["views"])
    }
    return len(pages) * plan.images


@given(
    mode=modes,
    cached=st.integers(1, 20),
    budget=st.none() | st.integers(1, 400_000),
    sizes=st.fixed_dictionaries(sizes),
)
def test_a_plan_counts_its_questions_and_keeps_to_the_budget(mode, cached, budget, sizes):
    queries = Queries(mode, cached, budget)
    batch = min(sizes["batch_size"], sizes["images"]) * (1 if mode == "clean" else sizes["views"])
    if budget is not None and budget < batch:
        with pytest.raises(
            InputError, match=f"the query budget is {budget} images, but one batch .* about {batch}; give"
        ):
            queries.plan(**sizes)
        return
    plan = queries.plan(**sizes)
    assert plan.queries == asked(plan, sizes), "the figure is the number of different questions"
    assert budget is None or plan.queries <= budget
    assert 1 <= plan.images <= sizes["images"]
    assert 1 <= plan.passes <= sizes["epochs"]
    if budget is None:
        passes = {"fresh-views": sizes["epochs"], "cached-views": min(cached, sizes["epochs"]), "clean": 1}[mode]
        assert (plan.images, plan.passes) == (sizes["images"], passes)
    elif plan.images < sizes["images"]:
        assert plan.passes == 1, "images are given up last"


@given(mode=modes, budget=st.integers(200, 100_000), more=st.integers(0, 100_000), sizes=st.fixed_dictionaries(sizes))
def test_a_larger_budget_asks_no_less(mode, budget, more, sizes):
    sizes["batch_size"] = min(sizes["batch_size"], 100)
    small, large = (Queries(mode, budget=size).plan(**sizes) for size in (budget, budget + more))
    assert small.queries <= large.queries
    assert small.images <= large.images


def test_pages_are_those_that_the_student_sees():
    fresh = Queries().plan(images=100, epochs=4, views=2, batch_size=10)
    assert [fresh.pages(3, epoch, 0) for epoch in range(4)] == [Page("usual", 3, epoch) for epoch in range(4)]
    assert fresh.pages(3, 2, 1) == Page("strong", 3, 2)
    cached = Queries("cached-views", views=3).plan(images=100, epochs=7, views=1, batch_size=10)
    assert [cached.pages(3, epoch, 0).crops for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert cached.views == 3
    clean = Queries("clean").plan(images=100, epochs=7, views=2, batch_size=10)
    assert {clean.pages(seed, epoch, view) for seed in (0, 1) for epoch in (0, 5) for view in (0, 1)} == {Page("clean")}
    assert (clean.views, clean.queries) == (None, 100), "the student sees new views all the same"
    assert fresh == QueryPlan(images=100, passes=4, clean=False, queries=800)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Queries("cached-views", views=0), "number of cached views is 0, must be at least 1"),
        (lambda: Queries(budget=0), "the query budget is 0 images, must be at least one batch"),
    ],
)
def test_questions_that_cannot_be_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
