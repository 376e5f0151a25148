"""The report in a real browser. Its security policy is in force where a test does not need to run code in the page."""

import csv
import io
import json
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.large_report import make_audit
from undistill.report import write_report

READY = "html[data-ready=yes]"

OVERLAPS = Path(__file__).with_name("overlaps.js").read_text()


@contextmanager
def tabs(browser):
    """Opens pages without a network; closes all, and looks for errors, at the end."""
    contexts, errors = [], []

    def open_page(path, width=1440, scheme="light", bypass=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, bypass_csp=bypass
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda asked: None if asked.url.startswith(("file:", "blob:")) else errors.append(asked.url))
        tab.goto(path.as_uri(), timeout=120_000)
        tab.wait_for_selector(READY, state="attached", timeout=120_000)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def opened(browser):
    with tabs(browser) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def tab(browser, page):
    """The report of one audit, opened once for all tests that look at it."""
    with tabs(browser) as open_page:
        yield open_page(page)


def figures(tab):
    return {place.get_attribute("id")[5:]: place for place in tab.query_selector_all(".plot")}


def test_it_opens_without_a_network_and_draws_every_figure(tab):
    places = figures(tab)
    assert set(places) == {"students", "forest", "spectrum", "classes", "simplex", "reliability", "risk"}
    for name, place in places.items():
        assert place.get_attribute("data-drawn") == "yes", name
        assert len(place.query_selector_all("svg path")) > 5, name
    assert "<script>hacked" in tab.text_content("#plot-simplex")  # a name is text, and nothing of it is run
    assert "<script>hacked" in tab.text_content("#plot-classes")
    assert tab.query_selector("main script") is None


def test_cells_tell_more_by_mouse_and_by_keyboard(tab, made):
    cells = json.loads((made / "audit.json").read_text())["cells"]
    button = tab.locator("button[data-cell='4']")
    button.hover()
    told = tab.inner_text("#tip")
    assert all(f"{value:.2f}" in told for value in cells[4]["knockoff"]["seeds"])
    assert f"{cells[4]['ls']['mean']:.2f}%" in told
    assert f"queries: {cells[4]['queries']:,}" in told
    button.click()
    assert f"{cells[4]['attack']} with {cells[4]['student']}" in tab.inner_text("#chosen")
    assert tab.get_attribute("button[aria-pressed=true][data-cell]", "data-cell") == "4"
    tab.keyboard.press("ArrowUp")
    assert tab.locator(":focus").get_attribute("data-cell") == "3"  # the attack above, the same student
    tab.keyboard.press("Enter")
    assert f"{cells[3]['attack']} with {cells[3]['student']}" in tab.inner_text("#chosen")


def test_points_of_a_plot_tell_their_numbers(tab):
    tab.locator("#figure-forest").scroll_into_view_if_needed()
    box = tab.locator("#plot-forest .points path").first.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_selector("#plot-forest .hoverlayer .hovertext")
    assert "attack-" in tab.text_content("#plot-forest .hoverlayer")


def test_the_slider_moves_the_clusters(tab):
    slider = tab.locator("#temperature")
    slider.scroll_into_view_if_needed()

    def widths():
        # How far the marks of each teacher's first panel lie apart.
        boxes = [mark.bounding_box()["x"] for mark in tab.query_selector_all(".panels svg path[fill-opacity]")]
        return max(boxes) - min(boxes)

    at_four = tab.inner_text("#temperature-shown")
    before = widths()
    slider.focus()
    tab.keyboard.press("End")
    tab.wait_for_timeout(400)
    assert (at_four, tab.inner_text("#temperature-shown")) == ("T = 4", "T = 100")
    assert tab.get_attribute("#temperature", "aria-valuetext") == "T = 100"
    after = widths()
    assert after < before - 20
    mark = tab.query_selector(".panels svg path[fill-opacity]").bounding_box()
    tab.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert tab.inner_text("#tip").startswith("an image of")


def check_text(tab, width):
    found = tab.evaluate(OVERLAPS)
    assert found["boxes"] > 200
    assert found["found"] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1440])
def test_no_text_lies_over_another(opened, page, width):
    tab = opened(page, width, bypass=True)
    check_text(tab, width)
    tab.add_style_tag(content="#forest-title { position: relative; top: 40px }")  # one that does
    assert tab.evaluate(OVERLAPS)["found"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_no_text_of_several_audits_lies_over_another(opened, several, tmp_path, width):
    check_text(opened(write_report(several, tmp_path / "several.html"), width, bypass=True), width)


def test_several_audits_are_drawn_and_downloaded(opened, several, tmp_path):
    tab = opened(write_report(several, tmp_path / "several.html"), scheme="dark")
    places = figures(tab)
    assert {"trade-off", "queries"} <= set(places)
    assert all(place.get_attribute("data-drawn") == "yes" for place in places.values())
    cells = [cell for folder in several for cell in json.loads((folder / "audit.json").read_text())["cells"]]
    for name, rows in (("matrix", len(cells)), ("forest", len(cells)), ("trade-off", 3), ("queries", 12)):
        with tab.expect_download() as download:
            tab.click(f"button[data-csv={name}]")
        head, *found = csv.reader(io.StringIO(download.value.path().read_text()))
        assert len(found) == rows, name
        if name == "matrix":
            assert [float(row[head.index("leak")]) for row in found] == [cell["leak"]["mean"] for cell in cells]
    tab.click("#theme")
    tab.wait_for_selector("html[data-theme=light]", state="attached")
    with tab.expect_download() as download:
        tab.click("button[data-svg=spectrum]")
    assert download.value.path().read_bytes().startswith(b"<svg")


@pytest.mark.slow
def test_it_prints(opened, page, tmp_path):
    tab = opened(page, scheme="dark")
    content = tab.pdf(path=tmp_path / "report.pdf", format="A4", print_background=True)
    assert content.startswith(b"%PDF")
    assert tab.get_attribute("html", "data-theme") == "dark"  # as it was before


@pytest.mark.slow
def test_a_large_report_is_small_and_whole(opened, tmp_path):
    folder = make_audit(tmp_path / "audit", attacks=60, students=6, seeds=10, classes=100, epochs=100)
    path = write_report(folder)
    assert path.stat().st_size < 8 * 2**20
    tab = opened(path)
    assert len(tab.query_selector_all("#plot-matrix button")) == 360
    assert all(place.get_attribute("data-drawn") == "yes" for place in figures(tab).values())
