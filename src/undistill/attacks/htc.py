"""High-temperature composition: knowledge distillation at temperatures that flatten false peaks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.attacks.base import Attack
from undistill.attacks.checks import check_temperature, check_weight


def nearly_uniform_divergence(
    logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], temperature: float
) -> Float[Tensor, "b"]:
    """T^2 KL(p^(1/T) || q^(1/T)) per example, in float32.

    At high T both distributions differ from the uniform one by some 1/T, and their divergence is some 1/T^2. Beside
    log C, which every log-probability holds, these digits are lost, and T^2 makes the loss noise. So log C is never
    formed here: with x and w the student's and the teacher's logits over T, and M the log of the mean of exponentials,
    KL = M(x) - M(w) + sum over classes of p (w - x).

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> nearly_uniform_divergence(student, teacher, 100.0)  # half the variance of the gap
        tensor([0.1250])
    """
    student = _over(logits.float(), temperature)
    teacher = _over(log_probs.detach().float(), temperature)
    gap = torch.where(teacher > -torch.inf, teacher - student, 0.0)
    linear = (torch.softmax(teacher, 1) * gap).sum(1)
    return temperature**2 * (_log_mean_exp(student) - _log_mean_exp(teacher) + linear)


def _over(values: Float[Tensor, "b classes"], temperature: float) -> Float[Tensor, "b classes"]:
    return (values - values.detach().amax(1, keepdim=True)) / temperature


def _log_mean_exp(values: Float[Tensor, "b classes"]) -> Float[Tensor, "b"]:
    return torch.log1p(torch.expm1(values).mean(1))  # the largest value is 0: no overflow, and the mean is above -1


@dataclass(frozen=True)
class HTC(Attack):
    """High-temperature composition: a very high temperature flattens the false peaks of a teacher that was trained to
    mislead, and the labels' cross entropy, at full weight, brings back what is lost of the label.

    Formula, per example: hard * CE(z, y) + alpha * T^2 * KL(p^(1/T) || softmax(z/T)).

    From T = 50 on this is, to the first order, the squared error of centred logits: alpha / (2 C) times
    the sum over classes of (z - v)^2.

    Args:
        temperature: T > 0.
        alpha: weight of the soft part.
        hard: weight of the labels' cross entropy (a weight, not a share).

    Raises:
        InputError: a temperature that is not finite and above 0, a weight that is negative or not finite.

    Example:
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> HTC(hard=0.0).loss(log_probs, log_probs, torch.tensor([0])).item()
        0.0

    Source: Jandial, Khasbage, Pal, Balasubramanian, Krishnamurthy, "Distilling the Undistillable: Learning from a Nasty
    Teacher", arXiv 2210.11728. Its code is not public; the form is that of the only readable implementation
    (Linfeng-Ye/CMIM). Deviation: that one averages the KL over classes, too, which divides its weight by C, and keeps T
    and alpha in files that are not published; here the KL is summed over classes, T = 20 and alpha = 1.
    """

    name: ClassVar[str] = "htc"
    summary: ClassVar[str] = "high-temperature composition: KD at T of 20 to 200, plus labels at full weight"
    source: ClassVar[str] = "Jandial et al. 2022, arXiv 2210.11728"
    needs_labels: ClassVar[bool] = True
    row_wise: ClassVar[bool] = True

    temperature: float = 20.0
    alpha: float = 1.0
    hard: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_weight("weight alpha of the soft part", self.alpha)
        check_weight("weight of hard labels", self.hard)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return self.hard * hard + self.alpha * nearly_uniform_divergence(logits, log_probs, self.temperature)

    @classmethod
    def grid(cls) -> "tuple[HTC, ...]":
        return cls(), cls(alpha=3.0), cls(temperature=100.0)
