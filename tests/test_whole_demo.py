"""The promise of the demo, kept by a run of it."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_shows_the_contrast_that_it_promises(tmp_path):
    subprocess.run([sys.executable, "-m", "undistill", "demo", "--out", str(tmp_path)], check=True, timeout=1800)
    ce, cmim = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("ce", "cmim"))
    assert ce["verdict"] == "leaks"
    assert cmim["verdict"] != "leaks"
    assert cmim["teacher"]["accuracy"] >= ce["teacher"]["accuracy"]
    assert (tmp_path / "spectrum.png").stat().st_size > 0
