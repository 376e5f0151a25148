"""Undoing an output defence: the table, the mean over it, the learned inverse, and what becomes of the base attack."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from undistill.attacks import KD, KDWithoutLabels, Lab, kl_divergence
from undistill.attacks.dfme import DFME
from undistill.attacks.generations import SelfTraining
from undistill.attacks.recovery import RecoveryBayes, RecoveryLearned
from undistill.errors import InputError

BOTH = pytest.mark.parametrize("attack", [RecoveryBayes(table=200), RecoveryLearned(table=200, epochs=2)])


def truth(count=60, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(count, classes, generator=generator), 1)


def top_two(log_probs):
    largest = log_probs.topk(2, dim=1)
    kept = torch.full_like(log_probs, -torch.inf).scatter(1, largest.indices, largest.values)
    return torch.log_softmax(kept, 1)


def same(log_probs):
    return log_probs


class Notebook(Lab):
    """A black box with full answers ``full`` behind ``defence``; ``taught`` lists what students were trained on."""

    def __init__(self, defence, full=None):
        self.full, self.defence = truth() if full is None else full, defence
        self.labels, self.num_classes, self.access = self.full.argmax(1), self.full.shape[1], "top-k"
        self.seed, self.notes, self.taught = 3, {}, []

    def answers(self, epoch, view):
        return self.defence(self.full)

    def limit(self, log_probs):
        return self.defence(log_probs)

    def fit(self, attack, answers, generation=0):
        self.taught.append((attack, answers(0, 0)))
        return torch.nn.Identity()

    def answers_of(self, student):
        return lambda epoch, view: self.full

    fresh_student = ask = None


@BOTH
def test_a_black_box_that_hides_nothing_leaves_the_base_as_it_is(attack):
    lab = Notebook(same)
    attack.train(lab)
    [(base, answers)] = lab.taught
    assert base == KD()
    assert torch.equal(answers, lab.full)
    assert list(lab.notes.values()) == [0.0]


@BOTH
def test_recovered_answers_are_nearer_to_the_truth(attack):
    lab = Notebook(top_two)
    attack.train(lab)
    [(base, answers)] = lab.taught
    assert base == KD()
    torch.testing.assert_close(answers.exp().sum(1), torch.ones(len(answers)))
    served = top_two(lab.full).clamp_min(-30)
    assert kl_divergence(lab.full, answers.clamp_min(-30)).mean() < 0.5 * kl_divergence(lab.full, served).mean()
    assert 0 < next(iter(lab.notes.values())) < 2


@BOTH
def test_recovery_depends_on_the_seed_alone(attack):
    answers = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        lab = Notebook(top_two)
        lab.seed = seed
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        attack.train(lab)
        assert torch.equal(torch.get_rng_state(), before)
        answers.append(lab.taught[0][1])
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_full_answers_are_dirichlet_draws_around_the_observed_ones():
    observed = torch.tensor([[0.7, 0.3, 0.0]]).log()
    draws = RecoveryBayes(table=20_000, concentration=5.0, blur=0.1).draw(observed, seed=0).double().exp()
    assert draws.shape == (20_000, 3)
    alpha = 15 * np.array([0.9 * 0.7 + 0.1 / 3, 0.9 * 0.3 + 0.1 / 3, 0.1 / 3])
    mean = alpha / 15
    np.testing.assert_allclose(draws.mean(0), mean, atol=4 * np.sqrt(mean / 16 / 20_000).max())
    np.testing.assert_allclose(draws.var(0), mean * (1 - mean) / 16, rtol=0.1)
    unblurred = RecoveryBayes(table=50, blur=0.0).draw(observed, seed=0)
    assert (unblurred[:, 2] == -torch.inf).all(), "what is hidden exactly stays hidden"
    assert unblurred[:, :2].isfinite().all()


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.4])
def test_partial_bayes_is_a_mean_over_near_pairs_of_the_class(tolerance):
    observed, attack = top_two(truth()), RecoveryBayes(table=300, tolerance=tolerance)
    full = attack.draw(observed, seed=0)
    recovered = attack.inverse(full, top_two(full), 0)(observed)
    pairs, answers = full.double().exp().numpy(), top_two(full).exp().numpy()
    for row, answer in zip(recovered.exp().numpy(), observed.exp().numpy(), strict=True):
        alike = [i for i in range(300) if answers[i].argmax() == answer.argmax()]
        distances = [np.abs(answers[i] - answer).sum() for i in alike]
        reach = max(tolerance, min(distances)) + 1e-6
        near = [pairs[i] for i, distance in zip(alike, distances, strict=True) if distance <= reach]
        np.testing.assert_allclose(row, np.mean(near, axis=0), rtol=1e-4, atol=1e-7)


def test_an_answer_of_a_class_that_the_table_lacks_stays_as_it_is():
    full = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    answers = torch.tensor([[0.2, 0.8], [0.55, 0.45]]).log()
    recovered = RecoveryBayes(tolerance=0.2).inverse(full, full, 0)(answers)
    assert torch.equal(recovered[0], answers[0])
    torch.testing.assert_close(recovered[1].exp(), torch.tensor([0.6, 0.4]))


def test_a_learned_inverse_undoes_a_power():
    """The black box flattens its answers; the network sharpens them again."""
    full = truth(400)
    attack = RecoveryLearned(table=4000)
    table = attack.draw(full, seed=0)
    flattened = torch.log_softmax(0.5 * full, 1)
    recovered = attack.inverse(table, torch.log_softmax(0.5 * table, 1), 0)(flattened)
    assert kl_divergence(full, recovered).mean() < 0.1 * kl_divergence(full, flattened).mean()


@BOTH
def test_the_base_decides_on_labels_trainings_and_loss(attack):
    unlabelled = type(attack)(base=KDWithoutLabels(2.0))
    assert (type(attack).needs_labels, attack.needs_labels, unlabelled.needs_labels) == (True, True, False)
    assert type(attack)(base=SelfTraining(generations=3)).trainings == 3
    lab = Notebook(top_two)
    assert torch.equal(
        unlabelled.loss(truth(seed=1), lab.full, lab.labels),
        KDWithoutLabels(2.0).loss(truth(seed=1), lab.full, lab.labels),
    )


@BOTH
def test_a_base_of_several_trainings_runs_whole(attack):
    lab = Notebook(top_two)
    type(attack)(base=SelfTraining(), table=200).train(lab)
    first, second = (answers for _, answers in lab.taught)
    assert not torch.equal(first, lab.full)
    assert torch.equal(second, lab.full), "a student's own answers need no recovery"


@dataclass(frozen=True)
class TwoViews(KD):
    name: ClassVar[str] = "two-views"
    views: ClassVar[int] = 2


@pytest.mark.parametrize("kind", [RecoveryBayes, RecoveryLearned])
def test_what_cannot_be_recovered_is_refused(kind):
    with pytest.raises(
        InputError, match=f"{kind.name} cannot recover answers for two-views, which asks about two views"
    ):
        kind(base=TwoViews())
    with pytest.raises(
        InputError, match=f"{kind.name} cannot recover answers for dfme, which asks about images of its"
    ):
        kind(base=DFME())
    with pytest.raises(InputError, match=f"attack {kind.name} cannot use access 'label'"):
        kind().check_access("label")
    with pytest.raises(InputError, match="the size of the table is 0, must be at least 1"):
        kind(table=0)
