"""Markov distillation: the answers pass through a learnt transition matrix of each class before they teach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from undistill.attacks.base import EXACT_ZEROS, AccessKind, Attack, AttackLoss
from undistill.attacks.checks import check_count, check_share, check_temperature, check_weight
from undistill.attacks.divergence import kl_divergence
from undistill.information import temper

KEPT = 0.9  # what a class keeps of its probability, about, before anything is learnt
ENTRIES = 1 << 24  # of transition matrices that are in memory at once
CACHED = 1 << 18  # of these, entries that a core keeps close
SMALLEST = torch.finfo(torch.float32).tiny

Matrices = tuple[Float[Tensor, "classes classes rank"], Float[Tensor, "classes classes rank"], Float[Tensor, "classes"]]
"""U, V and s of all classes: see :class:`MKD`."""


@dataclass(frozen=True)
class MKD(Attack):
    """KD whose targets are the answers times a row-stochastic matrix of the true class, learnt along with the student.

    Formula, per example: hard * CE(z, y) + (1 - hard) * T^2 * KL(m || softmax(z/T)), m = p^(1/T) M_y, and row i of M_y
    = softmax over j of (s_y [i = j] + u_yi . v_yj). The student takes its gradient with m constant. U, V and s take
    theirs with the student constant, in the same step, by Adam at ``rate`` times the student's learning rate. They
    start where a class keeps about 0.9 of its probability. :meth:`loss` alone has the starting matrices of seed 0.

    Minimising over the target, too, can end in targets that say nothing but what the student says already. So the
    trial's notes hold ``transformed_entropy``, the mean entropy of m in nats, epoch by epoch.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].
        rank: length of the vectors u and v, at least 1.
        rate: learning rate of the matrices, as a share of the student's; at least 0.

    Raises:
        InputError: a temperature that is not finite and above 0, a weight outside [0, 1], a rank below 1, a rate
            that is negative or not finite.

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> mixed = transformed(log_probs, torch.tensor([0]), starting_matrices(3, rank=3, seed=0))
        >>> round(mixed.exp().sum().item(), 5)
        1.0

    Source: Yang, Ye, "Markov Knowledge Distillation", ECCV 2024, DOI 10.1007/978-3-031-73024-5_10 (rank 3 on CIFAR);
    T = 4, 0.1 and 0.9, Adam at a hundredth of the rate and the start of U and V as in Linfeng-Ye/CMIM. Deviations from
    that code: rows sum to 1, where it normalises columns; m is the target itself, where it takes another softmax of
    m/T, which leaves targets within 28% of uniform; the soft loss is summed over classes in both gradients, where it
    averages in one; s starts at log(0.9 (C - 1) / 0.1), where it starts at 1 and most answers lose their first place.
    """

    name: ClassVar[str] = "mkd"
    summary: ClassVar[str] = "KD through a learnt low-rank transition matrix of each class, plus labels"
    source: ClassVar[str] = "Yang, Ye 2024 (ECCV), DOI 10.1007/978-3-031-73024-5_10; Linfeng-Ye/CMIM, mended"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            **EXACT_ZEROS,
            "decimals": "an entry that is rounded to zero gets what the matrix moves to it from the others",
            "top-k": "a hidden class gets what the matrix moves to it from the returned ones",
            "label": "the target is the predicted class's row of the true class's matrix",
        }
    )

    temperature: float = 4.0
    hard: float = 0.1
    rank: int = 3
    rate: float = 0.01

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_share("share of hard labels", self.hard)
        check_count("rank of the transition matrices", self.rank, 1)
        check_weight("relative learning rate of the transition matrices", self.rate)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        matrices = starting_matrices(logits.shape[1], rank=self.rank, seed=0)
        left, right, scale = (part.to(logits.device) for part in matrices)
        return self.loss_from(logits, self.targets(log_probs, labels, (left, right, scale)), labels)

    def targets(
        self, log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"], matrices: Matrices
    ) -> Float[Tensor, "b classes"]:
        """Log of m, with gradient into the matrices."""
        return transformed(temper(log_probs.detach().float(), 1 / self.temperature), labels, matrices)

    def loss_from(
        self, logits: Float[Tensor, "b classes"], targets: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """The loss per example, with gradient into logits and targets."""
        logits = logits.float()
        soft = self.temperature**2 * kl_divergence(targets, temper(logits, 1 / self.temperature))
        return self.hard * F.cross_entropy(logits, labels, reduction="none") + (1 - self.hard) * soft

    def start(self, num_classes: int, seed: int) -> AttackLoss:
        return MarkovLoss(self, num_classes, seed)

    @classmethod
    def grid(cls) -> "tuple[MKD, ...]":
        return cls(), cls(rate=0.001)


class MarkovLoss(AttackLoss):
    """The loss of :class:`MKD` with matrices that learn."""

    attack: MKD

    def __init__(self, attack: MKD, num_classes: int, seed: int) -> None:
        super().__init__(attack)
        self.matrices = nn.ParameterList(starting_matrices(num_classes, rank=attack.rank, seed=seed))
        self.adam = torch.optim.Adam(self.matrices, fused=True)
        self.entropies: list[list[Tensor]] = []

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.entropies.append([])

    def forward(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        left, right, scale = self.matrices
        targets = self.attack.targets(log_probs, labels, (left, right, scale))
        if self.entropies:
            certain = targets.detach()
            self.entropies[-1].append(-(certain.exp() * certain).sum(1).mean())
        return self.attack.loss_from(logits, targets, labels)

    def after_step(self, learning_rate: float) -> None:
        self.adam.param_groups[0]["lr"] = self.attack.rate * learning_rate
        self.adam.step()
        self.adam.zero_grad()

    def facts(self) -> dict[str, Any]:
        return {"transformed_entropy": [torch.stack(epoch).mean().item() for epoch in self.entropies if epoch]}


def starting_matrices(classes: int, *, rank: int, seed: int) -> Matrices:
    """U and V uniform on (-1, 1), and s such that a class keeps about 0.9 of its probability."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.rand(2, classes, classes, rank, generator=generator) * 2 - 1
    return left, right, torch.full((classes,), math.log(KEPT * (classes - 1) / (1 - KEPT)))


def transformed(
    log_p: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"], matrices: Matrices
) -> Float[Tensor, "b classes"]:
    """Log of p M_y in each row, with gradient into the matrices; of so many rows at once as memory allows."""
    rows = max(1, ENTRIES // log_p.shape[1] ** 2)
    if len(log_p) <= rows:
        return _transformed(log_p, labels, *matrices)
    return torch.cat(
        [
            # The matrices of a part are made again for its gradient, and never kept.
            checkpoint(_transformed, *part, *matrices, use_reentrant=False, preserve_rng_state=False)
            for part in zip(log_p.split(rows), labels.split(rows), strict=True)
        ]
    )


def _transformed(log_p: Tensor, labels: Tensor, left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    classes, places = labels.unique(return_inverse=True)
    # Rows of one class stand together, so that a class's matrix is read where it is and not copied for each of them.
    order = places.argsort(stable=True)
    counts = places.bincount(minlength=len(classes))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[places[order]]
    grouped = log_p.new_zeros(len(classes), int(counts.max()), log_p.shape[1])
    grouped[places, rank] = log_p.exp()
    mixed = _ThroughMatrices.apply(grouped, left[classes], right[classes], scale[classes])[places, rank]
    # Sums of positive numbers lose no digits outside the log domain, and one exponential of each entry is enough.
    return mixed.clamp_min(SMALLEST).log()


class _ThroughMatrices(torch.autograd.Function):
    """p M of each class, with the gradient of U, V and s in closed form: plain autograd took three times as long.

    For m = p M, M = softmax of S by rows and g the gradient of m: that of S is M_ij (sum over rows p_i g_j - c_i),
    with c_i = sum over rows p_i (M g)_i.
    """

    @staticmethod
    def forward(ctx: Any, probs: Tensor, left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
        matrices = probs.new_empty(len(probs), probs.shape[2], probs.shape[2])
        mixed = torch.empty_like(probs)
        for few in _parts(probs):
            scores = torch.bmm(left[few], right[few].mT)
            scores.diagonal(dim1=1, dim2=2).add_(scale[few, None])
            torch.bmm(probs[few], torch.softmax(scores, 2, out=matrices[few]), out=mixed[few])
        ctx.save_for_backward(probs, left, right, matrices)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        probs, left, right, matrices = ctx.saved_tensors
        along_left, along_right = left.mT.contiguous(), right.mT.contiguous()  # long rows are four times as fast
        of_left, of_right = torch.empty_like(along_left), torch.empty_like(along_right)
        of_scale = torch.empty_like(left[:, :, 0])
        for few in _parts(probs):
            along = (probs[few] * torch.bmm(gradient[few], matrices[few].mT)).sum(1)
            of_scores = torch.baddbmm(along[:, :, None], probs[few].mT, gradient[few], beta=-1).mul_(matrices[few])
            torch.bmm(along_right[few], of_scores.mT, out=of_left[few])
            torch.bmm(along_left[few], of_scores, out=of_right[few])
            of_scale[few] = of_scores.diagonal(dim1=1, dim2=2)
        return None, of_left.mT, of_right.mT, of_scale.sum(1)


def _parts(probs: Tensor) -> list[slice]:
    """Classes, so many at once that their matrices stay in a core's own cache."""
    many = max(1, CACHED // probs.shape[2] ** 2)
    return [slice(first, first + many) for first in range(0, len(probs), many)]
