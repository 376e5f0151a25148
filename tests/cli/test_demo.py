import json

import pytest

from undistill.training import Defaults, Recipe


@pytest.fixture
def tiny(monkeypatch):
    defaults = Defaults("mlp-4", "mlp-4", Recipe(epochs=1, batch_size=50))
    monkeypatch.setattr("undistill.cli.demo.defaults_for", lambda shape: defaults)
    monkeypatch.setattr("undistill.cli.demo.SEEDS", 2)
    monkeypatch.setattr("undistill.cli.demo.TUNING_SEEDS", 1)


def test_the_demo_audits_both_teachers_and_draws_their_spectra(run, tiny, tmp_path):
    status, out, _ = run("demo", "--out", tmp_path / "demo", "--workers", "1")
    assert status == 0
    for name in ("ce", "cmim"):
        found = json.loads((tmp_path / "demo" / name / "audit.json").read_text())
        assert found["teacher"]["name"] == name
        assert found["undefended"]["name"] == "ce"
        assert {cell["attack"] for cell in found["cells"]} == {"kd", "kd-no-labels"}
        assert " ".join(found["sentence"].split()) in " ".join(out.split())
        assert f"{name}, test" in (tmp_path / "demo" / "spectrum.svg").read_text()
    assert (tmp_path / "demo" / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    lines = out.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith(("Written: ", "Report: ")))
    assert lines[-2].startswith("Written: ")
    assert all(str(tmp_path / "demo" / file) in lines[-2] for file in ("ce/audit.json", "spectrum.png"))
    assert lines[-1] == f"Report: {tmp_path / 'demo' / 'report.html'}"
    assert (tmp_path / "demo" / "report.html").stat().st_size < 8 * 2**20
    assert run("demo", "--out", tmp_path / "demo", "--workers", "1")[:2] == (0, out)


def test_no_workers_are_refused_before_anything_is_trained(refused, tmp_path):
    assert "workers is 0, must be at least 1" in refused("demo", "--out", tmp_path / "demo", "--workers", "0")
    assert list(tmp_path.iterdir()) == []
