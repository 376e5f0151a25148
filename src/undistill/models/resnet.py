"""Residual networks for small images (He et al. 2016, arXiv 1512.03385)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from undistill.models.layers import conv_norm, initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_norm(inputs, width, 3, stride=stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3),
        )
        self.shortcut = _shortcut(inputs, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return self.relu(self.residual(images) + self.shortcut(images))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (which carries the stride) and a 1x1 convolution beside a shortcut; gives 4 * width channels."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.residual = nn.Sequential(
            *conv_norm(inputs, width, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride=stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, outputs, 1),
        )
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return self.relu(self.residual(images) + self.shortcut(images))


class ResNet(nn.Module):
    """A 3x3 stem, stages of residual blocks, global average pooling and a linear layer.

    Every stage but the first halves height and width. There is no max-pooling.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        channels: channels of the images.
        num_classes: C.
        stem: channels after the stem.
        widths: width of each stage's blocks.
        depths: number of blocks of each stage.

    Attributes:
        stages: the stages, in order.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        *,
        channels: int,
        num_classes: int,
        stem: int,
        widths: Sequence[int],
        depths: Sequence[int],
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(channels, stem, 3), nn.ReLU(inplace=True))
        stages = []
        inputs = stem
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for position in range(depth):
                blocks.append(block(inputs, width, stride=2 if index > 0 and position == 0 else 1))
                inputs = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.stages(self.stem(images)).mean(dim=(2, 3)))


def cifar_resnet(depth: int, factor: int, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-``depth`` for 32x32 images: three stages of n = (depth - 2) / 6 basic blocks.

    ``factor`` 1 is the network of He et al. (widths 16, 32, 64); ``factor`` 4 the wide one of the distillation
    literature (stem 32, widths 64, 128, 256; Tian et al. 2020, arXiv 1910.10699).

    Deviation from He et al.: a shortcut that changes its shape is a 1x1 convolution with batch normalisation, where
    they subsample and pad with zeros. The distillation literature does it this way, and its numbers are the ones to
    compare with.

    >>> sum(p.numel() for p in cifar_resnet(20, 1, num_classes=100, input_shape=(3, 32, 32)).parameters())
    278324
    """
    widths = tuple(factor * width for width in (16, 32, 64))
    stem = 16 if factor == 1 else 32
    depths = [(depth - 2) // 6] * 3
    channels = input_shape[0]
    return ResNet(BasicBlock, channels=channels, num_classes=num_classes, stem=stem, widths=widths, depths=depths)


def imagenet_resnet(
    block: type[BasicBlock] | type[Bottleneck],
    depths: Sequence[int],
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
) -> nn.Module:
    """A four-stage ImageNet ResNet whose 7x7 stem and max-pooling are one 3x3 convolution of stride 1.

    That is the usual change for 32x32 images: the original stem would leave 8x8 pixels to the first stage.

    >>> net = imagenet_resnet(BasicBlock, (2, 2, 2, 2), num_classes=100, input_shape=(3, 32, 32))
    >>> sum(p.numel() for p in net.parameters())
    11220132
    """
    widths = (64, 128, 256, 512)
    channels = input_shape[0]
    return ResNet(block, channels=channels, num_classes=num_classes, stem=64, widths=widths, depths=depths)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*conv_norm(inputs, outputs, 1, stride=stride))
