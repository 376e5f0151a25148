"""Many image files into one array."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from undistill.errors import InputError, require
from undistill.tasks.task import first_few

GRAY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")  # and I;16 and its like: more than 8 bits a channel


def decode(
    place: str, pictures: Iterable[tuple[str, Path | bytes | None]], count: int
) -> UInt8[np.ndarray, "n height width channels"]:
    """Decode images of one size.

    If all of them are gray (with or without transparency), the result has one channel. Otherwise it has three: palette
    and other colour images are converted to RGB, transparency is dropped, and gray images get three equal channels.

    Args:
        place: What the images belong to, for messages.
        pictures: For each image a name for messages, and its file or its encoded bytes (None if there are none).
        count: How many images there are.

    Returns:
        The images, shape (n, height, width, channels).

    Raises:
        InputError: some images cannot be read, have more than 8 bits a channel, or are not of the size of the first;
            the message names the first ones and gives their number.
        MissingExtraError: Pillow is not installed.
    """
    pillow = require("PIL.Image", "data")
    images = np.zeros((count, 0, 0, 1), dtype=np.uint8)
    first = ""
    unreadable: list[str] = []
    misfits: list[str] = []
    for place_in_images, (name, encoded) in enumerate(pictures):
        try:
            pixels = _pixels(pillow, encoded)
        except Exception as error:  # a broken file can break a decoder in any way
            unreadable.append(f"{name} ({str(error) or type(error).__name__})")
            continue
        if not first:
            first = name
            images = np.empty((count, *pixels.shape), dtype=np.uint8)
        if pixels.shape[:2] != images.shape[1:3]:
            misfits.append(f"{name} ({_size(pixels)})")
            continue
        if pixels.shape[2] > images.shape[3]:
            images = np.repeat(images, 3, axis=3)
        images[place_in_images] = pixels
    problems = []
    if unreadable:
        problems.append(f"these cannot be read: {first_few(unreadable)}; repair or remove them")
    if misfits:
        problems.append(
            f"all must be of one size, but {first} is {_size(images[0])} and these are not: {first_few(misfits)}; "
            "resize them"
        )
    if problems:
        raise InputError(f"the images of {place} cannot be used: " + "; ".join(problems))
    return images


def _pixels(pillow: Any, encoded: Path | bytes | None) -> UInt8[np.ndarray, "height width channels"]:
    if encoded is None:
        raise ValueError("there is no image")
    with pillow.open(BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
        if image.mode.startswith(DEEP_MODES):
            raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
        mode = "L" if image.mode in GRAY_MODES else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
