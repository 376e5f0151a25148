"""Adversarial Sparse Teacher: targets from adversarial images, of which only the top is kept."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from undistill.defences.training.defence import Defence, Workshop, nearest_published, problems_of_numbers
from undistill.errors import InputError
from undistill.information import at_least_float32

PUBLISHED = {10: (0.05, 6.0, 2), 100: (0.035, 30.0, 7)}
"""Share, temperature and kept classes by number of classes: CIFAR-10 and CIFAR-100, ResNet-18."""
PGD_BATCH = 64


@dataclass(frozen=True)
class AdversarialSparse(Defence):
    """Cross entropy, plus a pull towards the sparse answers to adversarial images.

    ``J = (1 - share) CE + share * T^2 * mean_i sum_c exp(R_ic) (R_ic - P_ic)``, ``P = softmax(z / T)``.

    R_i is the answer of the same network, at this moment, in evaluation mode and without gradient, to the adversarial
    version of image i: its ``kept`` largest logits over T through a softmax, zero elsewhere. The adversarial images
    are made once before the training: projected gradient descent (PGD) on the normal teacher, from the image as it is,
    ``iterations`` steps of ``step`` along the sign of the gradient of the cross entropy, never farther than ``radius``
    from the image in any pixel. They are kept as 8-bit images.

    The second term ("exponential predictive divergence") is no divergence: it is linear in P, zero at P = R and
    negative elsewhere. Its effect is to raise P where R is large.

    Args:
        share: weight of that term (alpha in the paper), in [0, 1]; None takes the published one for the nearest number
            of classes (0.05 for 10 classes, 0.035 for 100).
        temperature: T, above 0; None likewise (6, 30).
        kept: classes that R keeps, at least 1; None likewise (2, 7).
        radius: of the adversarial images, in pixel values in [0, 1].
        step: of PGD, likewise.
        iterations: of PGD; one costs a forward and a backward pass over the training images.

    Raises:
        InputError: a setting out of its range.

    Reference: Yilmaz, Keles, "Adversarial Sparse Teacher", arXiv 2403.05181; code codeofanon/AdversarialSparseTeacher.
    Deviations: the released PGD moves *normalised* inputs by up to 0.3 in steps of 0.01, and cuts them to [0, 1], which
    takes away all that is darker than the mean. Here it moves pixels; with a standard deviation of about 0.25 its
    radius and step are 0.075 and 0.0025.

    >>> AdversarialSparse().for_classes(100).kept
    7
    """

    share: float | None = None
    temperature: float | None = None
    kept: int | None = None
    radius: float = 0.075
    step: float = 0.0025
    iterations: int = 40

    name: ClassVar[str] = "ast"
    summary: ClassVar[str] = "cross entropy plus a pull towards the sparse answers to adversarial images"
    source: ClassVar[str] = "arXiv 2403.05181"
    needs_normal: ClassVar[bool] = True
    runs: ClassVar[str] = "a normal teacher; PGD on it; one more answer at each step"

    def __post_init__(self) -> None:
        problems = problems_of_numbers([("radius", self.radius, 0), ("step", self.step, 0)])
        if self.share is not None and not 0 <= self.share <= 1:
            problems.append(f"share must lie in [0, 1], got {self.share}")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            problems.append(f"temperature must be a finite number above 0, got {self.temperature}")
        if self.kept is not None and self.kept < 1:
            problems.append(f"kept counts classes and must be at least 1, got {self.kept}")
        if self.iterations < 1:
            problems.append(f"iterations must be at least 1, got {self.iterations}")
        if problems:
            raise InputError("; ".join(problems) + ".")

    def for_classes(self, num_classes: int) -> "AdversarialSparse":
        share, temperature, kept = self.strength(num_classes)
        return replace(self, share=share, temperature=temperature, kept=kept)

    def strength(self, num_classes: int) -> tuple[float, float, int]:
        """Share, temperature and kept classes for so many classes."""
        share, temperature, kept = nearest_published(num_classes, PUBLISHED)
        if self.kept is not None and self.kept > num_classes:
            raise InputError(f"kept is {self.kept}, but there are {num_classes} classes; keep at most as many.")
        return (
            share if self.share is None else self.share,
            temperature if self.temperature is None else self.temperature,
            kept if self.kept is None else self.kept,
        )

    def loss(self, num_classes: int, steps: int) -> nn.Module:
        return _AdversarialSparseLoss(*self.strength(num_classes))

    def prepare(self, loss: nn.Module, workshop: Workshop) -> None:
        # Not in the state dict: it would be written again at each epoch's end.
        adversarial = workshop.once(
            "adversarial",
            lambda: adversarial_images(
                workshop.normal, workshop.images, workshop.labels, self.radius, self.step, self.iterations
            ),
        )
        loss.register_buffer("adversarial", adversarial, persistent=False)

    def beside(
        self, loss: nn.Module, workshop: Workshop, images: Float[Tensor, "b *shape"], indices: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b classes"]:
        teacher, adversarial = workshop.teacher, loss.get_buffer("adversarial")
        teacher.eval()
        try:
            return teacher(adversarial[indices.to(adversarial.device)].float().div_(255))
        finally:
            teacher.train()


class _AdversarialSparseLoss(nn.Module):
    def __init__(self, share: float, temperature: float, kept: int) -> None:
        super().__init__()
        self.share, self.temperature, self.kept = share, temperature, kept

    def forward(
        self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"], beside: Float[Tensor, "b classes"]
    ) -> Float[Tensor, " b"]:
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            largest, classes = (beside.detach().to(logits.dtype) / self.temperature).topk(self.kept, dim=1)
            sparse = torch.zeros_like(logits).scatter_(1, classes, torch.softmax(largest, dim=1))
            pull = (sparse.exp() * (sparse - torch.softmax(logits / self.temperature, dim=1))).sum(dim=1)
            hard = F.cross_entropy(logits, target, reduction="none")
            return (1 - self.share) * hard + self.share * self.temperature**2 * pull


def adversarial_images(
    network: nn.Module,
    images: UInt8[Tensor, "n *shape"],
    labels: Int64[Tensor, " n"],
    radius: float,
    step: float,
    iterations: int,
) -> UInt8[Tensor, "n *shape"]:
    """Images within ``radius`` of ``images`` in every pixel at which the network's cross entropy is high.

    Args:
        network: images in [0, 1] in, logits out; frozen and in evaluation mode.
        images: any.
        labels: their classes.
        radius, step, iterations: of the projected gradient descent, in [0, 1] units; see :class:`AdversarialSparse`.
    """
    device = next(network.parameters()).device
    made = []
    for batch, targets in zip(images.split(PGD_BATCH), labels.split(PGD_BATCH), strict=True):
        clean = batch.to(device).float().div_(255)
        targets = targets.to(device)
        moved = clean
        for _ in range(iterations):
            moved = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(moved), targets, reduction="sum"), moved)
            moved = moved.detach() + step * gradient.sign()
            moved = (clean + (moved - clean).clamp(-radius, radius)).clamp(0, 1)
        made.append(moved.mul(255).round().to(torch.uint8).to(images.device))
    return torch.cat(made)
