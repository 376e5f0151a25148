"""Networks of several students as one: weights and images have a first dimension of students.

The classes here compute what ``Perceptron`` and ``ConvNet`` compute, for all students at once; see
:mod:`undistill.training.vectorised` for why a student's numbers do not depend on the others.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from undistill.models.embedded import ConvNet, Perceptron

Layer = TypeVar("Layer", bound=nn.Module)

VECTOR = 16
"""Floats that the inner dimension of a convolution's numbers is a multiple of: a whole vector of any processor."""


class Stacked(ABC):
    """Students' networks as one."""

    @abstractmethod
    def __call__(
        self, images: Float[Tensor, "students rows pixels"], parameters: Sequence[Tensor]
    ) -> Float[Tensor, "students rows classes"]:
        """The logits of each student for its own images.

        Args:
            images: flattened.
            parameters: of the network, in its order, with a first dimension of students.
        """

    @abstractmethod
    def hand_back(self, place: int, net: nn.Module) -> None:
        """Give a network what the student at a place has learnt beside its parameters."""


def whole(count: int, of: int) -> int:
    """The next multiple of a number.

    >>> whole(5, 16), whole(16, 16)
    (16, 16)
    """
    return count + -count % of


def can_stack(net: nn.Module) -> bool:
    """Whether a network is of a kind that is stacked here: a perceptron, or a small CNN for signals.

    >>> from undistill.models import build
    >>> can_stack(build("cnn1d-small", num_classes=3, input_shape=(1, 40)))
    True
    >>> can_stack(build("cnn", num_classes=3, input_shape=(1, 8, 8)))
    False
    """
    if type(net) is ConvNet:
        widths = [layer.out_channels for layer in _layers(net, nn.Conv1d)]
        return bool(widths) and all(width % VECTOR == 0 for width in widths)
    return type(net) is Perceptron


def stack(nets: Sequence[nn.Module], images: int, channels: int) -> Stacked:
    """The stacked network of students.

    Args:
        nets: the students' own, alike; :func:`can_stack` holds for them.
        images: of a step, for each student; rows of images after them are padding.
        channels: of an image.
    """
    convolutional = [net for net in nets if isinstance(net, ConvNet)]
    return StackedConvNets(convolutional, images, channels) if convolutional else StackedPerceptrons()


class StackedPerceptrons(Stacked):
    """Perceptrons: one batched product per layer."""

    def __call__(
        self, images: Float[Tensor, "students rows pixels"], parameters: Sequence[Tensor]
    ) -> Float[Tensor, "students rows classes"]:
        values = images
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            if values is not images:
                values = values.relu()
            values = torch.baddbmm(bias[:, None], values, weight.mT)
        return values

    def hand_back(self, place: int, net: nn.Module) -> None:
        """A perceptron has nothing but its parameters."""


class StackedConvNets(Stacked):
    """CNNs for signals: a convolution is one batched product of patches, batch normalisation one call for all.

    Rows of padding are left out, for batch normalisation would count them.

    Args:
        nets, images, channels: as of :func:`stack`.
    """

    def __init__(self, nets: Sequence[ConvNet], images: int, channels: int) -> None:
        self.images, self.channels, self.steps = images, channels, 0
        self.convolutions = [_Convolution(layer) for layer in _layers(nets[0], nn.Conv1d)]
        self.norms = _layers(nets[0], nn.BatchNorm1d)
        seen = [[_seen(norm) for norm in _layers(net, nn.BatchNorm1d)] for net in nets]
        self.means = [torch.cat([mean for mean, _, _ in stage]) for stage in zip(*seen, strict=True)]
        self.variances = [torch.cat([variance for _, variance, _ in stage]) for stage in zip(*seen, strict=True)]
        self.before = [int(layers[0][2]) for layers in seen]

    def __call__(
        self, images: Float[Tensor, "students rows pixels"], parameters: Sequence[Tensor]
    ) -> Float[Tensor, "students rows classes"]:
        students, rows, pixels = images.shape
        signals = images[:, : self.images].view(students, self.images, self.channels, pixels // self.channels)
        values = signals.permute(1, 3, 0, 2)  # image, place, student, channel
        *layers, weight, bias = parameters
        for stage, norm in enumerate(self.norms):
            kernels, scale, shift = layers[3 * stage : 3 * stage + 3]
            assert norm.momentum is not None  # None would be the mean over all steps, which no ConvNet takes
            convolved = self.convolutions[stage](values, kernels)
            normalised = F.batch_norm(
                convolved.flatten(2).flatten(0, 1),
                self.means[stage],
                self.variances[stage],
                scale.flatten(),
                shift.flatten(),
                training=True,
                momentum=norm.momentum,
                eps=norm.eps,
            )
            values = normalised.relu_().view(convolved.shape)
        self.steps += 1
        features = F.pad(values.mean(1).transpose(0, 1), (0, 0, 0, rows - self.images))
        return torch.baddbmm(bias[:, None], features, weight.mT)

    def hand_back(self, place: int, net: nn.Module) -> None:
        """Running means and variances, and the number of steps that they saw."""
        assert isinstance(net, ConvNet)
        for norm, means, variances in zip(_layers(net, nn.BatchNorm1d), self.means, self.variances, strict=True):
            mean, variance, steps = _seen(norm)
            mean.copy_(means.view(-1, norm.num_features)[place])
            variance.copy_(variances.view(-1, norm.num_features)[place])
            steps.fill_(self.before[place] + self.steps)


def _layers(net: ConvNet, kind: type[Layer]) -> list[Layer]:
    return [layer for layer in net.layers if isinstance(layer, kind)]


def _seen(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor, Tensor]:
    """Running mean and variance, and the number of steps."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    return norm.running_mean, norm.running_var, norm.num_batches_tracked


class _Convolution:
    """Students' convolutions of one layer as a product of patches and kernels, in memory that is used again."""

    def __init__(self, layer: nn.Conv1d) -> None:
        self.kernel, self.stride, self.padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
        self.width = whole(self.kernel * layer.in_channels, VECTOR)  # of a patch, with zeros after its own
        self.buffers: dict[str, Tensor] = {}

    def __call__(
        self,
        values: Float[Tensor, "images places students inputs"],
        kernels: Float[Tensor, "students outputs inputs k"],
    ) -> Float[Tensor, "images outplaces students outputs"]:
        own = self.kernel * values.shape[3]
        matrices = F.pad(kernels.transpose(2, 3).flatten(2), (0, self.width - own))
        return _PatchProduct.apply(values, matrices, self)

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Memory, zeros at first; whoever asks by this name gets the same again."""
        if name not in self.buffers:
            self.buffers[name] = torch.zeros(shape)
        return self.buffers[name]


class _PatchProduct(torch.autograd.Function):
    """The products of patches with kernels. Memory of one step is that of the next: no step may begin before the
    gradients of the last are done."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, matrices: Tensor, layer: _Convolution) -> Tensor:
        images, places, students, inputs = values.shape
        out = (places + 2 * layer.padding - layer.kernel) // layer.stride + 1
        padded = layer.buffer("padded", students, images, places + 2 * layer.padding, inputs)
        padded[:, :, layer.padding : layer.padding + places] = values.permute(2, 0, 1, 3)
        windows = padded.unfold(2, layer.kernel, layer.stride).transpose(3, 4)
        patches = layer.buffer("patches", students, images, out, layer.width)
        patches[..., : layer.kernel * inputs].view(windows.shape).copy_(windows)
        ctx.save_for_backward(matrices)
        ctx.layer, ctx.shape = layer, padded.shape
        products = layer.buffer("products", students, images * out, matrices.shape[1])
        torch.bmm(patches.flatten(1, 2), matrices.mT, out=products)
        return products.view(students, images, out, -1).permute(1, 2, 0, 3).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        [gradient], [matrices], layer = gradients, ctx.saved_tensors, ctx.layer
        images, out, students, outputs = gradient.shape
        of_products = layer.buffer("of products", students, images, out, outputs)
        of_products.copy_(gradient.permute(2, 0, 1, 3))
        rows = of_products.flatten(1, 2)
        of_matrices = torch.bmm(rows.mT, layer.buffers["patches"].flatten(1, 2))
        if not ctx.needs_input_grad[0]:
            return None, of_matrices, None
        inputs = ctx.shape[3]
        of_patches = layer.buffer("of patches", students, images * out, layer.width)
        torch.bmm(rows, matrices, out=of_patches)
        windows = of_patches.view(students, images, out, layer.width)[..., : layer.kernel * inputs]
        of_padded = layer.buffer("of padded", *ctx.shape).zero_()
        for tap, window in enumerate(windows.split(inputs, 3)):
            of_padded[:, :, tap : tap + layer.stride * (out - 1) + 1 : layer.stride] += window
        places = ctx.shape[2] - 2 * layer.padding
        return of_padded[:, :, layer.padding : layer.padding + places].permute(1, 2, 0, 3), of_matrices, None
