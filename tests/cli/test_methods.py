import pytest

from undistill.attacks import ATTACKS, KD, KDWithoutLabels
from undistill.cli.methods import parse_grids, parse_method
from undistill.defences.training import CMIM, DEFENCES
from undistill.errors import InputError


def test_words_become_values_of_the_right_type():
    assert parse_method("attack", ATTACKS, "kd") == KD()
    assert parse_method("attack", ATTACKS, "kd:temperature=2,hard=0.5") == KD(2.0, 0.5)
    method = parse_method("defence", DEFENCES, "cmim:powers=0.25:1,weighting=none,weight=3")
    assert method == CMIM(weight=3.0, powers=(0.25, 1.0), weighting="none")
    assert isinstance(method.weight, float)


def test_settings_of_one_attack_form_one_grid():
    texts = ["kd:temperature=2", "kd-no-labels", "kd:temperature=8", "kd:temperature=2.0"]
    assert parse_grids("attack", ATTACKS, texts) == ((KD(2.0), KD(8.0)), KDWithoutLabels.grid())
    assert parse_grids("attack", ATTACKS, ["kd", "kd:temperature=3"]) == ((*KD.grid(), KD(3.0)),)


@pytest.mark.parametrize("text", ["KD", "", ":temperature=2", "kd.temperature=2"])
def test_unknown_names_are_refused(text):
    with pytest.raises(InputError, match="unknown attack"):
        parse_method("attack", ATTACKS, text)


@pytest.mark.parametrize("text", ["kd:temperature=", "kd:temperature=1:2", "kd:temperature=four"])
def test_values_of_another_type_are_refused(text):
    with pytest.raises(InputError, match="must be a number"):
        parse_method("attack", ATTACKS, text)
