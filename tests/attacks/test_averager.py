"""Averaged answers against loops over groups in NumPy."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from undistill.attacks import KD
from undistill.attacks.averager import Averager, FullAverager, class_means, mean_answer
from undistill.errors import InputError

both = pytest.mark.parametrize("kind", [Averager, FullAverager])
TEMPERATURES = (1.0, 4.0, 20.0)


def draw(batch=24, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return logits, teacher, torch.randint(classes, (batch,), generator=generator)


def kd_formula(logits, targets, labels, temperature, hard):
    """hard * CE(z, y) + (1 - hard) * T^2 * KL(target || softmax(z / T)), the targets being tempered already."""
    log_q = scipy.special.log_softmax(logits.numpy() / temperature, 1)
    cross_entropy = -scipy.special.log_softmax(logits.numpy(), 1)[np.arange(len(labels)), labels.numpy()]
    divergence = scipy.special.rel_entr(targets, np.exp(log_q)).sum(1)
    return hard * cross_entropy + (1 - hard) * temperature**2 * divergence


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("hard", [0.0, 0.1, 1.0])
def test_the_batch_mean_is_that_of_the_teachers_logits(temperature, hard):
    logits, teacher, labels = draw()
    targets = np.empty((24, 5))
    for row, label in enumerate(labels.tolist()):
        mean = teacher.numpy()[labels.numpy() == label].mean(0)
        targets[row] = scipy.special.softmax(mean / temperature)
    attack = Averager(temperature, hard)
    loss = attack.loss(logits.float(), torch.log_softmax(teacher, 1).float(), labels)
    expected = kd_formula(logits, targets, labels, temperature, hard)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5, atol=1e-5 * max(1, temperature**2 / 16))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("hard", [0.0, 0.1, 1.0])
def test_the_full_mean_is_the_centroid_of_the_tempered_answers(temperature, hard):
    logits, teacher, labels = draw(batch=200)
    tempered = scipy.special.softmax(teacher.numpy() / temperature, 1)
    centroids = np.stack([tempered[labels.numpy() == label].mean(0) for label in range(5)])
    attack = FullAverager(temperature, hard)
    prepared = attack.prepare(torch.log_softmax(teacher, 1).float(), labels)
    batch = torch.arange(30, 60)
    loss = attack.loss(logits[batch].float(), prepared[batch], labels[batch])
    expected = kd_formula(logits[batch], centroids[labels[batch].numpy()], labels[batch], temperature, hard)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5, atol=1e-5 * max(1, temperature**2 / 16))
    np.testing.assert_allclose(prepared.exp().sum(1).numpy(), 1, rtol=1e-5)


def test_what_depends_on_the_class_alone_is_not_changed():
    logits, teacher, labels = draw()
    of_class = torch.log_softmax(teacher[:5], 1).float()[labels]
    kd = KD(4.0).loss(logits.float(), of_class, labels)
    torch.testing.assert_close(Averager(4.0).loss(logits.float(), of_class, labels), kd, rtol=1e-4, atol=1e-4)
    prepared = FullAverager(4.0).prepare(of_class, labels)
    torch.testing.assert_close(prepared, of_class, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(FullAverager(4.0).loss(logits.float(), prepared, labels), kd, rtol=1e-4, atol=1e-4)


def test_alone_in_its_class_an_answer_is_itself():
    logits, teacher, _ = draw(batch=5)
    labels, log_probs = torch.tensor([3, 1, 4, 0, 2]), torch.log_softmax(teacher, 1).float()
    expected = KD(20.0).loss(logits.float(), log_probs, labels)
    torch.testing.assert_close(Averager().loss(logits.float(), log_probs, labels), expected, rtol=1e-4, atol=1e-3)


def test_averaging_loses_nothing_to_a_student_that_knows_the_class_only():
    """KL to the answers one by one and KL to their centroid differ by what no such student can change: their CMI."""
    logits, teacher, labels = draw(batch=100)
    log_probs = torch.log_softmax(teacher, 1).float()
    attack, single = FullAverager(4.0, hard=0.0), KD(4.0, hard=0.0)
    prepared = attack.prepare(log_probs, labels)
    gaps = []
    for student in (logits[:5], 2 * logits[5:10], torch.zeros(5, 5, dtype=torch.float64)):
        of_class = student.float()[labels]
        gap = single.loss(of_class, log_probs, labels).mean() - attack.loss(of_class, prepared, labels).mean()
        gaps.append(gap.item())
    assert gaps[0] > 1
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-4)


def test_zeros_of_one_answer_are_zeros_of_the_geometric_mean():
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4], [0.0, 0.0, 1.0]])
    mean = mean_answer(probs.log(), torch.tensor([0, 0, 1])).exp()
    weights = torch.tensor([math.sqrt(0.1), math.sqrt(0.2), 0.0])
    torch.testing.assert_close(mean, torch.stack([weights / weights.sum()] * 2 + [probs[2]]))


def test_where_no_class_is_common_the_probabilities_are_averaged():
    probs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    mean = mean_answer(probs.log(), torch.zeros(3, dtype=torch.int64)).exp()
    torch.testing.assert_close(mean, torch.tensor([[1 / 3, 2 / 3, 0.0]] * 3))


def test_zeros_of_some_answers_are_no_zeros_of_the_centroid():
    probs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    prepared = FullAverager(20.0).prepare(probs.log(), torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(prepared.exp(), torch.tensor([[0.5, 0.5, 0.0]] * 2))


def test_an_average_of_many_answers_keeps_its_digits():
    labels = torch.zeros(50_000, dtype=torch.int64)
    log_probs = torch.log_softmax(torch.tensor([30.0, 0.0, -30.0]), 0).expand(50_000, 3)
    torch.testing.assert_close(FullAverager(20.0).prepare(log_probs, labels), log_probs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(class_means(log_probs[:512], labels[:512]), log_probs[:512], rtol=1e-5, atol=1e-5)


def test_the_answers_are_not_written_to():
    _, teacher, labels = draw()
    log_probs = torch.log_softmax(teacher, 1).float()
    kept = log_probs.clone()
    FullAverager().prepare(log_probs, labels)
    Averager().loss(log_probs, log_probs, labels)
    assert torch.equal(log_probs, kept)


@both
def test_bad_settings_are_refused(kind):
    with pytest.raises(InputError, match=r"the temperature is 0.0, must be finite and above 0"):
        kind(temperature=0.0)
    with pytest.raises(InputError, match=r"the share of hard labels is 2.0, must lie between 0 and 1"):
        kind(hard=2.0)
