"""A fresh network for a task."""

from undistill.models import Classifier, make_classifier
from undistill.tasks import Task


def classifier_for(task: Task, architecture: str, *, seed: int) -> Classifier:
    """A classifier for the inputs and classes of ``task``, normalised by its training images.

    Args:
        task: the data.
        architecture: a name from ``undistill list models``.
        seed: of the initial weights.

    Example:
        >>> from undistill.tasks import load_task
        >>> classifier_for(load_task("digits"), "mlp-16", seed=0).num_classes
        10
    """
    return make_classifier(
        architecture,
        class_names=task.class_names,
        input_shape=task.input_shape,
        mean=task.mean,
        std=task.std,
        seed=seed,
    )
