"""MobileNetV2 at half width for small images (Sandler et al. 2018, arXiv 1801.04381)."""

from jaxtyping import Float
from torch import Tensor, nn

from undistill.models.layers import conv_norm, initialise

# Expansion, channels at half width, blocks, stride of the first block.
_STAGES = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))


class InvertedResidual(nn.Module):
    """Widen by 1x1, convolve each channel by 3x3, narrow by 1x1 with no activation; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.residual = nn.Sequential(
            *conv_norm(inputs, width, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride=stride, groups=width),
            nn.ReLU(inplace=True),
            *conv_norm(width, outputs, 1),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        residual = self.residual(images)
        return images + residual if self.has_shortcut else residual


class MobileNetV2(nn.Module):
    """Stem of stride 2, seven stages of inverted residuals, a 1x1 convolution to 1,280 channels, a linear layer.

    Deviations from the paper, all as in the distillation literature (Tian et al. 2020, arXiv 1910.10699), whose
    student "MobileNetV2" this is: half width without rounding to multiples of 8; stride 1 where the paper's second
    stage has 2; ReLU for ReLU6; the first stage keeps its 1x1 widening; no dropout.

    Attributes:
        stages: the stages, in order.
    """

    def __init__(self, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(channels, 16, 3, stride=2), nn.ReLU(inplace=True))
        stages = []
        inputs = 16
        for expansion, outputs, depth, stride in _STAGES:
            blocks = []
            for position in range(depth):
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride if position == 0 else 1))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.widen = nn.Sequential(*conv_norm(inputs, 1280, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(1280, num_classes)
        initialise(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.widen(self.stages(self.stem(images))).mean(dim=(2, 3)))


def mobilenetv2(*, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """MobileNetV2, half width.

    >>> sum(p.numel() for p in mobilenetv2(num_classes=100, input_shape=(3, 32, 32)).parameters())
    812836
    """
    return MobileNetV2(channels=input_shape[0], num_classes=num_classes)
