"""A network together with what is needed to use it: classes, input shape, normalisation."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undistill.errors import InputError
from undistill.files import content_hash
from undistill.models.registry import architecture_code, build


class Classifier(nn.Module):
    """Images in [0, 1] to logits: ``net((images - mean) / std)``, per channel.

    Made by ``make_classifier`` or ``load_checkpoint``.

    Attributes:
        net: the network, from normalised images to logits.
        mean, std: buffers of shape (channels, 1, ...). They are not in the state dict.
        architecture: name that ``build`` made the network from.
        class_names: one name for each logit.
        input_shape: shape of one image.
        provenance: JSON-able account of how the weights came about; empty for fresh ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        architecture: str,
        class_names: Sequence[str],
        input_shape: tuple[int, ...],
        mean: Sequence[float],
        std: Sequence[float],
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.architecture = architecture
        self.class_names = tuple(class_names)
        self.input_shape = tuple(input_shape)
        self.provenance = provenance or {}
        per_channel = (-1,) + (1,) * (len(input_shape) - 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(per_channel), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(per_channel), persistent=False)

    @property
    def num_classes(self) -> int:
        """C, the number of logits."""
        return len(self.class_names)

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits.

        Args:
            images: (n, \\*input_shape) in [0, 1].

        Returns:
            Logits (n, num_classes).
        """
        return self.net((images - self.mean) / self.std)

    def fingerprint(self) -> str:
        """SHA-256 of all that determines the logits: architecture (with its code, where it is the user's own), input
        shape, normalisation, tensors.

        The same on every device and for every memory layout. For caches of the classifier's answers.

        Returns:
            64 hexadecimal digits.
        """
        code = architecture_code(self.architecture)
        parts = [self.architecture, self.input_shape, self.mean.flatten().tolist(), self.std.flatten().tolist()]
        digest = hashlib.sha256(content_hash(parts if code is None else [*parts, code]).encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def make_classifier(
    architecture: str,
    *,
    class_names: Sequence[str],
    input_shape: tuple[int, ...],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> Classifier:
    """A classifier with fresh weights on the CPU.

    The weights depend on the arguments alone (as far as the user's own code draws them from PyTorch's generator), and
    no random state outside is touched.

    Args:
        architecture: see ``build``.
        class_names: distinct names, one for each class.
        input_shape: shape of one image, (channels, height, width) or (channels, length).
        mean, std: of each channel over the training images, in [0, 1] units; ``std`` positive.
        seed: chooses the initial weights.

    Returns:
        The classifier, in training mode.

    Raises:
        InputError: an argument is wrong.

    >>> classifier = make_classifier(
    ...     "mlp-16", class_names=["cat", "dog"], input_shape=(1, 8, 8), mean=[0.3], std=[0.4], seed=0
    ... )
    >>> classifier(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 2])
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU only: torch.manual_seed reaches into every device
        net = build(architecture, num_classes=len(class_names), input_shape=input_shape)
    _check_description(class_names, input_shape[0], mean, std)
    return Classifier(
        net, architecture=architecture, class_names=class_names, input_shape=input_shape, mean=mean, std=std
    )


def _check_description(class_names: Sequence[str], channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    problems = []
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        problems.append(f"class names repeat: {', '.join(map(repr, repeated[:3]))} ({len(repeated)} in all)")
    for word, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            problems.append(f"{word} has {len(values)} values for {channels} channels")
        if not all(map(isfinite, values)):
            problems.append(f"{word} is not finite: {list(values)[:3]}")
    if any(value <= 0 for value in std):
        problems.append(f"std must be positive, got {list(std)[:3]}")
    if problems:
        raise InputError(f"cannot make a classifier: {'; '.join(problems)}.")
