"""Boxes that are no function of the image are found out."""

import pytest
import torch
from torch import nn

from undistill.blackbox import (
    CHECKED_IMAGES,
    BlackBox,
    CallableBlackBox,
    Decimals,
    LabelAccess,
    LimitedBlackBox,
    LocalBlackBox,
    check_black_box,
    defend,
)
from undistill.defences.output import LabelOnly
from undistill.errors import InputError


def plain(images):
    return 3 * images.flatten(1)[:, 20:30]


class Box(BlackBox):
    """Answers with what a function makes of images, and counts them."""

    name, fingerprint = "box", "f"

    def __init__(self, function, policy=None):
        self.function, self.asked = function, 0
        if policy is not None:
            self.policy = policy

    def log_probs(self, images):
        self.asked += len(images)
        return torch.log_softmax(self.function(images), 1)


@pytest.fixture
def images(probe):
    return probe[:CHECKED_IMAGES]


def drawn(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda images: plain(images) + size * torch.randn(len(images), 10, generator=generator)


def test_a_function_of_the_image_passes(teacher, probe, images):
    box = Box(plain)
    check_black_box(box, images)
    assert box.asked == 4 * CHECKED_IMAGES
    check_black_box(LocalBlackBox("t", teacher("cnn")), images)
    check_black_box(CallableBlackBox("c", plain, 10, probe), images)


def test_float_noise_passes(images):
    check_black_box(Box(drawn(1e-6)), images)


def test_a_box_that_passes_is_told_how_steady_it_is(probe, images):
    assert check_black_box(CallableBlackBox("c", plain, 10, probe), images).repeated == 0
    found = check_black_box(Box(drawn(1e-4)), images)
    assert 1e-6 < found.repeated < 1e-4
    assert found.images == CHECKED_IMAGES

    def crowded(images):
        return plain(images) + 0.02 * (len(images) > 1) * torch.arange(10) / 10

    found = check_black_box(Box(crowded), images)
    assert found.repeated == 0
    assert 0.0005 < found.company < 0.01


def test_what_lies_behind_defences_counts(digits, images):
    """The label hides what the box behind it draws."""
    found = check_black_box(defend(Box(drawn(1e-4)), [LabelOnly()], digits), images)
    assert 1e-6 < found.repeated < 1e-4


def test_a_step_of_rounding_is_no_unsteadiness(images):
    class Rounding(Box):
        calls = 0

        def log_probs(self, images):
            self.calls += 1
            tenths = 0.2 + 0.1 * (self.calls % 2)
            probs = torch.zeros(len(images), 10)
            probs[:, 0], probs[:, 1] = tenths, 1 - tenths
            return probs.log()

    found = check_black_box(Rounding(plain, Decimals(1)), images)
    assert found.repeated == pytest.approx(0, abs=1e-6)


def test_a_box_that_draws_is_refused(images):
    with pytest.raises(InputError) as refusal:
        check_black_box(Box(drawn(1.0)), images)
    assert "box answers differently when it is asked about the same images again: the probabilities of " in str(
        refusal.value
    )
    assert "of 8 images differ, by up to 0." in str(refusal.value)
    assert "(allowed: 0.0001); switch off what it draws at random" in str(refusal.value)
    with pytest.raises(InputError, match=r"differ, by up to 0\.00"):
        check_black_box(Box(drawn(0.01)), images)  # too little to change a class, enough to change what is learnt


def test_batch_statistics_are_found_out(images):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"about an image alone than in a batch: .* of 8 images .*call eval\(\)"):
        check_black_box(Box(lambda images: 5 * network(images.repeat(2, 1, 1, 1))[: len(images)].detach()), images)


def test_an_order_that_matters_is_found_out(images):
    def place(images):
        brightness = images.flatten(1).sum(1)
        first_is_brighter = len(images) > 1 and bool(brightness[0] > brightness[-1])
        return plain(images) * (1 + first_is_brighter)

    dim_first = images[images.flatten(1).sum(1).argsort()]
    with pytest.raises(InputError, match=r"when the images of a batch come in another order: .* its own image alone"):
        check_black_box(Box(place), dim_first)


def test_what_lies_behind_a_limit_is_checked(images):
    """Two classes that are as good as equal change places in the label; the answers behind it do not matter so much."""

    def close(images):
        logits = torch.zeros(len(images), 10)
        logits[:, :2] = 3 + 1e-5 * torch.rand(len(images), 2)
        return logits

    check_black_box(LimitedBlackBox(Box(close), LabelAccess()), images)
    with pytest.raises(InputError, match="asked about the same images again"):
        check_black_box(LimitedBlackBox(Box(drawn(3.0)), LabelAccess()), images)


def test_rounding_by_the_box_itself_may_tip_over(images):
    """A probability beside 0.25, by a hair: it is served as 0.2 or as 0.3."""

    class Rounding(Box):
        def log_probs(self, images):
            hair = 1e-6 * torch.randn(len(images))
            probs = torch.stack([0.25 + hair, 0.75 - hair, *torch.zeros(8, len(images))], 1)
            return self.policy.apply(probs.log())

    for _ in range(5):
        check_black_box(Rounding(plain, Decimals(1)), images)
