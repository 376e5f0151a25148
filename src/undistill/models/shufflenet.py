"""ShuffleNetV2 1x for small images (Ma et al. 2018, arXiv 1807.11164)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undistill.models.layers import conv_norm, initialise


class ShuffleBlock(nn.Module):
    """Half of the channels pass, the other half is convolved; then the halves are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, stride=1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        passed, convolved = images.chunk(2, dim=1)
        return interleave(passed, self.branch(convolved))


class DownBlock(nn.Module):
    """Two branches, each of stride 2 and half of the new channels; then they are interleaved."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.short = nn.Sequential(
            *conv_norm(inputs, inputs, 3, stride=2, groups=inputs),
            *conv_norm(inputs, half, 1),
            nn.ReLU(inplace=True),
        )
        self.branch = _branch(inputs, half, stride=2)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return interleave(self.short(images), self.branch(images))


class ShuffleNetV2(nn.Module):
    """A 1x1 stem, three stages that each halve height and width, a 1x1 convolution to 1,024 channels, a linear layer.

    Deviation from the paper, as in the distillation literature (Tian et al. 2020, arXiv 1910.10699): the stem is a
    1x1 convolution of stride 1 without max-pooling, so that 32x32 images reach the first stage whole.

    Attributes:
        stages: the stages, in order.
    """

    def __init__(self, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(channels, 24, 1), nn.ReLU(inplace=True))
        stages = []
        inputs = 24
        for outputs, depth in ((116, 3), (232, 7), (464, 3)):
            stages.append(nn.Sequential(DownBlock(inputs, outputs), *(ShuffleBlock(outputs) for _ in range(depth))))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.widen = nn.Sequential(*conv_norm(inputs, 1024, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(1024, num_classes)
        initialise(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.widen(self.stages(self.stem(images))).mean(dim=(2, 3)))


def shufflenetv2(*, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """ShuffleNetV2, size 1.

    >>> sum(p.numel() for p in shufflenetv2(num_classes=100, input_shape=(3, 32, 32)).parameters())
    1355528
    """
    return ShuffleNetV2(channels=input_shape[0], num_classes=num_classes)


def interleave(first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
    """Channels of ``first`` and ``second`` by turns (the channel shuffle of two groups).

    >>> interleave(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    return torch.stack((first, second), dim=2).flatten(1, 2)


def _branch(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        *conv_norm(inputs, outputs, 1),
        nn.ReLU(inplace=True),
        *conv_norm(outputs, outputs, 3, stride=stride, groups=outputs),
        *conv_norm(outputs, outputs, 1),
        nn.ReLU(inplace=True),
    )
