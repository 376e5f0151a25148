"""The page of answers that were measured and not audited."""

import json
import re

import numpy as np
import pytest
import torch

from undistill.blackbox import Predictions
from undistill.errors import InputError
from undistill.report import write_measurements
from undistill.utility import measure_answers

NASTY = "<script>hacked = 1</script>.npz"
POWERS = (0.05, 0.25, 1.0, 4.0)


def measured(name, scale=1.0, classes=5):
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, classes, 500))
    logits = torch.from_numpy(scale * random.normal(size=(500, classes))) + 4 * torch.eye(classes)[labels]
    return measure_answers([Predictions(torch.log_softmax(logits, 1).float(), labels)], name, powers=POWERS)


@pytest.fixture(scope="module")
def found():
    return {NASTY: measured(NASTY), "cmim": measured("cmim", scale=0.1)}


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "spectrum.html"
    write_measurements(found, path)
    return path


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text()).group(1))


def test_numbers_are_those_of_the_measurement(found, page):
    teachers = embedded(page)["teachers"]
    assert [teacher["label"] for teacher in teachers] == [NASTY, "cmim"]
    for teacher, measurement in zip(teachers, found.values(), strict=True):
        spectrum = teacher["spectra"]["test"]
        assert spectrum["powers"] == list(POWERS)
        assert spectrum["cmi"] == pytest.approx(measurement.spectrum.cmi.tolist(), rel=1e-5)
        for column, index in zip(spectrum["cmi_per_class"], spectrum["classes"], strict=True):
            assert column == pytest.approx(measurement.spectrum.cmi_per_class[:, index].tolist(), rel=1e-5)
        clusters = teacher["clusters"]["test"]
        assert len(clusters["labels"]) == 500 - sum(max(0, n - 100) for n in measurement.spectrum.counts.tolist())
        assert teacher["shown"] == [0, 1, 2, 3, 4]


def test_the_page_holds_no_sections_of_an_audit(page):
    text = page.read_text()
    assert NASTY not in text  # escaped wherever it stands
    assert "&lt;script&gt;hacked" in text
    assert f"{measured('x').accuracy:.2f}</td>" in text
    for name in ("verdict", "matrix", "forest", "cost", "queries", "settings"):
        assert f'<section id="{name}"' not in text
    assert text.count("<section") == text.count("</section>") == 3


def test_other_names_are_refused(found, tmp_path):
    with pytest.raises(InputError, match=r"'spectrum.pdf' must end in .html"):
        write_measurements(found, tmp_path / "spectrum.pdf")


def test_answers_with_exact_zeros_and_two_classes(tmp_path):
    labels = torch.tensor([0, 1, 0, 1])
    log_probs = torch.eye(2)[torch.tensor([0, 1, 1, 1])].log()
    write_measurements(
        {"hard": measure_answers([Predictions(log_probs, labels)], "hard", powers=POWERS)}, tmp_path / "x.html"
    )
    teacher = embedded(tmp_path / "x.html")["teachers"][0]
    assert teacher["spectra"]["test"]["within_class_variance"] is None
    assert teacher["clusters"]["test"]["log_probs"].count([0.0, None]) == 1


def test_every_figure_is_drawn_without_errors(browser, page):
    errors = []
    context = browser.new_context(viewport={"width": 390, "height": 900}, offline=True)
    tab = context.new_page()
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready=yes]", state="attached", timeout=120_000)
    drawn = {place.get_attribute("id"): place.get_attribute("data-drawn") for place in tab.query_selector_all(".plot")}
    assert drawn == {"plot-spectrum": "yes", "plot-classes": "yes", "plot-simplex": "yes"}
    assert len(tab.query_selector_all("#plot-simplex .panels > div")) == 2  # side by side
    before = tab.text_content("#temperature-shown")
    tab.focus("#temperature")
    tab.keyboard.press("ArrowRight")
    assert tab.text_content("#temperature-shown") != before
    assert not tab.is_visible("#simplex-split")
    context.close()
    assert errors == []
