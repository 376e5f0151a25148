import json
import math

import numpy as np
import pytest
import torch

from undistill.errors import InputError
from undistill.information import spectrum_compute, spectrum_update
from undistill.utility import (
    calibration_error,
    evidence_json,
    evidence_of,
    reliability,
    risk_coverage,
    risk_coverage_area,
    widest_classes,
)
from undistill.utility.evidence import CLUSTER_NUMBERS, LARGEST_CLUSTERS, LARGEST_SPECTRA, sample_clusters


def answers(n=400, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    logits = torch.randn(n, classes, generator=generator) * (1 + torch.arange(n) % classes)[:, None]
    return torch.log_softmax(logits, 1), labels


def evidence(n=400, classes=4, shown=None, seed=0):
    log_probs, labels = answers(n, classes, seed)
    spectrum = spectrum_compute(spectrum_update(log_probs, labels))
    return evidence_of("t", "f" * 64, {"test": log_probs}, {"test": labels}, {"test": spectrum}, shown=shown)


def test_gaps_of_the_bins_sum_up_to_the_calibration_error():
    generator = torch.Generator().manual_seed(3)
    sure = torch.rand(500, generator=generator, dtype=torch.float64)
    sure[:20] = 1.0
    right = torch.rand(500, generator=generator) < 0.7
    bins = reliability(sure, right)
    assert sum(found.n for found in bins) == 500
    assert sum(found.n * abs(found.accuracy - found.confidence) for found in bins) / 500 == pytest.approx(
        calibration_error(sure, right)
    )
    for found in bins:
        inside = [value for value in sure.tolist() if found.low <= value < found.high or value == found.low == 1.0]
        assert found.n == len(inside)


def test_the_curve_of_risk_has_the_area_that_is_reported():
    sure, right = torch.rand(150, dtype=torch.float64).round(decimals=1), torch.rand(150) < 0.6
    coverage, risk = risk_coverage(sure, right)
    assert len(risk) == 150
    assert math.fsum(risk) / 150 == pytest.approx(risk_coverage_area(sure, right))
    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(1 - right.double().mean().item())
    coverage, risk = risk_coverage(torch.rand(5_000, dtype=torch.float64), torch.rand(5_000) < 0.6)
    assert (len(risk), coverage[0], coverage[-1]) == (200, 1 / 5_000, 1.0)


def test_clusters_are_answers_to_the_same_images_for_every_teacher():
    log_probs, labels = answers()
    other = torch.log_softmax(torch.arange(1600.0).reshape(400, 4) % 7, 1)
    ours, theirs = sample_clusters(log_probs, labels, [1, 3]), sample_clusters(other, labels, [1, 3])
    assert ours.labels.tolist() == theirs.labels.tolist() == [1] * 100 + [3] * 100
    places = {tuple(row): place for place, row in enumerate(log_probs[:, [1, 3]].double().tolist())}
    chosen = [places[tuple(row)] for row in ours.log_probs.tolist()]
    assert len(set(chosen)) == 200
    assert theirs.log_probs.tolist() == other[chosen][:, [1, 3]].double().tolist()
    with pytest.raises(InputError, match="no class to show clusters of"):
        sample_clusters(log_probs, labels, [])


def test_the_widest_classes_are_those_with_the_largest_spectrum():
    log_probs, labels = answers()
    spectrum = spectrum_compute(spectrum_update(log_probs, labels % 3))  # class 3 is absent
    largest = np.nanmax(spectrum.cmi_per_class.numpy()[:, :3], 0)
    assert widest_classes(spectrum, 2) == tuple(sorted(np.argsort(-largest)[:2].tolist()))
    assert widest_classes(spectrum, 9) == (0, 1, 2)


def test_json_is_the_evidence_and_bounded():
    found = evidence()
    content = json.loads(json.dumps(evidence_json("abcd", found), allow_nan=False))
    assert (content["schema"], content["undefended"]) == ("undistill.evidence/1", None)
    assert content["class_names"] == list("abcd")
    spectrum = found.spectra["test"]
    lines = content["audited"]["spectra"]["test"]
    assert lines["classes"] == [0, 1, 2, 3]
    assert pytest.approx(spectrum.cmi_per_class.numpy(), rel=1e-5) == np.array(lines["cmi_per_class"]).T
    assert lines["cmi"] == pytest.approx(spectrum.cmi.tolist(), rel=1e-5)
    rows = content["audited"]["clusters"]["test"]["log_probs"]
    assert np.array(rows) == pytest.approx(found.clusters["test"].log_probs.numpy(), abs=5e-4)
    many = evidence(n=6_000, classes=300)
    assert len(many.shown) == LARGEST_CLUSTERS
    assert many.clusters["test"].log_probs.numel() <= CLUSTER_NUMBERS
    content = many.to_json()
    assert len(content["spectra"]["test"]["classes"]) == LARGEST_SPECTRA
    assert len(json.dumps(content)) < 700_000


def test_exact_zeros_are_null():
    log_probs, labels = torch.eye(3).log()[torch.arange(30) % 3], torch.arange(30) % 3
    spectrum = spectrum_compute(spectrum_update(log_probs, labels))
    found = evidence_of("t", "f" * 64, {"test": log_probs}, {"test": labels}, {"test": spectrum})
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["clusters"]["test"]["log_probs"][0] == [0.0, None, None]
    assert content["spectra"]["test"]["within_class_variance"] is None
