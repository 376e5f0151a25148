import pytest

from undistill.tasks import load_task
from undistill.training import classifier_for


@pytest.fixture(scope="session")
def digits():
    """500 / 297 / 1,000 images of 8 x 8 pixels, shifted at random in training."""
    return load_task("digits")


@pytest.fixture(scope="session")
def fresh(digits):
    """Makes classifiers for the digits, whose initial weights depend on the architecture alone."""

    def make(architecture="mlp-4"):
        return classifier_for(digits, architecture, seed=0)

    return make
