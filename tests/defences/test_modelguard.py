"""ModelGuard-W against the linear program it stands for, solved by scipy."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from undistill.defences.output.modelguard import ModelGuardW, least_telling
from undistill.errors import InputError

FLOOR, MARGIN = 1e-6, 1e-4


def linear_program(probs, distance):
    """The least objective. Unknown are y and d, with abs(y - p) <= d."""
    classes, top = len(probs), probs.argmax()
    one, others = np.eye(classes), np.delete(np.arange(classes), top)
    lead = np.zeros((classes - 1, 2 * classes))
    lead[np.arange(classes - 1), others], lead[:, top] = 1, -1
    total = np.r_[np.zeros(classes), np.ones(classes)]
    within = np.vstack([np.hstack([one, -one]), np.hstack([-one, -one]), total])
    solution = linprog(
        np.r_[np.log(probs + FLOOR), np.zeros(classes)],
        A_ub=np.vstack([within, lead]),
        b_ub=np.r_[probs, -probs, distance, np.full(classes - 1, -MARGIN)],
        A_eq=[np.r_[np.ones(classes), np.zeros(classes)]],
        b_eq=[1.0],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert solution.status == 0, solution.message
    return solution.fun


def rows(classes):
    draws = np.random.default_rng(classes)
    drawn = [draws.dirichlet(np.full(classes, alpha)) for alpha in (0.03, 0.3, 1, 10, 1000) for _ in range(2)]
    flat, certain = np.full(classes, 1 / classes), np.eye(classes)[-1]
    tie = np.r_[0.5, 0.5, np.zeros(classes - 2)]
    all_but_one = np.r_[np.full(classes - 1, 1 / (classes - 1)), 0.0]
    probs = np.array([*drawn, flat, certain, tie, all_but_one])
    return probs / probs.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 5, 10, 30])
@pytest.mark.parametrize("distance", [3e-4, 0.05, 0.2, 0.6, 1.0, 2.0])
def test_the_objective_is_that_of_the_linear_program(classes, distance):
    probs = rows(classes)
    served = least_telling(torch.from_numpy(probs), distance).numpy()
    assert (served >= 0).all()
    np.testing.assert_allclose(served.sum(1), 1, rtol=0, atol=1e-12)
    assert np.abs(served - probs).sum(1).max() <= distance + 1e-10
    for row, honest in zip(served, probs, strict=True):
        top = honest.argmax()
        assert row[top] >= np.delete(row, top).max() + MARGIN - 1e-12
        assert abs(row @ np.log(honest + FLOOR) - linear_program(honest, distance)) < 1e-9


def test_a_confident_row_keeps_all_but_two_entries():
    [served] = least_telling(torch.tensor([[0.998, 0.0012, 0.0002, 0.0006]], dtype=torch.float64), 1.0).tolist()
    # 0.5 leave the top class; the least likely takes what the margin allows, and the next one the rest.
    np.testing.assert_allclose(served, [0.498, 0.0012, 0.4979, 0.0029], rtol=0, atol=1e-9)


def test_a_flat_row_may_need_a_larger_top():
    flat = torch.full((1, 1000), 1e-3).double()
    served = least_telling(flat, 0.001)
    assert served[0, 0] > 1e-3
    assert served[0, 0] - served[0, 1:].amax() >= MARGIN - 1e-12


def test_what_is_taken_whole_is_an_exact_zero_of_probability():
    served = ModelGuardW(2.0).apply(torch.tensor([[0.5, 0.45, 0.05]]).log(), torch.zeros(1, 1, 1, 1))
    assert served[0, 1] == -torch.inf
    assert served[0, 0] > served[0, 2] > -torch.inf


def test_many_classes_and_rows_are_searched_in_parts_and_alike():
    log_probs = torch.log_softmax(3 * torch.randn(70, 1000, generator=torch.Generator().manual_seed(0)), 1)
    images = torch.zeros(70, 1, 1, 1)
    served = ModelGuardW().apply(log_probs, images)
    alone = torch.cat([ModelGuardW().apply(log_probs[i : i + 1], images[:1]) for i in range(0, 70, 10)])
    assert torch.equal(served[::10], alone)


@pytest.mark.parametrize("distance", [0.0002, -1.0, 2.5, float("nan")])
def test_a_distance_out_of_range_is_refused(distance):
    with pytest.raises(InputError, match=r"distance must be above 0.0002 .* and at most 2; 1 is usual"):
        ModelGuardW(distance)
