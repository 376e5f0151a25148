"""Every network: parameter counts against published ones, shapes, gradients, and other libraries' logits."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from undistill.errors import InputError
from undistill.models import MODELS, build

EXAMPLES = {example: info for info in MODELS.values() for example in info.examples}
# Trained on below; the others differ from one of these in depth or width alone.
SMALL = [
    *("resnet8", "resnet8x4", "wrn-16-2", "vgg8", "mobilenetv2", "shufflenetv2"),
    *("cnn", "cnn1d", "cnn1d-small", "mlp-16", "mlp-64-32"),
]

# 100 classes, 32x32 colour images.
# "Tian": counted on the code released with Tian et al. 2020 (github.com/HobbitLong/RepDistiller, commit b84f547).
# "pytorchcv": asserted in github.com/osmr/imgclsmob, pytorch/pytorchcv/models/{resnet,wrn}_cifar.py.
PUBLISHED = {
    "resnet8": (83_892, "Tian"),
    "resnet14": (181_108, "Tian"),
    "resnet20": (278_324, "Tian; pytorchcv"),
    "resnet32": (472_756, "Tian"),
    "resnet56": (861_620, "Tian; pytorchcv"),
    "resnet110": (1_736_564, "Tian; pytorchcv"),
    "resnet8x4": (1_233_540, "Tian"),
    "resnet32x4": (7_433_860, "Tian"),
    "resnet50": (23_705_252, "Tian"),
    "wrn-16-1": (180_916, "Tian"),
    "wrn-16-2": (703_284, "Tian"),
    "wrn-40-1": (569_780, "Tian"),
    "wrn-40-2": (2_255_156, "Tian"),
    "wrn-16-10": (17_174_324, "pytorchcv"),
    "wrn-28-10": (36_536_884, "pytorchcv"),
    "wrn-40-8": (35_794_484, "pytorchcv"),
    "vgg8": (3_965_028, "Tian"),
    "vgg11": (9_277_284, "Tian"),
    "vgg13": (9_462_180, "Tian"),
    "vgg16": (14_774_436, "Tian"),
    "vgg19": (20_086_692, "Tian"),
    "mobilenetv2": (812_836, "Tian"),
    "shufflenetv2": (1_355_528, "Tian"),
}


def shape_for(architecture: str) -> tuple[int, ...]:
    return (1, 40) if len(EXAMPLES[architecture].axes) == 2 else (3, 32, 32)


def count(architecture: str, num_classes: int) -> int:
    with torch.device("meta"):
        network = build(architecture, num_classes=num_classes, input_shape=(3, 32, 32))
    return sum(parameter.numel() for parameter in network.parameters())


def test_there_are_networks_to_test() -> None:
    assert len(EXAMPLES) >= 25
    assert set(SMALL) <= set(EXAMPLES)


@pytest.mark.parametrize("architecture", EXAMPLES)
def test_an_example_is_built_by_its_own_entry(architecture: str) -> None:
    assert next(info for info in MODELS.values() if info.match(architecture)) is EXAMPLES[architecture]


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_parameters_as_published(architecture: str) -> None:
    assert count(architecture, 100) == PUBLISHED[architecture][0]


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (56, "0.85"), (110, "1.7")])
def test_parameters_as_he_et_al(depth: int, millions: str) -> None:
    """Table 6 of He et al. 2016: 10 classes, shortcuts without parameters."""
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    parameters = count(f"resnet{depth}", 10) - projections
    assert f"{parameters / 1e6:.{len(millions) - 2}f}" == millions


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_parameters_as_torchvision(depth: int) -> None:
    """The same ResNet for ImageNet, less what its 7x7 stem has more than a 3x3 one."""
    weights = getattr(torchvision.models, f"ResNet{depth}_Weights").IMAGENET1K_V1
    assert count(f"resnet{depth}", 1000) == weights.meta["num_params"] - 64 * 3 * (7 * 7 - 3 * 3)


@pytest.mark.parametrize("architecture", EXAMPLES)
@pytest.mark.parametrize("num_classes", [2, 1000])
def test_logits_have_one_column_per_class(architecture: str, num_classes: int) -> None:
    shape = shape_for(architecture)
    with torch.device("meta"):
        network = build(architecture, num_classes=num_classes, input_shape=shape)
        assert network(torch.zeros(2, *shape)).shape == (2, num_classes)


@pytest.mark.parametrize("architecture", [*(name for name in SMALL if len(EXAMPLES[name].axes) == 3), "resnet18"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 28, 28), (3, 17, 40), (3, 96, 96)])
def test_any_channels_height_and_width(architecture: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build(architecture, num_classes=5, input_shape=shape)
        assert network(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("architecture", SMALL)
def test_gradients_are_finite_and_reach_every_parameter(architecture: str) -> None:
    torch.manual_seed(0)
    shape = shape_for(architecture)
    network = build(architecture, num_classes=10, input_shape=shape)
    F.cross_entropy(network(torch.randn(4, *shape)), torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("architecture", [name for name in SMALL if len(EXAMPLES[name].axes) == 3])
def test_memory_layout_does_not_matter(architecture: str) -> None:
    network = build(architecture, num_classes=10, input_shape=(3, 32, 32)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = network(images)
        changed = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(changed, logits, rtol=1e-4, atol=1e-4)


def assert_same_logits(network: nn.Module, oracle: nn.Module) -> None:
    """Both give the same logits once the oracle's tensors are the network's, taken in their order."""
    for tensor in oracle.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)  # batch normalisation that does something
    network.load_state_dict(dict(zip(network.state_dict(), oracle.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = oracle.eval()(images)
        torch.testing.assert_close(network.eval()(images), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_as_timm(depth: int) -> None:
    oracle = timm.create_model(f"resnet{depth}", num_classes=10)
    oracle.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    oracle.maxpool = nn.Identity()
    assert_same_logits(build(f"resnet{depth}", num_classes=10, input_shape=(3, 32, 32)), oracle)


def test_vgg_as_torchvision() -> None:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["B"], batch_norm=True)
    pools = [index for index, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    for index in pools[3:]:
        features[index] = nn.Identity()
    oracle = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    assert_same_logits(build("vgg13", num_classes=10, input_shape=(3, 32, 32)), oracle)


def test_shufflenet_as_torchvision() -> None:
    oracle = torchvision.models.shufflenet_v2_x1_0(num_classes=10)
    oracle.conv1[0] = nn.Conv2d(3, 24, 1, bias=False)
    oracle.maxpool = nn.Identity()
    assert_same_logits(build("shufflenetv2", num_classes=10, input_shape=(3, 32, 32)), oracle)


def test_wrn_as_formula() -> None:
    """x + conv(relu(bn(conv(relu(bn(x)))))), and the projection of relu(bn(x)) where the width changes."""
    network = build("wrn-16-2", num_classes=10, input_shape=(3, 32, 32)).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    tensors: Iterator[Tensor] = iter([tensor for tensor in network.state_dict().values() if tensor.ndim > 0])

    def activate(images: Tensor) -> Tensor:
        weight, bias, mean, variance = (next(tensors)[:, None, None] for _ in range(4))
        return F.relu((images - mean) / (variance + 1e-5).sqrt() * weight + bias)

    images = torch.randn(2, 3, 32, 32)
    hidden = F.conv2d(images, next(tensors), padding=1)
    for width in (32, 64, 128):
        for block in range(2):
            stride = 2 if block == 0 and width > 32 else 1
            activated = activate(hidden)
            residual = F.conv2d(activated, next(tensors), stride=stride, padding=1)
            residual = F.conv2d(activate(residual), next(tensors), padding=1)
            hidden = residual + (F.conv2d(activated, next(tensors), stride=stride) if block == 0 else hidden)
    expected = F.linear(activate(hidden).mean(dim=(2, 3)), next(tensors), next(tensors))
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_residual_networks_have_stages() -> None:
    with torch.device("meta"):
        for name, stages in (("resnet20", 3), ("resnet18", 4), ("wrn-16-2", 3)):
            network = build(name, num_classes=10, input_shape=(3, 32, 32))
            assert isinstance(network.stages, nn.Sequential)
            assert len(network.stages) == stages


def test_timm_models_of_fixed_size_are_told_the_size() -> None:
    network = build("timm:vit_tiny_patch16_224", num_classes=7, input_shape=(1, 32, 32)).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("architecture", "shape", "words"),
    [
        ("rsnet20", (3, 32, 32), r"unknown model 'rsnet20'; did you mean 'resnet20'\?"),
        ("resnet21", (3, 32, 32), r"unknown model 'resnet21'; did you mean 'resnet20'\?"),
        ("resnet2", (3, 32, 32), r"unknown model 'resnet2'; did you mean 'resnet20'\?"),
        ("vgg-16", (3, 32, 32), r"unknown model 'vgg-16'; did you mean 'vgg16'\?"),
        ("mlp-0", (3, 32, 32), r"unknown model 'mlp-0'; did you mean 'mlp-H'\?"),
        ("wrn-41-2", (3, 32, 32), r"the depth of a WRN is 6 n \+ 4 .*, not 41"),
        ("wrn-4-2", (3, 32, 32), "not 4"),
        ("resnet20", (1, 40), r"'resnet20' takes input of shape \(channels, height, width\), not \(1, 40\)"),
        ("cnn1d", (1, 8, 8), r"'cnn1d' takes input of shape \(channels, length\), not \(1, 8, 8\)"),
        ("vgg8", (3, 4, 32), r"'vgg8' needs a height and width of at least 8; got \(3, 4, 32\)"),
        ("resnet20", (3, 0, 32), r"positive sizes, such as \(3, 32, 32\), got \(3, 0, 32\)"),
        ("resnet20", (), r"positive sizes, .* got \(\)"),
        ("timm:resnt18", (3, 32, 32), r"unknown timm model 'resnt18'; did you mean 'resnet18'\?"),
        ("timm:hf-hub:someone/something", (3, 32, 32), "unknown timm model 'hf-hub:someone/something'"),
        ("timm:resnet18", (1, 40), r"'timm:resnet18' cannot take images of shape \(1, 40\)"),
        ("timm:vit_tiny_patch16_224", (3, 8, 8), r"cannot take images of shape \(3, 8, 8\) \(RuntimeError"),
        ("timm:resnet18.zzz", (3, 32, 32), r"timm cannot make 'resnet18.zzz' for input .*Invalid pretrained tag"),
        ("no_such_package_of_mine:make", (3, 32, 32), "cannot import the module 'no_such_package_of_mine'"),
        ("math:no_such_function", (3, 32, 32), "the module 'math' has no 'no_such_function'"),
        ("math:pi", (3, 32, 32), "'math:pi' is a float, which cannot be called"),
        ("my-file.py:make", (3, 32, 32), "'my-file.py:make' is not an import path"),
        ("math:sqrt", (3, 32, 32), r"math:sqrt\(num_classes=10, input_shape=\(3, 32, 32\)\) raised TypeError"),
        ("builtins:dict", (3, 32, 32), r"'builtins:dict' returned a dict; it must return a torch.nn.Module"),
    ],
)
def test_what_cannot_be_built_says_why(architecture: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(architecture, num_classes=10, input_shape=shape)


def test_all_wrong_sizes_are_named_at_once() -> None:
    with pytest.raises(InputError, match="at least 2 classes, got 1; an input shape"):
        build("resnet8", num_classes=1, input_shape=(3, -1, 32))


OWN_CODE = """
from torch import nn

raise_on_import = {raises}

def good(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.LazyLinear(num_classes))

def narrow(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

def images_again(num_classes, input_shape):
    return nn.Identity()

class Pair(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()

    def forward(self, images):
        return images, images

def too_wide(num_classes, input_shape):
    return nn.Linear(1000, num_classes)
"""


def test_own_code_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(OWN_CODE.format(raises="0"))
    (tmp_path / "own_broken.py").write_text(OWN_CODE.format(raises="1 / 0"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the import adds to
    monkeypatch.chdir(tmp_path)
    network = build("own_networks:good", num_classes=4, input_shape=(1, 8, 8))
    assert network.training
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    for name, words in {
        "own_networks:narrow": r"gives shape \(1, 3\) for one image; it must give \(1, 4\), one logit for each class",
        "own_networks:images_again": r"gives shape \(1, 1, 8, 8\)",
        "own_networks:Pair": "gives a tuple; it must give one tensor of logits",
        "own_networks:too_wide": r"cannot take images of shape \(1, 8, 8\) \(RuntimeError",
        "own_broken:good": r"cannot import the module 'own_broken' .*ZeroDivisionError: division by zero",
    }.items():
        with pytest.raises(InputError, match=words):
            build(name, num_classes=4, input_shape=(1, 8, 8))
