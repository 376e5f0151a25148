"""Students of students: generations of self-training, and an ensemble of knockoffs distilled into one."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undistill.attacks.base import Answers, Lab
from undistill.attacks.checks import check_count
from undistill.attacks.kd import KD
from undistill.information import temper


@dataclass(frozen=True)
class SelfTraining(KD):
    """Generations: the first student learns from the black box, each later one from the student before it.

    All of them with the loss of :class:`KD` (labels included), on the same images in the same order. A student has
    seen every answer when it gives its own, so noise that a defence adds image by image is averaged out; no
    information is added. The last generation starts from the initial weights of the trial's seed, so that it pairs
    with references; the others have weights of their own.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].
        generations: number of students; 1 is plain KD.

    Example:
        >>> SelfTraining(generations=3).trainings
        3

    Source: Furlanello et al., "Born-Again Neural Networks", ICML 2018, arXiv 1805.04770, with the teacher as an
    outsider's. Deviation: tempered KD with labels in each generation, where theirs is at T = 1.
    """

    name: ClassVar[str] = "self-training"
    summary: ClassVar[str] = "generations of students: the first learns from the answers, each next from the one before"
    source: ClassVar[str] = "after Furlanello et al., ICML 2018, arXiv 1805.04770"
    placebo: ClassVar[str] = "the same generations, the first of which learns from smoothed one-hot labels"
    row_wise: ClassVar[bool] = True

    generations: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("number of generations", self.generations, 1)

    @property
    def trainings(self) -> int:
        return self.generations

    def train(self, lab: Lab) -> nn.Module:
        answers: Answers = lab.answers
        for generation in range(self.generations - 1, 0, -1):
            answers = lab.answers_of(lab.fit(self, answers, generation))
        return lab.fit(self, answers)

    @classmethod
    def grid(cls) -> "tuple[SelfTraining, ...]":
        return cls(), cls(temperature=20.0)


@dataclass(frozen=True)
class Ensemble(KD):
    """Several knockoffs, distilled into one.

    The members learn from the black box with the loss of :class:`KD`, from initial weights of their own. The last
    student learns with the same loss, its teacher being the mean of their tempered probabilities:

        hard * CE(z, y) + (1 - hard) * T^2 * KL(mean over members k of q_k^(1/T) || softmax(z/T))

    An ensemble of students is better than one even with no teacher behind it. So the placebo is an ensemble, too.

    Args:
        temperature: T > 0.
        hard: weight of the labels' cross entropy, in [0, 1].
        members: number of knockoffs in the ensemble.

    Example:
        >>> Ensemble(members=3).trainings
        4

    Source: Hinton, Vinyals, Dean, arXiv 1503.02531 (who distil an ensemble into one network); members that are
    knockoffs are ours.
    """

    name: ClassVar[str] = "ensemble"
    summary: ClassVar[str] = "several knockoffs, whose mean tempered probabilities are distilled into one student"
    source: ClassVar[str] = "after Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
    placebo: ClassVar[str] = "an ensemble of students of smoothed one-hot labels, distilled into one likewise"
    row_wise: ClassVar[bool] = True

    members: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("number of members", self.members, 1)

    @property
    def trainings(self) -> int:
        return self.members + 1

    def train(self, lab: Lab) -> nn.Module:
        members = [lab.answers_of(lab.fit(self, lab.answers, 1 + member)) for member in range(self.members)]

        def answers(epoch: int, view: int) -> Float[Tensor, "n classes"]:
            return self.mean(torch.stack([member(epoch, view) for member in members]))

        return lab.fit(self, answers)

    def mean(self, log_probs: Float[Tensor, "members n classes"]) -> Float[Tensor, "n classes"]:
        """Log-probabilities whose power transform 1/T is the mean of the members' power transforms."""
        tempered = temper(log_probs, 1 / self.temperature)
        return temper(tempered.logsumexp(0) - math.log(len(log_probs)), self.temperature)

    @classmethod
    def grid(cls) -> "tuple[Ensemble, ...]":
        return cls(), cls(temperature=20.0)
