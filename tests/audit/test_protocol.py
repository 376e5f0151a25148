import math

import pytest

from undistill.attacks import KD, KDWithoutLabels, RecoveryBayes
from undistill.attacks.as_released import KDAsReleased
from undistill.audit import Protocol
from undistill.errors import InputError
from undistill.tasks import TrainingImages
from undistill.training import Recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"students": ()}, "no student is named"),
        ({"students": ("mlp-4", "mlp-4")}, "name one twice"),
        ({"attacks": ()}, "at least one"),
        ({"attacks": ((KD(), KDWithoutLabels()),)}, "grids of one attack each"),
        ({"attacks": ((KD(1.0),), (KD(4.0),))}, "name one attack twice"),
        ({"attacks": ((KDAsReleased(),),)}, "kd-as-released are weakened variants: no verdict may rest on them"),
        ({"attacks": ((RecoveryBayes(base=KDAsReleased()),),)}, "kd-as-released are weakened variants"),
        ({"smoothings": ()}, "smoothings is empty"),
        ({"placebo_smoothings": ()}, "placebo_smoothings is empty"),
        ({"smoothings": (1.0,)}, r"must lie in \[0, 1\)"),
        ({"placebo_smoothings": (-0.1,)}, r"must lie in \[0, 1\)"),
        ({"seeds": 1}, "seeds is 1, must be at least 2"),
        ({"tuning_seeds": 0}, "tuning_seeds is 0, must be at least 1"),
        ({"first_seed": -1}, "first_seed is -1, must be 0 to"),
        ({"first_seed": 999_998}, "first_seed is 999998, must be 0 to 1,000,000 less the number of seeds"),
        ({"looks": (3, 3)}, r"looks are \(3, 3\), must rise from at least 2 to less than seeds \(5\)"),
        ({"looks": (1, 3)}, "must rise from at least 2"),
        ({"looks": (3, 5)}, r"must rise from at least 2 to less than seeds \(5\)"),
        ({"tries": 3}, "tries is 3, so smoothings and each grid of attacks must hold as many settings"),
        ({"data": ()}, "must be at least one kind of images, each once"),
        (
            {"data": (TrainingImages(), TrainingImages(1.0))},
            r"data are \('train', 'train'\), must be at least one kind",
        ),
        ({"margin": 0.0}, "margin is 0.0, must be finite and above 0 points"),
        ({"margin": math.inf}, "margin is inf"),
        ({"margin": math.nan}, "margin is nan"),
        ({"alpha": 0.5}, "alpha is 0.5, must lie between 0 and 0.5"),
    ],
)
def test_a_bad_protocol_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        Protocol(**{"students": ("mlp-4",), "recipe": Recipe(), **change})


def test_every_problem_is_named_at_once():
    with pytest.raises(InputError, match=r"seeds is 0.*margin is -1.0.*alpha is 0.7"):
        Protocol(("mlp-4",), Recipe(), seeds=0, margin=-1.0, alpha=0.7)


def test_settings_are_never_chosen_on_seeds_of_the_test():
    protocol = Protocol(("mlp-4",), Recipe(), seeds=500, tuning_seeds=500)
    assert not set(protocol.judged_seeds) & set(protocol.chosen_seeds)
    assert len(protocol.judged_seeds) == len(protocol.chosen_seeds) == 500


def test_another_first_seed_gives_other_students():
    first, second = (Protocol(("mlp-4",), Recipe(), seeds=3, first_seed=start) for start in (0, 3))
    assert first.judged_seeds + second.judged_seeds == (0, 1, 2, 3, 4, 5)
    assert first.chosen_seeds == second.chosen_seeds
