"""What a worker and the command line import before they can begin."""

import subprocess
import sys

SLOW = (
    "torchmetrics",
    "torchvision",
    "torch._dynamo",
    "scipy.stats",
    "scipy.special",
    "sklearn",
    "matplotlib",
    "datasets",
    "ray",
)
LOOK = f"import sys, undistill.audit, undistill.cli; print(*[name for name in {SLOW} if name in sys.modules])"


def test_what_takes_seconds_to_import_waits_until_it_is_used():
    run = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_metric_is_imported_when_it_is_asked_for():
    import undistill
    from undistill.information import metrics

    assert undistill.CMISpectrum is metrics.CMISpectrum
    for module in (undistill, undistill.information):
        assert "CMISpectrum" in module.__all__
