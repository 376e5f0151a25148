from dataclasses import replace

import pytest
import torch

from undistill.models import make_classifier
from undistill.tasks import Augmentation, load_task


@pytest.fixture(scope="session")
def digits():
    """500 training images of 8 x 8 pixels, which each epoch sees shifted otherwise."""
    return replace(load_task("digits"), augmentation=Augmentation(pad=2))


@pytest.fixture(scope="session")
def probe(digits):
    return digits.validation.images[:32].float() / 255


@pytest.fixture(scope="session")
def teacher():
    """Makes classifiers for the digits."""

    def make(architecture="mlp-4", seed=0, classes=10, input_shape=(1, 8, 8), mean=0.3, std=0.4):
        return make_classifier(
            architecture,
            class_names=tuple("0123456789"[:classes]),
            input_shape=input_shape,
            mean=[mean] * input_shape[0],
            std=[std] * input_shape[0],
            seed=seed,
        )

    return make


@pytest.fixture
def soft():
    """32 rows of logits, far from any number that rounding could push to either side."""
    return torch.randn(32, 10, generator=torch.Generator().manual_seed(0)).mul(8).round().div(8)
