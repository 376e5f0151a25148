"""The mixed view: each image with one of its class, as a function of (seed, epoch, crops, image) alone."""

import pickle

import numpy as np
import pytest
import torch

from undistill.tasks import Augmentation, Split, Task

SHAPES = [(3, 8, 8), (1, 9, 7), (2, 20)]


def task_of(shape, pad=1):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0, 2, 0, 1, 2, 0] * 10)
    split = Split(images, labels)
    return Task("noise", ("a", "b", "c"), split, split, split, Augmentation(pad=pad, flip=len(shape) == 3 and pad > 0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mixed_view_depends_on_seed_epoch_and_image_alone(shape):
    task = task_of(shape)
    view = task.mixed_view(seed=1, epoch=2)
    whole = view.images(view.order)
    assert torch.equal(view.order, task.view(seed=1, epoch=2).order)
    assert whole.shape == (60, *shape)
    assert whole.dtype == torch.uint8
    again = pickle.loads(pickle.dumps(task)).mixed_view(seed=1, epoch=2)
    assert torch.equal(torch.cat([again.images(indices) for indices in view.order.split(7)]), whole)
    for seed, epoch in ((2, 2), (1, 3)):
        assert not torch.equal(task.mixed_view(seed, epoch).images(view.order), whole)
    assert torch.equal(task.mixed_view(1, 9, crops=2).images(torch.arange(60)), view.images(torch.arange(60)))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_image_is_a_mixture_of_itself_with_one_of_its_class(shape):
    """Least squares in float64 finds partner and share of every image, without cropping."""
    task = task_of(shape, pad=0)
    images, labels = task.train.images.flatten(1).numpy().astype(float), task.train.labels.numpy()
    mixed = task.mixed_view(0, 0).images(torch.arange(60)).flatten(1).numpy().astype(float)
    shares, partners = [], []
    for i, mixture in enumerate(mixed):
        fits = []
        for j in range(60):
            apart = images[i] - images[j]
            share = 1.0 if i == j else float(np.clip(apart @ (mixture - images[j]) / (apart @ apart), 0, 1))
            fits.append((np.abs(share * images[i] + (1 - share) * images[j] - mixture).max(), j, share))
        error, partner, share = min(fits)
        assert error <= 1.0  # rounding, in the image and in the fitted share
        shares.append(share)
        partners.append(partner)
    found = [labels[j] == labels[i] for i, (j, share) in enumerate(zip(partners, shares, strict=True)) if share < 0.97]
    assert all(found)
    assert len(found) > 40
    assert len(set(partners)) > 25
    assert 0.35 < np.mean(shares) < 0.7
