"""The strong view: each operation against Pillow, and that it is a function of (seed, epoch, crops, image) alone."""

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from undistill.tasks import Augmentation, Split, Task, load_task
from undistill.tasks import strong as under_test
from undistill.tasks.strong import ONE, matrices, operate, operations_for, patch

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 10, 14), (2, 40)]


def random_task(count=60, shape=(3, 32, 32), pad=2):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 2)
    return Task("noise", ("a", "b"), split, split, split, Augmentation(pad=pad, flip=len(shape) == 3))


def pictures(count, shape):
    """Smooth pictures of few levels, low contrast, or one colour: what contrast and equalising are sensitive to."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, *shape, generator=generator) * 256
    images[::4] = images[::4] // 64 * 64
    images[1::4] = 100 + images[1::4] / 8
    images[2::4] = torch.nn.functional.avg_pool2d(images[2::4], 3, stride=1, padding=1)
    images[3] = images[3, :, :1, :1]
    return images.to(torch.uint8)


def by_pillow(kind, image, strength):
    """What the released code of MLKD does, with a strength of 0 to 1 on the scale of the operation."""
    size = image.size
    signed = 2 * strength - 1
    enhance = 0.05 + 0.9 * strength
    transform = {
        under_test.SHEAR_X: (1, 0.3 * signed, 0, 0, 1, 0),
        under_test.SHEAR_Y: (1, 0, 0, 0.3 * signed, 1, 0),
        under_test.TRANSLATE_X: (1, 0, 0.3 * signed * size[0], 0, 1, 0),
        under_test.TRANSLATE_Y: (1, 0, 0, 0, 1, 0.3 * signed * size[1]),
    }
    if kind in transform:
        return image.transform(size, Image.Transform.AFFINE, transform[kind])
    return {
        under_test.IDENTITY: lambda: image,
        under_test.ROTATE: lambda: image.rotate(30 * signed),
        under_test.AUTO_CONTRAST: lambda: ImageOps.autocontrast(image),
        under_test.BRIGHTNESS: lambda: ImageEnhance.Brightness(image).enhance(enhance),
        under_test.COLOUR: lambda: ImageEnhance.Color(image).enhance(enhance),
        under_test.CONTRAST: lambda: ImageEnhance.Contrast(image).enhance(enhance),
        under_test.EQUALISE: lambda: ImageOps.equalize(image),
        under_test.POSTERISE: lambda: ImageOps.posterize(image, int(4 + 4 * strength)),
        under_test.SHARPNESS: lambda: ImageEnhance.Sharpness(image).enhance(enhance),
        under_test.SOLARISE: lambda: ImageOps.solarize(image, 256 * strength),
    }[kind]()


@pytest.mark.parametrize("kind", range(14))
@pytest.mark.parametrize("size", [(32, 32), (12, 17)])
def test_each_operation_is_pillows(kind, size):
    images = pictures(48, (3, *size))
    kinds = torch.full((1, 48), kind)
    strengths = torch.arange(48, dtype=torch.int32)[None] * (ONE // 48) + 77
    changed = operate(images, kinds[0], strengths[0], matrices(kinds, strengths, *size)[0])
    for image, mine, strength in zip(images, changed, strengths[0].tolist(), strict=True):
        theirs = np.asarray(by_pillow(kind, Image.fromarray(image.permute(1, 2, 0).numpy()), strength / ONE))
        apart = np.abs(theirs.astype(int) - mine.permute(1, 2, 0).numpy())
        if kind <= under_test.TRANSLATE_Y:
            # A source that lies within 2^-16 of two pixels may be taken from the other one.
            assert (apart > 0).any(axis=2).mean() < 0.01
        else:
            assert apart.max() <= 1  # Pillow cuts off what floating-point numbers make of a whole number


@pytest.mark.parametrize("shape", SHAPES)
def test_a_strong_view_depends_on_seed_epoch_and_image_alone(shape):
    task = random_task(shape=shape)
    view = task.strong_view(seed=1, epoch=2)
    whole = view.images(view.order)
    assert torch.equal(view.order, task.view(seed=1, epoch=2).order)
    assert whole.shape == (60, *shape)
    assert whole.dtype == torch.uint8
    if len(shape) == 3:
        assert whole.is_contiguous(memory_format=torch.channels_last)
    again = pickle.loads(pickle.dumps(task)).strong_view(seed=1, epoch=2)
    parts = torch.cat([again.images(indices) for indices in view.order.split(7)])
    assert torch.equal(parts, whole)
    assert torch.equal(view.images(view.order[[5, 5]]), whole[[5, 5]])
    for seed, epoch in ((2, 2), (1, 3)):
        assert not torch.equal(task.strong_view(seed, epoch).images(view.order), whole)
    assert not torch.equal(task.view(1, 2).images(view.order), whole)


def test_another_epoch_can_show_the_same_images_in_its_own_order():
    task = random_task()
    first, later = task.strong_view(seed=0, epoch=1), task.strong_view(seed=0, epoch=9, crops=1)
    assert not torch.equal(first.order, later.order)
    assert torch.equal(later.order, task.view(seed=0, epoch=9).order)
    places = torch.arange(60)
    assert torch.equal(first.images(places), later.images(places))


def test_crops_are_drawn_apart_from_the_usual_view(monkeypatch):
    task = random_task(pad=2)
    monkeypatch.setattr(under_test, "operations_for", lambda shape: (under_test.IDENTITY,))
    monkeypatch.setattr(under_test, "patch", lambda draws, h, w, share: patch(draws * 0, h, w, share))
    places = torch.arange(60)
    usual, strong = task.view(0, 0).images(places), task.strong_view(0, 0).images(places)
    same = (usual == strong).flatten(1).all(1).sum()
    assert same < 10  # by chance: one of 5 x 5 crops, mirrored or not
    images = task.train.images
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for image, wide in zip(strong, padded, strict=True):
        crops = [wide[:, i : i + 32, j : j + 32] for i in range(5) for j in range(5)]
        assert any(torch.equal(image, crop) or torch.equal(image, crop.flip(2)) for crop in crops)


def test_only_colour_photographs_change_their_levels():
    assert operations_for((3, 32, 32)) == tuple(range(14))
    assert operations_for((1, 28, 28)) == (0, 1, 2, 3, 4, 5)
    assert operations_for((1, 40)) == (under_test.IDENTITY, under_test.TRANSLATE_X)
    task = load_task("digits")
    levels = set(task.train.images.unique().tolist()) | {round(255 * task.mean[0]), 0}
    assert set(task.strong_view(0, 0).images(torch.arange(500)).unique().tolist()) <= levels


def test_every_operation_occurs_and_changes_images():
    task = random_task(count=2000, shape=(3, 8, 8), pad=0)
    view = task.strong_view(seed=0, epoch=0)
    counts = torch.bincount(view._kinds.flatten(), minlength=14)
    assert counts.min() > 200
    assert counts.max() < 370
    changed = (view.images(torch.arange(2000)) != task.train.images).flatten(1).any(1)
    assert changed.float().mean() > 0.9


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 20)])
def test_the_patch_is_a_square_of_up_to_half_the_side(height, width):
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = patch(draws, height, width, share=0.5)
    half = min(height, width) / 2
    for inside, centre, length in ((rows, draws[:, 1], height), (columns, draws[:, 2], width)):
        sides = inside.sum(1)
        assert sides.max() == math.ceil(half)
        whole = (centre * length - half / 2 > 0) & (centre * length + half / 2 < length)
        assert ((sides - draws[:, 0] * half).abs()[whole] <= 1).all()
        assert (inside.float().mean(0) > 0.05).all()
    assert (inside.diff(dim=1).sum(1) <= 2).all(), "in one piece"


def test_the_patch_has_the_mean_colour(monkeypatch):
    monkeypatch.setattr(under_test, "operations_for", lambda shape: (under_test.IDENTITY,))
    images = torch.zeros(200, 3, 16, 16, dtype=torch.uint8)
    images[::2] = torch.tensor([10, 250, 90], dtype=torch.uint8)[:, None, None]
    split = Split(images, torch.arange(200) % 2)
    seen = Task("plain", ("a", "b"), split, split, split).strong_view(0, 0).images(torch.arange(200))
    colours = {tuple(colour) for colour in seen.movedim(1, -1).reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 0), (10, 250, 90), (5, 125, 45)}


def test_a_quarter_of_a_signal_is_cut_out_at_most():
    images = torch.full((500, 1, 40), 200, dtype=torch.uint8)
    images[::2] = 100
    split = Split(images, torch.arange(500) % 2)
    view = Task("level", ("a", "b"), split, split, split).strong_view(0, 0)
    cut = (view.images(torch.arange(500)) == 150).sum((1, 2))
    assert cut.max() == 10
    assert cut.min() == 0
