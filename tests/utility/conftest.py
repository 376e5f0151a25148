import pytest

from undistill.blackbox import LocalBlackBox
from undistill.defences.training import CMIM, CrossEntropy
from undistill.models import make_classifier
from undistill.settings import settings_of
from undistill.tasks import load_task
from undistill.training import Recipe


@pytest.fixture(scope="session")
def task():
    """150 training, 298 test images of 3 classes."""
    return load_task("digits", classes=3)


@pytest.fixture(scope="session")
def teacher(task):
    """Makes an untrained teacher that says how it was trained."""

    def make(name, defence=None, seed=0, *, recipe=None, **made):
        classifier = make_classifier(
            "mlp-4",
            class_names=task.class_names,
            input_shape=task.input_shape,
            mean=task.mean,
            std=task.std,
            seed=int.from_bytes(name.encode()) % 2**31,
        )
        if defence is not None:
            classifier.provenance = {
                "task_fingerprint": task.fingerprint,
                "defence": {"name": defence.name, **settings_of(defence)},
                "recipe": settings_of(recipe or Recipe()),
                "seed": seed,
                "records": [{"epoch": 0, "seconds": 1.5}, {"epoch": 1, "seconds": 2.0 + seed}],
                **made,
            }
        return LocalBlackBox(name, classifier)

    return make


@pytest.fixture(scope="session")
def ce(teacher):
    return [teacher(f"ce-{seed}", CrossEntropy(), seed) for seed in range(3)]


@pytest.fixture(scope="session")
def cmim(teacher):
    """By weight: three seeds each."""
    return {
        weight: [teacher(f"cmim-{weight:g}-{seed}", CMIM(weight=weight), seed) for seed in range(3)]
        for weight in (0.3, 1.0)
    }
