"""Students of students, in a lab that writes down what is trained on what."""

import pytest
import torch

from undistill.attacks import KD, Lab
from undistill.attacks.generations import Ensemble, SelfTraining
from undistill.errors import InputError


class Notebook(Lab):
    """Students are tables of logits; ``trained`` lists (attack, generation, the answers to epoch 0 and 1)."""

    def __init__(self, classes=5):
        self.labels, self.num_classes, self.access = torch.arange(8) % classes, classes, "full"
        self.seed, self.notes, self.trained = 3, {}, []

    def table(self, number):
        return torch.log_softmax(torch.randn(8, self.num_classes, generator=torch.Generator().manual_seed(number)), 1)

    def answers(self, epoch, view):
        return self.table(epoch)

    def fit(self, attack, answers, generation=0):
        self.trained.append((attack, generation, [answers(epoch, 0) for epoch in (0, 1)]))
        student = torch.nn.Linear(1, 1)
        student.number = 100 * len(self.trained)
        return student

    def answers_of(self, student):
        return lambda epoch, view: self.table(student.number + epoch)

    limit = fresh_student = ask = None


@pytest.mark.parametrize("generations", [1, 2, 3])
def test_each_generation_learns_from_the_one_before(generations):
    lab, attack = Notebook(), SelfTraining(temperature=2.0, generations=generations)
    student = attack.train(lab)
    assert student.number == 100 * generations
    assert attack.trainings == len(lab.trained) == generations
    for number, (loss, _, answers) in enumerate(lab.trained):
        assert loss == attack
        for epoch in (0, 1):
            assert torch.equal(answers[epoch], lab.table(100 * number + epoch))
    weights = [generation for _, generation, _ in lab.trained]
    assert len(set(weights)) == generations
    assert weights[-1] == 0, "the last one pairs with references"


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("members", [1, 3])
def test_an_ensemble_teaches_the_mean_of_its_tempered_probabilities(temperature, members):
    lab, attack = Notebook(), Ensemble(temperature=temperature, members=members)
    attack.train(lab)
    assert attack.trainings == len(lab.trained) == members + 1
    assert sorted(generation for _, generation, _ in lab.trained[:-1]) == list(range(1, members + 1))
    for _, _, answers in lab.trained[:-1]:
        assert all(torch.equal(answers[epoch], lab.table(epoch)) for epoch in (0, 1))
    loss, generation, answers = lab.trained[-1]
    assert (loss, generation) == (attack, 0)
    for epoch in (0, 1):
        tables = [lab.table(100 * (1 + member) + epoch).double() for member in range(members)]
        expected = sum(torch.softmax(table / temperature, 1) for table in tables) / members
        served = torch.softmax(answers[epoch].double() / temperature, 1)
        torch.testing.assert_close(served, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("attack", [SelfTraining, Ensemble])
def test_the_loss_is_that_of_kd(attack):
    lab = Notebook()
    logits, log_probs = lab.table(50), lab.table(51)
    expected = KD(4.0, 0.1).loss(logits, log_probs, lab.labels)
    assert torch.equal(attack().loss(logits, log_probs, lab.labels), expected)


def test_numbers_of_students_below_one_are_refused():
    with pytest.raises(InputError, match="the number of generations is 0, must be at least 1"):
        SelfTraining(generations=0)
    with pytest.raises(InputError, match="the number of members is 0, must be at least 1"):
        Ensemble(members=0)
