from dataclasses import replace

import pytest

from undistill.models import make_classifier
from undistill.tasks import Augmentation, load_task


@pytest.fixture(scope="session")
def digits():
    """500 / 297 / 1,000 images of 8 x 8 pixels, shifted at random in training."""
    return replace(load_task("digits"), augmentation=Augmentation(pad=1))


@pytest.fixture(scope="session")
def fresh(digits):
    """Makes classifiers for the digits, whose initial weights depend on the architecture alone."""

    def make(architecture="mlp-4"):
        return make_classifier(
            architecture,
            class_names=digits.class_names,
            input_shape=digits.input_shape,
            mean=digits.mean,
            std=digits.std,
            seed=0,
        )

    return make
