"""Data-free extraction: its loss, its estimate of a gradient, its count of queries, and that it extracts."""

import re

import numpy as np
import pytest
import torch

from undistill.attacks import Lab
from undistill.attacks.dfme import DFME, Generator, picture
from undistill.audit.lab import AuditLab
from undistill.blackbox import AnswerCache, BlackBox, Queries
from undistill.errors import InputError
from undistill.tasks import load_task
from undistill.training import Recipe, accuracy, predict


def test_the_loss_is_the_mean_distance_of_centred_log_probabilities():
    logits, teacher = 3 * torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(0))
    log_probs, labels = torch.log_softmax(teacher, 1), torch.zeros(8, dtype=torch.int64)
    z, v = logits.double().numpy(), log_probs.double().numpy()
    expected = np.abs((z - z.mean(1, keepdims=True)) - (v - v.mean(1, keepdims=True))).mean(1)
    loss = DFME().loss(logits, log_probs, labels)
    torch.testing.assert_close(loss, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-6)


class Line(Lab):
    """A black box whose centred log-probabilities are (s, -s), s the sum of pixels. Counts its queries."""

    asked = 0
    answers = answers_of = fit = fresh_student = limit = None

    def ask(self, images):
        self.asked += len(images)
        total = images.double().flatten(1).sum(1, keepdim=True)
        return torch.log_softmax(torch.cat([total, -total], 1), 1)


class Zeros(torch.nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 2)


def test_the_estimate_is_the_gradient_on_average():
    torch.manual_seed(0)
    raw = torch.randn(1, 1, 2, 3).double()
    lab = Line()
    slopes = DFME(directions=2).slope(lab, Zeros(), raw.expand(10_000, 1, 2, 3))
    assert lab.asked == 3 * 10_000
    exact = raw.clone().requires_grad_()
    picture(exact).sum().backward()  # mean over two classes of |s| is s
    torch.testing.assert_close(slopes.mean(0, keepdim=True), exact.grad, rtol=0.15, atol=0.02)


def test_the_estimate_of_one_direction_is_a_forward_difference():
    lab, attack, raw = Line(), DFME(), torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(1)).double()
    torch.manual_seed(5)
    slope = attack.slope(lab, Zeros(), raw)
    torch.manual_seed(5)
    noise = torch.randn(4, 1, 6, dtype=torch.float64)
    for own, image, drawn in zip(slope, raw, noise, strict=True):
        direction = drawn / drawn.norm()
        rise = picture(image + 1e-3 * direction).sum() - picture(image).sum()
        # The losses are float32: a difference of 1e-3 keeps some four digits.
        torch.testing.assert_close(own, 6 * rise / 1e-3 * direction, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (1, 40), (2, 9)])
def test_the_generator_makes_images_of_any_size(shape):
    raw = Generator(shape)(4)
    images = picture(raw)
    assert images.shape == (4, *shape)
    assert ((images > 0) & (images < 1)).all()


class NearestMean(BlackBox):
    """Squared distances to the class means of the training images, as logits. Counts its queries."""

    name, fingerprint = "nearest mean", "n" * 64

    def __init__(self, task):
        images = task.train.images.float().div(255).flatten(1)
        self.means = torch.stack([images[task.train.labels == c].mean(0) for c in range(task.num_classes)])
        self.asked = 0

    def log_probs(self, images):
        self.asked += len(images)
        assert images.min() >= 0
        assert images.max() <= 1
        return torch.log_softmax(-torch.cdist(images.flatten(1), self.means).square(), 1)


def extract(attack, box, task, tmp_path, seed=0):
    lab = AuditLab(task, "mlp-32", Recipe(epochs=1), seed, Queries(), attack, cache=AnswerCache(tmp_path), box=box)
    return attack.train(lab), lab


def test_a_student_learns_digits_without_seeing_one(tmp_path):
    task = load_task("digits")
    box, attack = NearestMean(task), DFME(budget=4000, batch_size=20)
    before = torch.get_rng_state()
    student, lab = extract(attack, box, task, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert attack.queries_per_round == 20 * 7
    assert lab.queries == box.asked == 4000 // (20 * 7) * (20 * 7)
    losses = lab.notes["loss"]
    assert len(losses) == 10
    assert losses[-1] < 0.6 * losses[0]
    assert accuracy(predict(student, task.test), task.test) > 30, "chance is 10"
    assert not student.training


def test_extraction_depends_on_the_seed_alone(tmp_path):
    task = load_task("digits", classes=2)
    weights = []
    for seed, noise in ((0, 0), (0, 1), (1, 0)):
        torch.manual_seed(noise)
        student, _ = extract(DFME(budget=100, batch_size=4), NearestMean(task), task, tmp_path, seed)
        weights.append(torch.cat([parameter.flatten() for parameter in student.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match=r"the budget is 1000 images, must be at least 1792: one round of 5 student"):
        DFME(budget=1000)
    with pytest.raises(InputError, match="the batch size is 1, must be at least 2"):
        DFME(batch_size=1)
    with pytest.raises(InputError, match="the number of directions is 0, must be at least 1"):
        DFME(directions=0)
    with pytest.raises(InputError, match="attack dfme cannot use access 'decimals'"):
        DFME().check_access("decimals")


def test_a_student_that_breaks_is_an_outcome_with_words(tmp_path):
    task = load_task("digits", classes=2)
    attack = DFME(budget=1000, batch_size=4, student_rate=1e30)
    _, lab = extract(attack, NearestMean(task), task, tmp_path)
    assert re.fullmatch(
        r"the student's loss became (nan|inf) in round 0 of 35; try a learning rate of the student of 3.3e\+29",
        lab.notes["diverged"],
    )
    assert lab.notes["loss"] == []
    assert lab.queries == attack.queries_per_round
