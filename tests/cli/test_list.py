import json

import pytest

from undistill.attacks import ATTACKS
from undistill.defences.training import DEFENCES
from undistill.models import MODELS
from undistill.tasks import TASKS

REGISTRIES = {"tasks": TASKS, "models": MODELS, "attacks": ATTACKS, "defences": DEFENCES}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_json_is_a_list_of_objects_with_names(run, kind):
    status, out, _ = run("list", kind, "--json")
    entries = json.loads(out)
    assert status == 0
    assert [entry["name"] for entry in entries] == list(REGISTRIES[kind])
    assert all(entry["summary"] for entry in entries)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_table_holds_every_name_in_80_columns(run, kind):
    status, out, _ = run("list", kind)
    assert status == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    assert all(name in out for name in REGISTRIES[kind])


def test_attacks_say_what_they_need_and_what_is_tried(run):
    [kd, without] = json.loads(run("list", "attacks", "--json").out)[:2]
    assert (kd["needs_labels"], without["needs_labels"]) == (True, False)
    assert kd["settings"] == {"temperature": 4.0, "hard": 0.1}
    assert [entry["temperature"] for entry in kd["grid"]] == [1.0, 4.0, 20.0]
    assert "1503.02531" in kd["source"]
