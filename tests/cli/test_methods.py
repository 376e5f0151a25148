from dataclasses import dataclass

import pytest

from undistill.attacks import ATTACKS, KD, Attack, KDWithoutLabels
from undistill.blackbox import FULL, Decimals, LabelAccess, TopK, parse_access
from undistill.cli.methods import parse_data, parse_grids, parse_method
from undistill.defences.training import CMIM, DEFENCES
from undistill.errors import InputError
from undistill.settings import settings_as_json, settings_in_words
from undistill.tasks import FreshImages, NoImages, OtherImages, TrainingImages, load_task


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


BASE = KD()


@dataclass(frozen=True)
class Wrapped(KD):
    """An attack with an attack inside."""

    base: Attack = BASE
    gentle: bool = False


def test_an_attack_can_be_a_setting():
    registry = {"wrapped": Wrapped}
    assert parse_method("attack", registry, "wrapped") == Wrapped()
    method = parse_method("attack", registry, "wrapped:base=kd-no-labels,temperature=2,gentle=true")
    assert method == Wrapped(2.0, base=KDWithoutLabels(), gentle=True)
    assert settings_as_json(method)["base"] == {"name": "kd-no-labels", "temperature": 4.0}
    assert "base=kd-no-labels(temperature=4.0)" in settings_in_words(method)
    with pytest.raises(InputError, match=r"unknown attack 'kdd'; did you mean 'kd'?"):
        parse_method("attack", registry, "wrapped:base=kdd")
    with pytest.raises(InputError, match="gentle is 'yes', must be true or false"):
        parse_method("attack", registry, "wrapped:gentle=yes")


@pytest.mark.parametrize("policy", [FULL, Decimals(3), TopK(5), TopK(2, renormalised=False), LabelAccess()], ids=str)
def test_an_access_is_read_as_it_is_written(policy):
    assert parse_access(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ful", "unknown access 'ful'; did you mean 'full'?"),
        ("top_k:5", "unknown access 'top_k'; did you mean 'top-k'?"),
        ("top-k", "access 'top-k' needs a number; write top-k:3, for example"),
        ("top-k:", "access 'top-k:' needs a number"),
        ("top-k:many", "the number is 'many', must be a whole number"),
        ("top-k:2.5", "the number is '2.5', must be a whole number"),
        ("top-k:0", "access to the top 0 classes is not possible"),
        ("top-k-raw:-1", "access to the top -1 classes"),
        ("decimals:0", "access to 0 decimals is not possible"),
        ("full:3", "access 'full:3' takes no number; write full"),
        ("label:1", "takes no number; write label"),
    ],
)
def test_an_access_that_means_nothing_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_access(text)


def test_query_data_are_read_as_they_are_written():
    task = load_task("digits", classes=2)
    every = [TrainingImages(), TrainingImages(0.05), FreshImages(), OtherImages(task), NoImages()]
    assert [parse_data(str(data), lambda: task) for data in every] == every


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trian", "unknown query data 'trian'; did you mean 'train'?"),
        ("train:", "the share is '', must be a number"),
        ("train:half", "the share is 'half', must be a number"),
        ("train:0", "share of the training images is 0.0, must be above 0 and at most 1"),
        ("fresh:0.5", "query data 'fresh:0.5' take no share; write fresh, or train:0.1"),
    ],
)
def test_query_data_that_mean_nothing_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_data(text, lambda: pytest.fail("no other task is needed"))
