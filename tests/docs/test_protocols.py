"""The pages of the frozen versions say what the code does."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks.protocols import TEACHERS, page, queries_in_words, recipe_rows, trials
from undistill.audit import VERSIONS
from undistill.audit.run import Plan
from undistill.blackbox import BlackBox
from undistill.tasks import load_task
from undistill.training import Recipe

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_has_the_page_that_the_code_makes(name):
    assert (DOCS / "protocols" / f"{name}.md").read_text() == page(name), "run: python -m benchmarks.protocols"


def test_rows_of_recipes_hold_every_field_and_hide_what_is_not_used():
    rows = recipe_rows([Recipe(epochs=7), Recipe(schedule="step", clip_norm=2.0, weight_decay=1e-4)])
    held = {
        name.strip(" `"): [value.strip() for value in values] for _, name, *values, _ in (r.split("|") for r in rows)
    }
    assert list(held) == [field.name for field in fields(Recipe)]
    assert held["epochs"] == ["7", "40"]
    assert held["weight_decay"] == ["0.0005", "0.0001"]
    assert held["warmup"] == ["0.2", "-"]
    assert held["milestones"] == ["-", "0.3, 0.6, 0.8"]
    assert held["clip_norm"] == ["0", "2"]


def test_the_queries_of_a_page_are_those_of_a_query_plan():
    protocol = VERSIONS["plus"]((3, 32, 32))
    said = queries_in_words(protocol)
    recipe, images = protocol.recipe, 1000
    for views in {grid[0].views for grid in protocol.attacks}:
        plan = protocol.queries.plan(images=images, epochs=recipe.epochs, views=views, batch_size=recipe.batch_size)
        assert f"{plan.queries // images} n" in said
    assert said.endswith("for `mlkd`, `lskd-mlkd`")


@pytest.mark.parametrize("name", VERSIONS)
def test_the_overview_names_its_numbers(name):
    protocol = VERSIONS[name]((3, 32, 32))
    [row] = [line for line in (DOCS / "protocols.md").read_text().splitlines() if line.startswith(f"| [`{name}`]")]
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    margin = f"{protocol.margin:g} {'point' if protocol.margin == 1 else 'points'}"
    looks = f"{protocol.all_looks[0]} to {protocol.seeds}"
    assert cells == [str(len(protocol.attacks)), str(len(protocol.students)), looks, margin]


class Silent(BlackBox):
    def __init__(self, name):
        self.name, self.fingerprint = name, name * 64

    def log_probs(self, images):
        raise AssertionError("nothing is asked while planning")


@pytest.mark.parametrize("regimes", [1, 2])
def test_the_numbers_of_trials_are_those_of_a_plan(regimes):
    task = load_task("digits", classes=3, fresh=0.4 if regimes == 2 else 0.0)
    protocol = replace(VERSIONS["quick"](task.input_shape), tuning_seeds=2)
    plan = Plan(task, protocol, [Silent(name) for name in "ab"[:TEACHERS]])
    assert (len(plan.tuning()), len(plan.smallest())) == trials(protocol, 3, regimes)
    assert len(plan.largest()) == trials(protocol, protocol.seeds, regimes)[1]
