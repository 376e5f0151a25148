"""VGG with batch normalisation for small images (Simonyan and Zisserman 2015, arXiv 1409.1556)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from undistill.models.layers import initialise


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, 64 to 512 channels wide, global average pooling and one linear layer.

    Deviations from the paper, all as in the distillation literature (Tian et al. 2020, arXiv 1910.10699): batch
    normalisation after each convolution; one linear layer for three; the fourth and fifth max-pooling are left out,
    so that 32x32 images reach the last stages at 4x4.

    Args:
        depths: number of convolutions of each stage.
        channels: channels of the images.
        num_classes: C.

    Attributes:
        stages: the stages, in order; the second to fourth begin with max-pooling.
    """

    def __init__(self, depths: Sequence[int], *, channels: int, num_classes: int) -> None:
        super().__init__()
        stages = []
        inputs = channels
        for index, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True)):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index in (1, 2, 3) else []
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.stages(images).mean(dim=(2, 3)))


def vgg(depths: Sequence[int], *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A VGG for images of at least 8x8 pixels.

    >>> sum(p.numel() for p in vgg((1, 1, 1, 1, 1), num_classes=100, input_shape=(3, 32, 32)).parameters())
    3965028
    """
    return VGG(depths, channels=input_shape[0], num_classes=num_classes)
