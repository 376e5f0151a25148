"""Curriculum temperature: knowledge distillation whose temperature is learned against the student."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from undistill.attacks.base import Attack, AttackLoss
from undistill.attacks.checks import check_positive, check_share, check_temperature
from undistill.attacks.divergence import kl_divergence

THETA = 1.0
"""Where theta starts, as in the official code: the temperature starts at 73% of its range."""

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
"""Of theta's steps, as of the student's."""

EDGE = 0.01
"""Share of the range: this close to its floor or ceiling, a temperature counts as collapsed."""


@dataclass(frozen=True)
class CTKD(Attack):
    """Curriculum temperature: the temperature is one more parameter, which *raises* the student's loss.

    Formula, per example: hard * CE(z, y) + (1 - hard) * T^2 * KL(p^(1/T) || softmax(z/T)), T = t_start + t_range *
    sigmoid(theta). The gradient of theta is multiplied by lambda(e) = (cos(pi * min(1, e / E)) - 1) / 2, which goes
    from 0 to -1 in the first E epochs (``decay`` is E's share of all epochs) and stays at -1: gradient ascent. The
    method ``loss`` has the initial theta, which moves in the course of a training (:class:`LearnedTemperature`).

    A temperature that has collapsed to an end of its range is a constant, and the attack is plain KD with it. So the
    outcome of each trial says what became of it: ``temperatures``, one per epoch, and ``temperature_collapsed``.

    Args:
        t_start: floor of the temperature, above 0.
        t_range: from the floor to the ceiling, above 0.
        decay: share of the training in which the gradient is reversed, in [0, 1].
        hard: weight of the labels' cross entropy, in [0, 1].

    Raises:
        InputError: a floor or range that is not finite and above 0, a share outside [0, 1].

    Example:
        >>> CTKD().temperature(torch.tensor(1.0))
        tensor(15.6212)
        >>> log_probs = torch.log_softmax(torch.tensor([[2.0, 0.0, 1.0]]), 1)
        >>> CTKD(hard=0.0).loss(log_probs, log_probs, torch.tensor([0])).abs().max().item() < 1e-4
        True

    Source: Li, Li, Yang, Zhao, Song, Luo, Li, Yang, "Curriculum Temperature for Knowledge Distillation", arXiv
    2211.16231; zhengli97/CTKD, whose script for CIFAR-100 gives the defaults (T from 1 to 21, global temperature, 10 of
    240 epochs, 0.1 and 0.9). Deviation: gradients with respect to T are taken in the log domain, where answers of
    exactly zero have none; theta's steps have the student's learning rate, momentum and weight decay, but are not part
    of the student's own optimiser (and take no Nesterov step, as in the code).
    """

    name: ClassVar[str] = "ctkd"
    summary: ClassVar[str] = "curriculum temperature: KD with labels, whose temperature is learned to make it harder"
    source: ClassVar[str] = "Li et al. 2023, arXiv 2211.16231; zhengli97/CTKD"
    needs_labels: ClassVar[bool] = True

    t_start: float = 1.0
    t_range: float = 20.0
    decay: float = 10 / 240
    hard: float = 0.1

    def __post_init__(self) -> None:
        check_temperature(self.t_start)
        check_positive("range of the temperature", self.t_range)
        check_share("share of the training in which the gradient is reversed", self.decay)
        check_share("share of hard labels", self.hard)

    def temperature(self, theta: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """T = t_start + t_range * sigmoid(theta)."""
        return self.t_start + self.t_range * torch.sigmoid(theta)

    def loss(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        initial = self.temperature(torch.tensor(THETA, device=logits.device))
        return self.loss_at(initial, logits, log_probs, labels)

    def loss_at(
        self,
        temperature: Float[Tensor, ""],
        logits: Float[Tensor, "b classes"],
        log_probs: Float[Tensor, "b classes"],
        labels: Int64[Tensor, "b"],
    ) -> Float[Tensor, "b"]:
        """The loss at a temperature, with gradient to it."""
        log_probs = log_probs.detach().float()
        held = log_probs > -torch.inf
        # An infinite entry must not meet T: the gradient of T would be 0 times infinity.
        tempered = torch.where(held, torch.where(held, log_probs, 0.0) / temperature, -torch.inf)
        divergence = kl_divergence(torch.log_softmax(tempered, 1), torch.log_softmax(logits.float() / temperature, 1))
        hard = F.cross_entropy(logits.float(), labels, reduction="none")
        return self.hard * hard + (1 - self.hard) * temperature**2 * divergence

    def start(self, num_classes: int, seed: int) -> AttackLoss:
        return LearnedTemperature(self)

    @classmethod
    def grid(cls) -> "tuple[CTKD, ...]":
        return cls(), cls(t_start=4.0)


class LearnedTemperature(AttackLoss):
    """The loss of :class:`CTKD` with its theta, in float32, and theta's steps of gradient ascent.

    Attributes:
        theta: the parameter.
        velocity: of theta, as of SGD with momentum.
        reversal: lambda, what the gradient of theta is multiplied by: 0 to -1.
    """

    attack: CTKD
    velocity: Tensor

    def __init__(self, attack: CTKD) -> None:
        super().__init__(attack)
        self.theta = nn.Parameter(torch.tensor(THETA))
        self.register_buffer("velocity", torch.zeros(()))
        self.reversal = 0.0
        self._at_epochs_end: list[float] = []

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        if epoch > 0:
            self._at_epochs_end.append(self._temperature())
        rise = self.attack.decay * epochs
        share = min(1.0, (epoch + 1) / rise) if rise > 0 else 1.0  # the official code counts epochs from 1
        self.reversal = (math.cos(math.pi * share) - 1) / 2

    def forward(
        self, logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], labels: Int64[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        fixed = self.theta.detach()
        reversed_theta = fixed + self.reversal * (self.theta - fixed)  # theta's value, lambda times its gradient
        return self.attack.loss_at(self.attack.temperature(reversed_theta), logits, log_probs, labels)

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        assert self.theta.grad is not None
        self.velocity.mul_(MOMENTUM).add_(self.theta.grad + WEIGHT_DECAY * self.theta)
        self.theta.sub_(learning_rate * self.velocity)
        self.theta.grad = None

    def facts(self) -> dict[str, Any]:
        temperatures = [*self._at_epochs_end, self._temperature()]
        floor, width = self.attack.t_start, self.attack.t_range
        to_an_edge = [min(value - floor, floor + width - value) / width for value in temperatures]
        second_half = to_an_edge[len(to_an_edge) // 2 :]
        return {"temperatures": temperatures, "temperature_collapsed": max(second_half) <= EDGE}

    def _temperature(self) -> float:
        return self.attack.temperature(self.theta.detach()).item()
