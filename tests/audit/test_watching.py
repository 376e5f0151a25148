"""What an audit says while it runs: its state in ``audit.json``, and what a watcher is told."""

import json
from copy import copy
from dataclasses import replace

import pytest

from undistill.audit import SilentWatcher, audit, audit_all
from undistill.audit import watching as watching_room
from undistill.audit.watching import Diary
from undistill.tasks import FreshImages, TrainingImages, load_task
from undistill.training import Recipe, SilentProgress


@pytest.fixture
def spy(recorder, tmp_path, monkeypatch):
    """A recorder that reads ``audit.json`` whenever it is told of a trial, which is written each time."""
    monkeypatch.setattr(watching_room, "SECONDS_BETWEEN_WRITES", 0.0)
    recorder.seen = []
    told = recorder.trial

    def trial(trial, outcome):
        recorder.seen.append(json.loads((tmp_path / "audit.json").read_text()))
        told(trial, outcome)

    recorder.trial = trial
    return recorder


def test_audit_json_is_whole_and_says_how_far_the_audit_is(task, protocol, teachers, tmp_path, spy):
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1, watcher=spy)
    assert [found["state"] for found in spy.seen] == ["running"] * 6
    assert [found["progress"] for found in spy.seen] == [
        {"stage": "judge on test", "trials": 6, "ended": ended} for ended in range(6)
    ]
    finished = json.loads((tmp_path / "audit.json").read_text())
    assert finished["state"] == "finished"
    for name in ("schema", "task", "protocol"):
        assert spy.seen[0][name] == finished[name]
    assert spy.seen[0]["teacher"] == {name: finished["teacher"][name] for name in ("name", "fingerprint")}
    told = spy.cells[finished["teacher"]["fingerprint"]]
    assert [cell.outcome.value for cell in told] == [cell["outcome"] for cell in finished["cells"]]


def test_the_undefended_teachers_cells_are_told_and_not_written(protocol, counting_box, tmp_path, spy):
    task = load_task("digits", classes=3, fresh=0.4)
    both = replace(protocol, data=(TrainingImages(), FreshImages()), seeds=3, looks=(2,), margin=0.01)
    audited, plain = counting_box, copy(counting_box)
    plain.fingerprint = "a" * 64
    held = []
    judged = spy.judged

    def tell(teacher, cells):
        held.append(teacher)
        judged(teacher, cells)

    spy.judged = tell
    audit(audited, task, out=tmp_path, protocol=both, undefended=plain, workers=1, watcher=spy)
    assert held[:2] == [audited.fingerprint, plain.fingerprint]
    assert {teacher: [cell.data for cell in cells] for teacher, cells in spy.cells.items()} == {
        fingerprint: ["train", "fresh"] for fingerprint in (audited.fingerprint, plain.fingerprint)
    }
    assert spy.seen[0]["cells"] == []
    assert [(cell["attack"], cell["student"], cell["data"]) for cell in spy.seen[-1]["cells"]] == [
        ("kd", "mlp-4", "train"),
        ("kd", "mlp-4", "fresh"),
    ]


def test_the_cells_of_a_stage_are_those_of_the_file_s_own_teacher(finished, tmp_path):
    cell = finished[1][0].cells[0]
    diary = Diary(SilentWatcher(), {tmp_path / "audit.json": {"teacher": {"name": "ce", "fingerprint": "a" * 64}}})
    diary.judged("a" * 64, [cell])
    diary.judged("b" * 64, [])  # the undefended teacher, told last
    diary.training("mlp-4 with ce", Recipe(), 100)
    assert json.loads((tmp_path / "audit.json").read_text())["cells"] == [
        {"attack": "kd", "student": "mlp-4", "data": "train", "outcome": cell.outcome.value}
    ]


def test_the_state_is_there_while_the_undefended_teacher_is_trained(task, protocol, teachers, tmp_path, recorder):
    seen = []
    told = recorder.training

    def training(title, recipe, images):
        told(title, recipe, images)

        def show(done):
            seen.append(json.loads((tmp_path / "audit.json").read_text()))
            return SilentProgress()

        return show

    recorder.training = training
    audit(teachers / "cmim", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    [state] = seen
    assert state["state"] == "running"
    assert state["teacher"]["name"] == "cmim"
    assert state["progress"] == {"stage": "train mlp-4 with ce", "trials": 0, "ended": 0}
    assert state["cells"] == []
    found = (tmp_path / "audit.json").read_bytes()
    recorder.stage = lambda stage: None if (tmp_path / "audit.json").read_bytes() == found else pytest.fail(stage.title)
    audit(teachers / "cmim", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    assert len(seen) == 1, "it is not trained again"


def test_a_finished_result_is_not_touched_where_nothing_is_missing(task, protocol, teachers, tmp_path, recorder):
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1)
    found = (tmp_path / "audit.json").read_bytes()
    read = recorder.stage

    def stage(stage):
        assert (tmp_path / "audit.json").read_bytes() == found
        read(stage)

    recorder.stage = stage
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    assert recorder.stages
    assert recorder.trials == []
    assert (tmp_path / "audit.json").read_bytes() == found


def test_a_state_that_cannot_be_written_does_not_stop_the_audit(task, protocol, teachers, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watching_room, "write_json", full)
    result = audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1)
    assert json.loads((tmp_path / "audit.json").read_text())["sentence"] == result.sentence


def test_damage_in_mid_audit_is_told_and_mended(task, choosing, teachers, tmp_path, recorder):
    audit_all([teachers / "ce"], task, out=tmp_path, protocol=choosing, workers=1)
    found = (tmp_path / "audit.json").read_bytes()
    trials = sorted((tmp_path / "trials").glob("*.json"))
    for path in trials[::3]:
        path.write_bytes(path.read_bytes()[:-30])
    audit_all([teachers / "ce"], task, out=tmp_path, protocol=choosing, workers=1, watcher=recorder)
    assert len(recorder.notes) == len(recorder.trials) == len(trials[::3])
    assert all("is damaged" in note and "runs again" in note for note in recorder.notes)
    assert (tmp_path / "audit.json").read_bytes() == found


def test_what_was_measured_of_a_teacher_is_measured_once(task, protocol, tmp_path, counting_box, teachers):
    given = {"out": tmp_path, "protocol": protocol, "undefended": teachers / "ce", "workers": 1}
    first = audit(counting_box, task, **given)
    asked = counting_box.asked
    again = audit(counting_box, task, **given)
    assert counting_box.asked - asked < len(task.test), "only the check that answers are the same each time"
    assert again.teacher.to_json() == first.teacher.to_json()
    assert again.undefended == first.undefended
    for split in ("train", "test"):
        assert getattr(again.teacher, split).powers == getattr(first.teacher, split).powers
    kept = tmp_path / "measured" / f"{counting_box.fingerprint[:16]}.safetensors"
    kept.write_bytes(kept.read_bytes()[:50])
    assert audit(counting_box, task, **given).teacher.to_json() == first.teacher.to_json()
    counting_box.name = "another"
    assert audit(counting_box, task, **given | {"out": tmp_path / "b"}).teacher.name == "another"
