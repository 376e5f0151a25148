"""What one epoch of training sees: an order of the images, and crops and flips taken from whole batches at once."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from undistill.files import content_hash


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied from epoch to epoch.

    An image is padded with zeros by ``pad`` pixels on each side and cropped back to its size at a random place, then
    mirrored left to right with probability one half if ``flip`` is set. A 1-D signal is padded likewise along its
    length, which shifts it by at most ``pad`` points; it is never mirrored.

    Args:
        pad: Pixels (points, for signals) of zero padding on each side; 0 for no cropping.
        flip: Whether to mirror images.

    Example:
        >>> Augmentation(pad=4, flip=True)
        Augmentation(pad=4, flip=True)
    """

    pad: int = 0
    flip: bool = False


def default_augmentation(input_shape: tuple[int, ...]) -> Augmentation:
    """The augmentation that :func:`undistill.tasks.load_task` gives to inputs of one shape.

    Images are cropped with a padding of an eighth of their height (4 pixels for 32 x 32, 1 for 8 x 8), and mirrored if
    they have three channels; a mirrored letter or digit is another sign, so images of one channel are not. 1-D signals
    are left as they are.

    Args:
        input_shape: (channels, height, width) or (channels, length).

    Example:
        >>> default_augmentation((3, 32, 32))
        Augmentation(pad=4, flip=True)
        >>> default_augmentation((1, 28, 28))
        Augmentation(pad=3, flip=False)
        >>> default_augmentation((1, 8, 8))
        Augmentation(pad=1, flip=False)
    """
    if len(input_shape) == 2:
        return Augmentation()
    return Augmentation(pad=input_shape[1] // 8, flip=input_shape[0] == 3)


def pad_images(images: UInt8[Tensor, "n *shape"], pad: int) -> UInt8[Tensor, "n height width channels"]:
    """Images with a border of zeros, channels last and contiguous; a signal becomes an image of height 1."""
    if images.ndim == 3:
        return F.pad(images, (pad, pad)).unsqueeze(2).permute(0, 2, 3, 1).contiguous()
    return F.pad(images.permute(0, 2, 3, 1), (0, 0, pad, pad, pad, pad)).contiguous()


def seeded(word: str, seed: int, epoch: int) -> torch.Generator:
    """A generator on the CPU that is a function of its arguments; ``word`` says what it draws."""
    return torch.Generator().manual_seed(int(content_hash([word, seed, epoch])[:15], 16))


class View:
    """The training images as one epoch sees them: a pure function of (task, seed, epoch).

    Made by :meth:`undistill.tasks.Task.view`. The crop and the mirroring of every training image, and the order of the
    images, are drawn at once on the CPU from a generator seeded by a hash of (seed, epoch). So what is seen depends
    neither on the device, nor on how the epoch is cut into batches, nor on the epochs before: a resumed run sees
    exactly what an unbroken one would.

    Args:
        padded: All training images, padded as by :func:`pad_images`, on the device where batches are wanted.
        input_shape: (channels, height, width) or (channels, length) of the images before padding.
        augmentation: What is varied.
        seed: The seed of the run.
        epoch: The epoch, counted from 0, of which the order is taken.
        crops: The epoch of which crops and mirroring are taken; most often the same.

    Attributes:
        order: A permutation of the training images, on the device of ``padded``: int64, shape (n,).
        word: Of the generator of crops and mirroring; the order is the same for every kind of view.

    Example:
        >>> from undistill.tasks import load_task
        >>> task = load_task("digits")
        >>> view = task.view(seed=0, epoch=3)
        >>> batch = view.order[:128]
        >>> view.images(batch).shape, task.train.labels[batch].shape
        (torch.Size([128, 1, 8, 8]), torch.Size([128]))
    """

    word: ClassVar[str] = "view"
    order: Int64[Tensor, " n"]

    def __init__(
        self,
        padded: UInt8[Tensor, "n padded_height padded_width channels"],
        *,
        input_shape: tuple[int, ...],
        augmentation: Augmentation,
        seed: int,
        epoch: int,
        crops: int,
    ) -> None:
        count, padded_height, padded_width, self._channels = padded.shape
        self._signal = len(input_shape) == 2
        self._height, self._width = (1, input_shape[1]) if self._signal else input_shape[1:]
        generator = seeded(View.word, seed, epoch)
        order = torch.randperm(count, generator=generator)
        if (self.word, crops) != (View.word, epoch):
            generator = seeded(self.word, seed, crops)
            torch.randperm(count, generator=generator)  # that epoch's order was drawn before its crops
        top = torch.randint(padded_height - self._height + 1, (count,), generator=generator)
        left = torch.randint(padded_width - self._width + 1, (count,), generator=generator)
        flips = torch.randint(2, (count,), generator=generator, dtype=torch.bool)
        corners = (torch.arange(count) * padded_height + top) * padded_width + left

        self.order = order.to(padded.device)
        self._corners = corners.to(padded.device)
        self._flips = flips.to(padded.device) if augmentation.flip else None
        self._row_starts = torch.arange(self._height, device=padded.device) * padded_width
        # Row p of `_windows` is the run of `width` pixels that starts at pixel p of the whole padded tensor. The rows
        # overlap in memory, so a crop is `height` of them and a batch of crops is one index_select.
        pixels = count * padded_height * padded_width
        self._windows = padded.as_strided((pixels - self._width + 1, self._width * self._channels), (self._channels, 1))

    def images(self, indices: Int64[Tensor, " b"]) -> UInt8[Tensor, "b *shape"]:
        """The augmented images at some places of the training split.

        Args:
            indices: Places in the training split, shape (b,), on any device; usually a slice of ``order``.

        Returns:
            Images, uint8, shape (b, channels, height, width) in channels_last memory, or (b, channels, length).

        Raises:
            IndexError: an index is not in 0..n-1.
        """
        indices = indices.to(self._corners.device)
        starts = self._corners[indices][:, None] + self._row_starts
        rows = self._windows.index_select(0, starts.flatten())
        crops = rows.view(len(indices), self._height, self._width, self._channels)
        if self._flips is not None:
            crops = torch.where(self._flips[indices][:, None, None, None], crops.flip(2), crops)
        if self._signal:
            return crops[:, 0].transpose(1, 2).contiguous()
        return crops.permute(0, 3, 1, 2)
