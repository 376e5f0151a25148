"""What an audit would take, compared with what it then takes."""

from dataclasses import replace

import pytest

from undistill.audit import Forecast, Range, RayCluster, audit_all, forecast_audit
from undistill.audit import forecast as forecast_room
from undistill.blackbox import Queries
from undistill.report import forecast_lines


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    monkeypatch.setattr(forecast_room, "CALIBRATION_SECONDS", 0.0)


@pytest.mark.parametrize(
    "queries", [Queries(), Queries("cached-views", views=1), Queries("clean"), Queries(budget=160)]
)
def test_trials_and_queries_are_those_that_the_audit_needs(task, choosing, counting_box, teachers, tmp_path, queries):
    protocol = replace(choosing, queries=queries)
    given = {"protocol": protocol, "undefended": counting_box, "workers": 1}
    forecast = forecast_audit([counting_box], task, **given)
    assert {role: value.smallest for role, value in forecast.trials.items()} == {
        "reference": 4,
        "placebo": 10,
        "knockoff": 6,
    }
    assert forecast.stored == 0
    counted = counting_box.asked
    audit_all([counting_box], task, out=tmp_path, **given)
    measured = len(task.train) + len(task.test)  # what the teacher is worth
    timed = 8 * 64
    checked = 2 * 4 * 24
    asked = counting_box.asked - counted - measured - timed
    assert asked - forecast.queries.smallest == pytest.approx(checked, abs=checked)
    again = forecast_audit([counting_box], task, out=tmp_path, **given)
    assert again.stored == 20
    assert again.seconds.largest == 0
    size = sum(path.stat().st_size for path in (tmp_path / "trials").iterdir())
    assert 0.3 < forecast.outcome_bytes.largest / size < 3


def test_nothing_is_trained_or_written(task, protocol, teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forecast = forecast_audit([teachers / "cmim"], task, out=tmp_path / "out", protocol=protocol)
    assert list(tmp_path.iterdir()) == []
    assert forecast.undefended_epochs == protocol.recipe.epochs
    assert forecast.trials["knockoff"] == Range(4, 4), "the undefended teacher is attacked, too"
    assert set(forecast.step_seconds) == {"mlp-4"}
    assert set(forecast.answer_seconds) == {"cmim"}
    assert 0 < forecast.seconds.smallest <= forecast.seconds.largest
    known = forecast_audit([teachers / "cmim"], task, protocol=protocol, undefended=teachers / "ce")
    assert known.undefended_epochs == 0
    assert set(known.answer_seconds) == {"cmim", "ce"}


def test_answers_take_no_more_than_they_may(task, protocol, teachers):
    given = {"protocol": protocol, "answer_space": 1000}
    assert forecast_audit([teachers / "ce"], task, **given).answer_bytes == Range(1000, 1000)
    rows = 2 * protocol.recipe.epochs * len(task.train) + len(task.test)
    whole = forecast_audit([teachers / "ce"], task, protocol=protocol)
    assert whole.answer_bytes.largest == 4 * task.num_classes * rows


def test_more_epochs_and_more_trials_take_longer(task, protocol, teachers):
    clock = forecast_room._Clock({task.fingerprint: task})
    trial = forecast_room.Trial(task.fingerprint, "mlp-4", protocol.recipe, 0, smoothing=0.1)
    long = replace(trial, recipe=replace(protocol.recipe, epochs=20))
    for recipe in (trial.recipe, long.recipe):
        clock._steps[task.fingerprint, "mlp-4", recipe, 1] = 0.5
    evaluating = (len(task.test) + len(task.validation)) / 25 * 0.5 / 3
    assert clock.trial(trial, 1) == pytest.approx(2 * 6 * 0.5 + evaluating)
    assert clock.trial(long, 1) == pytest.approx(20 * 6 * 0.5 + evaluating)


def test_a_forecast_in_words():
    forecast = Forecast(
        trials={"reference": Range(10, 20), "placebo": Range(4, 4), "knockoff": Range(1000, 2000)},
        stored=3,
        queries=Range(5_000_000, 5_000_000),
        seconds=Range(80, 7000),
        outcome_bytes=Range(2e4, 3e6),
        answer_bytes=Range(2e10, 2e10),
        workers=2,
        cluster=False,
        undefended_epochs=60,
        step_seconds={"mlp-4": 0.0021},
        answer_seconds={"api": 0.25},
    )
    assert forecast_lines(forecast) == [
        "Trials: 1,014 to 2,024 (10 to 20 references, 4 placebos, 1,000 to 2,000 knockoffs); 3 stored already.",
        "Queries: teachers are asked about 5,000,000 images.",
        "Time: about 80 s to 1.9 h with 2 workers.",
        "Disk: outcomes 20 kB to 3 MB, answers 20.0 GB.",
        "An undefended teacher is trained first, for 60 epochs (in the time).",
        "Measured just now, with one thread: 2.1 ms a step of mlp-4; 0.25 s for 1,000 answers of api.",
    ]
    lines = forecast_lines(replace(forecast, cluster=True, workers=1))
    assert lines[2] == (
        "Time: about 80 s to 1.9 h with one trial at a time; a cluster that runs N at once takes about an Nth."
    )
    assert lines[4] == (
        "An undefended teacher is trained first, for 60 epochs (in the time; on this machine alone, so the cluster "
        "does not shorten it)."
    )


def test_a_cluster_is_not_needed_to_count(task, protocol, teachers):
    forecast = forecast_audit([teachers / "ce"], task, protocol=protocol, workers=RayCluster("10.0.0.1:1"))
    assert (forecast.workers, forecast.cluster) == (1, True)
    assert not forecast_audit([teachers / "ce"], task, protocol=protocol, workers=1).cluster
