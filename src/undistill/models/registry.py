"""Every network that can be built by name."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from undistill.errors import InputError, unknown_name
from undistill.models.embedded import ConvNet, perceptron
from undistill.models.external import imported_model, timm_model
from undistill.models.imports import import_callable
from undistill.models.mobilenet import mobilenetv2
from undistill.models.resnet import BasicBlock, Bottleneck, cifar_resnet, imagenet_resnet
from undistill.models.shufflenet import shufflenetv2
from undistill.models.vgg import vgg
from undistill.models.wrn import wide_resnet
from undistill.source import callable_code

_IMAGE = ("channels", "height", "width")
_SIGNAL = ("channels", "length")


@dataclass(frozen=True)
class ModelInfo:
    """A network, or a family of networks whose name holds numbers.

    Args:
        description: one line for ``undistill list models``.
        make: makes the network; called with the groups of ``pattern``, ``num_classes`` and ``input_shape``.
        examples: names that this entry builds.
        pattern: regular expression of the names; without one, the first example is the only name.
        axes: what the numbers of an input shape mean; empty for a network that takes any.
        smallest: least size of each axis after the channels.
    """

    description: str
    make: Callable[..., nn.Module]
    examples: tuple[str, ...]
    pattern: str | None = None
    axes: tuple[str, ...] = _IMAGE
    smallest: int = 1

    def match(self, architecture: str) -> re.Match[str] | None:
        """Whether ``architecture`` is a name of this entry, with the numbers in it as groups."""
        return re.fullmatch(self.pattern or re.escape(self.examples[0]), architecture)


def build(architecture: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A network by name, with fresh weights drawn from PyTorch's global generator.

    Args:
        architecture: a name of ``MODELS`` (``resnet20``, ``wrn-40-2``, ``mlp-64-32``), ``timm:NAME``, or the import
            path ``package.module:callable`` of a callable that takes ``num_classes`` and ``input_shape``.
        num_classes: C, at least 2.
        input_shape: shape of one image, (channels, height, width) or (channels, length).

    Returns:
        A module from normalised images (n, \\*input_shape) to logits (n, num_classes).

    Raises:
        InputError: no network has that name, or it cannot take that shape.

    >>> network = build("resnet8", num_classes=10, input_shape=(3, 32, 32))
    >>> sum(parameter.numel() for parameter in network.parameters())
    78042
    """
    problems = [f"a classifier needs at least 2 classes, got {num_classes}"] if num_classes < 2 else []
    if not input_shape or min(input_shape) < 1:
        problems.append(f"an input shape has positive sizes, such as (3, 32, 32), got {input_shape}")
    if problems:
        raise InputError(f"cannot build {architecture!r}: {'; '.join(problems)}.")
    for info in MODELS.values():
        if match := info.match(architecture):
            _check_shape(architecture, info, input_shape)
            return info.make(*match.groups(), num_classes=num_classes, input_shape=input_shape)
    raise unknown_name("model", architecture, MODELS)


def architecture_code(architecture: str) -> str | None:
    """A hash of the code behind a network of one's own (see ``source.callable_code``); None for one that comes
    with this package or another library.

    Args:
        architecture: as for :func:`build`, which has built it before.

    >>> architecture_code("resnet8") is None
    True
    """
    module, colon, _ = architecture.partition(":")
    own = colon and module != "timm" and module in sys.modules
    return callable_code(import_callable(architecture)) if own else None


def _check_shape(architecture: str, info: ModelInfo, input_shape: tuple[int, ...]) -> None:
    if not info.axes:
        return
    if len(input_shape) != len(info.axes):
        raise InputError(f"{architecture!r} takes input of shape ({', '.join(info.axes)}), not {input_shape}.")
    if min(input_shape[1:]) < info.smallest:
        raise InputError(
            f"{architecture!r} needs a {' and '.join(info.axes[1:])} of at least {info.smallest}; got {input_shape}."
        )


def _cifar(depth: int, factor: int = 1) -> ModelInfo:
    name = f"resnet{depth}" + (f"x{factor}" if factor > 1 else "")
    width = f", {factor} times as wide" if factor > 1 else ""
    return ModelInfo(f"ResNet-{depth} for 32x32 images{width}", partial(cifar_resnet, depth, factor), (name,))


def _imagenet(depth: int, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...]) -> ModelInfo:
    description = f"ImageNet ResNet-{depth} with a 3x3 stem"
    return ModelInfo(description, partial(imagenet_resnet, block, depths), (f"resnet{depth}",))


def _vgg(depths: tuple[int, ...]) -> ModelInfo:
    depth = sum(depths) + 3  # the paper counts its three linear layers, of which one is left here
    description = f"VGG-{depth} with batch normalisation, for 32x32 images"
    return ModelInfo(description, partial(vgg, depths), (f"vgg{depth}",), smallest=8)


MODELS: dict[str, ModelInfo] = {
    **{info.examples[0]: info for info in map(_cifar, (8, 14, 20, 32, 56, 110))},
    "resnet8x4": _cifar(8, 4),
    "resnet32x4": _cifar(32, 4),
    "resnet18": _imagenet(18, BasicBlock, (2, 2, 2, 2)),
    "resnet34": _imagenet(34, BasicBlock, (3, 4, 6, 3)),
    "resnet50": _imagenet(50, Bottleneck, (3, 4, 6, 3)),
    "wrn-D-K": ModelInfo(
        "wide ResNet, D = 6 n + 4 layers, K times as wide",
        wide_resnet,
        ("wrn-16-2", "wrn-40-1", "wrn-40-2", "wrn-28-10"),
        pattern=r"wrn-([1-9]\d*)-([1-9]\d*)",
    ),
    "vgg8": _vgg((1, 1, 1, 1, 1)),
    "vgg11": _vgg((1, 1, 2, 2, 2)),
    "vgg13": _vgg((2, 2, 2, 2, 2)),
    "vgg16": _vgg((2, 2, 3, 3, 3)),
    "vgg19": _vgg((2, 2, 4, 4, 4)),
    "mobilenetv2": ModelInfo("MobileNetV2, half width, for 32x32 images", mobilenetv2, ("mobilenetv2",)),
    "shufflenetv2": ModelInfo("ShuffleNetV2, size 1, for 32x32 images", shufflenetv2, ("shufflenetv2",)),
    "cnn": ModelInfo("three-layer CNN for images of a few pixels", partial(ConvNet, 3, (32, 64, 64)), ("cnn",)),
    "cnn1d": ModelInfo("three-layer CNN for signals", partial(ConvNet, 5, (32, 64, 128)), ("cnn1d",), axes=_SIGNAL),
    "cnn1d-small": ModelInfo(
        "two-layer CNN for signals, a student of cnn1d", partial(ConvNet, 5, (16, 32)), ("cnn1d-small",), axes=_SIGNAL
    ),
    "mlp-H": ModelInfo(
        "perceptron with hidden layers of H (mlp-H1-H2: H1, H2) units",
        perceptron,
        ("mlp-16", "mlp-64-32"),
        pattern=r"mlp-([1-9]\d*(?:-[1-9]\d*)*)",
        axes=(),
    ),
    "timm:NAME": ModelInfo("any model of timm", timm_model, ("timm:resnet18",), pattern=r"timm:(.+)", axes=()),
    "package.module:callable": ModelInfo(
        "your own: callable(num_classes=..., input_shape=...) gives an nn.Module",
        imported_model,
        (),
        pattern=r"(.+:.+)",
        axes=(),
    ),
}
