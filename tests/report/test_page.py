import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser

import pytest

from benchmarks.large_report import make_audit
from undistill.errors import InputError, MissingExtraError
from undistill.report import read_audits, write_report
from undistill.report.model import (
    cells_of,
    curves_of,
    label_audits,
    query_curves,
    teachers_of,
    three_classes,
    trade_off,
)

MINUS = "\N{MINUS SIGN}"


class Reader(HTMLParser):
    """Rows of tables by the id of the table, and the text of every element with an id of its own."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.table, self.scripts = {}, None, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "table":
            self.table = named.get("id", "other")
            self.rows.setdefault(self.table, [])
        elif tag == "tr":
            self.rows[self.table].append([])
        elif tag in ("td", "th"):
            self.rows[self.table][-1].append("")
        elif tag == "script":
            self.scripts.append(named)

    def handle_data(self, data):
        if self.table is not None and self.rows[self.table] and self.rows[self.table][-1]:
            self.rows[self.table][-1][-1] += data

    def handle_endtag(self, tag):
        if tag == "table":
            self.table = None


def embedded(text):
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def result_of(folder):
    return json.loads((folder / "audit.json").read_text())


def test_the_numbers_on_the_page_are_those_of_the_audit(made, page):
    text, result = page.read_text(), result_of(made)
    head, *rows = [[value.strip() for value in row] for row in Reader(text).rows["all-cells"]]
    assert len(rows) == len(result["cells"]) == 6
    for row, cell in zip(rows, result["cells"], strict=True):
        found = dict(zip(head, (value.replace(MINUS, "-") for value in row), strict=True))
        assert (found["attack"], found["student"]) == (cell["attack"], cell["student"])
        assert found["outcome"] == cell["outcome"]
        for name in ("knockoff", "LS", "placebo"):
            assert found[name] == f"{cell[name.lower()]['mean']:.2f}"
        for name, key in (("leak", "mean"), ("low", "low"), ("high", "high")):
            assert found[name] == f"{cell['leak'][key]:+z.2f}"
        for name, key in (("low, images", "test_low"), ("high, images", "test_high")):
            assert found[name] == f"{cell['leak'][key]:+z.2f}"
        assert found["queries"] == f"{cell['queries']:,}"
    # What figures are drawn from is not rounded at all.
    for drawn, cell in zip(embedded(text)["cells"], result["cells"], strict=True):
        assert {name: drawn[name] for name in ("leak", "knockoff", "ls", "placebo", "agreement")} == {
            name: cell[name] for name in ("leak", "knockoff", "ls", "placebo", "agreement")
        }
    worst = max(result["cells"], key=lambda cell: cell["leak"]["mean"])["leak"]
    shown = re.findall(r"<dd><b>(.*?)</b>", text)
    assert shown == [f"{result['teacher']['accuracy']:.2f}%", f"{worst['mean']:+z.2f}", f"{result['detectable']:.2f}"]
    against = result["teacher"]["accuracy"] - result["undefended"]["accuracy"]
    assert f"{against:+z.2f} points against ce ({result['undefended']['accuracy']:.2f}%)" in text
    assert unescape(text).count(result["sentence"]) >= 1


def test_every_name_is_escaped(page):
    text = page.read_text()
    assert "<script>hacked" not in text
    assert "Beware &lt;script&gt;hacked = 1&lt;/script&gt;." in text
    assert "cmim &amp; &lt;b&gt;" in text
    assert embedded(text)["teachers"][0]["class_names"][0] == "<script>hacked = 1</script>"
    assert len(Reader(text).scripts) == 4  # the theme, the data, Plotly, and our own


def test_the_page_needs_nothing_else(page):
    own = re.sub(r"<script[^>]*>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert re.findall(r'(?:src|href)="(?!#)([^"]*)"', own) == []
    assert "default-src 'none'" in own
    assert page.stat().st_size < 8 * 2**20


def test_the_same_files_give_the_same_page(made, page, tmp_path):
    assert write_report(made, tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_page_of_the_same_files_is_kept_if_asked_for(made, tmp_path):
    shutil.copytree(made, tmp_path / "audit")
    page = write_report(tmp_path / "audit")
    whole = page.read_bytes()
    marked = whole + b"<!-- as it was -->"
    page.write_bytes(marked)
    assert write_report(tmp_path / "audit", keep=True).read_bytes() == marked
    assert write_report(tmp_path / "audit").read_bytes() == whole


@pytest.mark.parametrize("file", ["audit.json", "evidence.json", "trials/new.json", "report.html"])
def test_a_page_of_other_files_is_not_kept(made, tmp_path, file):
    folder = tmp_path / "audit"
    shutil.copytree(made, folder)
    page = write_report(folder)
    page.write_bytes(page.read_bytes() + b"<!-- as it was -->")
    changed = folder / file
    if file.endswith("new.json"):
        changed.parent.mkdir(exist_ok=True)
        changed.write_text("{}")
    elif file == "report.html":
        changed.write_text("another page")
    else:
        content = json.loads(changed.read_text())
        content["new"] = 1
        changed.write_text(json.dumps(content))
    assert not write_report(folder, keep=True).read_bytes().endswith(b"<!-- as it was -->")


def test_a_page_of_other_code_is_not_kept(made, tmp_path, monkeypatch):
    page = write_report(made, tmp_path / "report.html")
    page.write_bytes(page.read_bytes() + b"<!-- as it was -->")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "page.css").write_text("")
    monkeypatch.setattr("undistill.report.page.PACKAGE", tmp_path / "code")
    assert not write_report(made, page, keep=True).read_bytes().endswith(b"<!-- as it was -->")


def test_several_audits_stand_side_by_side(several, tmp_path):
    text = write_report(several, tmp_path / "report.html").read_text()
    data = embedded(text)
    assert [audit["label"] for audit in data["audits"]] == ["ce", "cmim, budget 5000", "cmim, budget 50000"]
    assert [teacher["label"] for teacher in data["teachers"]] == ["ce", "cmim"]
    assert [teacher["undefended"] for teacher in data["teachers"]] == [True, False]
    for folder, point in zip(several, data["trade_off"], strict=True):
        result = result_of(folder)
        assert point["accuracy"] == result["teacher"]["accuracy"]
        assert point["leak"]["mean"] == max(cell["leak"]["mean"] for cell in result["cells"])
    assert len(data["query_curves"]) == 6  # attacks x students, of the teacher that was asked at two budgets
    for line in data["query_curves"]:
        assert line["teacher"] == "cmim"
        assert [point["queries"] for point in line["points"]] == [5_000, 50_000]
    assert text.count('class="command"') == 3


def test_a_folder_of_several_teachers_holds_an_audit_for_each(several, tmp_path):
    for folder in several[:2]:
        (tmp_path / folder.name).mkdir()
        (tmp_path / folder.name / "audit.json").write_bytes((folder / "audit.json").read_bytes())
    assert [audit.name for audit in read_audits([tmp_path])] == ["ce", "cmim"]
    (tmp_path / "ce" / "undistill.json").write_text("{}")  # that folder is an audit of its own
    assert [audit.name for audit in read_audits([tmp_path])] == ["cmim"]
    assert [audit.name for audit in read_audits([tmp_path, tmp_path / "ce", tmp_path])] == ["cmim", "ce"]


def test_two_regimes_of_queries_stand_side_by_side(tmp_path):
    folder = make_audit(tmp_path / "audit", attacks=1, students=1)
    result = result_of(folder)
    cell = result["cells"][0]
    cells = [cell | {"data": "train"}, cell | {"data": "fresh", "leak": cell["leak"] | {"mean": 7.0, "high": 8.0}}]
    (folder / "audit.json").write_text(json.dumps(result | {"cells": cells}))
    head, students, row = Reader(write_report(folder).read_text()).rows["plot-matrix"]
    assert [text.strip() for text in head] == ["", "train", "fresh"]
    assert [text.strip() for text in students] == ["attack", "resnet8", "resnet8"]
    assert row[2].strip().endswith("+7.00")


def test_learning_curves_are_those_of_the_very_students(tmp_path):
    folder = make_audit(tmp_path / "audit", attacks=1, students=1, epochs=4)
    stored = {path: json.loads(path.read_text()) for path in (folder / "trials").glob("*.json")}
    knockoffs = {path: found for path, found in stored.items() if found["trial"]["role"] == "knockoff"}
    # Trials that are nearly theirs: another setting, another teacher, another outcome.
    for place, (path, found) in enumerate(knockoffs.items()):
        other = json.loads(json.dumps(found))
        [
            lambda other: other["trial"]["attack"].update(temperature=1.0),
            lambda other: other["trial"].update(teacher="9" * 64),
            lambda other: other["outcome"].update(accuracy=1.0),
        ][place](other)
        other["outcome"]["train_accuracy"] = [0.0] * 4
        path.with_name(f"a{place}.json").write_text(json.dumps(other))
    [shown] = label_audits(read_audits([folder]))
    cells = cells_of([shown])
    [places], curves = curves_of([shown], cells)
    curve = curves[places["knockoff"]]
    assert curve["epochs"] == [1, 2, 3, 4]
    assert curve["seeds"] == 3
    by_seed = [found["outcome"]["train_accuracy"] for found in knockoffs.values()]
    assert curve["lowest"] == pytest.approx([min(values) for values in zip(*by_seed, strict=True)], rel=1e-3)
    assert curve["accuracy"] == pytest.approx([sum(values) / 3 for values in zip(*by_seed, strict=True)], rel=1e-3)
    # A damaged trial costs its own line and nothing else.
    next(iter(knockoffs)).write_text("{")
    [shown] = label_audits(read_audits([folder]))
    [places], curves = curves_of([shown], cells)
    assert curves[places["knockoff"]]["seeds"] == 2
    for path in (folder / "trials").iterdir():
        path.unlink()
    [shown] = label_audits(read_audits([folder]))
    assert curves_of([shown], cells) == ([{"knockoff": None, "ls": None, "placebo": None}], [])


def test_long_trainings_are_thinned_to_their_ends(tmp_path):
    folder = make_audit(tmp_path / "audit", attacks=1, students=1, epochs=301)
    shown = label_audits(read_audits([folder]))
    _, curves = curves_of(shown, cells_of(shown))
    for curve in curves:
        assert len(curve["epochs"]) == 60
        assert (curve["epochs"][0], curve["epochs"][-1]) == (1, 301)


def test_an_audit_without_evidence_or_trials_is_shown_as_far_as_it_goes(made, tmp_path):
    (tmp_path / "audit.json").write_bytes((made / "audit.json").read_bytes())
    text = write_report(tmp_path).read_text()
    [teacher] = embedded(text)["teachers"]
    assert teacher["spectra"] == result_of(made)["teacher"]["spectrum"]
    assert "made before answers were kept for this picture: run its command again" in text
    assert embedded(text)["curves"] == []


def test_the_three_classes_are_the_widest_and_those_it_leans_to():
    shown = [0, 1, 2, 3]
    rows = {0: [-0.1, -9, -9, -9], 1: [-3.0, -0.1, -4.0, -2.0], 2: [-9, -9, -0.1, -9], 3: [-9, -9, -9, None]}
    teacher = {
        "shown": shown,
        "clusters": {"test": {"labels": shown, "log_probs": [rows[label] for label in shown]}},
        "spectra": {
            "test": {
                "powers": [1.0, 0.25],
                "classes": [0, 1, 2, 3],
                "cmi_per_class": [[5.0, 0.1], [0.1, 0.9], [0.1, 0.2], [0.1, 0.3]],
            }
        },
    }
    assert three_classes(teacher) == [1, 0, 3]


def test_names_that_are_the_same_are_told_apart(several):
    shown = label_audits(read_audits([several[1]]) + read_audits([several[1]]))
    assert [one.label for one in shown] == ["cmim", "cmim (2)"]
    assert [teacher["label"] for teacher in teachers_of(shown)] == ["ce (undefended)", "cmim"]
    assert query_curves(shown) == []
    assert [point["label"] for point in trade_off(shown)] == ["cmim", "cmim (2)"]


def test_without_an_audit_there_is_no_report(tmp_path, made):
    with pytest.raises(InputError, match=r"holds no audit\.json; name the folder that was given to"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="there is no audit to report on; name at least one folder"):
        write_report([])
    result = result_of(made)
    for content, words in (
        ("{", "cannot be read as JSON"),
        ("[]", "it is no object"),
        (
            json.dumps(result | {"schema": "undistill.audit/9"}),
            "of schema 'undistill.audit/9', but 'undistill.audit/1'",
        ),
        (json.dumps(result | {"state": "running"}), "is of an audit that is running, not finished; wait for it"),
    ):
        (tmp_path / "audit.json").write_text(content)
        with pytest.raises(InputError, match=words):
            write_report(tmp_path)
    (tmp_path / "audit.json").write_text(json.dumps(result))
    (tmp_path / "evidence.json").write_text('{"schema": "other"}')
    with pytest.raises(InputError, match=r"evidence\.json is of schema 'other'"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "plotly"])
def test_without_a_package_the_extra_is_named(made, tmp_path, monkeypatch, package):
    def missing(module):
        if module.startswith(package):
            raise ImportError(module)
        return __import__(module, fromlist=["x"])

    monkeypatch.setattr("undistill.errors.importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'undistill\[report\]'"):
        write_report(made, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
