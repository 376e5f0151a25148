"""Pieces that several networks share."""

from collections.abc import Iterator

from torch import nn


def conv_norm(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Iterator[nn.Module]:
    """A 2-D convolution without bias that keeps the size (up to its stride), and batch normalisation.

    >>> [type(layer).__name__ for layer in conv_norm(3, 16, 3)]
    ['Conv2d', 'BatchNorm2d']
    """
    yield nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs)


def initialise(network: nn.Module) -> None:
    """Kaiming normal weights (fan out) in every convolution, as He et al. (2015) for networks of ReLUs.

    Biases of convolutions are zero. Batch normalisation and linear layers keep PyTorch's start.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
