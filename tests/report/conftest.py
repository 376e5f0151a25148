from pathlib import Path

import pytest

from benchmarks.large_report import CHROMIUM, chromium, make_audit
from undistill.report import write_report

NASTY = "<script>hacked = 1</script>"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A small audit of invented numbers, whose names are as nasty as names can be."""
    folder = tmp_path_factory.mktemp("made") / "audit"
    flag = {"name": "decoy", "sentence": f"Beware {NASTY}.", "severity": "warning", "docs": "docs/flags.md#decoy"}
    changes = {"flags": [flag]}
    return make_audit(
        folder, name="cmim & <b>", class_names=(NASTY, '"quoted", $x$', "c" * 60), leak=0.4, changes=changes
    )


@pytest.fixture(scope="session")
def page(made):
    """Its report."""
    return write_report(made)


@pytest.fixture(scope="session")
def several(tmp_path_factory):
    """Folders of three audits: an undefended teacher, and a protected one at two budgets."""
    root = tmp_path_factory.mktemp("several")
    return [
        make_audit(root / "ce", name="ce", leak=1.2),
        make_audit(root / "cmim-5000", budget=5_000),
        make_audit(root / "cmim-50000", budget=50_000, leak=0.2),
    ]


@pytest.fixture(scope="session")
def browser():
    """One headless Chromium for all tests that need one."""
    pytest.importorskip("playwright")
    if not any(Path(path).exists() for path in CHROMIUM):
        pytest.skip("there is no Chromium on this machine (make browser installs one)")
    with chromium() as opened:
        yield opened
