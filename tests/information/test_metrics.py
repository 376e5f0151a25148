"""CMISpectrum: the functions' results, in batches, through torchmetrics, and over two processes."""

import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from undistill.errors import InputError
from undistill.information import CMISpectrum, spectrum_compute, spectrum_update

WORKER = Path(__file__).with_name("metric_worker.py")
BATCHES = runpy.run_path(str(WORKER))["batches"]()
POWERS = (0.25, 1.0)


def expected():
    logits, labels = (torch.cat(parts) for parts in zip(*BATCHES, strict=True))
    return spectrum_compute(spectrum_update(logits, labels, POWERS))


def assert_is_expected(result):
    whole = expected()
    for name in ("cmi", "cmi_per_class", "counts", "separation", "ncmi"):
        torch.testing.assert_close(result[name], getattr(whole, name), rtol=1e-12, atol=1e-14, equal_nan=True)
    assert result["within_variance"].item() == pytest.approx(whole.within_variance, rel=1e-12)
    assert result["supremum"].item() == pytest.approx(whole.supremum, rel=1e-12)
    assert result["supremum_power"].item() == whole.supremum_power


def test_batches_add_up_and_reset_forgets():
    metric = CMISpectrum(num_classes=4, powers=POWERS)
    metric.update(*BATCHES[0])
    metric.reset()
    for batch in BATCHES:
        metric.update(*batch)
    assert_is_expected(metric.compute())
    assert metric.spectrum().absent == (3,)
    assert_is_expected(pickle.loads(pickle.dumps(metric)).compute())


def test_forward_gives_the_batch_and_keeps_the_whole():
    metric = CMISpectrum(num_classes=4, powers=POWERS)
    for logits, labels in BATCHES:
        value = metric(logits, labels)
        alone = spectrum_compute(spectrum_update(logits, labels, POWERS))
        torch.testing.assert_close(value["cmi"], alone.cmi)
    assert_is_expected(metric.compute())


def test_sums_stay_in_float64():
    metric = CMISpectrum(num_classes=4, powers=POWERS).float().half()
    metric.update(*BATCHES[0])
    assert metric.compute()["cmi"].dtype == torch.float64


def test_two_processes_make_one_spectrum(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), str(tmp_path / "meet"), str(tmp_path / f"{rank}.pt")])
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in range(2):
        assert_is_expected(torch.load(tmp_path / f"{rank}.pt"))


def test_bad_inputs_are_named():
    with pytest.raises(InputError, match="at least 2 classes"):
        CMISpectrum(num_classes=1)
    metric = CMISpectrum(num_classes=5, powers=POWERS)
    with pytest.raises(InputError, match="made for 5 classes, but preds have 4"):
        metric.update(*BATCHES[0])
    with pytest.raises(InputError, match=r"integer labels of shape \[n\] are needed, got shapes \[5, 4\] and \[4\]"):
        metric.update(BATCHES[0][0], BATCHES[0][1][:4])
    with pytest.raises(InputError, match="1 of 5 rows"):
        metric.update(torch.full((5, 5), 0.1).index_fill(0, torch.tensor([2]), float("nan")), BATCHES[0][1])
    assert metric.sums.counts.sum() == 0
