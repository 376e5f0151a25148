"""Knowledge distillation from answers that show only some classes, without teaching that the others are impossible."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from undistill.attacks.base import AccessKind, Attack
from undistill.attacks.checks import check_share
from undistill.attacks.divergence import kl_divergence, soft_loss
from undistill.attacks.kd import KD
from undistill.errors import InputError

ROUNDING = 1e-6
"""Mass that renormalised answers may seem to leave, in float32. A tempered target would make 3% of it at T = 4."""


@dataclass(frozen=True)
class SupportKD(KD):
    """Knowledge distillation conditional on the classes that the answer shows.

    S is the set of classes whose answer is not an exact zero, q^(1/T)_S the student's tempered probabilities
    renormalised over S:

        hard * CE(z, y) + (1 - hard) * T^2 * KL(p_S^(1/T) || q_S^(1/T))

    It is zero for a student that equals the teacher, and the soft part sends no gradient at all into logits of hidden
    classes. (Plain KD on the same answers pushes them to minus infinity.) Answers without zeros give :class:`KD`; an
    answer of one class leaves the labels alone.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].

    Example:
        The teacher is (0.7, 0.2, 0.1) and shows two classes; the student is the teacher:

        >>> teacher, shown = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[7 / 9, 2 / 9, 0.0]]).log()
        >>> abs(SupportKD(hard=0.0).loss(teacher, shown, torch.tensor([0])).item()) < 1e-5
        True

    Source: our own; the conditional form of Hinton, Vinyals, Dean, arXiv 1503.02531. Defaults as :class:`KD`.
    """

    name: ClassVar[str] = "kd-support"
    summary: ClassVar[str] = "knowledge distillation over the shown classes alone, for truncated answers"
    source: ClassVar[str] = "our own, after Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            "full": "as kd",
            "decimals": "entries that are rounded to zero are left out, on both sides",
            "top-k": "hidden classes are left out, on both sides",
            "top-k-raw": "renormalised over the returned classes, then as top-k",
        }
    )
    row_wise: ClassVar[bool] = True

    def soft(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        shown = logits.float().masked_fill(_hidden(log_probs), -torch.inf)
        return soft_loss(shown, log_probs, self.temperature)

    @classmethod
    def grid(cls) -> "tuple[SupportKD, ...]":
        return tuple(cls(temperature) for temperature in (4.0, 1.0, 20.0))


@dataclass(frozen=True)
class RestBinKD(Attack):
    """Knowledge distillation with one more class: all that the answer does not show.

    The shown classes S keep their probabilities; the rest r = 1 - sum of p over S is compared with the student's
    probability of all other classes together. At temperature 1, for the tempered mass of the rest is unknown:

        hard * CE(z, y) + (1 - hard) * [ sum over S of p_c log(p_c / q_c) + r log(r / (1 - sum of q over S)) ]

    The answers must keep their mass: an answer that was renormalised has r = 0 (so has one that leaves less than 1e-6,
    which may be rounding), and this teaches, as plain KD does, that the hidden classes are impossible. An answer
    without zeros has no rest; the loss is then :class:`KD` at T = 1.

    Args:
        hard: weight of the labels' cross entropy, in [0, 1].

    Example:
        The teacher is (0.7, 0.2, 0.1) and shows its first class, as it is; the student agrees on it, and on no other:

        >>> student, shown = torch.tensor([[0.7, 0.1, 0.2]]).log(), torch.tensor([[0.7, 0.0, 0.0]]).log()
        >>> abs(RestBinKD(hard=0.0).loss(student, shown, torch.tensor([0])).item()) < 1e-6
        True

    Source: our own; top-k and tail losses of this kind appear in code for language models.
    """

    name: ClassVar[str] = "kd-rest-bin"
    summary: ClassVar[str] = "knowledge distillation at T = 1 with one class for all that the answer hides"
    source: ClassVar[str] = "our own, after Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
    needs_labels: ClassVar[bool] = True
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            "full": "as kd at temperature 1",
            "decimals": "the rest is what rounding took away, 0 if the answers are renormalised",
            "top-k": "renormalised answers have no rest: as kd at temperature 1",
            "top-k-raw": "as meant: the rest is 1 minus the returned mass",
            "label": "cross entropy with the predicted class",
        }
    )
    row_wise: ClassVar[bool] = True

    hard: float = 0.1

    def __post_init__(self) -> None:
        check_share("share of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        logits, answers = logits.float(), log_probs.detach().float()
        hard = F.cross_entropy(logits, labels, reduction="none")
        log_q = torch.log_softmax(logits, 1)
        rest = log_q.masked_fill(~_bin(answers), -torch.inf).logsumexp(1, keepdim=True)
        soft = kl_divergence(torch.cat([answers, _residual(answers).log()], 1), torch.cat([log_q, rest], 1))
        return self.hard * hard + (1 - self.hard) * soft

    @classmethod
    def grid(cls) -> "tuple[RestBinKD, ...]":
        return cls(), cls(hard=0.5)


@dataclass(frozen=True)
class ImputedTailKD(KD):
    """Knowledge distillation from answers whose hidden classes are filled in by the student itself.

    Hidden classes share the mass r in the proportions of the student's own probabilities, taken as constants:

        p~_c = (1 - r) p_c / sum of p over S           for the shown classes S
        p~_c = r * stop_grad(q_c / sum of q over the hidden classes)    for the others
        loss = hard * CE(z, y) + (1 - hard) * T^2 * KL(p~^(1/T) || q^(1/T))

    r is the mass that the answer leaves (none where this is less than 1e-6, which may be rounding), and at least
    ``tail``. Unlike in a rest bin, the whole of p~ can be tempered.
    Answers without zeros are taken as they are.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].
        tail: least mass of the hidden classes, in [0, 1). Answers that were renormalised leave none, so for them it
            is the mass. 0 trusts the answers: renormalised ones then teach that the hidden classes are impossible.

    Example:
        The teacher is (0.7, 0.2, 0.1) and shows one class, as it is; the student is the teacher:

        >>> teacher, shown = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.7, 0.0, 0.0]]).log()
        >>> abs(ImputedTailKD(hard=0.0).loss(teacher, shown, torch.tensor([0])).item()) < 1e-5
        True

    Source: our own. Temperature and ``hard`` as :class:`KD`.
    """

    name: ClassVar[str] = "kd-imputed-tail"
    summary: ClassVar[str] = "knowledge distillation with the hidden classes filled in by the student's own proportions"
    source: ClassVar[str] = "our own, after Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
    access: ClassVar[Mapping[AccessKind, str]] = MappingProxyType(
        {
            "full": "as kd",
            "decimals": "entries that are rounded to zero share what rounding took away, and at least the tail",
            "top-k": "hidden classes share the tail",
            "top-k-raw": "hidden classes share 1 minus the returned mass, and at least the tail",
            "label": "all classes but the predicted one share the tail",
        }
    )
    row_wise: ClassVar[bool] = True

    tail: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tail < 1:
            raise InputError(f"the tail is {self.tail}, must lie between 0 and 1, and below 1")

    def soft(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        filled = self._filled(logits.detach().float(), log_probs.detach().float())
        return soft_loss(logits, filled, self.temperature)

    def _filled(
        self, logits: Float[Tensor, "b classes"], answers: Float[Tensor, "b classes"]
    ) -> Float[Tensor, "b classes"]:
        hidden = _hidden(answers)
        tail = _residual(answers).clamp_min(self.tail).where(hidden.any(1, keepdim=True), 0.0)
        inside = torch.log_softmax(logits.masked_fill(~_bin(answers), -torch.inf), 1) + tail.log()
        return torch.where(hidden, inside, torch.log_softmax(answers, 1) + torch.log1p(-tail))

    @classmethod
    def grid(cls) -> "tuple[ImputedTailKD, ...]":
        return tuple(cls(tail=tail) for tail in (0.01, 0.1, 0.0))


def _hidden(log_probs: Float[Tensor, "b classes"]) -> Bool[Tensor, "b classes"]:
    return log_probs == -torch.inf


def _bin(log_probs: Float[Tensor, "b classes"]) -> Bool[Tensor, "b classes"]:
    """The hidden classes; where there are none, all (of a bin that nobody asks for, but that must be finite)."""
    hidden = _hidden(log_probs)
    return hidden | ~hidden.any(1, keepdim=True)


def _residual(log_probs: Float[Tensor, "b classes"]) -> Float[Tensor, "b 1"]:
    """What the shown classes leave of 1; exactly 0 where all are shown, or where it may be rounding."""
    left = 1 - log_probs.exp().sum(1, keepdim=True)
    return left.where(_hidden(log_probs).any(1, keepdim=True) & (left > ROUNDING), 0.0)
