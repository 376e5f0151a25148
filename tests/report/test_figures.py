import xml.etree.ElementTree as ET

import pytest

from undistill.errors import InputError
from undistill.report import write_figures

ALONE = ["leak-matrix", "leak-by-attack", "spectrum", "classes", "clusters", "reliability", "risk-coverage"]


def texts(path):
    return {text for element in ET.parse(path).iter() if (text := "".join(element.itertext()).strip())}


def test_figures_are_one_column_wide_with_text_that_stays_text(made, tmp_path):
    files = write_figures([made], tmp_path / "figures", "svg")
    assert [path.stem for path in files] == ALONE
    for path in files:
        assert ET.parse(path).getroot().get("width") == f"{3.3 * 72:g}pt"
        assert "$\\mathdefault" not in path.read_text()
    assert {"attack-0, resnet8", "leak, points of test accuracy"} <= texts(tmp_path / "figures" / "leak-by-attack.svg")
    assert '"quoted", $x$' in texts(tmp_path / "figures" / "classes.svg")
    assert {"T = 1", "T = 4", "T = 20", "<script>hac…"} <= texts(tmp_path / "figures" / "clusters.svg")


def test_several_audits_have_a_trade_off_and_a_curve_over_queries(several, tmp_path):
    files = write_figures(several, tmp_path, "pdf")
    assert [path.stem for path in files] == [*ALONE, "accuracy-against-leak", "leak-against-queries"]
    assert all(path.read_bytes().startswith(b"%PDF") for path in files)


def test_another_format_is_refused(made, tmp_path):
    with pytest.raises(InputError, match=r"'leak-matrix\.jpg' must end in one of \.png, \.svg, \.pdf"):
        write_figures([made], tmp_path, "jpg")
