"""A view's crops and flips against one image at a time through Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from undistill.tasks import Augmentation, Split, Task, View, default_augmentation


def random_task(count: int, shape: tuple[int, ...], augmentation: Augmentation) -> Task:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 2)
    return Task("noise", ("a", "b"), split, split, split, augmentation)


def pillow_crops(image: torch.Tensor, pad: int) -> dict[tuple[int, int, bool], np.ndarray]:
    """Every crop of one padded image, mirrored and not, as Pillow makes it."""
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    width, height = picture.size
    wide = ImageOps.expand(picture, border=pad, fill=0)
    crops = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = wide.crop((left, top, left + width, top + height))
            for flip in (False, True):
                crops[top, left, flip] = np.asarray(ImageOps.mirror(crop) if flip else crop)
    return crops


@pytest.mark.parametrize(
    ("shape", "augmentation"),
    [
        ((3, 12, 10), Augmentation(pad=2, flip=True)),
        ((1, 7, 9), Augmentation(pad=1, flip=True)),
        ((3, 6, 6), Augmentation(pad=2, flip=False)),
        ((3, 6, 6), Augmentation(flip=True)),
    ],
)
def test_each_image_is_a_crop_that_pillow_makes(shape: tuple[int, ...], augmentation: Augmentation) -> None:
    task = random_task(120, shape, augmentation)
    view = task.view(seed=1, epoch=2)
    seen = view.images(view.order)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    draws = []
    for index, image in zip(view.order.tolist(), seen, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        pixels = pixels[..., 0] if shape[0] == 1 else pixels
        crops = pillow_crops(task.train.images[index], augmentation.pad)
        matching = [draw for draw, crop in crops.items() if np.array_equal(crop, pixels)]
        assert len(matching) == 1
        draws += matching
    tops, lefts, flips = zip(*draws, strict=True)
    assert set(tops) == set(lefts) == set(range(2 * augmentation.pad + 1))
    assert 30 < sum(flips) < 90 if augmentation.flip else not any(flips)
    if augmentation.pad:
        assert tops != lefts


@pytest.mark.parametrize("channels", [1, 2])
def test_signals_are_shifted(channels: int) -> None:
    task = random_task(100, (channels, 20), Augmentation(pad=3))
    view = task.view(seed=0, epoch=0)
    seen = view.images(torch.arange(100))
    assert seen.is_contiguous()
    shifts = []
    for signal, shifted in zip(task.train.images.numpy(), seen.numpy(), strict=True):
        padded = np.pad(signal, ((0, 0), (3, 3)))
        shifts += [left for left in range(7) if np.array_equal(padded[:, left : left + 20], shifted)]
    assert len(shifts) == 100
    assert set(shifts) == set(range(7))


def test_nothing_to_augment_gives_the_images() -> None:
    task = random_task(10, (3, 5, 4), Augmentation())
    view = task.view(seed=0, epoch=0)
    assert torch.equal(view.images(view.order), task.train.images[view.order])


def test_a_view_depends_on_seed_and_epoch_alone() -> None:
    task = random_task(64, (3, 8, 8), Augmentation(pad=1, flip=True))
    again = random_task(64, (3, 8, 8), Augmentation(pad=1, flip=True))
    task.view(5, 0).images(torch.arange(64))  # earlier epochs leave no trace
    everything = torch.arange(64)
    view = task.view(seed=5, epoch=1)
    assert torch.equal(view.order, again.view(5, 1).order)
    assert torch.equal(view.images(everything), again.view(5, 1).images(everything))
    for other in (task.view(5, 2), task.view(6, 1), task.view(1, 5)):
        assert not torch.equal(view.order, other.order)
        assert not torch.equal(view.images(everything), other.images(everything))
    assert torch.equal(view.order.sort().values, everything)


def test_a_view_does_not_depend_on_the_cut_into_batches() -> None:
    task = random_task(30, (3, 8, 8), Augmentation(pad=1, flip=True))
    view = task.view(seed=0, epoch=0)
    whole = view.images(view.order)
    for size in (1, 7, 30):
        assert torch.equal(torch.cat([view.images(batch) for batch in view.order.split(size)]), whole)


def test_no_image_outside_the_training_split() -> None:
    view = random_task(10, (3, 8, 8), Augmentation(pad=1, flip=True)).view(0, 0)
    with pytest.raises(IndexError, match="out of"):
        view.images(torch.tensor([10]))
    assert view.images(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 32, 32), Augmentation(pad=4, flip=True)),
        ((3, 64, 64), Augmentation(pad=8, flip=True)),
        ((1, 28, 28), Augmentation(pad=3, flip=False)),
        ((1, 8, 8), Augmentation(pad=1)),
        ((3, 32, 16), Augmentation(pad=4, flip=True)),
        ((1, 40), Augmentation()),
    ],
)
def test_default_augmentation(shape: tuple[int, ...], expected: Augmentation) -> None:
    assert default_augmentation(shape) == expected


def test_view_is_made_on_the_wanted_device() -> None:
    view = random_task(4, (3, 8, 8), Augmentation(pad=1)).view(0, 0, device=torch.device("meta"))
    assert isinstance(view, View)
    assert view.order.device.type == "meta"
    assert view.images(torch.arange(4)).device.type == "meta"
