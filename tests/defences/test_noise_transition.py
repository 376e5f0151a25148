"""The noise transition matrix: both levels, what is served, and that whoever knows the matrix undoes it."""

import pickle

import jaxtyping
import numpy as np
import pytest
import torch

from undistill.defences.output.defence import OwnData
from undistill.defences.output.noise_transition import Mixed, NoiseTransition, _features, _student
from undistill.errors import InputError


def own_data(classes=5, count=200, confidence=3.0, surrogate=None):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    logits = torch.randn(count, classes, generator=generator) + confidence * torch.nn.functional.one_hot(
        labels, classes
    )
    images = torch.randint(256, (count, 1, 2, 3), generator=generator, dtype=torch.uint8)
    return OwnData(images, torch.log_softmax(logits, 1), labels, surrogate)


def served(transform, log_probs):
    return transform.apply(log_probs, torch.zeros(len(log_probs), 1, 2, 3))


def students_loss(own, matrix):
    """Of students that are regressed on p T anew, in NumPy: nothing of the shortcut through p."""
    log_probs, probs = own.log_probs.double().numpy(), own.log_probs.double().exp().numpy()
    columns = np.maximum(log_probs, -14) - np.maximum(log_probs, -14).mean(1, keepdims=True)
    features = np.c_[columns / columns.std(ddof=1), np.ones(len(columns))]
    halves = np.array_split(torch.randperm(len(features), generator=torch.Generator().manual_seed(0)).numpy(), 2)
    predictions = np.empty_like(probs)
    for taught, asked in (halves, halves[::-1]):
        x, y = features[taught], probs[taught] @ matrix
        weights = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ y)
        predictions[asked] = features[asked] @ weights
    scores = 10 * predictions
    own_scores = scores[np.arange(len(scores)), own.labels.numpy()]
    return (np.log(np.exp(scores).sum(1)) - own_scores).mean()


def test_a_student_taught_p_t_predicts_s_t():
    own, draws = own_data(), np.random.default_rng(0)
    matrix = draws.dirichlet(np.ones(5), 5)
    taught_p = _student(_features(own), own.log_probs.double().exp(), torch.Generator().manual_seed(0)).numpy()
    scores = 10 * taught_p @ matrix
    shortcut = (np.log(np.exp(scores).sum(1)) - scores[np.arange(200), own.labels.numpy()]).mean()
    np.testing.assert_allclose(shortcut, students_loss(own, matrix), rtol=1e-6)


def test_the_learned_matrix_is_what_it_says_and_beats_others_of_its_kind():
    own, kept = own_data(), 0.6
    matrix = NoiseTransition(kept).set_up(own).matrix.numpy()
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix.diagonal(), kept, rtol=0, atol=1e-12)
    assert (matrix >= 0).all()
    found, draws = students_loss(own, matrix), np.random.default_rng(0)
    even = kept * np.eye(5) + (1 - kept) * (1 - np.eye(5)) / 4
    assert found > students_loss(own, even) > students_loss(own, np.eye(5))
    for _ in range(30):
        rest = np.array([np.insert(draws.dirichlet(np.full(4, 0.3)), row, 0.0) for row in range(5)])
        assert found > students_loss(own, kept * np.eye(5) + (1 - kept) * rest)


def test_rows_are_multiplied_and_drawn_back_no_further_than_needed():
    matrix = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]]).double()
    probs = torch.tensor([[0.9, 0.05, 0.05], [0.51, 0.48, 0.01]])
    free, kept = (served(Mixed(matrix, keep, 0.0), probs.log()).exp().double() for keep in (False, True))
    product = probs.double() @ matrix
    torch.testing.assert_close(free, product, rtol=1e-6, atol=0)
    torch.testing.assert_close(kept[0], product[0], rtol=1e-6, atol=0)
    assert product[1].argmax() == 1
    assert kept[1].argmax() == 0
    # Where the two lines meet: (1 - a) (0.310 - 0.492) + a (0.51 - 0.48) = 0.
    share = 0.182 / (0.182 + 0.03)
    torch.testing.assert_close(kept[1], (1 - share) * product[1] + share * probs[1].double(), rtol=1e-5, atol=1e-7)


def test_a_row_of_one_over_twice_what_is_kept_needs_no_drawing_back():
    own = own_data(confidence=6.0)
    transform = NoiseTransition(0.8).set_up(own)
    sure = own.log_probs[own.log_probs.exp().amax(1) > 1 / 1.6]
    assert len(sure) > 100
    product = (sure.double().exp() @ transform.matrix).float()
    torch.testing.assert_close(served(transform, sure).exp(), product, rtol=1e-5, atol=1e-7)


def test_whoever_knows_the_matrix_undoes_it():
    own = own_data()
    transform = NoiseTransition(0.6, keeps_top1=False).set_up(own)
    undone = served(transform, own.log_probs).double().exp() @ torch.linalg.inv(transform.matrix)
    torch.testing.assert_close(undone.float(), own.log_probs.exp(), rtol=0, atol=1e-5)


def test_a_surrogate_gives_the_features():
    own = own_data()
    flat = own_data(surrogate=lambda images: torch.log_softmax(images.flatten(1)[:, :5], 1))
    expected = torch.log_softmax(own.images.float().div(255).flatten(1)[:, :5], 1).double()
    expected = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(_features(flat)[:, :5], expected / expected.std(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(NoiseTransition(steps=3).set_up(flat).matrix, NoiseTransition(steps=3).set_up(own).matrix)


def test_training_depends_on_the_seed_alone_and_leaves_no_trace():
    own, defence = own_data(), NoiseTransition(steps=10)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = defence.set_up(own)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(first.matrix, defence.set_up(own).matrix)
    other = NoiseTransition(steps=10, seed=1).set_up(own)
    assert not torch.equal(first.matrix, other.matrix)
    answers = served(first, own.log_probs)
    assert torch.equal(answers, served(pickle.loads(pickle.dumps(first)), own.log_probs))
    assert torch.equal(answers, torch.cat([served(first, row[None]) for row in own.log_probs]))


def test_certain_and_missing_classes_do_no_harm():
    own = own_data(classes=2, count=20)
    certain = torch.full((20, 3), -torch.inf).scatter(1, own.labels[:, None], 0.0)
    transform = NoiseTransition().set_up(OwnData(own.images, certain, own.labels))
    torch.testing.assert_close(transform.matrix[2], torch.tensor([0.2, 0.2, 0.6]).double())
    assert transform.facts() == {"decisions_changed_by_matrix": 0.0}
    assert not served(transform, certain).isnan().any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kept": 1.0}, r"kept is a share of probability and must lie in \[0, 1\), got 1.0"),
        ({"kept": -0.1}, r"kept is a share of probability and must lie in \[0, 1\), got -0.1"),
        ({"steps": 2.5}, "steps of noise-transition is 2.5, must be a whole number, written without a decimal point"),
        ({"seed": 0.5}, "seed of noise-transition is 0.5, must be a whole number"),
        ({"steps": 0}, "steps of noise-transition is 0, must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type would be refused before the value
    with pytest.raises(InputError, match=words):
        NoiseTransition(**settings)


def test_a_surrogate_of_other_classes_and_too_few_answers_are_refused():
    words = (
        "the surrogate tells 3 classes apart and the teacher 5; noise-transition needs a surrogate for the teacher's"
    )
    with pytest.raises(InputError, match=words):
        NoiseTransition().set_up(own_data(surrogate=lambda images: torch.zeros(len(images), 3)))
    words = "noise-transition cannot be set up with 1 answers of the teacher; hand over at least 2"
    with pytest.raises(InputError, match=words):
        NoiseTransition().set_up(own_data(count=1))
