"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

from jaxtyping import Float
from torch import Tensor, nn

from undistill.errors import InputError
from undistill.models.layers import initialise


class WideBlock(nn.Module):
    """Batch normalisation and ReLU come before each of two 3x3 convolutions (pre-activation)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.project = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        activated = self.activate(images)
        # A projection sees the activated images, an identity the raw ones: as in the authors' code.
        shortcut = images if self.project is None else self.project(activated)
        return shortcut + self.residual(activated)


class WideResNet(nn.Module):
    """WRN-depth-factor: three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times ``factor`` channels wide.

    The authors' optional dropout is left out.

    Attributes:
        stages: the stages, in order; the second and third halve height and width.

    Raises:
        InputError: ``depth`` is not 6 n + 4.
    """

    def __init__(self, depth: int, factor: int, *, channels: int, num_classes: int) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 4, 6)
        if blocks < 1 or remainder:
            raise InputError(f"the depth of a WRN is 6 n + 4 (10, 16, 22, 28, 34, 40, ...), not {depth}.")
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        stages = []
        inputs = 16
        for index, base in enumerate((16, 32, 64)):
            outputs = base * factor
            first = WideBlock(inputs, outputs, stride=1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(WideBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.head = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.activate(self.stages(self.stem(images))).mean(dim=(2, 3)))


def wide_resnet(depth: str, factor: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """The WRN whose depth and widening factor are written in its name.

    >>> sum(p.numel() for p in wide_resnet("16", "2", num_classes=100, input_shape=(3, 32, 32)).parameters())
    703284
    """
    return WideResNet(int(depth), int(factor), channels=input_shape[0], num_classes=num_classes)
