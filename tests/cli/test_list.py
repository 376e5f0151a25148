import json

import pytest

from undistill.attacks import ACCESS_KINDS, AS_RELEASED, ATTACKS
from undistill.audit import FLAGS
from undistill.cli.methods import NAMED_ATTACKS
from undistill.defences.output import OUTPUT_DEFENCES
from undistill.defences.training import DEFENCES
from undistill.models import MODELS
from undistill.tasks import TASKS

REGISTRIES = {
    "tasks": TASKS,
    "models": MODELS,
    "attacks": NAMED_ATTACKS,
    "defences": DEFENCES | OUTPUT_DEFENCES,
    "flags": FLAGS,
}


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


def test_every_attack_gives_the_same_facts(run):
    listed = json.loads(run("list", "attacks", "--json").out)
    assert {entry["name"] for entry in listed if not entry["as_released"]} == ATTACKS.keys()
    assert {entry["name"] for entry in listed if entry["as_released"]} == AS_RELEASED.keys()
    assert len({frozenset(entry) for entry in listed}) == 1
    for entry in listed:
        method = NAMED_ATTACKS[entry["name"]]
        assert list(entry["access"]) == list(ACCESS_KINDS)
        for kind, sentence in entry["access"].items():
            assert sentence == method.access.get(kind, "refused")
        cost = entry["cost"]
        assert cost["queries_per_image_epoch"] in ((0,) if not method.needs_images else (1, 2))
        assert (cost["own_queries"] == 0) == method.needs_images
        assert cost["outputs_per_step"] >= cost["views_per_step"] >= 1
        assert cost["trainings"] >= 1
        assert entry["placebo"] is None or entry["placebo"]
        assert isinstance(entry["slow"], bool)
        assert entry["grid"]
        assert all(setting.keys() == entry["settings"].keys() for setting in entry["grid"])
        for value in entry["settings"].values():
            assert not isinstance(value, dict) or value["name"] in NAMED_ATTACKS


def test_defences_say_of_which_kind_they_are_and_what_they_keep(run):
    listed = {entry["name"]: entry for entry in json.loads(run("list", "defences", "--json").out)}
    assert len(listed) == len(DEFENCES) + len(OUTPUT_DEFENCES), "no two share a name"
    assert {entry["kind"] for entry in listed.values()} == {"training", "output"}
    assert all(entry["source"] for entry in listed.values())
    for name in OUTPUT_DEFENCES:
        entry = listed[name]
        assert {type(entry[claim]) for claim in ("keeps_top1", "idempotent", "sums_to_1", "learns")} == {bool}
        assert entry["serves"] in ACCESS_KINDS
    assert (listed["top-k"]["keeps_top1"], listed["rounding"]["keeps_top1"]) == (True, False)
    assert listed["top-k"]["settings"] == {"k": 2, "renormalised": True}
    assert {name for name, entry in listed.items() if entry.get("needs_normal")} == {"nasty", "ast", "mcmi"}
    assert "PGD" in listed["ast"]["runs"]
    assert "runs itself: a normal teacher; PGD" in " ".join(run("list", "defences").out.split())
    assert "output: k=2, renormalised=True" in run("list", "defences").out


def test_flags_say_how_grave_they_are_and_where_they_are_explained(run):
    listed = json.loads(run("list", "flags", "--json").out)
    assert {entry["kind"] for entry in listed} == {"critical", "warning", "note"}
    assert all(entry["docs"] == f"docs/flags/{entry['name']}.md" for entry in listed)
