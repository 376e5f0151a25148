"""Which teacher stands for the undefended one, and how one is trained like an audited teacher."""

import pytest

from undistill.audit import audit, run
from undistill.blackbox import LocalBlackBox
from undistill.settings import settings_of
from undistill.training import Recipe, classifier_for

LONG, SHORT = Recipe(epochs=7, milestones=(0.25, 0.5)), Recipe(epochs=1)


@pytest.fixture
def box(task):
    """A black box whose classifier says of itself what it is given."""

    def make(**said):
        classifier = classifier_for(task, "mlp-4", seed=0)
        classifier.provenance = {"task_fingerprint": task.fingerprint, **said}
        return LocalBlackBox("teacher", classifier)

    return make


def test_a_fine_tuned_teacher_is_not_undefended(task, box):
    plain = box(defence={"name": "ce"})
    tuned = box(defence={"name": "ce"}, start={"defence": {"name": "cmim"}})
    assert run.undefended_among([tuned, plain], task) is plain
    assert run.undefended_among([tuned], task) is None


@pytest.mark.parametrize(
    "said", [{}, {"defence": {"name": "cmim"}}, {"defence": {"name": "ce"}, "task_fingerprint": "another"}]
)
def test_a_teacher_that_does_not_say_so_is_not_known_to_be_undefended(task, box, said):
    assert not run.known_undefended(box(**said), task)
    assert run.known_undefended(box(defence={"name": "ce"}), task)


def test_an_audit_says_whether_its_undefended_teacher_is_known(task, teachers, protocol):
    def seen(undefended):
        result = audit(teachers / "ce", task, protocol=protocol, undefended=undefended, workers=1)
        return result.undefended.known, [flag.name for flag in result.flags if flag.name == "undefended-unknown"]

    assert seen(teachers / "ce") == (True, [])
    assert seen(lambda images: images.flatten(1)[:, 20:23].softmax(1)) == (False, ["undefended-unknown"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"recipe": settings_of(LONG)}, LONG),
        ({"recipe": settings_of(SHORT), "start": {"recipe": settings_of(LONG)}}, LONG),
        ({"recipe": settings_of(SHORT), "start": {"recipe": None}}, None),
    ],
)
def test_the_undefended_teacher_is_trained_as_long_as_a_fine_tuned_ones_start(
    task, box, said, expected, tmp_path, monkeypatch
):
    asked = []

    def train(task, architecture, defence, recipe, **settings):
        asked.append((architecture, defence.name, recipe))
        return classifier_for(task, architecture, seed=0)

    monkeypatch.setattr(run, "train_teacher", train)
    run._train_undefended([box(**said)], task, tmp_path, run.SilentWatcher())
    recipe = expected or run.defaults_for(task.input_shape).recipe
    assert asked == [("mlp-4", "ce", recipe)]
