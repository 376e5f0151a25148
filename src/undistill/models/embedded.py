"""Networks of a few layers, for the tasks that come with the package."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from undistill.models.layers import initialise


class ConvNet(nn.Module):
    """Convolution, batch normalisation and ReLU per layer; then the global average and a linear layer.

    Every layer but the first halves the size.

    Args:
        kernel: size of every convolution (odd).
        widths: channels after each layer.
        num_classes: C.
        input_shape: (channels, length) or (channels, height, width).
    """

    def __init__(self, kernel: int, widths: Sequence[int], *, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        flat = len(input_shape) == 2
        convolution, normalisation = (nn.Conv1d, nn.BatchNorm1d) if flat else (nn.Conv2d, nn.BatchNorm2d)
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise((input_shape[0], *widths))):
            stride = 1 if index == 0 else 2
            layers += [
                convolution(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
                normalisation(outputs),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)
        initialise(self)

    @property
    def stages(self) -> list[nn.Sequential]:
        """Each convolution with what follows it, in order."""
        return [self.layers[place : place + 3] for place in range(0, len(self.layers), 3)]

    def forward(self, images: Float[Tensor, "n c *size"]) -> Float[Tensor, "n classes"]:
        return self.head(self.layers(images).flatten(2).mean(dim=2))


class Perceptron(nn.Sequential):
    """Flatten, then linear layers with ReLU between them."""

    @property
    def stages(self) -> list[nn.Sequential]:
        """Each hidden layer with its ReLU, in order."""
        return [nn.Sequential(*list(self)[place : place + 2]) for place in range(1, len(self) - 1, 2)]


def perceptron(widths: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A multi-layer perceptron: flatten, then hidden layers with ReLU, their widths joined by hyphens.

    >>> print(perceptron("16", num_classes=10, input_shape=(1, 8, 8)))
    Perceptron(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=64, out_features=16, bias=True)
      (2): ReLU()
      (3): Linear(in_features=16, out_features=10, bias=True)
    )
    """
    *hidden, last = pairwise((prod(input_shape), *map(int, widths.split("-")), num_classes))
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in hidden:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return Perceptron(*layers, nn.Linear(*last))
