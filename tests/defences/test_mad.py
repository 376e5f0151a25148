"""MAD against gradients that PyTorch takes, and its search against one in plain Python."""

from itertools import combinations

import numpy as np
import pytest
import torch

from undistill.defences.output.defence import OwnData
from undistill.defences.output.mad import MAD, angular_deviation, turned
from undistill.errors import InputError

LEAD = 1e-5


def rows(count, classes, seed, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(spread * torch.randn(count, classes, generator=generator, dtype=torch.float64), 1)


def own_data(surrogate=None, classes=4):
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    return OwnData(images, torch.full((2, classes), 1 / classes).log(), torch.zeros(2, dtype=torch.int64), surrogate)


def serve(defence, log_probs):
    return defence.set_up(own_data(classes=log_probs.shape[1])).apply(log_probs, torch.zeros(len(log_probs), 1, 2, 2))


def deviation(probs, served, surrogate):
    """2 - 2 cos, from scratch; none where a gradient vanishes."""
    honest, other = surrogate - probs, surrogate - served
    if np.linalg.norm(honest) < 1e-7 or np.linalg.norm(other) < 1e-7:
        return 0.0
    return 2 - 2 * honest @ other / np.linalg.norm(honest) / np.linalg.norm(other)


def moved(probs, extreme, distance):
    return probs + min(1.0, distance / np.abs(extreme - probs).sum()) * (extreme - probs)


def uniform(members, top, classes):
    extreme = np.zeros(classes)
    extreme[list(members)] = 1 / len(members)
    extreme[top] += LEAD
    return extreme / (1 + LEAD)


def plainly(members, classes):
    extreme = np.zeros(classes)
    extreme[list(members)] = 1 / len(members)
    return extreme


@pytest.mark.parametrize("bias", [True, False])
def test_the_closed_form_is_what_gradients_of_a_last_layer_give(bias):
    classes, features = 7, 5
    torch.manual_seed(0)
    layer = torch.nn.Linear(features, classes, bias=bias).double()
    hidden = torch.randn(features, dtype=torch.float64)
    log_q = torch.log_softmax(layer(hidden), 0)
    gradients = []
    for c in range(classes):
        parts = torch.autograd.grad(-log_q[c], list(layer.parameters()), retain_graph=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    matrix = torch.stack(gradients)
    honest, served = rows(1, classes, 1)[0], rows(1, classes, 2)[0]
    before, after = honest @ matrix, served @ matrix
    expected = (after / after.norm() - before / before.norm()).square().sum()
    found = angular_deviation(honest[None], served[None], log_q.detach().exp()[None])
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("classes", [3, 6])
@pytest.mark.parametrize("distance", [0.3, 1.0, 2.0])
def test_with_the_predicted_class_kept_every_set_is_tried(classes, distance):
    probs, surrogate = rows(12, classes, 0).numpy(), rows(12, classes, 1).numpy()
    served = turned(torch.from_numpy(probs), torch.from_numpy(surrogate), distance, True).numpy()
    for p, q, y in zip(probs, surrogate, served, strict=True):
        top = int(p.argmax())
        others = [c for c in range(classes) if c != top]
        sets = [(top, *some) for size in range(classes) for some in combinations(others, size)]
        best = max(sets, key=lambda members: deviation(p, plainly(members, classes), q))
        np.testing.assert_allclose(y, moved(p, uniform(best, top, classes), distance), rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_without_it_every_class_is_tried(distance):
    probs, surrogate = rows(12, 8, 0).numpy(), rows(12, 8, 1).numpy()
    served = turned(torch.from_numpy(probs), torch.from_numpy(surrogate), distance, False).numpy()
    for p, q, y in zip(probs, surrogate, served, strict=True):
        best = max(range(8), key=lambda c: deviation(p, np.eye(8)[c], q))
        np.testing.assert_allclose(y, moved(p, np.eye(8)[best], distance), rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [11, 60])
def test_with_many_classes_the_set_grows_greedily(classes):
    probs, surrogate = rows(10, classes, 0).numpy(), rows(10, classes, 1).numpy()
    served = turned(torch.from_numpy(probs), torch.from_numpy(surrogate), 1.0, True).numpy()
    sizes = []
    for p, q, y in zip(probs, surrogate, served, strict=True):
        top = int(p.argmax())
        members, left = [top], 1024
        while len(members) < classes and left >= classes - len(members):
            left -= classes - len(members)
            others = [c for c in range(classes) if c not in members]
            new = max(others, key=lambda c: deviation(p, plainly([*members, c], classes), q))
            if deviation(p, plainly([*members, new], classes), q) <= deviation(p, plainly(members, classes), q) + 1e-9:
                break
            members.append(new)
        sizes.append(len(members))
        np.testing.assert_allclose(y, moved(p, uniform(members, top, classes), 1.0), rtol=0, atol=1e-12)
    assert max(sizes) > 2, "the search must have something to do"


def test_rows_that_nothing_turns_are_served_as_they_are():
    certain, flat = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.full((4,), 0.25)
    log_probs = torch.stack([certain, flat]).log()

    def agrees(images):
        return log_probs[: len(images)]

    served = MAD().set_up(own_data(agrees)).apply(log_probs, torch.zeros(2, 1, 2, 2))
    torch.testing.assert_close(served.exp(), log_probs.exp(), rtol=0, atol=1e-6)
    two = torch.tensor([[0.9, 0.1]]).log()
    torch.testing.assert_close(serve(MAD(), two).exp(), two.exp(), rtol=0, atol=1e-6)


def test_without_a_surrogate_its_probabilities_are_uniform():
    log_probs = rows(5, 6, 0).log().float()
    uniform_one = MAD().set_up(own_data(lambda images: torch.zeros(len(images), 6), classes=6))
    assert torch.equal(serve(MAD(), log_probs), uniform_one.apply(log_probs, torch.zeros(5, 1, 2, 2)))


def test_the_predicted_class_survives_ties_and_rounding():
    just_ahead = torch.tensor([[0.3, 0.3, 0.3, 0.1], [0.1, 0.3, 0.3, 0.3]]).log()
    just_ahead[0, 2] = torch.nextafter(just_ahead[0, 2], torch.tensor(0.0))
    for distance in (1e-4, 1.0, 2.0):
        assert serve(MAD(distance), just_ahead).argmax(1).tolist() == [2, 1]


def test_without_keeping_it_a_large_distance_changes_the_predicted_class():
    log_probs = rows(20, 5, 0).log().float()
    served = serve(MAD(2.0, keeps_top1=False), log_probs)
    assert (served.argmax(1) != log_probs.argmax(1)).any()


@pytest.mark.parametrize("distance", [0.0, -1.0, 2.1, float("nan")])
def test_a_distance_out_of_range_is_refused(distance):
    with pytest.raises(InputError, match=r"distance must be above 0 and at most 2, .* 1 is usual"):
        MAD(distance)


def test_a_surrogate_of_other_classes_is_refused_in_both_places():
    def other(images):
        return torch.zeros(len(images), 3)

    words = "the surrogate tells 3 classes apart and the teacher 4; mad needs a surrogate for the teacher's own task"
    with pytest.raises(InputError, match=words):
        MAD().set_up(own_data(other))
    without_images = OwnData(
        torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0).long(), other
    )
    transform = MAD().set_up(without_images)
    with pytest.raises(InputError, match=words):
        transform.apply(torch.full((2, 4), 0.25).log(), torch.zeros(2, 1, 2, 2))


def test_the_published_search_prefers_large_sets_which_turn_a_certain_answer_less():
    """The page on MAD says so, with these numbers: ten classes share what one could have had."""
    certain, uniform_one = torch.eye(100).double()[:1], torch.full((1, 100), 0.01).double()
    served = turned(certain, uniform_one, 1.0, True)
    assert (served > 0).sum() == 11
    pair = certain.clone()
    pair[0, :2] = 0.5
    found = [angular_deviation(certain, row, uniform_one).item() for row in (served, pair)]
    np.testing.assert_allclose(found, [0.087, 0.593], rtol=0, atol=1e-3)
