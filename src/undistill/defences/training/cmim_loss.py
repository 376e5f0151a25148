"""Cross entropy plus the conditional mutual information of a batch's clusters at several powers."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from undistill.defences.training.centroids import CENTROIDS, SMALLEST_PROBABILITY
from undistill.defences.training.defence import problems_of_numbers
from undistill.defences.training.processes import gather_batches, world_size
from undistill.errors import InputError, unknown_name
from undistill.information import check_powers

WEIGHTINGS = ("inverse-square", "log-uniform", "none")
AGGREGATIONS = ("mean", "maximum", "power-mean")
REDUCTIONS = ("mean", "sum", "none")
CMIM_POWERS = (1 / 20, 1 / 8, 1 / 4, 1 / 2, 1.0)


class CMIMLoss(nn.Module):
    """Cross entropy plus CMI at several powers: a drop-in for ``nn.CrossEntropyLoss`` with integer targets.

    ``J = CE(z, y) + weight * ramp * aggregate over a of [ w(a) * mean_i KL(P_i^(a) || Q^(a)_{y_i}) ]``

    P^(a) = softmax(a z). Q^(a)_y is the centroid of class y at power a: a running mean of P^(a) over the class, updated
    with the batch before the loss is taken, in training mode only. No gradient flows through it; at the class mean that
    is the true gradient of CMI. The gradient is the closed form ``d KL / dz_k = a P_k (log(P_k / Q_k) - KL)``, taken in
    the same pass; it cannot be differentiated twice.

    A class that a batch holds once gets a gradient, because its centroid remembers earlier batches (at the very first
    batch its centroid is the sample itself, and the gradient is rightly zero). Rows whose logits are not all finite, as
    an overflow under float16 leaves them, stay out of the centroids; the loss is then not finite either, so that a
    gradient scaler skips the step.

    With ``torch.distributed`` initialised, every process takes all processes' batches into its centroids, so that they
    agree; batches may differ in size. Logits and targets are exchanged, which costs less than K sums of
    [C, C].

    Args:
        num_classes: number C of classes, at least 2.
        weight: weight of the CMI term, at least 0; 0 is cross entropy.
        powers: K powers a = 1/T, each above 0.
        weighting: w(a): "inverse-square" 1/a^2 (what an attacker who multiplies his loss by T^2 sees), "log-uniform"
            (the trapezoid weights that make the mean over powers a mean over log a), or "none" (1).
        aggregation: over powers: "mean", "maximum", or "power-mean" (a smooth maximum).
        exponent: p of the power mean ``(mean_a x_a^p)^(1/p)``, at least 1; read by no other aggregation.
        centroids: "free" (the class mean) or "symmetric" (one target mass common to all classes, a uniform rest).
        decay: weight that a class's centroid keeps of its past at each batch that holds the class, in [0, 1).
        ramp_steps: the weight grows linearly from 0 over that many calls in training mode; 0 for no ramp.
        reduction: "mean", "sum", or "none" for one loss per example. The examples' mean is exactly J: the aggregate is
            ``sum_a c_a I(a)`` with c_a its derivative by I(a) = mean_i KL (Euler's theorem for a function homogeneous
            of degree 1), and example i contributes ``sum_a c_a KL_i(a)``.

    Raises:
        InputError: a setting out of its range, an unknown word, or logits and targets that do not fit.

    Reference: Ye, Mohajer Hamidi, Yang, "Towards Undistillable Models by Minimizing Conditional Mutual Information",
    TMLR 2025, arXiv 2507.00012. Deviation: the paper's aggregation over temperatures could not be recovered (its
    released file is empty), so powers, weighting, aggregation, running centroids and ramp are our reading.

    >>> loss = CMIMLoss(num_classes=3)
    >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [4.0, 0.0, 0.0]], requires_grad=True)
    >>> value = loss(logits, torch.tensor([0, 1, 0]))
    >>> value.backward()
    >>> round(value.item(), 4)
    0.1909
    """

    steps: Tensor
    power_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        *,
        powers: Sequence[float] = CMIM_POWERS,
        weighting: str = "inverse-square",
        aggregation: str = "mean",
        exponent: float = 4.0,
        centroids: str = "free",
        decay: float = 0.9,
        ramp_steps: int = 0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_settings(
            weight=weight,
            weighting=weighting,
            aggregation=aggregation,
            exponent=exponent,
            centroids=centroids,
            decay=decay,
        )
        if reduction not in REDUCTIONS:
            raise unknown_name("reduction", reduction, REDUCTIONS)
        if num_classes < 2:
            raise InputError(f"a classifier has at least 2 classes, but num_classes is {num_classes}.")
        if ramp_steps < 0:
            raise InputError(f"ramp_steps counts training steps and must be at least 0, got {ramp_steps}.")
        self.num_classes = num_classes
        self.weight = weight
        self.powers = check_powers(powers)
        self.aggregation = aggregation
        self.exponent = exponent
        self.ramp_steps = ramp_steps
        self.reduction = reduction
        self.centroids = CENTROIDS[centroids](len(self.powers), num_classes, decay)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("power_weights", torch.tensor(power_weights(self.powers, weighting)), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, ce_weight: Tensor | None = None) -> Tensor:
        """The loss of one batch.

        Args:
            logits: [b, C], floating point; 16-bit logits are computed in float32, whether or not autocast is on.
            target: [b], integer classes in [0, C). Values out of range are reported on the CPU; elsewhere the check
                would hold up the device at every step, and the device's own assertion reports them.
            ce_weight: [b], what each example's cross entropy is multiplied by; 0 for one that only the CMI term sees.
                By default 1.

        Returns:
            J as a scalar, or [b] if ``reduction`` is "none"; nats, float32 (float64 after ``.double()``).
        """
        self._check(logits, target)
        target = target.long()
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(self.centroids.sums.dtype)
            divergences = self._divergences(logits, target)
            coefficients = self._coefficients(divergences.detach())
            cross_entropy = F.cross_entropy(logits, target, reduction="none")
            if ce_weight is not None:
                cross_entropy = ce_weight.detach() * cross_entropy
            per_example = cross_entropy + coefficients @ divergences
        if self.training:
            self.steps += 1
        if self.reduction == "none":
            return per_example
        return per_example.mean() if self.reduction == "mean" else per_example.sum()

    @torch.no_grad()
    def recompute(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Replace the centroids by the exact class means of a full pass over data.

        Each class's count becomes its true number of samples. Training may go on from there: a later batch with n
        samples of a class with count N then moves its centroid by n / (decay * N + n), little at first; at each batch
        that holds the class the pass keeps ``decay`` of its weight, so that it fades into the running mean. The ramp is
        untouched.

        Args:
            batches: pairs of logits [n, C] and integer targets [n]. In a distributed run each process gives its own
            share.

        Raises:
            InputError: no batch, logits that are not finite or of another class count, targets out of range.

        >>> loss = CMIMLoss(num_classes=2, powers=[1.0])
        >>> loss.recompute([(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))])
        >>> loss.centroids.sums[0, 0] / loss.centroids.counts[0]
        tensor([0.6904, 0.3096])
        """
        self.centroids.recompute(self._checked(batches), self.powers)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, weight={self.weight}, powers={self.powers}"

    def _checked(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for logits, target in batches:
            self._check(logits, target)
            yield logits, target

    def _check(self, logits: Tensor, target: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.num_classes or not logits.is_floating_point():
            raise InputError(
                f"logits must be a floating-point tensor of shape [batch, {self.num_classes}], got {logits.dtype} of "
                f"shape {list(logits.shape)}; num_classes of the loss and of the model must agree."
            )
        if target.ndim != 1 or len(target) != len(logits) or target.is_floating_point():
            raise InputError(
                f"target must hold one integer class for each of the {len(logits)} rows of logits, got {target.dtype} "
                f"of shape {list(target.shape)}; centroids need hard labels, so mixed or smoothed ones cannot be used."
            )
        if target.device.type == "cpu" and len(target):
            wrong = (target < 0) | (target >= self.num_classes)
            if wrong.any():
                raise InputError(
                    f"targets must lie in [0, {self.num_classes}), but {int(wrong.sum())} of {len(target)} do not "
                    f"(first: {int(target[wrong][0])})."
                )
        if self.centroids.sums.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"the centroids are kept in {self.centroids.sums.dtype}, which is too coarse for them; leave the loss "
                "in float32 (convert the model alone)."
            )

    def _divergences(
        self, logits: Float[Tensor, "b classes"], target: Int64[Tensor, " b"]
    ) -> Float[Tensor, "powers b"]:
        """KL(P^(a) || Q^(a)_y) of each power and example, after the centroids took the batch in."""
        own = logits.detach()
        values = own.new_empty(len(self.powers), len(own))
        gradients = own.new_empty(len(self.powers), *own.shape)
        bank = self.centroids
        if self.training:
            everyone, everyones_target, mine = gather_batches(own, target)
            intact = everyone.sum(dim=1, keepdim=True).isfinite()
            everyone = everyone.where(intact, 0.0)
            present = intact.to(everyone.dtype)
            kept = bank.count(everyones_target, present)
        else:
            everyone, mine = own, slice(None)
            bank.require_seen(target)
        # Two buffers serve all powers: to allocate them anew would cost more than some of the arithmetic.
        scaled, buffer = torch.empty_like(everyone), torch.empty_like(everyone)
        for index, power in enumerate(self.powers):
            probs = torch.softmax(torch.mul(everyone, power, out=scaled), dim=1, out=buffer)
            if self.training:
                bank.add(index, probs.mul_(present), everyones_target, kept)
            # The log of the ratio keeps more digits than the difference of two logs. Where P underflows to 0, the floor
            # makes the log finite, and its product with P is 0, as it should be.
            probs = probs[mine]
            rows = bank.rows(index, target)
            log_ratio = torch.div(probs, rows, out=rows).clamp_min_(SMALLEST_PROBABILITY).log_()
            gradient = torch.mul(probs, log_ratio, out=gradients[index])
            torch.sum(gradient, dim=1, out=values[index])
            gradient.addcmul_(probs, values[index][:, None], value=-1.0).mul_(power)
        divergences: Tensor = _WithGradients.apply(logits, values, gradients)
        return divergences

    def _coefficients(self, divergences: Float[Tensor, "powers b"]) -> Float[Tensor, " powers"]:
        """weight * ramp * c_a, where c_a is the derivative of the aggregate by I(a) = mean_i KL."""
        weights = self.power_weights
        scale: float | Tensor = self.weight
        if self.ramp_steps:
            scale = scale * (self.steps / self.ramp_steps).clamp(max=1.0).to(weights.dtype)
        if self.aggregation == "mean":
            return scale * weights / len(weights)
        information = weights * self._mean_over_processes(divergences)
        if self.aggregation == "maximum":
            return scale * weights * F.one_hot(information.argmax(), len(weights))
        # I(a) is divided by the largest, so that its p-th power stays within float32.
        smallest = torch.finfo(weights.dtype).tiny
        relative = (information / information.max().clamp_min(smallest)).clamp_min(0.0)
        power_mean = relative.pow(self.exponent).mean().pow(1 / self.exponent).clamp_min(smallest)
        return scale * weights * (relative / power_mean).pow(self.exponent - 1) / len(weights)

    def _mean_over_processes(self, divergences: Float[Tensor, "powers b"]) -> Float[Tensor, " powers"]:
        if not (self.training and world_size() > 1):
            return divergences.mean(dim=1)
        totals = torch.cat([divergences.sum(dim=1), divergences.new_tensor([divergences.shape[1]])])
        dist.all_reduce(totals)
        return totals[:-1] / totals[-1]


class _WithGradients(torch.autograd.Function):
    """Values per power and example whose gradients by that example's logits are already known."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor, gradients: Tensor) -> Tensor:
        ctx.save_for_backward(gradients)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        total = gradients[0] * incoming[0][:, None]
        for gradient, factor in zip(gradients[1:], incoming[1:], strict=True):
            total.addcmul_(gradient, factor[:, None])
        return total, None, None


def check_settings(
    *, weight: float, weighting: str, aggregation: str, exponent: float, centroids: str, decay: float
) -> None:
    """Refuse settings out of their range; all numbers that are wrong are named at once."""
    for kind, name, known in (
        ("weighting", weighting, WEIGHTINGS),
        ("aggregation", aggregation, AGGREGATIONS),
        ("centroids", centroids, tuple(CENTROIDS)),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    problems = problems_of_numbers([("weight", weight, 0), ("exponent of the power mean", exponent, 1)])
    if not 0 <= decay < 1:
        problems.append(f"decay must lie in [0, 1), got {decay}")
    if problems:
        raise InputError("; ".join(problems) + ".")


def power_weights(powers: Sequence[float], weighting: str) -> list[float]:
    """The weights w(a), one per power.

    >>> power_weights([0.25, 0.5, 1.0], "inverse-square")
    [16.0, 4.0, 1.0]
    >>> power_weights([0.25, 0.5, 1.0], "log-uniform")
    [0.75, 1.5, 0.75]
    """
    if weighting == "inverse-square":
        return [1 / power**2 for power in powers]
    if weighting == "none" or len(powers) == 1:
        return [1.0] * len(powers)
    log_powers = sorted(math.log(power) for power in powers)
    ends = [log_powers[0], *log_powers, log_powers[-1]]
    widths = {inner: (ends[i + 2] - ends[i]) / 2 for i, inner in enumerate(log_powers)}
    return [len(powers) * widths[math.log(power)] / (log_powers[-1] - log_powers[0]) for power in powers]
