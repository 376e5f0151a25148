"""Banks of centroids: running means of each class's tempered outputs, one per power."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.defences.training.defence import Workshop
from undistill.defences.training.processes import gather_batches, own_share, world_size
from undistill.errors import InputError
from undistill.information import merge, spectrum_update

SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny
"""Floor of Q, and of P/Q under the logarithm: the smallest normal float32, 1.2e-38. In training it changes nothing that
float32 can hold, for a centroid contains every sample of its batch: where a sample has probability, so does the
centroid. In evaluation it bounds log(P/Q) by 87.4 where a sample has mass on a class that its centroid never had."""


class Centroids(nn.Module):
    """Running means, per class and power, of some features of P^(a); their sums and counts are buffers.

    When a batch holds n > 0 samples of class y, ``counts_y <- decay * counts_y + n`` and
    ``sums_y <- decay * sums_y + sum of their features``; a mean is ``sums_y / counts_y``. As a ratio of two sums with
    the same weights it is unbiased from the first batch on, and a rare class forgets per batch in which it is seen, not
    per step.

    Args:
        num_powers: number K of powers.
        num_classes: number C of classes.
        width: number of features of a sample.
        decay: weight that a class keeps of its past at each batch that holds it, in [0, 1).
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_powers: int, num_classes: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("sums", torch.zeros(num_powers, num_classes, width))
        self.register_buffer("counts", torch.zeros(num_classes))

    @abstractmethod
    def features(self, probs: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, "n features"]:
        """What is summed of each sample, given its P^(a) and its class."""

    @abstractmethod
    def rows(self, index: int, target: Int64[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        """Q^(a), floored, at the power number ``index``: the centroid of each entry of ``target``."""

    @abstractmethod
    def of_class_sums(self, probs: Float[Tensor, "powers classes classes"]) -> Float[Tensor, "powers classes features"]:
        """The sums of features of a data set, given its sums of P^(a) per class."""

    def count(self, target: Int64[Tensor, " n"], present: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
        """Take the counts over a batch.

        Args:
            target: the class of each sample.
            present: 1 for a sample that counts, 0 for one to be left out.

        Returns:
            What each sample's class keeps of its past: ``decay``, or 1 if none of its samples counts.
        """
        batch = torch.zeros_like(self.counts).index_add_(0, target, present[:, 0])
        kept = torch.ones_like(batch).masked_fill_(batch > 0, self.decay)
        self.counts.mul_(kept).add_(batch)
        return kept[target][:, None]

    def add(
        self, index: int, probs: Float[Tensor, "n classes"], target: Int64[Tensor, " n"], kept: Float[Tensor, "n 1"]
    ) -> None:
        """Take the sums at the power number ``index`` over the same batch."""
        sums = self.sums[index]
        # Only the rows of classes in the batch are touched; samples of one class write the same row.
        sums.index_copy_(0, target, sums.index_select(0, target).mul_(kept))
        sums.index_add_(0, target, self.features(probs, target))

    @torch.no_grad()
    def take(self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"]) -> None:
        """Take a batch into a bank of the one power 1; all processes' batches where several train together. Rows that
        are not finite stay out."""
        everyone, target, _ = gather_batches(logits.detach(), target)
        intact = everyone.sum(dim=1, keepdim=True).isfinite()
        present = intact.to(everyone.dtype)
        probs = torch.softmax(everyone.where(intact, 0.0), dim=1).mul_(present)
        self.add(0, probs, target, self.count(target, present))

    @torch.no_grad()
    def recompute(self, batches: Iterable[tuple[Tensor, Tensor]], powers: Sequence[float]) -> None:
        """Replace what is held by the exact sums over data: pairs of logits [n, C] and targets [n]. Where several
        processes train together, each gives its own share."""
        device = self.sums.device
        total = None
        for logits, target in batches:
            part = spectrum_update(logits.to(device), target.long().to(device), powers)
            total = part if total is None else merge(total, part)
        if total is None:
            raise InputError("recompute needs at least one batch of logits and targets, and got none.")
        if world_size() > 1:
            dist.all_reduce(total.probs)
            dist.all_reduce(total.counts)
        self.sums.copy_(self.of_class_sums(total.probs))
        self.counts.copy_(total.counts)

    def require_seen(self, target: Int64[Tensor, " b"]) -> None:
        """Refuse classes that no batch has held yet."""
        unseen = target[self.counts[target] == 0].unique().tolist()
        if unseen:
            raise InputError(
                f"{len(unseen)} class(es) of this batch have no centroid yet (first: {', '.join(map(str, unseen[:5]))})"
                "; train on a batch that holds them, or call recompute() with data of every class, before evaluating."
            )


class FreeCentroids(Centroids):
    """The class mean itself, ``Q_y = mean of P^(a)``: of all distributions, the one nearest to the cluster in KL."""

    def __init__(self, num_powers: int, num_classes: int, decay: float) -> None:
        super().__init__(num_powers, num_classes, num_classes, decay)

    def features(self, probs: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, "n features"]:
        return probs

    def rows(self, index: int, target: Int64[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        rows = self.sums[index].index_select(0, target)
        return rows.div_(self.counts[target][:, None]).clamp_min_(SMALLEST_PROBABILITY)

    def of_class_sums(self, probs: Float[Tensor, "powers classes classes"]) -> Float[Tensor, "powers classes features"]:
        return probs


class SymmetricCentroids(Centroids):
    """One target mass m for all classes and a uniform rest: ``Q_y = m`` at y and ``(1 - m) / (C - 1)`` elsewhere.

    m is the mean over classes, weighted by their counts n_y, of the target mass of the free centroid F_y. That is the
    nearest such family in KL: ``sum_y n_y KL(F_y || Q_y) = const - sum_y n_y [F_yy log m + (1 - F_yy) log((1 - m)/(C -
    1))]`` has derivative ``-sum_y n_y [F_yy / m - (1 - F_yy) / (1 - m)]`` in m, which is zero at
    ``m = sum_y n_y F_yy / sum_y n_y`` alone. By KL(P||Q) averaged over a cluster = CMI_y + KL(F_y||Q_y), it is nearest
    to the samples too. So only two features of a sample matter: its mass on the target, and its mass elsewhere (kept
    apart, since 1 - m has no digits left in float32 when m is near 1).
    """

    def __init__(self, num_powers: int, num_classes: int, decay: float) -> None:
        super().__init__(num_powers, num_classes, 2, decay)

    def features(self, probs: Float[Tensor, "n classes"], target: Int64[Tensor, " n"]) -> Float[Tensor, "n features"]:
        on_target = probs.gather(1, target[:, None])
        elsewhere = probs.scatter(1, target[:, None], 0.0).sum(dim=1, keepdim=True)
        return torch.cat([on_target, elsewhere], dim=1)

    def rows(self, index: int, target: Int64[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        num_classes = self.counts.shape[0]
        shares = self.sums[index].sum(dim=0) / self.counts.sum()
        on_target, elsewhere = shares.clamp_min(SMALLEST_PROBABILITY)
        rows = (elsewhere / (num_classes - 1)).repeat(target.shape[0], num_classes)
        return rows.scatter_(1, target[:, None], on_target.expand(target.shape[0], 1))

    def of_class_sums(self, probs: Float[Tensor, "powers classes classes"]) -> Float[Tensor, "powers classes features"]:
        on_target = probs.diagonal(dim1=1, dim2=2)
        elsewhere = (probs - torch.diag_embed(on_target)).sum(dim=2)
        return torch.stack([on_target, elsewhere], dim=2)


CENTROIDS: dict[str, type[FreeCentroids | SymmetricCentroids]] = {
    "free": FreeCentroids,
    "symmetric": SymmetricCentroids,
}


class OneBankLoss(nn.Module):
    """A loss with free centroids at power 1: running class means, or exact ones after :meth:`recompute`."""

    def __init__(self, num_classes: int, decay: float) -> None:
        super().__init__()
        self.centroids = FreeCentroids(1, num_classes, decay)

    def recompute(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Replace the centroids by exact class means: see :meth:`CMIMLoss.recompute`."""
        self.centroids.recompute(batches, [1.0])


def problems_of_bank(floor: float, decay: float) -> list[str]:
    """What is wrong with the settings that losses with one bank share.

    >>> problems_of_bank(floor=0.1, decay=1.0)
    ['decay must lie in [0, 1), got 1.0']
    """
    problems = []
    if not 0 <= floor < 1:
        problems.append(f"floor is a share of 1/C and must lie in [0, 1), got {floor}")
    if not 0 <= decay < 1:
        problems.append(f"decay must lie in [0, 1), got {decay}")
    return problems


def log_of_share(share: float, num_classes: int) -> float:
    """Log of a share of 1/C; minus infinity for none.

    >>> round(log_of_share(0.1, 10), 3)
    -4.605
    """
    return math.log(share / num_classes) if share else -math.inf


def centroids_of_start(loss: nn.Module, workshop: Workshop) -> None:
    """Set the centroids of ``loss`` to the exact class means where training starts from a trained network: its first
    batches would give a poor mean of clusters that are there already. Fresh weights have no clusters yet."""
    if workshop.started:
        logits = workshop.logits(workshop.teacher)
        loss.recompute([(own_share(logits), own_share(workshop.labels))])  # type: ignore[operator]
