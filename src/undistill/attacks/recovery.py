"""Undo a known output defence, then run any other attack on what comes of it."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.attacks.base import AccessKind, Answers, Attack, Lab
from undistill.attacks.checks import check_count, check_positive, check_share, check_weight
from undistill.attacks.divergence import kl_divergence
from undistill.attacks.kd import KD
from undistill.errors import InputError

Rows = Float[Tensor, "n classes"]
Recover = Callable[[Tensor], Tensor]

BASE = KD()
ROWS = 1024  # of a table that are made, or compared, at once
FLOOR = -14.0  # least log-probability that the network is shown; e^-14 is about 1e-6
LARGEST_LAYER = 2048
BATCH, RATE = 256, 2e-3  # of the network's training


@dataclass(frozen=True)
class Recovery(Attack):
    """What both recoveries share: a table of pairs (full answer, what the black box would say in its place).

    Full answers p' are drawn from Dirichlet distributions around the answers o that were observed (those to the first
    view), with concentration * C * ((1 - blur) o + blur / C) as parameters; h is what the black box's access policy
    or output defence makes of a full answer, which the attacker is supposed to know:

        p' ~ Dirichlet, o' = h(p')

    A black box with h(p') = p' for the whole table hides nothing. Then the answers are used as they are, and the
    attack is its base, to the bit. So it is in a placebo, too: there is nothing to undo in labels. The outcome's note
    ``hidden_distance`` is the mean L1 distance between p' and o'; 0 where nothing is hidden.
    """

    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            "full": "undoes a known output defence; without one, as the base",
            "decimals": "undoes the rounding as far as the table tells",
            "top-k": "fills in the hidden classes",
            "top-k-raw": "fills in the hidden classes",
        }
    )
    placebo: ClassVar[str] = "that of the base: in labels there is nothing to recover"

    base: Attack = BASE
    table: int = 10_000
    concentration: float = 8.0
    blur: float = 0.01

    def __post_init__(self) -> None:
        if self.base.views != 1 or not self.base.placebo:
            raise InputError(
                f"{self.name} cannot recover answers for {self.base.name}, which asks about "
                f"{'two views of an image' if self.base.views != 1 else 'images of its own'}; choose another base"
            )
        check_count("size of the table", self.table, 1)
        check_positive("concentration", self.concentration)
        check_share("blur", self.blur)
        # True of the class, whose default base reads labels; what holds for a value depends on its base.
        object.__setattr__(self, "needs_labels", self.base.needs_labels)

    @property
    def trainings(self) -> int:
        return self.base.trainings

    def check_access(self, kind: AccessKind) -> None:
        super().check_access(kind)
        self.base.check_access("full")

    def loss(
        self, logits: Float[Tensor, "m classes"], log_probs: Float[Tensor, "v classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """The base's loss, on recovered answers."""
        return self.base.loss(logits, log_probs, labels)

    @abstractmethod
    def inverse(self, full: Rows, limited: Rows, seed: int) -> Recover:
        """A map from answers to full answers, made of a table's two columns (log-probabilities)."""

    def train(self, lab: Lab) -> nn.Module:
        full = self.draw(lab.answers(0, 0), lab.seed)
        limited = lab.limit(full)
        lab.notes["hidden_distance"] = (full.exp() - limited.exp()).abs().sum(1).mean().item()
        if torch.allclose(limited, full, rtol=1e-5, atol=1e-5):
            return self.base.train(lab)
        return self.base.train(RecoveredLab(lab, self.inverse(full, limited, lab.seed)))

    def draw(self, observed: Rows, seed: int) -> Float[Tensor, "pairs classes"]:
        """The table's full answers: logarithms of Dirichlet draws, which would underflow themselves."""
        draws = np.random.default_rng(seed)
        centres = observed.exp().double()
        centres = (1 - self.blur) * centres / centres.sum(1, keepdim=True) + self.blur / observed.shape[1]
        parts = []
        for rows in np.array_split(draws.integers(len(observed), size=self.table), -(-self.table // ROWS)):
            alpha = self.concentration * observed.shape[1] * centres[rows].numpy()
            with np.errstate(divide="ignore", invalid="ignore"):  # alpha = 0 gives an exact zero
                boost = np.log1p(-draws.random(alpha.shape)) / alpha
                logs = np.where(alpha > 0, np.log(draws.standard_gamma(alpha + 1)) + boost, -np.inf)
            parts.append(torch.log_softmax(torch.from_numpy(logs), 1).float())
        return torch.cat(parts)


@dataclass(frozen=True)
class RecoveryBayes(Recovery):
    """Partial Bayes: an answer is replaced by the mean of the full answers that the black box would have served alike.

    With the pairs (p', o') of the table, p' drawn around the observed answers and o' = h(p'), an answer o becomes

        mean of p' over { (p', o') : ||o' - o||_1 <= tolerance, argmax o' = argmax o }

    and where no pair is that near, the p' of the nearest one. An answer whose predicted class the table does not hold
    stays as it is. A black box that hides nothing (h the identity on the table) leaves the base attack as it is.

    Args:
        base: the attack on recovered answers: any with one view and a placebo.
        table: number of pairs. Memory: some 20 bytes * C each.
        concentration: of the Dirichlet distributions, in units of C: large values keep the table near the observed
            answers.
        blur: share of the uniform distribution in the centres, in [0, 1]. With 0, what an answer hides exactly stays
            hidden.
        tolerance: of the L1 distance.

    Example:
        >>> from undistill.attacks import KDWithoutLabels
        >>> RecoveryBayes().needs_labels, RecoveryBayes(KDWithoutLabels()).needs_labels
        (True, False)

    Source: Tang et al., "ModelGuard", USENIX Security 2024, with its code's concentration and tolerance. Deviations:
    10,000 pairs in place of a million, of which every answer is compared with those of its predicted class; the blur,
    without which truncated answers have no Dirichlet distribution; Dirichlet draws alone, no shadow models.
    """

    name: ClassVar[str] = "recovery-bayes"
    summary: ClassVar[str] = (
        "inverts a known output defence by a table of full answers (partial Bayes), then any attack"
    )
    source: ClassVar[str] = "Tang et al. (ModelGuard), USENIX Security 2024"
    needs_labels: ClassVar[bool] = True

    tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("tolerance", self.tolerance)

    def inverse(self, full: Rows, limited: Rows, seed: int) -> Recover:
        full, limited = full.double().exp(), limited.exp()
        predicted = limited.argmax(1)

        def recover(log_probs: Rows) -> Rows:
            recovered, probs, classes = log_probs.clone(), log_probs.exp(), log_probs.argmax(1)
            for label in np.intersect1d(classes.numpy(), predicted.numpy()).tolist():
                of_class, means = limited[predicted == label], full[predicted == label]
                for rows in (classes == label).nonzero()[:, 0].split(ROWS):
                    distance = torch.cdist(probs[rows], of_class, p=1)
                    near = distance <= distance.amin(1, keepdim=True).clamp_min(self.tolerance)
                    total = near.double() @ means
                    recovered[rows] = (total / near.sum(1, keepdim=True)).log().float()
            return recovered

        return recover

    @classmethod
    def grid(cls) -> "tuple[RecoveryBayes, ...]":
        return cls(), cls(KD(1.0))


@dataclass(frozen=True)
class RecoveryLearned(Recovery):
    """A learned inverse: a perceptron f trained on the table to undo what the black box does.

        recovered = softmax(l + f(l)),   l = max(log o, -14)
        f minimises the mean over the table of KL(p' || softmax(l' + f(l'))),   l' = max(log o', -14)

    The minimiser of that divergence is the mean of p' given o', which is what partial Bayes estimates by counting. f
    starts at 0, so that it learns the correction alone. A black box that hides nothing (h the identity on the table)
    leaves the base attack as it is.

    Args:
        base: the attack on recovered answers: any with one view and a placebo.
        table: number of pairs.
        concentration: as of :class:`RecoveryBayes`.
        blur: as of :class:`RecoveryBayes`.
        epochs: of the perceptron's training.

    Example:
        >>> RecoveryLearned.widths(10), RecoveryLearned.widths(100), RecoveryLearned.widths(1000)
        ((128, 64), (1024, 512), (2048, 1024))

    Source: D-DAE (Chen et al., S&P 2023) in the form of Tang et al., "ModelGuard", USENIX Security 2024: the layers.
    Deviations: log-probabilities in, a correction out, and KL in place of L1 (whose minimiser is a median: nothing for
    every class that is rarely probable, so nothing for high temperatures to see); 10,000 pairs and 20 epochs of Adam
    (2e-3, batches of 256) in place of a million and 200 of SGD; Dirichlet draws alone, no shadow models.
    """

    name: ClassVar[str] = "recovery-learned"
    summary: ClassVar[str] = "inverts a known output defence by a network trained on pairs (as D-DAE), then any attack"
    source: ClassVar[str] = "Chen et al. (D-DAE), S&P 2023; Tang et al. (ModelGuard), USENIX Security 2024"
    needs_labels: ClassVar[bool] = True

    epochs: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("number of epochs", self.epochs, 1)

    @staticmethod
    def widths(classes: int) -> tuple[int, int]:
        """Of the two hidden layers: the power of 2 next to 10 C, at most 2,048, and half of it."""
        first = min(LARGEST_LAYER, 2 ** round(np.log2(10 * classes)))
        return first, first // 2

    def inverse(self, full: Rows, limited: Rows, seed: int) -> Recover:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _Correction(full.shape[1], self.widths(full.shape[1]))
            optimiser = torch.optim.Adam(network.parameters(), RATE)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs)
            batch = min(BATCH, len(full))
            for _ in range(self.epochs):
                for rows in torch.randperm(len(full))[: len(full) // batch * batch].split(batch):
                    optimiser.zero_grad()
                    kl_divergence(full[rows], network(limited[rows])).mean().backward()
                    optimiser.step()
                schedule.step()
        network.eval()

        def recover(log_probs: Rows) -> Rows:
            with torch.no_grad():
                return network(log_probs)

        return recover

    @classmethod
    def grid(cls) -> "tuple[RecoveryLearned, ...]":
        return cls(), cls(KD(1.0))


class _Correction(nn.Module):
    """Log-probabilities (n, classes), exact zeros included, to corrected ones without zeros."""

    def __init__(self, classes: int, widths: tuple[int, int]) -> None:
        super().__init__()
        first, second = widths
        last = nn.Linear(second, classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.BatchNorm1d(classes),
            *(nn.Linear(classes, first), nn.BatchNorm1d(first), nn.LeakyReLU(0.2)),
            *(nn.Linear(first, second), nn.BatchNorm1d(second), nn.LeakyReLU(0.2)),
            last,
        )

    def forward(self, log_probs: Rows) -> Rows:
        shown = log_probs.clamp_min(FLOOR)
        return torch.log_softmax(shown + self.layers(shown), 1)


class RecoveredLab(Lab):
    """A lab whose black box answers in full, as far as an inverse tells."""

    def __init__(self, lab: Lab, recover: Recover) -> None:
        self.lab, self.recover = lab, recover
        self.labels, self.num_classes, self.seed, self.notes = lab.labels, lab.num_classes, lab.seed, lab.notes
        self.access = "full"

    def answers(self, epoch: int, view: int) -> Tensor:
        return self.recover(self.lab.answers(epoch, view))

    def ask(self, images: Tensor) -> Tensor:
        return self.recover(self.lab.ask(images))

    def limit(self, log_probs: Tensor) -> Tensor:
        return log_probs

    def fit(self, attack: Attack, answers: Answers, generation: int = 0) -> nn.Module:
        return self.lab.fit(attack, answers, generation)

    def answers_of(self, student: nn.Module) -> Answers:
        return self.lab.answers_of(student)

    def fresh_student(self) -> nn.Module:
        return self.lab.fresh_student()
