import errno
import importlib
import json
import os
from dataclasses import asdict, replace

import pytest
import torch

from undistill.attacks import KD
from undistill.audit import SCHEMA, Outcome, Protocol, Store, Undefended, Verdict, audit, audit_all, audit_path
from undistill.audit.execution import Pool
from undistill.audit.packing import pack
from undistill.audit.run import Plan
from undistill.blackbox import CHECKED_IMAGES, AnswerCache, open_black_box
from undistill.blackbox.box import QUERY_BATCH
from undistill.errors import InputError
from undistill.models import load_checkpoint, save_checkpoint
from undistill.tasks import load_task
from undistill.training import Defaults, Recipe

EXECUTION, RUN = (importlib.import_module(f"undistill.audit.{name}") for name in ("execution", "run"))


EARLIER = '{"task": "a", "teachers": {}, "alone": null, "attacker": {"access": "full", "data": {}}}'


def soft(images):
    return images.flatten(1)[:, 20:23] * 3


def gives_zeros(images):
    return torch.eye(3)[images.flatten(1)[:, 20:23].argmax(1)]


# What is chosen, and what is run.


@pytest.mark.parametrize("best", [0, 1, 2])
def test_settings_are_chosen_on_validation_alone(task, tmp_path, counting_box, best):
    grid = (KD(1.0), KD(4.0), KD(20.0))
    protocol = Protocol(
        ("mlp-4",), Recipe(), (grid,), smoothings=(0.0, 0.1, 0.2), placebo_smoothings=(0.1,), seeds=2, tuning_seeds=2
    )
    plan, store = Plan(task, protocol, [counting_box]), Store(tmp_path)
    order = {trial: index for index, trial in enumerate(dict.fromkeys(replace(t, seed=0) for t in plan.tuning()))}
    for trial in plan.tuning():
        place = order[replace(trial, seed=0)] % 3
        validation = 50.0 + (place == best)
        # The other settings are better on the test split, and one of them on the first tuning seed.
        validation += 0.5 * (place == (best + 1) % 3) * (1 if trial.seed == protocol.chosen_seeds[0] else -1)
        store.write(trial, {"validation_accuracy": validation, "accuracy": 99.0 - 40 * (place == best)})
    judged = plan.look(store).due
    assert {trial.seed for trial in judged} == set(protocol.judged_seeds)
    assert {trial.smoothing for trial in judged if trial.role == "reference"} == {protocol.smoothings[best]}
    assert {trial.attack for trial in judged if trial.role == "placebo"} == {grid[best]}
    assert {trial.attack for trial in judged if trial.role == "knockoff"} == {grid[best]}
    assert len(judged) == 6


def test_a_single_setting_is_not_tuned(task, protocol, tmp_path, counting_box):
    plan = Plan(task, protocol, [counting_box])
    assert plan.tuning() == []
    assert [trial.role for trial in plan.look(Store(tmp_path)).due] == [
        role for role in ("reference", "placebo", "knockoff") for _ in protocol.judged_seeds
    ]


def test_only_what_is_missing_runs_again(task, protocol, teachers, tmp_path, recorder, stored_outcomes):
    first = audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    assert len(recorder.trials) == 6
    assert recorder.stages[-1][1:] == (6, 0)
    before, found = stored_outcomes(tmp_path), (tmp_path / "audit.json").read_bytes()
    assert len(before) == 6
    gone = [recorder.trials[1], recorder.trials[4]]
    for trial in gone:
        (tmp_path / "trials" / f"{trial.key}.json").unlink()
    recorder.trials.clear()
    again = audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    assert recorder.trials == gone
    assert recorder.stages[-1][1:] == (6, 4)
    assert stored_outcomes(tmp_path) == before
    assert (tmp_path / "audit.json").read_bytes() == found
    assert again.cells == first.cells
    # More seeds go on from what is there.
    recorder.trials.clear()
    audit(teachers / "ce", task, out=tmp_path, protocol=replace(protocol, seeds=3), workers=1, watcher=recorder)
    assert [trial.seed for trial in recorder.trials] == [2, 2, 2]


def test_references_and_placebos_are_shared_by_all_teachers(finished, choosing, stored_outcomes):
    roles = [content["trial"]["role"] for content in stored_outcomes(finished[0]).values()]
    # tuning: 2 references, 2 x 2 + 1 x 2 placebos, 2 knockoffs per teacher; judging: 1, 2 and 2 per teacher.
    assert roles.count("reference") == 2 * 1 + 1 * 2
    assert roles.count("placebo") == 6 * 1 + 2 * 2
    assert roles.count("knockoff") == (2 * 1 + 2 * 2) * 2


def test_a_view_is_asked_about_once_for_all_attacks_and_students(task, choosing, teachers, tmp_path, counting_box):
    protocol = replace(choosing, students=("mlp-4", "mlp-5"), attacks=((KD(1.0),), choosing.attacks[1]))
    audit(counting_box, task, out=tmp_path, protocol=protocol, undefended=teachers / "ce", workers=1)
    views = protocol.seeds * protocol.recipe.epochs * len(task.train)
    timed = 8 * QUERY_BATCH
    clean = len(task.test) + sum(map(len, task.splits.values())) + timed  # once for all knockoffs, and for the facts
    assert counting_box.asked == views + clean + 4 * CHECKED_IMAGES


def test_outcomes_do_not_depend_on_the_number_of_workers(
    task, protocol, teachers, tmp_path, stored_outcomes, monkeypatch
):
    (tmp_path / "pooled_teacher.py").write_text("def soft(images):\n    return images.flatten(1)[:, 20:23] * 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    asking = {"class_names": task.class_names, "probe": task.validation.images[:4] / 255}
    boxes = [open_black_box(teacher, **asking) for teacher in (teachers / "ce", "pooled_teacher:soft")]
    trials = Plan(task, protocol, boxes).look(Store(tmp_path)).due
    for folder, workers in (("one", 1), ("two", 2)):
        store, cache = Store(tmp_path / folder / "trials"), AnswerCache(tmp_path / folder / "answers")
        with Pool([task], boxes, cache, workers) as pool:
            pool.run(pack(trials, workers), store.write)
            if workers > 1:  # What goes wrong in a worker arrives as what it is.
                refused = replace(trials[0], smoothing=None, seed=7)
                with pytest.raises(InputError, match=r"reference with mlp-4 \(seed 7\): a reference trial needs a"):
                    pool.run([(refused,)], store.write)
    assert len(trials) == 8
    assert stored_outcomes(tmp_path / "one") == stored_outcomes(tmp_path / "two")


def test_one_process_runs_one_thread_and_gives_the_others_back(task, protocol, counting_box, tmp_path, monkeypatch):
    seen, threads = [], torch.get_num_threads()
    monkeypatch.setattr(
        EXECUTION, "run_pack", lambda trials, *_: [seen.append(torch.get_num_threads()) or {} for _ in trials]
    )
    plan, store = Plan(task, protocol, [counting_box]), Store(tmp_path)
    try:
        torch.set_num_threads(2)
        with Pool([task], [], AnswerCache(tmp_path), 1) as pool:
            pool.run(pack(plan.look(store).due, 1), lambda trial, outcome: None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(task, protocol, teachers, tmp_path, workers):
    with pytest.raises(InputError, match=f"workers is {workers}, must be at least 1"):
        Pool([task], [], AnswerCache(tmp_path), workers)
    with pytest.raises(InputError, match=f"workers is {workers}, must be at least 1"):
        audit(teachers / "cmim", task, out=tmp_path, protocol=protocol, workers=workers)
    assert list(tmp_path.iterdir()) == [], "the undefended teacher is not trained first"


def test_a_full_disk_loses_nothing(task, protocol, teachers, tmp_path, recorder, monkeypatch):
    synced, fsync = [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if (
            len(synced) > 1 + 1 + 2 * 2 + 1 + 3
        ):  # the mark and the state, the answers to two seeds' epochs and to the test
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("undistill.files.os.fsync", full)
        with pytest.raises(InputError, match="the disk is full"):
            audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1)
    assert len(list((tmp_path / "trials").iterdir())) == 3
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    assert len(recorder.trials) == 3


# The undefended teacher.


def test_a_teacher_that_says_it_was_trained_with_cross_entropy_is_the_undefended_one(finished):
    out, (ce, cmim) = finished
    assert not (out / "undefended").exists()
    assert ce.undefended == cmim.undefended == Undefended("ce", ce.teacher.utility, cmim.undefended.cells)
    assert [cell.leak for cell in ce.undefended.cells] == [cell.leak for cell in ce.cells], "it is itself one of them"


def test_without_one_an_undefended_teacher_is_trained_like_the_audited_one(
    task, protocol, teachers, tmp_path, recorder
):
    result = audit(teachers / "cmim", task, out=tmp_path, protocol=protocol, workers=1, watcher=recorder)
    made = load_checkpoint(tmp_path / "undefended")
    assert made.architecture == "mlp-4"
    assert made.provenance["defence"] == {"name": "ce"}
    assert made.provenance["recipe"] == load_checkpoint(teachers / "cmim").provenance["recipe"]
    assert result.undefended.name == "undefended"
    assert result.undefended.accuracy == made.provenance["test_accuracy"]
    assert recorder.trainings == [("mlp-4 with ce", protocol.recipe)]


def test_cross_entropy_on_other_data_does_not_count(protocol, teachers, tmp_path):
    other = load_task("digits", classes=3, fraction=0.5)
    audit(teachers / "ce", other, out=tmp_path, protocol=protocol, workers=1)
    assert (tmp_path / "undefended").is_dir()


def test_a_callable_is_compared_with_the_default_network(task, protocol, tmp_path, monkeypatch):
    defaults = Defaults("mlp-6", "mlp-4", protocol.recipe)
    monkeypatch.setattr(RUN, "defaults_for", lambda shape: defaults)
    audit(soft, task, out=tmp_path, protocol=protocol, workers=1)
    assert load_checkpoint(tmp_path / "undefended").architecture == "mlp-6"


def test_an_undefended_teacher_that_is_given_is_used(task, protocol, teachers, tmp_path, counting_box):
    result = audit(teachers / "cmim", task, out=tmp_path, protocol=protocol, undefended=counting_box, workers=1)
    assert not (tmp_path / "undefended").exists()
    assert result.undefended.name == "box"


def test_the_undefended_teacher_decides_which_attack_is_too_weak(task, protocol, teachers, tmp_path):
    wide = replace(protocol, margin=99.0, seeds=3)
    both = audit_all([teachers / "ce", teachers / "cmim"], task, out=tmp_path, protocol=wide, workers=1)
    [ce], [cmim] = both[0].cells, both[1].cells
    assert ce.outcome in (Outcome.LEAKS, Outcome.TOO_WEAK)  # of itself it cannot be "no leak found"
    if ce.outcome is Outcome.TOO_WEAK:
        assert cmim.outcome in (Outcome.LEAKS, Outcome.TOO_WEAK)


def test_provenance_that_is_not_ours_is_no_claim(task, protocol, teachers, tmp_path, monkeypatch):
    classifier = load_checkpoint(teachers / "ce")
    classifier.provenance = {"defence": "ce", "task_fingerprint": task.fingerprint, "recipe": "mine"}
    save_checkpoint(classifier, tmp_path / "own")
    monkeypatch.setattr(RUN, "defaults_for", lambda shape: Defaults("mlp-6", "mlp-4", protocol.recipe))
    audit(tmp_path / "own", task, out=tmp_path / "out", protocol=protocol, workers=1)
    assert load_checkpoint(tmp_path / "out" / "undefended").architecture == "mlp-4"


# What is written.


def test_audit_json_follows_its_schema(finished, task, choosing):
    out, audits = finished
    for result in audits:
        text = audit_path(out, result.teacher.name, alone=False).read_text()
        assert (out / result.teacher.name / "audit.json").exists()
        found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert found["schema"] == SCHEMA == "undistill.audit/1"
        assert found["task"]["name"] == "digits"
        assert found["task"]["fingerprint"] == task.fingerprint
        assert (found["task"]["train"], found["task"]["test"]) == (len(task.train), len(task.test))
        assert found["teacher"]["name"] == result.teacher.name
        assert found["teacher"]["accuracy"] == result.teacher.accuracy
        assert found["undefended"]["name"] == "ce"
        assert found["verdict"] == result.verdict.value
        assert found["verdict"] in {verdict.value for verdict in Verdict}
        assert found["sentence"] == result.sentence
        assert found["protocol"]["seeds"] == 2
        assert found["protocol"]["recipe"] == json.loads(json.dumps(asdict(choosing.recipe)))
        assert found["threat_card"]["queries_per_knockoff"] == 2 * len(task.train)
        assert [(cell["attack"], cell["student"]) for cell in found["cells"]] == [
            ("kd", "mlp-4"),
            ("kd-no-labels", "mlp-4"),
        ]
        for cell, judged in zip(found["cells"], result.cells, strict=True):
            assert cell["outcome"] == judged.outcome.value
            assert cell["leak"] == asdict(judged.leak)
            for kind in ("knockoff", "ls", "placebo"):
                measured = getattr(judged, kind)
                assert cell[kind]["seeds"] == list(measured.seeds)
                assert cell[kind]["mean"] == pytest.approx(sum(measured.seeds) / 2)
                assert cell[kind]["setting"] == measured.setting
                assert all(0 <= accuracy <= 100 for accuracy in cell[kind]["seeds"])
            control = cell[cell["control"]]
            assert cell["leak"]["mean"] == pytest.approx(cell["knockoff"]["mean"] - control["mean"])
            assert cell["leak"]["low"] <= cell["leak"]["mean"] <= cell["leak"]["high"]
            assert cell["knockoff_minus_ls"] == pytest.approx(cell["knockoff"]["mean"] - cell["ls"]["mean"])


def test_accuracies_are_those_of_the_stored_trials(finished, stored_outcomes):
    out, audits = finished
    stored = [content for content in stored_outcomes(out).values() if content["trial"]["seed"] < 2]
    for result in audits:
        for cell in result.cells:
            knockoffs = [
                content
                for content in stored
                if content["trial"]["teacher"] == result.teacher.fingerprint
                and content["trial"]["attack"]["name"] == cell.attack
            ]
            by_seed = {content["trial"]["seed"]: content["outcome"]["accuracy"] for content in knockoffs}
            assert cell.knockoff.seeds == (by_seed[0], by_seed[1])


def test_exact_zeros_have_no_variance_and_are_null_in_json(task, protocol, teachers, tmp_path):
    audit(gives_zeros, task, out=tmp_path, protocol=protocol, undefended=teachers / "ce", workers=1)
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["teacher"]["spectrum"]["test"]["within_class_variance"] is None
    assert set(found["teacher"]["spectrum"]["test"]["ncmi"]) == {None}


def test_two_teachers_with_the_same_weights_keep_their_names(task, protocol, teachers, tmp_path):
    save_checkpoint(load_checkpoint(teachers / "ce"), tmp_path / "copy")
    audits = audit_all([teachers / "ce", tmp_path / "copy"], task, out=tmp_path / "out", protocol=protocol, workers=1)
    assert [result.teacher.name for result in audits] == ["ce", "copy"]
    result = audit(
        teachers / "ce", task, out=tmp_path / "own", protocol=protocol, undefended=tmp_path / "copy", workers=1
    )
    assert (result.teacher.name, result.undefended.name) == ("ce", "copy")


def test_sentences_are_plain(finished):
    for result in finished[1]:
        assert result.teacher.name in result.sentence
        assert result.sentence.endswith(".")


# What is refused.


def test_a_folder_that_holds_another_audit_is_refused(task, protocol, teachers, tmp_path, counting_box):
    audit(teachers / "ce", task, out=tmp_path, protocol=protocol, workers=1)
    held = (tmp_path / "audit.json").read_bytes()
    with pytest.raises(InputError, match="holds an audit of another task; choose another folder"):
        audit(counting_box, load_task("digits", classes=3, fraction=0.5), out=tmp_path, protocol=protocol)
    with pytest.raises(
        InputError, match="holds an audit of another teacher, or one of another output defence, named 'ce'"
    ):
        audit(counting_box.__class__(3, "ce"), task, out=tmp_path, protocol=protocol)
    with pytest.raises(InputError, match="holds an audit of the teacher 'ce'; choose another folder"):
        audit(counting_box, task, out=tmp_path, protocol=protocol)
    assert (tmp_path / "audit.json").read_bytes() == held
    # Together they get a folder each, and share what is there.
    audit_all([teachers / "ce", counting_box], task, out=tmp_path, protocol=protocol, workers=1)
    assert (tmp_path / "box" / "audit.json").exists()


def test_a_result_that_is_not_of_the_folder_is_kept(task, protocol, teachers, tmp_path):
    together, alone = tmp_path / "together", tmp_path / "together" / "ce"
    audit_all([teachers / "ce", teachers / "cmim"], task, out=together, protocol=protocol, workers=1)
    held = (alone / "audit.json").read_bytes()
    with pytest.raises(InputError, match=r"together/ce/audit\.json is another audit's result; choose another folder"):
        audit(teachers / "ce", task, out=alone, protocol=protocol, workers=1)
    assert {path.name for path in alone.iterdir()} == {"audit.json", "evidence.json"}
    assert (alone / "audit.json").read_bytes() == held
    # And the other way round: the folder of a name holds an audit of its own.
    (alone / "undistill.json").write_text("{}")
    with pytest.raises(InputError, match=r"together/ce/audit\.json is another audit's result"):
        audit_all([teachers / "ce", teachers / "cmim"], task, out=together, protocol=protocol, workers=1)
    assert (alone / "audit.json").read_bytes() == held


def test_without_a_folder_nothing_is_kept(task, protocol, teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = audit(teachers / "cmim", task=task, protocol=protocol, workers=1)
    assert list(tmp_path.iterdir()) == []
    kept = audit(teachers / "cmim", task, out=tmp_path / "out", protocol=protocol, workers=1)
    assert without_times(result.to_json()) == without_times(kept.to_json())


def without_times(found):
    for who in ("teacher", "undefended"):
        del found[who]["utility"]["serving"], found[who]["utility"]["training_seconds"]
    return found


def test_a_teacher_of_another_split_is_refused(protocol, teachers, tmp_path, counting_box):
    other = load_task("digits", classes=3, seed=3)
    for teacher, undefended in ((teachers / "ce", None), (counting_box, teachers / "ce")):
        with pytest.raises(InputError, match=r"'ce' was trained on another split of 'digits' \(split seed 0, not 3\)"):
            audit(teacher, other, out=tmp_path, protocol=protocol, undefended=undefended, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_that_diverges_is_named(task, protocol, teachers, tmp_path, workers):
    wild = replace(protocol, recipe=Recipe(epochs=2, batch_size=25, learning_rate=1e30, clip_norm=0.0))
    with pytest.raises(InputError, match=r"^reference with mlp-4 \(smoothing=0\.1, seed \d\): .* became "):
        audit(teachers / "ce", task, out=tmp_path, protocol=wild, workers=workers)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"task": "a", "teachers": 3, "alone": null}', EARLIER])
def test_a_damaged_mark_is_named(task, protocol, teachers, tmp_path, content):
    (tmp_path / "undistill.json").write_text(content)
    with pytest.raises(
        InputError, match=r"undistill\.json is damaged or of an earlier version .*; choose another folder, or delete"
    ):
        audit(teachers / "ce", task, out=tmp_path, protocol=protocol)


def test_teachers_of_one_name_are_refused(task, protocol, teachers, tmp_path):
    with pytest.raises(InputError, match="share a name"):
        audit_all([teachers / "ce", teachers / "ce"], task, out=tmp_path, protocol=protocol)


def test_a_student_that_cannot_be_built_is_refused_before_anything_is_trained(task, protocol, teachers, tmp_path):
    with pytest.raises(InputError, match=r"unknown model 'resnt8'; did you mean 'resnet8'\?"):
        audit(teachers / "cmim", task, out=tmp_path, protocol=replace(protocol, students=("mlp-4", "resnt8")))
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_another_class_count_is_refused(protocol, teachers, tmp_path):
    with pytest.raises(InputError, match="'ce' has 3 classes, the task has 4; choose the task"):
        audit(teachers / "ce", load_task("digits", classes=4), out=tmp_path, protocol=protocol)


def test_names_are_given_to_all_teachers_or_none(task, protocol, teachers, tmp_path):
    with pytest.raises(InputError, match="there are 1 names for 2 teachers; give one each"):
        audit_all([teachers / "ce", teachers / "cmim"], task, out=tmp_path, names=["a"], protocol=protocol)
