"""By how much the attacks of the CMIM repository, as released, are weaker than what they are named after."""

import math

import numpy as np
import pytest
import torch

from undistill.attacks import ATTACKS, KD
from undistill.attacks.as_released import (
    AS_RELEASED,
    AveragerAsReleased,
    DISTAsReleased,
    DKDAsReleased,
    HTCAsReleased,
    KDAsReleased,
    KnockoffAsReleased,
    MKDAsReleased,
    released_matrices,
)
from undistill.attacks.dist import DIST
from undistill.attacks.dkd import DKD
from undistill.attacks.htc import HTC
from undistill.attacks.knockoff import Knockoff


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def test_none_of_them_is_in_a_battery():
    assert all(name.endswith("-as-released") and kind.name == name for name, kind in AS_RELEASED.items())
    assert not set(AS_RELEASED) & set(ATTACKS)
    assert all(kind.grid() == (kind(),) for kind in AS_RELEASED.values())


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize(
    ("released", "meant"),
    [(KDAsReleased(4.0, 0.0), KD(4.0, 0.0)), (HTCAsReleased(20.0, 0.5, 0.0), HTC(20.0, 0.5, 0.0))],
)
def test_a_mean_over_classes_divides_the_soft_part_by_their_number(released, meant, classes):
    logits, log_probs, labels = draw(classes=classes)
    expected = meant.loss(logits, log_probs, labels) / classes
    torch.testing.assert_close(released.loss(logits, log_probs, labels), expected, rtol=1e-4, atol=1e-6)


def test_kd_is_that_of_pytorchs_default_reduction():
    logits, log_probs, labels = draw()
    soft = torch.nn.KLDivLoss()
    with pytest.warns(UserWarning, match="batchmean"):
        divergence = soft(torch.log_softmax(logits / 4, 1), torch.softmax(log_probs / 4, 1))
    expected = 0.1 * torch.nn.functional.cross_entropy(logits, labels) + 0.9 * 16 * divergence
    torch.testing.assert_close(KDAsReleased().loss(logits, log_probs, labels).mean(), expected)


def test_the_averager_takes_the_mean_of_probabilities_in_the_batch():
    logits, log_probs, labels = draw()
    p, log_q = torch.softmax(log_probs.double() / 4, 1).numpy(), torch.log_softmax(logits.double() / 4, 1).numpy()
    expected = []
    for b, y in enumerate(labels.tolist()):
        mean = p[labels.numpy() == y].mean(0)
        expected.append(0.9 * 16 / 10 * sum(mean[c] * (math.log(mean[c]) - log_q[b, c]) for c in range(10)))
    hard = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = AveragerAsReleased().loss(logits, log_probs, labels) - 0.1 * hard
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)


def test_targets_of_mkd_are_nearly_uniform_and_its_rows_no_distributions():
    _, log_probs, labels = draw(batch=64, classes=100)
    attack = MKDAsReleased()
    matrices = released_matrices(100, rank=3, seed=0)
    targets = attack.targets(log_probs, labels, matrices).exp()
    assert targets.max() < 0.0128
    left, right, scale = (part.double().numpy() for part in matrices)
    probs = torch.softmax(log_probs.double() / 4, 1).numpy()
    for b in range(5):
        y = int(labels[b])
        powers = np.exp(left[y] @ right[y].T + scale[y] * np.eye(100))
        mixed = probs[b] @ (powers / powers.sum(0))
        assert abs(mixed.sum() - 1) > 1e-4
        expected = np.exp(mixed / 4) / np.exp(mixed / 4).sum()
        np.testing.assert_allclose(targets[b].numpy(), expected, rtol=1e-5)


def test_mkd_averages_the_students_divergence_over_classes_and_not_the_matrices():
    logits, log_probs, labels = draw()
    attack = MKDAsReleased(hard=0.0)
    targets = torch.log_softmax(log_probs, 1).requires_grad_()
    student = logits.clone().requires_grad_()
    loss = attack.loss_from(student, targets, labels)
    loss.sum().backward()
    own, plain = (tensor.detach().clone().requires_grad_() for tensor in (targets, logits))
    divergence = 16 * (own.exp() * (own - torch.log_softmax(plain / 4, 1))).sum(1)
    divergence.sum().backward()
    torch.testing.assert_close(loss, divergence / 10, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(student.grad, plain.grad / 10, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets.grad, own.grad, rtol=1e-4, atol=1e-5)


def test_mkd_learns_its_matrices_from_where_the_code_starts_them():
    logits, log_probs, labels = draw()
    attack = MKDAsReleased()
    started = attack.start(10, seed=0)
    assert (started.matrices[2] == 1).all()
    student = logits.requires_grad_()
    loss = started(student, log_probs, labels)
    torch.testing.assert_close(loss, attack.loss(logits, log_probs, labels))
    loss.mean().backward()
    before = [part.detach().clone() for part in started.matrices]
    started.after_step(0.1)
    assert all(not torch.equal(part, old) for part, old in zip(started.matrices, before, strict=True))


def test_knockoff_forgets_the_images_that_the_student_gets_most_wrong():
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 9.0, 0.0]]).requires_grad_()
    log_probs = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).log()
    loss = KnockoffAsReleased().loss(logits, log_probs, torch.tensor([0, 0]))
    loss.sum().backward()
    meant = Knockoff().loss(logits, log_probs, torch.tensor([0, 0]))
    assert loss[0].item() == pytest.approx(100 / 3 * meant[0].item())
    assert loss[1].item() == pytest.approx(100 / 3 * 5)
    assert logits.grad[0].abs().sum() > 0
    assert (logits.grad[1] == 0).all()


def test_dkd_has_neither_cross_entropy_nor_warm_up():
    logits, log_probs, labels = draw()
    attack = DKDAsReleased()
    assert torch.equal(attack.loss(logits, log_probs, labels), DKD(hard=0.0).loss(logits, log_probs, labels))
    started = attack.start(10, seed=0)
    started.begin_epoch(0, 240)
    assert torch.equal(started(logits, log_probs, labels), attack.loss(logits, log_probs, labels))


def test_dist_has_a_thirty_second_of_the_official_factor():
    official, released = DIST(), DISTAsReleased()
    assert official.temperature**2 * official.weight == 32 * released.temperature**2 * released.weight
    logits, log_probs, labels = draw()
    expected = DIST(temperature=1.0, weight=1.0).loss(logits, log_probs, labels)
    assert torch.equal(released.loss(logits, log_probs, labels), expected)
