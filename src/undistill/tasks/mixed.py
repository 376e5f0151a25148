"""A view of the training images in which each is mixed with another one of its class."""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from undistill.tasks.view import Augmentation, View, seeded


class MixedView(View):
    """The training images, each mixed with one of its class: a pure function of (task, seed, epoch, crops).

    Image i becomes ``s x_i + (1 - s) x_j``, rounded to whole levels: j is drawn uniformly from the images of the same
    class (it may be i itself), the share s uniformly from [0, 1). Both are cropped and mirrored as in :class:`View`,
    from a generator of their own. The class of the mixture is the common one, so it belongs to one cluster.

    Args:
        padded, input_shape, augmentation, seed, epoch, crops: as of :class:`View`.
        labels: the class of each image.

    Source: mixup, Zhang et al., arXiv 1710.09412. Deviation: only images of one class are mixed, with uniform shares.
    """

    word = "mixed view"

    def __init__(
        self,
        padded: UInt8[Tensor, "n padded_height padded_width channels"],
        *,
        input_shape: tuple[int, ...],
        augmentation: Augmentation,
        seed: int,
        epoch: int,
        crops: int,
        labels: Int64[Tensor, " n"],
    ) -> None:
        super().__init__(
            padded, input_shape=input_shape, augmentation=augmentation, seed=seed, epoch=epoch, crops=crops
        )
        generator = seeded("mixing", seed, crops)
        draws = torch.rand(2, len(labels), generator=generator, dtype=torch.float64)
        by_class, counts = labels.argsort(stable=True), labels.bincount()
        first = counts.cumsum(0) - counts
        partners = by_class[first[labels] + (draws[0] * counts[labels]).long()]
        self._partners = partners.to(padded.device)
        self._shares = draws[1].float().to(padded.device)

    def images(self, indices: Int64[Tensor, " b"]) -> UInt8[Tensor, "b *shape"]:
        """The mixtures at some places of the training split; see :meth:`View.images`."""
        indices = indices.to(self._partners.device)
        own, others = super().images(indices), super().images(self._partners[indices])
        shares = self._shares[indices].view(-1, *[1] * (own.ndim - 1))
        return torch.lerp(others.float(), own.float(), shares).round_().to(torch.uint8)
