"""The CMI spectrum of a classifier: sums over its outputs (update), and what follows from them (compute)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.errors import InputError
from undistill.files import json_number
from undistill.information.powers import DEFAULT_POWERS, check_powers

BLOCK_NUMBERS = 2**16
"""Numbers per block of rows, so that a block and its powers stay in a core's cache (half a megabyte in float64)."""
ROWS_TO_TELL = 16
"""So many rows that sum to 1 are taken for probabilities; a few rows of logits may do so by chance."""


@dataclass(frozen=True)
class SpectrumSums:
    """Sums over samples from which every quantity of the spectrum follows; float64, and added where data are joined.

    z are logits less their mean over classes, a the power, P = softmax(a z). Their size depends on the number of powers
    K and of classes C, not on the number of samples.

    Attributes:
        powers: the K powers.
        counts: samples per class.
        probs: sum of P per power and class, [power, class, probability].
        entropies: sum of H(P) in nats, per power and class.
        log_norms: sum of log sum_c exp(a z_c), per power and class.
        logits: sum of z per class, [class, logit].
        squares: sum of the squared length of z, per class.
        zeros: number of samples with a probability of exactly 0, whose z does not exist (it enters less its largest
            logit instead of its mean, and 0 for the missing ones).
    """

    powers: tuple[float, ...]
    counts: Float[Tensor, " classes"]
    probs: Float[Tensor, "powers classes classes"]
    entropies: Float[Tensor, "powers classes"]
    log_norms: Float[Tensor, "powers classes"]
    logits: Float[Tensor, "classes classes"]
    squares: Float[Tensor, " classes"]
    zeros: Float[Tensor, ""]


@dataclass(frozen=True)
class Spectrum:
    """CMI of a classifier's outputs given the class, as a function of the power a = 1/T, and what goes with it.

    All tensors are float64 and in nats.

    Attributes:
        powers: the K powers, in the order asked for.
        cmi: CMI(a) = sum_y P(y) [H(Q_y) - mean H(P)], P(y) the share of class y in the data, [K].
        cmi_per_class: the bracket for each class, [K, C]; NaN for a class absent from the data.
        absent: classes without a sample.
        counts: samples per class, [C].
        separation: Gamma(a), the mean over pairs of samples (drawn independently) of the cross entropy H(P, P') if
            their classes differ and 0 if not, [K]; 0 if the data hold one class only.
        ncmi: CMI(a) / Gamma(a), [K]; NaN where Gamma is 0 or infinite.
        within_variance: W, the within-class variance of centred logits, averaged over the C logits and, by P(y), over
            classes: T^2 CMI(1/T) -> W/2 as T grows.

    An output with a probability of exactly 0 has no finite logit: W and Gamma are then infinite, and NCMI is NaN; CMI
    is not affected.
    """

    powers: tuple[float, ...]
    cmi: Float[Tensor, " powers"]
    cmi_per_class: Float[Tensor, "powers classes"]
    absent: tuple[int, ...]
    counts: Int64[Tensor, " classes"]
    separation: Float[Tensor, " powers"]
    ncmi: Float[Tensor, " powers"]
    within_variance: float

    @property
    def supremum(self) -> float:
        """The largest CMI(a) of the grid, a lower bound of the supremum over all a (which scaling leaves as it is)."""
        return float(self.cmi.max())

    @property
    def supremum_power(self) -> float:
        """The power at which CMI is largest."""
        return self.powers[int(self.cmi.argmax())]

    @property
    def supremum_at_edge(self) -> bool:
        """Whether CMI is largest at the smallest or the largest power, so that more may lie outside the grid."""
        return self.supremum_power in (min(self.powers), max(self.powers))

    def at(self, power: float) -> float:
        """CMI at one power of the grid.

        Raises:
            InputError: the power is not in the grid.
        """
        for index, known in enumerate(self.powers):
            if math.isclose(known, power, rel_tol=1e-9):
                return float(self.cmi[index])
        raise InputError(
            f"power {power} is not in the grid of this spectrum ({', '.join(f'{known:.4g}' for known in self.powers)})"
            "; give it to spectrum_update among the powers."
        )

    def residual(self, temperature: float) -> float:
        """``T^2 CMI(1/T)``: what a student sees whose distillation loss is multiplied by T^2. Its limit is W/2.

        Raises:
            InputError: 1/T is not in the grid.
        """
        return temperature**2 * self.at(1 / temperature)


def spectrum_update(
    logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], powers: Sequence[float] = DEFAULT_POWERS
) -> SpectrumSums:
    """The sums of a batch.

    Args:
        logits: logits or log-probabilities (they differ by a constant per row, which cancels), one row per sample.
        labels: true classes, in [0, C).
        powers: K powers a = 1/T, each above 0.

    Returns:
        Sums in float64, on the device of ``logits``; add those of other batches with :func:`merge`.

    Raises:
        InputError: shapes that do not fit, labels out of range, rows with NaN or +inf or without any finite entry, or
            probabilities in the place of log-probabilities.

    >>> sums = spectrum_update(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log(), torch.tensor([0, 0]), powers=[1.0])
    >>> sums.probs[0]
    tensor([[1.4000, 0.6000],
            [0.0000, 0.0000]], dtype=torch.float64)
    """
    check_outputs(logits, labels)
    sums = zero_sums(logits.shape[-1], check_powers(powers), logits.device)
    accumulate(sums, logits, labels)
    return sums


def merge(first: SpectrumSums, second: SpectrumSums) -> SpectrumSums:
    """The sums of two batches together: their addition, exact up to float64 rounding in any order.

    Raises:
        InputError: the two were taken at different powers or over different numbers of classes.
    """
    if first.powers != second.powers or first.counts.shape != second.counts.shape:
        raise InputError(
            f"sums over {len(first.counts)} classes at powers {first.powers} cannot be merged with sums over "
            f"{len(second.counts)} classes at powers {second.powers}; take both with the same settings."
        )
    names = [field.name for field in fields(SpectrumSums) if field.name != "powers"]
    return replace(first, **{name: getattr(first, name) + getattr(second, name) for name in names})


def spectrum_compute(sums: SpectrumSums) -> Spectrum:
    """The spectrum that follows from the sums.

    ``CMI_y(a) = H(Q_y) - mean H(P)`` is equal to the mean of KL(P || Q_y) over the class. The difference loses digits
    where CMI is small against log C; in float64 some 1e-15 nats remain in error, at a = 1/1000 a share of 1e-9 of W/2 =
    1. Rounding below 0 is set to 0.

    ``Gamma(a) = E[1{Y != Y'} H(P, P')] = G(all, all) - sum_y P(y)^2 G(y, y)``, where
    ``G(y, y') = mean of log sum_c exp(a z'_c) - a <Q_y, mean z'>`` is the mean cross entropy of a sample of y to one of
    y'.

    Raises:
        InputError: the sums hold no sample.

    Reference: CMI and NCMI as of Yang, Hamidi, Ye, Tan, Yang, "Conditional Mutual Information Constrained Deep Learning
    for Classification", arXiv 2309.09123 (CMIC-DL). Deviation: Gamma is taken over the data set, not over a batch, and
    both at every power, not at a = 1 alone.

    >>> sums = spectrum_update(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log(), torch.tensor([0, 0]), powers=[1.0])
    >>> round(spectrum_compute(sums).at(1.0), 6)
    0.024157
    """
    total = float(sums.counts.sum())
    if total == 0:
        raise InputError("the spectrum of no samples is undefined; update with at least one batch first.")
    present = sums.counts > 0
    counts = sums.counts.clamp_min(1.0)
    shares = sums.counts / total
    centroids = sums.probs / counts[:, None]
    entropy_of_mean = -torch.xlogy(centroids, centroids).sum(dim=2)
    per_class = (entropy_of_mean - sums.entropies / counts).clamp_min(0.0)
    cmi_values = per_class @ shares

    means = sums.logits / counts[:, None]
    variances = (sums.squares / counts - means.square().sum(dim=1)).clamp_min(0.0) / len(counts)
    within_variance = float(variances @ shares)

    powers = torch.tensor(sums.powers, dtype=torch.float64, device=counts.device)
    of_all = sums.log_norms.sum(dim=1) * total - powers * (sums.probs.sum(dim=1) @ sums.logits.sum(dim=0))
    of_own = sums.log_norms @ sums.counts - powers * torch.einsum("kyc,yc->k", sums.probs, sums.logits)
    separation = (of_all - of_own) / total**2
    if int(present.sum()) == 1:
        separation = torch.zeros_like(separation)
    if sums.zeros > 0:
        within_variance = math.inf
        separation = torch.full_like(separation, math.inf)
    known = separation.isfinite() & (separation > 0)
    return Spectrum(
        powers=sums.powers,
        cmi=cmi_values,
        cmi_per_class=per_class.masked_fill(~present, math.nan),
        absent=tuple((~present).nonzero()[:, 0].tolist()),
        counts=sums.counts.long(),
        separation=separation,
        ncmi=torch.where(known, cmi_values / separation, math.nan),
        within_variance=within_variance,
    )


def spectrum_json(spectrum: Spectrum) -> dict[str, Any]:
    """A spectrum's numbers as JSON; null where there is no finite number (exact zeros have no finite logarithm)."""
    return {
        "powers": list(spectrum.powers),
        "cmi": spectrum.cmi.tolist(),
        "ncmi": [json_number(value) for value in spectrum.ncmi.tolist()],
        "supremum": spectrum.supremum,
        "supremum_power": spectrum.supremum_power,
        "within_class_variance": json_number(spectrum.within_variance),
        "residual_T4": spectrum.residual(4.0),
        "residual_T20": spectrum.residual(20.0),
        "absent_classes": list(spectrum.absent),
    }


def cmi(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], power: float = 1.0) -> float:
    """CMI at one power, in nats: how far a sample's output lies from its class's mean output, in KL, on average.

    Args:
        logits: logits or log-probabilities, one row per sample.
        labels: true classes, in [0, C).
        power: a = 1/T, above 0.

    Raises:
        InputError: as :func:`spectrum_update` and :func:`spectrum_compute`.

    >>> round(cmi(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log(), torch.tensor([0, 0])), 6)
    0.024157
    """
    return spectrum_compute(spectrum_update(logits, labels, [power])).at(power)


def zero_sums(num_classes: int, powers: tuple[float, ...], device: torch.device | str = "cpu") -> SpectrumSums:
    """The sums of no samples."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    return SpectrumSums(
        powers=powers,
        counts=zeros(num_classes),
        probs=zeros(len(powers), num_classes, num_classes),
        entropies=zeros(len(powers), num_classes),
        log_norms=zeros(len(powers), num_classes),
        logits=zeros(num_classes, num_classes),
        squares=zeros(num_classes),
        zeros=zeros(),
    )


def accumulate(sums: SpectrumSums, logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> None:
    """Add a checked batch to the sums, in place.

    With m = max_c z_c, s = sum_c exp(a (z_c - m)) and P_c = exp(a (z_c - m)) / s, one exponential per number gives all:
    ``log sum_c exp(a (z_c - m)) = log s`` and ``H(P) = log s - a sum_c P_c (z_c - m)``.
    """
    rows = max(1, BLOCK_NUMBERS // logits.shape[1])
    for block, classes in zip(logits.detach().split(rows), labels.split(rows), strict=True):
        shifted = block.double()
        highest = shifted.amax(dim=1, keepdim=True)
        offset = highest - shifted.mean(dim=1, keepdim=True)
        shifted = shifted - highest
        finite = shifted
        if offset.isinf().any():
            finite = shifted.masked_fill(shifted.isinf(), 0.0)
            sums.zeros.add_(offset.isinf().sum())
            offset = offset.masked_fill(offset.isinf(), 0.0)
        centred = finite + offset
        sums.counts.index_add_(0, classes, torch.ones_like(highest[:, 0]))
        sums.logits.index_add_(0, classes, centred)
        sums.squares.index_add_(0, classes, centred.square().sum(dim=1))
        probs = torch.empty_like(shifted)
        for index, power in enumerate(sums.powers):
            torch.mul(shifted, power, out=probs).exp_()
            norm = probs.sum(dim=1, keepdim=True)
            probs.div_(norm)
            log_norm = norm.log_()[:, 0]
            entropy = log_norm - power * torch.linalg.vecdot(probs, finite)
            sums.probs[index].index_add_(0, classes, probs)
            sums.entropies[index].index_add_(0, classes, entropy)
            sums.log_norms[index].index_add_(0, classes, log_norm + power * offset[:, 0])


def check_outputs(logits: Tensor, labels: Tensor) -> None:
    """Refuse outputs and labels that a spectrum cannot be taken of."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"logits of shape [n, classes] and integer labels of shape [n] are needed, got shapes {list(logits.shape)} "
            f"and {list(labels.shape)} with labels of {labels.dtype}."
        )
    if len(logits) == 0:
        return
    problems = []
    wrong = (labels < 0) | (labels >= logits.shape[1])
    if wrong.any():
        problems.append(
            f"labels must lie in [0, {logits.shape[1]}), but {int(wrong.sum())} of {len(labels)} do not "
            f"(first: {int(labels[wrong][0])})"
        )
    # The largest entry of a row is NaN if any is, +inf if any is, and -inf if all are.
    broken = ~logits.amax(dim=1).isfinite()
    if broken.any():
        problems.append(
            f"{int(broken.sum())} of {len(logits)} rows hold NaN or +inf, or no finite entry at all (first: row "
            f"{int(broken.nonzero()[0])})"
        )
    elif len(logits) >= ROWS_TO_TELL and logits.amin() >= 0 and bool(((logits.sum(dim=1) - 1).abs() < 1e-3).all()):
        problems.append("every row is non-negative and sums to 1, so these are probabilities; give their logarithm")
    if problems:
        raise InputError("; ".join(problems) + ".")
