"""The skeptical student: the teacher speaks to a second exit at half depth, the labels to the student's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.attacks.base import EXACT_ZEROS, AccessKind, Attack, AttackLoss
from undistill.attacks.checks import check_share, check_temperature, check_weight
from undistill.attacks.divergence import kl_divergence, soft_loss
from undistill.errors import InputError
from undistill.information import temper

# Weight of the divergence between the two exits, without a factor T^2: as in the official code.
SELF_DISTILLATION = 0.3


@dataclass(frozen=True)
class Skeptical(Attack):
    """A student that lets the teacher supervise a shallow exit only, so that a misleading one cannot reach its head.

    Formula, per example, z the student's own logits and e those of the exit: hard * [CE(z, y) + (1 - soft) * CE(e, y)]
    + soft * T^2 * KL(p^(1/T) || softmax(e/T)) + 0.3 * KL(softmax(z/T) || softmax(e/T)); for the first ``delay`` share
    of the epochs only hard * CE(z, y). Logits come as two blocks, z and e.

    The exit (two depthwise separable convolutions of stride 2, or linear layers, then a linear layer) is attached
    after the first stage at which half of the stages are done; the student needs a list ``stages``. After the training
    it is thrown away.

    Args:
        temperature: T > 0.
        soft: share of the teacher in the exit's loss, in [0, 1].
        hard: weight of both cross entropies.
        delay: share of the training without the teacher, in [0, 1].

    Raises:
        InputError: a setting outside its range; a student without stages (when it is dressed).

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> student = log_probs.repeat(2, 1)  # the student's own logits, then the exit's
        >>> Skeptical(hard=0.0).loss(student, log_probs, torch.tensor([0])).abs().max().item() < 1e-4
        True

    Source: Kundu, Sun, Fu, Pedram, Beerel, "Analyzing the Confidentiality of Undistillable Teachers in Knowledge
    Distillation", NeurIPS 2021; loss and defaults (T = 20, 0.9, 20 of 180 epochs) as in ksouvik52/Skeptical2021 and
    rkevser/AveragerStudent. Deviations: one exit where the code has three beside the head, so that any network with
    stages will do. In the code the second exit learns from the teacher, the third from the head and the labels, the
    first from nobody; here the exit does what the second does, and takes the divergence from the head in the third
    one's place. No attention gates. As in the code, that divergence has no T^2 and moves the head as well as the exit.
    """

    name: ClassVar[str] = "skeptical"
    summary: ClassVar[str] = "an exit at half depth learns from the answers, the student's head from labels"
    source: ClassVar[str] = "Kundu, Sun, Fu, Pedram, Beerel 2021 (NeurIPS); ksouvik52/Skeptical2021"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {**EXACT_ZEROS, "label": "the exit learns the predicted class, the head the labels"}
    )
    placebo: ClassVar[str] = "the same student with the same exit, on smoothed one-hot labels"
    blocks: ClassVar[int] = 2

    temperature: float = 20.0
    soft: float = 0.9
    hard: float = 1.0
    delay: float = 20 / 180

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_share("share of soft labels", self.soft)
        check_weight("weight of hard labels", self.hard)
        check_share("share of the training without the teacher", self.delay)

    def loss(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        own, shallow = logits.float().split(len(labels))
        power = 1 / self.temperature
        between = kl_divergence(temper(own, power), temper(shallow, power))
        shallow_hard = F.cross_entropy(shallow, labels, reduction="none")
        hard = F.cross_entropy(own, labels, reduction="none") + (1 - self.soft) * shallow_hard
        soft = soft_loss(shallow, log_probs, self.temperature)
        return self.hard * hard + self.soft * soft + SELF_DISTILLATION * between

    def start(self, num_classes: int, seed: int) -> AttackLoss:
        return Delayed(self)

    def dress(self, student: nn.Module, seed: int) -> nn.Module:
        return TwoExits(student, seed)

    @classmethod
    def grid(cls) -> "tuple[Skeptical, ...]":
        return cls(), cls(temperature=4.0)


class Delayed(AttackLoss):
    """The loss of :class:`Skeptical`, which leaves the teacher out of the first epochs."""

    attack: Skeptical
    waits = False

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.waits = epoch < self.attack.delay * epochs

    def forward(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        if self.waits:
            return self.attack.hard * F.cross_entropy(logits[: len(labels)].float(), labels, reduction="none")
        return self.attack.loss(logits, log_probs, labels)


class TwoExits(nn.Module):
    """A student with a second exit at half depth, which it has in training mode only.

    Args:
        student: a classifier whose ``net`` has a list of modules ``stages``, and which has an ``input_shape``.
        seed: of the exit's initial weights.
    """

    def __init__(self, student: nn.Module, seed: int) -> None:
        super().__init__()
        self.student = student
        features, logits = self._look(student)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.exit = _exit(features, logits.shape[1])

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "m classes"]:
        """Logits (n, C) in evaluation mode; (2n, C), the student's own first, in training mode."""
        if not self.training:
            return self.student(images)
        features, logits = _features_and_logits(self.student, images)
        return torch.cat([logits, self.exit(features)])

    @staticmethod
    @torch.no_grad()
    def _look(student: nn.Module) -> tuple[Tensor, Tensor]:
        """At the shapes; running statistics stay as they are."""
        training = student.training
        shape: Any = student.input_shape
        seen = _features_and_logits(student.eval(), torch.zeros(1, *shape))
        student.train(training)
        return seen


def _half_way(student: nn.Module) -> nn.Module:
    """The module whose output is that of the stage at half depth."""
    stages: Any = getattr(student.net, "stages", ())
    if not len(stages):
        raise InputError(
            "attack skeptical attaches an exit at half depth, but the student's network "
            f"{type(student.net).__name__} has no list of modules `stages`; choose a network of this package (see: "
            "undistill list models), or give your own that attribute"
        )
    stage = stages[(len(stages) - 1) // 2]
    # A network may run its layers in another grouping than that of its stages; the last layer runs in any.
    return stage[-1] if isinstance(stage, nn.Sequential) else stage


def _features_and_logits(student: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    # The hook goes at once, so that nothing clings to the student.
    hook = _half_way(student).register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        logits = student(images)
    finally:
        hook.remove()
    return seen[0], logits


def _exit(features: Tensor, classes: int) -> nn.Sequential:
    """A small head for such features: (n, width), (n, width, length) or (n, width, height, width)."""
    width = features.shape[1]
    if features.ndim == 2:
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
    signal = features.ndim == 3
    convolution, normalisation = (nn.Conv1d, nn.BatchNorm1d) if signal else (nn.Conv2d, nn.BatchNorm2d)
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            convolution(width, width, 3, stride=2, padding=1, groups=width, bias=False),
            convolution(width, width, 1, bias=False),
            normalisation(width),
            nn.ReLU(inplace=True),
        ]
    pool = nn.AdaptiveAvgPool1d(1) if signal else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(width, classes))
