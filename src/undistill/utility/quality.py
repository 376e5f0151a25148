"""How good answers are: right, calibrated, and telling by their confidence where they are wrong."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from undistill.errors import InputError
from undistill.information.spectrum import check_outputs

BINS = 15  # of confidence, for the calibration error
LARGEST_LOG_PROB = 1e-3  # rounded answers may sum to a little more than 1, never a single probability


@dataclass(frozen=True)
class Quality:
    """What answers are worth to those who ask in good faith; made by :func:`quality`.

    Attributes:
        n: number of answers.
        accuracy: top-1, in percent.
        nll: negative log-likelihood in nats; inf where an answer gives its true class the probability 0.
        zero_truths: number of those answers.
        ece: expected calibration error, a share from 0 to 1.
        brier: Brier score, from 0 to 2.
        auroc: AUROC of confidence for right against wrong answers; nan without an answer of either kind.
        aurc: area under the risk-coverage curve, a share from 0 to 1.
    """

    n: int
    accuracy: float
    nll: float
    zero_truths: int
    ece: float
    brier: float
    auroc: float
    aurc: float

    @property
    def undefined(self) -> dict[str, str]:
        """Why a figure is no finite number, by the figure's name; empty if all are."""
        reasons = {}
        if self.zero_truths:
            answers = f"{self.zero_truths} of {self.n} answers give their true class the probability 0"
            reasons["nll"] = f"{answers}, so it is infinite"
        if math.isnan(self.auroc):
            kind = "wrong" if self.accuracy == 100 else "right"
            reasons["auroc"] = f"none of {self.n} answers is {kind}, so there is nothing to tell apart"
        return reasons


def quality(log_probs: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> Quality:
    """All figures of some answers.

    Args:
        log_probs: natural logarithms, ``-inf`` an exact zero; taken as they are, so rows that are rounded or cut off
            are not brought to sum 1 first.
        labels: true classes.

    Raises:
        InputError: no answers, shapes that do not fit, labels out of range, rows with NaN, or no log-probabilities.

    >>> found = quality(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]]).log(), torch.tensor([0, 1, 0]))
    >>> round(found.accuracy, 2), round(found.brier, 3), found.auroc, round(found.aurc, 3)
    (66.67, 0.413, 0.5, 0.278)
    """
    check_outputs(log_probs, labels)
    if len(log_probs) == 0:
        raise InputError("the quality of no answers is undefined; give at least one")
    if log_probs.amax() > LARGEST_LOG_PROB:
        raise InputError(
            f"an answer holds {log_probs.amax().item():.6g}, which is above 0 and so no logarithm of a probability; "
            "give the log_softmax of logits"
        )
    sure, right = confidence(log_probs), log_probs.argmax(1) == labels
    truths = log_probs.double().gather(1, labels[:, None])[:, 0]
    return Quality(
        n=len(labels),
        accuracy=100 * right.double().mean().item(),
        nll=-truths.mean().item(),
        zero_truths=int((truths == -torch.inf).sum()),
        ece=calibration_error(sure, right),
        brier=brier_score(log_probs, labels),
        auroc=auroc(sure[right], sure[~right]),
        aurc=risk_coverage_area(sure, right),
    )


def confidence(log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """The largest probability of each answer, float64.

    >>> confidence(torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()).tolist()
    [0.75]
    """
    # An answer that was given as logarithms may exceed 1 by rounding, and torchmetrics would then take it for a logit.
    return log_probs.double().amax(1).exp().clamp_max(1.0)


def calibration_error(sure: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
    """Expected calibration error (ECE): how far confidence lies from accuracy, over 15 equal bins of confidence.

    ``sum over bins of (answers in the bin / n) * abs(share of right answers - mean confidence)``

    This is torchmetrics' top-label calibration error (L1). There, confidence of exactly 1 has a bin of its own, which
    the definition does not have; it can only make the error larger.

    Args:
        sure: confidence of each answer, from 0 to 1.
        right: whether the predicted class is the true one.

    Source: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015;
    15 bins as of Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    >>> round(calibration_error(torch.tensor([0.9, 0.9]), torch.tensor([True, False])), 4)
    0.4
    """
    from torchmetrics.functional.classification import binary_calibration_error  # seconds: only where it is used

    return float(binary_calibration_error(sure, right.long(), n_bins=BINS, norm="l1"))


def brier_score(log_probs: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> float:
    """Brier score: ``mean over answers of sum_c (P_c - 1{c = y})^2``, from 0 to 2 (torchmetrics has none).

    Source: Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78 (1950).

    >>> round(brier_score(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([1])), 4)
    1.62
    """
    gaps = log_probs.double().exp()
    gaps.scatter_add_(1, labels[:, None], -torch.ones_like(gaps[:, :1]))
    return gaps.square().sum(1).mean().item()


def auroc(above: Float[Tensor, " n"], below: Float[Tensor, " m"]) -> float:
    """The probability that a number from ``above`` exceeds one from ``below``, ties counting half (AUROC).

    Args:
        above: confidence that ought to be high, from 0 to 1: of right answers, or on the task's own images.
        below: confidence that ought to be low: of wrong answers, or on other images.

    Returns:
        From 0 to 1, 0.5 where confidence tells nothing; nan if either is empty.

    >>> auroc(torch.tensor([0.9, 0.6]), torch.tensor([0.6]))
    0.75
    """
    if not len(above) or not len(below):
        return math.nan  # torchmetrics would say 0
    from torchmetrics.functional.classification import binary_auroc  # seconds: only where it is used

    kinds = torch.cat([torch.ones_like(above), torch.zeros_like(below)]).long()
    return float(binary_auroc(torch.cat([above, below]), kinds))


def risk_coverage_area(sure: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
    """Area under the risk-coverage curve (AURC): the error of those who only take the k most confident answers.

    ``mean over k = 1..n of (wrong answers among the k most confident) / k``

    Answers of equal confidence are in random order, and the mean over all their orders is taken: each of them counts as
    wrong by their common share of wrong answers.

    Args:
        sure: confidence of each answer.
        right: whether the predicted class is the true one.

    Returns:
        A share from 0 to 1: the share of wrong answers where confidence tells nothing, less where it tells something.

    Source: Geifman, El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017; Geifman, Uziel,
    El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019. Deviation: they leave the
    order of ties open.

    >>> round(risk_coverage_area(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True])), 4)
    0.2778
    """
    return risks(sure, right).mean().item()


def risks(sure: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The share of wrong answers among the k most confident, for every k = 1..n; see :func:`risk_coverage_area`.

    >>> risks(torch.tensor([0.9, 0.8]), torch.tensor([True, False]))
    tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    order = sure.argsort(descending=True)
    _, ties, counts = sure[order].unique_consecutive(return_inverse=True, return_counts=True)
    wrong = (~right[order]).double()
    shares = wrong.new_zeros(len(counts)).index_add_(0, ties, wrong) / counts
    taken = torch.arange(1, len(wrong) + 1, device=wrong.device)
    return shares[ties].cumsum(0) / taken
