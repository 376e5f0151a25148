"""What a training is, apart from its network, data and loss."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from undistill.errors import InputError, unknown_name

Schedule = Literal["one-cycle", "cosine", "step"]
Precision = Literal["auto", "float32", "bfloat16"]

# Below this many values per input, casting costs more than bfloat16 saves (`make bench`, "precision").
BFLOAT16_PAYS_FROM = 1024


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and everything that shapes it.

    Args:
        epochs: passes over the training split.
        batch_size: images per step, over all processes together. The last, incomplete batch of an epoch is dropped
            (each epoch has another order, so no image is left out for good).
        learning_rate: the schedule's highest value.
        momentum: Nesterov momentum, in (0, 1).
        weight_decay: L2 penalty on all parameters.
        schedule: ``"one-cycle"`` (half a cosine up from 1/25 of the highest value over the first ``warmup`` share of
            the steps, then half a cosine down to 1/250,000 of it; Smith & Topin, arXiv 1708.07120, in PyTorch's
            version, with constant momentum), ``"cosine"`` (to zero), or ``"step"`` (times ``decay`` at each of
            ``milestones``).
        warmup: share of the steps in which one-cycle rises.
        milestones: shares of the training, rising, at which ``"step"`` decays. The default is 60/120/160 of 200.
        decay: factor of ``"step"``.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        precision: ``"bfloat16"`` runs the network (never a loss) under autocast; ``"auto"`` does so where the
            device computes bfloat16 natively and an input has 1,024 values or more.

    Raises:
        InputError: a value is out of its range; the message names every one.

    Example:
        >>> Recipe(epochs=2).steps_per_epoch(500)
        3
        >>> Recipe(epochs=0)
        Traceback (most recent call last):
        ...
        undistill.errors.InputError: recipe: epochs is 0, must be at least 1
    """

    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "one-cycle"
    warmup: float = 0.2
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    decay: float = 0.2
    clip_norm: float = 0.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        rules = [
            (self.epochs >= 1, f"epochs is {self.epochs}, must be at least 1"),
            (self.batch_size >= 1, f"batch_size is {self.batch_size}, must be at least 1"),
            (0 < self.learning_rate < math.inf, f"learning_rate is {self.learning_rate}, must be finite and above 0"),
            (0 < self.momentum < 1, f"momentum is {self.momentum}, must lie between 0 and 1 (Nesterov needs it)"),
            (
                0 <= self.weight_decay < math.inf,
                f"weight_decay is {self.weight_decay}, must be finite and not negative",
            ),
            (0 < self.warmup < 1, f"warmup is {self.warmup}, must lie between 0 and 1"),
            (0 < self.decay <= 1, f"decay is {self.decay}, must be above 0 and at most 1"),
            (
                0 <= self.clip_norm < math.inf,
                f"clip_norm is {self.clip_norm}, must be finite and not negative (0 turns clipping off)",
            ),
            (
                all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(set(self.milestones)),
                f"milestones are {self.milestones}, must rise and lie between 0 and 1 (shares of the training)",
            ),
        ]
        problems = [words for holds, words in rules if not holds]
        if problems:
            raise InputError(f"recipe: {'; '.join(problems)}")
        if self.schedule not in get_args(Schedule):
            raise unknown_name("schedule", self.schedule, get_args(Schedule))
        if self.precision not in get_args(Precision):
            raise unknown_name("precision", self.precision, get_args(Precision))

    def steps_per_epoch(self, images: int) -> int:
        """Steps that an epoch over ``images`` images takes; at least one, with a smaller batch if need be."""
        return max(1, images // self.batch_size)

    def optimiser(self, parameters: list[torch.nn.Parameter]) -> SGD:
        """SGD over ``parameters``, in its fused form (one pass over memory per step)."""
        return SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
            fused=True,
        )

    def scheduler(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """The learning rate as a function of the step, 0 to ``steps``."""
        match self.schedule:
            case "one-cycle":
                # A rise of less than one step would divide by zero inside OneCycleLR.
                rise = min(max(self.warmup, 1.5 / steps), 0.9)
                return OneCycleLR(
                    optimiser, self.learning_rate, total_steps=steps + 1, pct_start=rise, cycle_momentum=False
                )
            case "cosine":
                return CosineAnnealingLR(optimiser, steps)
            case "step":
                return MultiStepLR(optimiser, [math.ceil(share * steps) for share in self.milestones], self.decay)

    def bfloat16(self, device: torch.device, input_shape: tuple[int, ...]) -> bool:
        """Whether the network runs under bfloat16 autocast on ``device``."""
        if self.precision != "auto":
            return self.precision == "bfloat16"
        return math.prod(input_shape) >= BFLOAT16_PAYS_FROM and has_bfloat16(device)

    def resolved(self, input_shape: tuple[int, ...]) -> "Recipe":
        """The same, with what a precision of ``"auto"`` means on this machine: on its accelerator, if it has one.

        >>> Recipe().resolved((1, 8, 8)).precision
        'float32'
        """
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        bfloat16 = self.bfloat16(device or torch.device("cpu"), input_shape)
        return replace(self, precision="bfloat16" if bfloat16 else "float32")


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware.

    >>> isinstance(has_bfloat16(torch.device("cpu")), bool)
    True
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Older versions of PyTorch cannot tell; float32 is right everywhere.
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return False
