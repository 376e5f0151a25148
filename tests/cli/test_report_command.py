import html
import json
import shlex

from undistill.report.command import command_of


def test_an_audit_ends_in_a_report_that_can_be_made_anew(run, quick, tmp_path):
    out = tmp_path / "out"
    ran = run(*quick)
    assert ran.status == 0
    assert ran.out.splitlines()[-1] == f"Report: {out / 'report.html'}"
    page = (out / "report.html").read_bytes()
    assert json.loads((out / "audit.json").read_text())["sentence"] in html.unescape(page.decode())
    (out / "report.html").unlink()
    assert run("report", out) == (0, f"Report: {out / 'report.html'}\n", "")
    assert (out / "report.html").read_bytes() == page
    both = tmp_path / "new" / "both.html"
    ran = run("report", out, out / "audit.json", "--out", both, "--figures", "svg")
    assert ran.status == 0
    assert ran.out.splitlines()[0] == f"Report: {both}"
    assert all(line.startswith(f"Figure: {both.parent / 'figures'}") for line in ran.out.splitlines()[1:])
    assert (both.parent / "figures" / "spectrum.svg").exists()


def test_the_command_of_a_report_reproduces_the_audit(run, quick, teacher, tmp_path):
    more = ["--attack", "dist", "--attack", "kd-infinite", "--query-mode", "cached-views"]
    assert run(*quick, *more, "--views", "2", "--output-defence", "rounding:places=2").status == 0
    path = tmp_path / "out" / "audit.json"
    first = json.loads(path.read_text())
    words = shlex.split(command_of(first))
    assert words[0] == "undistill"
    trials = {file.name for file in (tmp_path / "out" / "trials").iterdir()}
    again = [str(teacher) if word == "ce" else str(tmp_path / "out") if word == "OUT" else word for word in words[1:]]
    assert run(*again).status == 0
    assert json.loads(path.read_text()) == first
    assert {file.name for file in (tmp_path / "out" / "trials").iterdir()} == trials


def test_without_plotly_an_audit_is_finished_all_the_same(run, quick, tmp_path, monkeypatch):
    def missing(module):
        if module.startswith("plotly"):
            raise ImportError(module)
        return __import__(module, fromlist=["x"])

    monkeypatch.setattr("undistill.errors.importlib.import_module", missing)
    ran = run(*quick)
    assert ran.status == 0
    assert (tmp_path / "out" / "audit.json").exists()
    last = " ".join(ran.out.split())
    assert last.endswith(f"pip install 'undistill[report]', then: undistill report {tmp_path / 'out'}")


def test_a_folder_without_an_audit_is_refused(refused, tmp_path):
    assert "holds no audit.json; name the folder that was given to `undistill audit --out`" in refused(
        "report", tmp_path
    )
