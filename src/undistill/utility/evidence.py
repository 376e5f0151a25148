"""What the pictures of a teacher are made of: spectra class by class, clusters, calibration; all of it small."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from undistill.errors import InputError
from undistill.files import json_number
from undistill.information import Spectrum
from undistill.utility.quality import BINS, confidence, risks

SCHEMA = "undistill.evidence/1"
LARGEST_SPECTRA = 256  # classes whose own spectrum is kept, those with the largest
LARGEST_CLUSTERS = 24  # classes whose clusters can be looked at: all pairs of them are kept, so it is a square
CLUSTER_ANSWERS = 100  # of a class, at the most
CLUSTER_NUMBERS = 30_000  # of a split, all its classes together: a quarter of a megabyte
CURVE_POINTS = 200
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Clusters:
    """Some answers of some classes, to look at.

    Attributes:
        labels: true class of each answer, a number of the task.
        log_probs: natural logarithms of what it gives to the classes that are shown, in their order, ``-inf`` an exact
            zero. Those of any few classes, raised to a power and brought to sum 1, are the answer given that it is one
            of them.
    """

    labels: Int64[Tensor, " n"]
    log_probs: Float[Tensor, "n shown"]

    def to_json(self) -> dict[str, Any]:
        """As JSON, logarithms in thousandths of a nat."""
        return {
            "labels": self.labels.tolist(),
            "log_probs": [[_rounded(value, 3) for value in row] for row in self.log_probs.tolist()],
        }


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        low: smallest confidence of the bin.
        high: the largest, which belongs to the next bin.
        n: number of answers.
        confidence: their mean confidence.
        accuracy: the share of right ones.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Evidence:
    """What the pictures of one teacher are made of; :func:`evidence_of` makes it.

    Attributes:
        name: of the teacher.
        fingerprint: of the teacher.
        shown: the classes of which there are clusters.
        spectra: spectrum by split.
        clusters: clusters by split.
        reliability: bins of confidence that hold an answer, on the test split.
        coverage: shares of the test answers that are taken, the most confident first.
        risk: share of wrong ones among them.
    """

    name: str
    fingerprint: str
    shown: tuple[int, ...]
    spectra: Mapping[str, Spectrum]
    clusters: Mapping[str, Clusters]
    reliability: tuple[Bin, ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON; its schema is documented in ``docs/audit-json.md``."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "spectra": {split: class_spectra_json(spectrum) for split, spectrum in self.spectra.items()},
            "clusters": {split: clusters.to_json() for split, clusters in self.clusters.items()},
            "reliability": [vars(found) for found in self.reliability],
            "risk_coverage": {"coverage": list(self.coverage), "risk": list(self.risk)},
        }


def evidence_json(class_names: Sequence[str], audited: Evidence, undefended: Evidence | None = None) -> dict[str, Any]:
    """The content of ``evidence.json``.

    Args:
        class_names: of the task.
        audited: of the teacher in question.
        undefended: of the teacher that it is compared with; None if there is no other.
    """
    return {
        "schema": SCHEMA,
        "versions": {name: version(name) for name in ("undistill", "torch", "numpy")},
        "class_names": list(class_names),
        "shown": list(audited.shown),
        "audited": audited.to_json(),
        "undefended": None if undefended is None else undefended.to_json(),
    }


def evidence_of(
    name: str,
    fingerprint: str,
    answers: Mapping[str, Float[Tensor, "_ classes"]],
    labels: Mapping[str, Int64[Tensor, " _"]],
    spectra: Mapping[str, Spectrum],
    *,
    shown: Sequence[int] | None = None,
) -> Evidence:
    """Keep of a teacher's answers what pictures need.

    Args:
        name: of the teacher.
        fingerprint: of the teacher.
        answers: log-probabilities by split, ``"test"`` among them.
        labels: true classes by split.
        spectra: spectra of these answers.
        shown: classes to keep clusters of; by default those with the largest spectra on the last split
            (:func:`widest_classes`). Teachers that are to be compared must be given the same.

    >>> import torch
    >>> from undistill.information import spectrum_compute, spectrum_update
    >>> from undistill.tasks import load_task
    >>> test = load_task("digits", classes=3).test
    >>> log_probs = torch.log_softmax(test.images.flatten(1)[:, 20:23] / 255, 1)
    >>> spectrum = spectrum_compute(spectrum_update(log_probs, test.labels))
    >>> found = evidence_of("api", "0" * 64, {"test": log_probs}, {"test": test.labels}, {"test": spectrum})
    >>> found.shown, found.coverage[-1]
    ((0, 1, 2), 1.0)
    """
    if shown is None:
        shown = widest_classes(spectra[list(spectra)[-1]], LARGEST_CLUSTERS)
    test = answers["test"]
    sure, right = confidence(test), test.argmax(1) == labels["test"]
    coverage, risk = risk_coverage(sure, right)
    return Evidence(
        name,
        fingerprint,
        tuple(shown),
        dict(spectra),
        {split: sample_clusters(rows, labels[split], shown) for split, rows in answers.items()},
        reliability(sure, right),
        coverage,
        risk,
    )


def widest_classes(spectrum: Spectrum, count: int) -> tuple[int, ...]:
    """The classes with the largest CMI at any power, at most ``count`` of them, in their own order."""
    largest = spectrum.cmi_per_class.nan_to_num(nan=-1.0).amax(0)
    order = largest.argsort(descending=True, stable=True)[:count]
    return tuple(sorted(int(index) for index in order if largest[index] >= 0))


def sample_clusters(
    log_probs: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], shown: Sequence[int]
) -> Clusters:
    """Draw some answers of each class that is shown: the same ones of every teacher, by the labels alone."""
    if not shown:
        raise InputError("there is no class to show clusters of; name at least one")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SAMPLE_SEED))
    count = min(CLUSTER_ANSWERS, max(1, CLUSTER_NUMBERS // len(shown) ** 2))
    rows = torch.cat([order[labels[order] == index][:count].sort().values for index in shown])
    return Clusters(labels[rows], log_probs[rows][:, list(shown)].double())


def class_spectra_json(spectrum: Spectrum) -> dict[str, Any]:
    """A spectrum with those of its single classes, of at most 256: those with the largest CMI."""
    classes = widest_classes(spectrum, LARGEST_SPECTRA)
    return {
        "powers": list(spectrum.powers),
        "cmi": [_figures(value) for value in spectrum.cmi.tolist()],
        "supremum": spectrum.supremum,
        "supremum_power": spectrum.supremum_power,
        "within_class_variance": json_number(spectrum.within_variance),
        "classes": list(classes),
        "counts": spectrum.counts[list(classes)].tolist(),
        "cmi_per_class": [
            [_figures(value) for value in column] for column in spectrum.cmi_per_class[:, list(classes)].T.tolist()
        ],
    }


def reliability(sure: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> tuple[Bin, ...]:
    """Confidence against accuracy in 15 equal bins; those of :func:`undistill.utility.calibration_error`.

    Confidence of exactly 1 has a bin of its own, as there, so that the gaps, weighted by n, sum up to the ECE.

    Args:
        sure: confidence of each answer, from 0 to 1.
        right: whether the predicted class is the true one.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    >>> [(found.n, found.accuracy) for found in reliability(torch.tensor([0.9, 0.9]), torch.tensor([True, False]))]
    [(2, 0.5)]
    """
    edges = torch.linspace(0, 1, BINS + 1, dtype=sure.dtype)
    places = torch.bucketize(sure, edges, right=True) - 1
    bins = []
    for place in places.unique().tolist():
        inside = places == place
        bins.append(
            Bin(
                low=float(edges[place]),
                high=float(edges[min(place + 1, BINS)]),
                n=int(inside.sum()),
                confidence=sure[inside].mean().item(),
                accuracy=right[inside].double().mean().item(),
            )
        )
    return tuple(bins)


def risk_coverage(sure: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The risk-coverage curve, whose area is the AURC: share of answers taken, and of wrong ones among them.

    Of a long curve 200 points are kept, evenly spread over the coverage.

    >>> risk_coverage(torch.tensor([0.9, 0.8]), torch.tensor([True, False]))
    ((0.5, 1.0), (0.0, 0.5))
    """
    found = risks(sure, right)
    n = len(found)
    places = torch.linspace(0, n - 1, min(n, CURVE_POINTS), dtype=torch.float64).round().long().tolist()
    return tuple((place + 1) / n for place in places), tuple(found[places].tolist())


def _figures(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")


def _rounded(value: float, digits: int) -> float | None:
    return json_number(round(value, digits)) if value != -torch.inf else None
