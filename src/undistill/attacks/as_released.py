"""Attacks as they stand in the repository of the CMIM paper: for comparison with the attacks themselves, never in a
battery. A model that resists these has resisted little; each says by how much it is weaker than what it is named after.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.averager import Averager, class_means
from undistill.attacks.base import Attack, AttackLoss
from undistill.attacks.dist import DIST
from undistill.attacks.divergence import kl_divergence, soft_loss
from undistill.attacks.dkd import DKD
from undistill.attacks.htc import HTC
from undistill.attacks.kd import KD
from undistill.attacks.knockoff import Knockoff
from undistill.attacks.mkd import MKD, MarkovLoss, Matrices, starting_matrices
from undistill.information import temper

SOURCE = "Linfeng-Ye/CMIM on GitHub, commit 2c34234"


@dataclass(frozen=True)
class KDAsReleased(KD):
    """KD whose divergence is averaged over classes: the soft part has 1/C of its weight.

    Formula, per example: hard * CE(z, y) + (1 - hard) * T^2 / C * KL(p^(1/T) || softmax(z/T)). With 100 classes the
    weights are 0.1 and 0.144, where KD has 0.1 and 14.4.

    Example:
        >>> logits, log_probs, y = torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]]), torch.tensor([0])
        >>> KDAsReleased(hard=0.0).loss(logits, log_probs, y) * 2 == KD(hard=0.0).loss(logits, log_probs, y)
        tensor([True])

    Source: train_kd.py (``nn.KLDivLoss(reduction="mean")``).
    """

    name: ClassVar[str] = "kd-as-released"
    summary: ClassVar[str] = "kd with 1/C of its soft weight"
    source: ClassVar[str] = SOURCE

    def soft(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return super().soft(logits, log_probs, labels) / logits.shape[1]

    @classmethod
    def grid(cls) -> "tuple[KDAsReleased, ...]":
        return (cls(),)


@dataclass(frozen=True)
class HTCAsReleased(HTC):
    """HTC whose divergence is averaged over classes: the soft part has 1/C of its weight.

    Temperature and alpha are in files that were not released; the defaults are those of :class:`HTC`.

    Source: stingy/train_HTC_stingy.py.
    """

    name: ClassVar[str] = "htc-as-released"
    summary: ClassVar[str] = "htc with 1/C of its soft weight"
    source: ClassVar[str] = SOURCE

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return self.hard * hard + self.alpha * soft_loss(logits, log_probs, self.temperature) / logits.shape[1]

    @classmethod
    def grid(cls) -> "tuple[HTCAsReleased, ...]":
        return (cls(),)


@dataclass(frozen=True)
class AveragerAsReleased(Averager):
    """Averager with the mean of tempered probabilities (not of logits) in each batch, at T = 4, and 1/C of its soft
    weight.

    In batches of 128 from 100 classes the mean is over 2.3 images; 28 in a hundred images have no partner.

    Source: stingy/train_avg_stingy.py (0.1 and 0.9 whatever its configuration says).
    """

    name: ClassVar[str] = "averager-as-released"
    summary: ClassVar[str] = "averager at T = 4, of probabilities, with 1/C of its soft weight"
    source: ClassVar[str] = SOURCE

    temperature: float = 4.0

    def soft(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        logits, power = logits.float(), 1 / self.temperature
        mean = class_means(temper(log_probs.detach().float(), power).exp(), labels).log()
        return self.temperature**2 / logits.shape[1] * kl_divergence(mean, temper(logits, power))

    @classmethod
    def grid(cls) -> "tuple[AveragerAsReleased, ...]":
        return (cls(),)


@dataclass(frozen=True)
class MKDAsReleased(MKD):
    """MKD with columns that sum to 1 in place of rows, a second softmax, and 1/C of its soft weight.

    The student's target is softmax(m / T), m = p^(1/T) M_y, column j of M_y = softmax over i of (s_y [i = j] +
    u_yi . v_yj), s starting at 1. As m lies in [0, 1], the largest entry of a target is less than e^(1/T) times the
    smallest: at T = 4 no entry is more than 28% above uniform. The student's divergence is averaged over classes, that
    of the matrices is not.

    Source: stingy/train_MKD_stingy.py.
    """

    name: ClassVar[str] = "mkd-as-released"
    summary: ClassVar[str] = "mkd with a second softmax that leaves nearly uniform targets, and 1/C of its soft weight"
    source: ClassVar[str] = SOURCE

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        left, right, scale = (part.to(logits.device) for part in released_matrices(logits.shape[1], self.rank, seed=0))
        return self.loss_from(logits, self.targets(log_probs, labels, (left, right, scale)), labels)

    def targets(
        self, log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"], matrices: Matrices
    ) -> Float[Tensor, "b classes"]:
        left, right, scale = matrices
        probs = temper(log_probs.detach().float(), 1 / self.temperature).exp()
        scores = left[labels] @ right[labels].mT + torch.diag_embed(scale[labels, None].expand_as(probs))
        mixed = (probs[:, None] @ torch.softmax(scores, 1))[:, 0]
        return torch.log_softmax(mixed / self.temperature, 1)

    def loss_from(
        self, logits: Float[Tensor, "b classes"], targets: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        logits = logits.float()
        log_q, square = temper(logits, 1 / self.temperature), self.temperature**2
        soft = square / logits.shape[1] * kl_divergence(targets.detach(), log_q)
        matrices = square * kl_divergence(targets, log_q.detach())
        hard = F.cross_entropy(logits, labels, reduction="none")
        # The matrices' own loss gives them a gradient, and the student's loss no value.
        return self.hard * hard + (1 - self.hard) * (soft + matrices - matrices.detach())

    def start(self, num_classes: int, seed: int) -> AttackLoss:
        started = MarkovLoss(self, num_classes, seed)
        with torch.no_grad():
            for own, released in zip(started.matrices, released_matrices(num_classes, self.rank, seed), strict=True):
                own.copy_(released)
        return started

    @classmethod
    def grid(cls) -> "tuple[MKDAsReleased, ...]":
        return (cls(),)


def released_matrices(classes: int, rank: int, seed: int) -> Matrices:
    """The starting U and V of :class:`MKD`, and s = 1."""
    left, right, scale = starting_matrices(classes, rank=rank, seed=seed)
    return left, right, torch.ones_like(scale)


@dataclass(frozen=True)
class KnockoffAsReleased(Knockoff):
    """Knockoff Nets with each class's term cut off at 5, and a factor 100/C.

    Formula, per example: 100 / C * sum over classes of min(-p_c log q_c, 5). Where a term is cut off its gradient is
    zero: exactly for the images about which the student is confidently wrong. The weight is right for C = 100 alone.

    Source: train_knockoff_RSD.py, stingy/train_knockoff_stingy.py.
    """

    name: ClassVar[str] = "knockoff-as-released"
    summary: ClassVar[str] = "knockoff without gradient where the student is most wrong, times 100/C"
    source: ClassVar[str] = SOURCE

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        terms = -log_probs.detach().float().exp() * torch.log_softmax(logits.float(), 1)
        return 100 * terms.clamp_max(5).mean(1)

    @classmethod
    def grid(cls) -> "tuple[KnockoffAsReleased, ...]":
        return (cls(),)


@dataclass(frozen=True)
class DKDAsReleased(DKD):
    """DKD without cross entropy and without warm-up.

    Temperature, alpha and beta are in files that were not released; the defaults are those of :class:`DKD`.

    Source: train_dkd.py, stingy/train_dkd_stingy.py.
    """

    name: ClassVar[str] = "dkd-as-released"
    summary: ClassVar[str] = "dkd without cross entropy and warm-up"
    source: ClassVar[str] = SOURCE

    hard: float = 0.0
    warmup: float = 0.0

    @classmethod
    def grid(cls) -> "tuple[DKDAsReleased, ...]":
        return (cls(),)


@dataclass(frozen=True)
class DISTAsReleased(DIST):
    """DIST at T = 1 and with weight 1: T^2 times the weight is 1, where the official CIFAR-100 setting has 32.

    Source: train_dist.py, stingy/DIST.py.
    """

    name: ClassVar[str] = "dist-as-released"
    summary: ClassVar[str] = "dist at T = 1 with weight 1: a 32nd of the official factor"
    source: ClassVar[str] = SOURCE

    temperature: float = 1.0
    weight: float = 1.0

    @classmethod
    def grid(cls) -> "tuple[DISTAsReleased, ...]":
        return (cls(),)


AS_RELEASED: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        KDAsReleased,
        HTCAsReleased,
        AveragerAsReleased,
        MKDAsReleased,
        KnockoffAsReleased,
        DKDAsReleased,
        DISTAsReleased,
    )
}
