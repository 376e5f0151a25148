"""The pages of the frozen versions say what the code does."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.protocols import TEACHERS, page, trials
from undistill.audit import VERSIONS
from undistill.audit.run import Plan
from undistill.blackbox import BlackBox
from undistill.tasks import load_task

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_has_the_page_that_the_code_makes(name):
    assert (DOCS / "protocols" / f"{name}.md").read_text() == page(name), "run: python -m benchmarks.protocols"


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
