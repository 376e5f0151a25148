"""A strongly augmented view of the training images, for attacks that ask about two views of each."""

import math

import torch
from jaxtyping import Bool, Float64, Int32, Int64, UInt8
from torch import Tensor

from undistill.tasks.view import Augmentation, View, seeded

ROUNDS = 2  # operations on each image

IDENTITY, ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y = range(6)
AUTO_CONTRAST, BRIGHTNESS, COLOUR, CONTRAST, EQUALISE, POSTERISE, SHARPNESS, SOLARISE = range(6, 14)

# Fixed-point numbers have 16 binary places, as in Pillow: whole-number arithmetic is the same on every device.
ONE = 1 << 16


def operations_for(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """What may happen to an input of one shape.

    Only colour photographs get the operations on colours and levels: equalising or solarising a drawing on an empty
    ground, or a signal, makes another thing of it, and one channel has no colour. A signal can only be shifted.
    """
    if len(input_shape) == 2:
        return (IDENTITY, TRANSLATE_X)
    return tuple(range(14)) if input_shape[0] == 3 else tuple(range(6))


class StrongView(View):
    """The training images as a strong view shows them: a pure function of (task, seed, epoch, crops).

    Crops and mirroring as in :class:`View`, from a generator of their own. Then two operations on each image, drawn
    with replacement from the fourteen of RandAugment as FixMatch and MLKD use it (automatic contrast, brightness,
    colour, contrast, equalising, identity, posterising, rotation, sharpness, two shears, solarising, two translations),
    each with a strength of its own. Then cutout: a square at a random place, whose side is drawn from 0 to half the
    image's, is filled with the mean colour of the training images.

    Images that have not three channels get the geometric operations alone (see :func:`operations_for`); of a signal,
    up to a quarter of the length is cut out, which is as large a share as of an image.

    Args:
        padded, input_shape, augmentation, seed, epoch, crops: as of :class:`View`.
        fill: value of each channel in the square that is cut out.

    Example:
        >>> from undistill.tasks import load_task
        >>> task = load_task("digits")
        >>> strong = task.strong_view(seed=0, epoch=3)
        >>> torch.equal(strong.order, task.view(seed=0, epoch=3).order)
        True

    Source: Cubuk et al., "RandAugment", arXiv 1909.13719; ranges as in the code of Jin, Wang, Lin, "Multi-level Logit
    Distillation", CVPR 2023. Deviations: the square is filled with the task's own mean colour, not with (125, 123,
    114), and is a pixel narrower than Pillow draws it.
    """

    word = "strong view"

    def __init__(
        self,
        padded: UInt8[Tensor, "n padded_height padded_width channels"],
        *,
        input_shape: tuple[int, ...],
        augmentation: Augmentation,
        seed: int,
        epoch: int,
        crops: int,
        fill: tuple[int, ...],
    ) -> None:
        super().__init__(
            padded, input_shape=input_shape, augmentation=augmentation, seed=seed, epoch=epoch, crops=crops
        )
        count, device = len(padded), padded.device
        generator = seeded("operations", seed, crops)
        choices = torch.tensor(operations_for(input_shape))
        kinds = choices[torch.randint(len(choices), (ROUNDS, count), generator=generator)]
        strengths = torch.randint(ONE, (ROUNDS, count), generator=generator, dtype=torch.int32)
        patches = torch.rand(count, 3, generator=generator, dtype=torch.float64)

        self._kinds = kinds.to(device)
        self._strengths = strengths.to(device)
        self._matrices = matrices(kinds, strengths, self._height, self._width).to(device)
        self._patches = [
            inside.to(device)
            for inside in patch(patches, self._height, self._width, share=0.25 if self._signal else 0.5)
        ]
        self._fill = torch.tensor(fill, dtype=torch.uint8, device=device)[:, None, None]

    def images(self, indices: Int64[Tensor, " b"]) -> UInt8[Tensor, "b *shape"]:
        """The strongly augmented images at some places of the training split; see :meth:`View.images`."""
        indices = indices.to(self._kinds.device)
        images = super().images(indices)
        if self._signal:
            images = images[:, :, None]
        images = images.contiguous()
        for kinds, strengths, moves in zip(self._kinds, self._strengths, self._matrices, strict=True):
            images = operate(images, kinds[indices], strengths[indices], moves[indices])
        rows, columns = (inside[indices] for inside in self._patches)
        images = torch.where(rows[:, None, :, None] & columns[:, None, None, :], self._fill, images)
        return images[:, :, 0] if self._signal else images.contiguous(memory_format=torch.channels_last)


def patch(
    draws: Float64[Tensor, "n 3"], height: int, width: int, share: float
) -> tuple[Bool[Tensor, "n height"], Bool[Tensor, "n width"]]:
    """The rows and the columns of a square whose side is up to ``share`` of the image's; its centre lies inside."""
    size = width if height == 1 else min(height, width)
    half = draws[:, :1] * share * size / 2
    inside = [
        (torch.arange(length) + 0.5 - centre[:, None] * length).abs() < half
        for length, centre in ((height, draws[:, 1]), (width, draws[:, 2]))
    ]
    return inside[0] | (height == 1), inside[1]


def matrices(
    kinds: Int64[Tensor, "rounds n"], strengths: Int32[Tensor, "rounds n"], height: int, width: int
) -> Int32[Tensor, "rounds n 6"]:
    """Where the geometric operations take each pixel from, in fixed point; the identity for all others.

    Pixel (x, y) comes from ``(a x + b y + c, d x + e y + f)``. Rotation by up to 30 degrees, shear and translation by
    up to 0.3, in either direction.
    """
    signed = strengths.double() / ONE * 2 - 1
    angles = torch.where(kinds == ROTATE, signed * math.radians(30), 0)
    a, b, d, e = angles.cos(), -angles.sin(), angles.sin(), angles.cos()
    # The centre of the image stays where it is.
    c = width / 2 - a * width / 2 - b * height / 2
    f = height / 2 - d * width / 2 - e * height / 2
    b = torch.where(kinds == SHEAR_X, 0.3 * signed, b)
    d = torch.where(kinds == SHEAR_Y, 0.3 * signed, d)
    c = torch.where(kinds == TRANSLATE_X, 0.3 * width * signed, c)
    f = torch.where(kinds == TRANSLATE_Y, 0.3 * height * signed, f)
    # The centre of a pixel lies half a pixel from its corner.
    exact = torch.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2], dim=-1)
    return (exact * ONE + 0.5).floor().int()


def operate(
    images: UInt8[Tensor, "b c h w"],
    kinds: Int64[Tensor, " b"],
    strengths: Int32[Tensor, " b"],
    moves: Int32[Tensor, "b 6"],
) -> UInt8[Tensor, "b c h w"]:
    """One operation on each image; images of one kind are treated together."""
    images = images.clone()
    moved = ((kinds >= ROTATE) & (kinds <= TRANSLATE_Y)).nonzero().flatten()
    images[moved] = _move(images[moved], moves[moved])
    for kind, function in _ON_LEVELS.items():
        chosen = (kinds == kind).nonzero().flatten()
        if len(chosen):
            changed = function(images[chosen].int(), strengths[chosen, None, None, None])
            images[chosen] = changed.clamp(0, 255).to(torch.uint8)
    return images


def _move(images: UInt8[Tensor, "b c h w"], moves: Int32[Tensor, "b 6"]) -> UInt8[Tensor, "b c h w"]:
    """Each pixel from its place by ``moves``, the nearest one; black from outside."""
    height, width = images.shape[2:]
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    a, b, c, d, e, f = moves[:, :, None, None].unbind(1)
    left, top = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (left >= 0) & (left < width) & (top >= 0) & (top < height)
    places = torch.where(inside, top * width + left, 0).flatten(1).long()
    taken = images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1))
    return torch.where(inside[:, None], taken.view_as(images), 0)


def _factor(strength: Tensor) -> Tensor:
    """From 0.05 to 0.95."""
    return (ONE // 20) + (strength * 9 // 10)


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    return (start * ONE + factor * (end - start)) >> 16


def _grey(images: Tensor) -> Tensor:
    """Luma of ITU-R 601-2."""
    red, green, blue = images.unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + ONE // 2) >> 16)[:, None]


def _smooth(images: Tensor) -> Tensor:
    """Mean of each pixel (five times) and its eight neighbours; the border as it is."""
    size = images.shape[2:]
    if min(size) < 3:
        return images
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * images[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26
    return smooth


def _auto_contrast(images: Tensor, strength: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * 255 // (high - low).clamp(min=1), images)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, _factor(strength))


def _colour(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(_grey(images), images, _factor(strength))


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    pixels = images.shape[2] * images.shape[3]
    mean = (2 * _grey(images).sum((2, 3), keepdim=True) + pixels) // (2 * pixels)
    return _blend(mean.int(), images, _factor(strength))


def _equalise(images: Tensor, strength: Tensor) -> Tensor:
    """Levels by their rank among the pixels of a channel, so that all are about equally frequent."""
    flat = images.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    brightest = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(2, flat).view_as(images).int()


def _posterise(images: Tensor, strength: Tensor) -> Tensor:
    kept = 4 + (strength >> 14)  # 4 to 7 bits of each level
    return images & (0xFF00 >> kept)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(_smooth(images), images, _factor(strength))


def _solarise(images: Tensor, strength: Tensor) -> Tensor:
    return torch.where(images * 256 < strength, images, 255 - images)


_ON_LEVELS = {
    AUTO_CONTRAST: _auto_contrast,
    BRIGHTNESS: _brightness,
    COLOUR: _colour,
    CONTRAST: _contrast,
    EQUALISE: _equalise,
    POSTERISE: _posterise,
    SHARPNESS: _sharpness,
    SOLARISE: _solarise,
}
