"""CMIMLoss: values and gradients against the formulas, the centroids, and its life in a training loop."""

import math
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from undistill.defences.training import CMIMLoss
from undistill.errors import InputError
from undistill.information import cmi, spectrum_compute, spectrum_update

WORKER = Path(__file__).with_name("cmim_worker.py")
POWERS = (1 / 20, 1 / 4, 1.0)


def draw(seed, n=12, classes=5, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (n,), generator=generator)


def weights_of(weighting, powers):
    if weighting == "inverse-square":
        return np.array([1 / a**2 for a in powers])
    if weighting == "none":
        return np.ones(len(powers))
    # A mean of piecewise linear interpolation over log a.
    grid = np.log(powers)
    return np.array([np.trapezoid(row, grid) for row in np.eye(len(powers))]) / (grid[-1] - grid[0]) * len(powers)


def expected_step(history, powers, decay, weight, weighting, aggregation, exponent=4.0):
    """J and dJ/dz of the last batch of ``history``, from the formulas: centroids as explicitly weighted means, the
    gradient of KL in closed form."""
    z, y = (tensor.numpy() for tensor in history[-1])
    information, gradients = [], []
    for a in powers:
        log_p = log_softmax(a * z, axis=1)
        p = np.exp(log_p)
        centroids = {}
        for c in set(y):
            rows, row_weights, age = [], [], 0
            for past_z, past_y in reversed([(zz.numpy(), yy.numpy()) for zz, yy in history]):
                if (past_y == c).any():
                    of_class = softmax(a * past_z[past_y == c], axis=1)
                    rows.append(of_class)
                    row_weights += [decay**age] * len(of_class)
                    age += 1
            centroids[c] = np.average(np.concatenate(rows), axis=0, weights=row_weights)
        ratio = log_p - np.log(np.stack([centroids[c] for c in y]))
        kl = (p * ratio).sum(axis=1)
        information.append(kl.mean())
        gradients.append(a * p * (ratio - kl[:, None]) / len(y))
    w = weights_of(weighting, powers)
    x = w * np.array(information)
    if aggregation == "mean":
        value, c = x.mean(), w / len(w)
    elif aggregation == "maximum":
        value, c = x.max(), w * (x == x.max())
    else:
        value = np.mean(x**exponent) ** (1 / exponent)
        c = w * x ** (exponent - 1) * value ** (1 - exponent) / len(w)
    cross_entropy = -log_softmax(z, axis=1)[np.arange(len(y)), y].mean()
    gradient = (softmax(z, axis=1) - np.eye(z.shape[1])[y]) / len(y)
    total = gradient + weight * sum(factor * part for factor, part in zip(c, gradients, strict=True))
    return cross_entropy + weight * value, total


@pytest.mark.parametrize("weighting", ["inverse-square", "log-uniform", "none"])
@pytest.mark.parametrize("aggregation", ["mean", "maximum", "power-mean"])
def test_value_and_gradient_are_those_of_the_formula(weighting, aggregation):
    loss = CMIMLoss(5, 0.7, powers=POWERS, weighting=weighting, aggregation=aggregation, decay=0.8).double()
    history = [draw(seed) for seed in range(3)]
    for logits, target in history:
        logits = logits.clone().requires_grad_()
        value = loss(logits, target)
    value.backward()
    expected, gradient = expected_step(history, POWERS, 0.8, 0.7, weighting, aggregation)
    assert value.item() == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(logits.grad, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("centroids", ["free", "symmetric"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_by_finite_differences_with_centroids_held_fixed(centroids, reduction):
    loss = CMIMLoss(5, powers=POWERS, centroids=centroids, reduction=reduction).double()
    loss(*draw(0, n=40))
    logits, target = draw(1)
    assert torch.autograd.gradcheck(loss.eval(), (logits.requires_grad_(), target))


@pytest.mark.parametrize("aggregation", ["mean", "maximum", "power-mean"])
def test_examples_average_to_the_whole(aggregation):
    settings = {"powers": POWERS, "aggregation": aggregation}
    whole, each = CMIMLoss(5, **settings), CMIMLoss(5, reduction="none", **settings)
    logits, target = draw(0, dtype=torch.float32)
    assert each(logits, target).shape == (12,)
    torch.testing.assert_close(each(logits, target).mean(), [whole(logits, target) for _ in range(2)][1])


@pytest.mark.parametrize(("classes", "n"), [(2, 1), (2, 7), (1000, 32)])
def test_any_number_of_classes(classes, n):
    loss = CMIMLoss(classes, powers=POWERS)
    history = [draw(seed, n=n, classes=classes) for seed in range(2)]
    for logits, target in history:
        logits = logits.float().requires_grad_()
        value = loss(logits, target)
    value.backward()
    expected, gradient = expected_step(history, POWERS, 0.9, 1.0, "inverse-square", "mean")
    assert value.item() == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(logits.grad, gradient, rtol=1e-2, atol=1e-5)


def test_weight_zero_is_cross_entropy():
    logits, target = draw(0)
    for reduction in ("mean", "sum", "none"):
        value = CMIMLoss(5, 0.0, reduction=reduction).double()(logits, target)
        torch.testing.assert_close(value, F.cross_entropy(logits, target, reduction=reduction))


def test_first_batch_and_rare_classes_have_their_true_means():
    loss = CMIMLoss(3, powers=(1.0,), decay=0.9).double()
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    loss(logits, torch.tensor([2, 2]))
    rare = logits.softmax(dim=1).mean(dim=0)
    for seed in range(30):
        common, target = draw(seed, classes=3)
        loss(common, target % 2)
    bank = loss.centroids
    torch.testing.assert_close(bank.sums[0, 2] / bank.counts[2], rare)
    torch.testing.assert_close(bank.sums[0].sum(dim=1), bank.counts)


def test_a_class_seen_once_in_a_batch_gets_a_gradient():
    loss = CMIMLoss(3, 1.0, powers=(1 / 4,), reduction="none").double()
    (first, second), target = draw(0, n=2, classes=3)[0].split(1), torch.tensor([1])
    for logits, has_gradient in ((first, False), (second, True)):
        logits = logits.clone().requires_grad_()
        (loss(logits, target) - F.cross_entropy(logits, target)).sum().backward()
        assert (logits.grad.abs().max() > 1e-3) == has_gradient


def test_evaluation_changes_nothing_and_needs_known_classes():
    loss = CMIMLoss(5, ramp_steps=3)
    logits, _ = draw(0, dtype=torch.float32)
    loss(logits, torch.arange(12) % 3)
    state = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    loss.eval()(logits, torch.arange(12) % 2)
    assert all(torch.equal(state[name], tensor) for name, tensor in loss.state_dict().items())
    with pytest.raises(InputError, match=r"2 class\(es\) of this batch have no centroid yet \(first: 3, 4\)"):
        loss(logits, torch.arange(12) % 5)


def test_state_dict_resumes_exactly():
    loss, resumed = CMIMLoss(5, ramp_steps=10), CMIMLoss(5, ramp_steps=10)
    for seed in range(3):
        loss(*draw(seed, dtype=torch.float32))
    resumed.load_state_dict(loss.state_dict())
    batch = draw(3, dtype=torch.float32)
    assert torch.equal(loss(*batch), resumed(*batch))
    assert torch.equal(loss(*batch), pickle.loads(pickle.dumps(resumed))(*batch))
    assert sorted(loss.state_dict()) == ["centroids.counts", "centroids.sums", "steps"]


def test_ramp_grows_from_nothing_over_training_calls():
    plain, ramped = CMIMLoss(5), CMIMLoss(5, ramp_steps=4)
    batch = draw(0, dtype=torch.float32)
    cross_entropy = F.cross_entropy(*batch)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0, 1.0):
        full = plain(*batch) - cross_entropy
        torch.testing.assert_close(ramped(*batch) - cross_entropy, share * full, rtol=1e-4, atol=1e-5)


def test_recomputed_centroids_make_the_term_equal_to_cmi():
    loss = CMIMLoss(5, powers=POWERS, weighting="none").double()
    loss(*draw(9))
    logits, target = draw(0, n=60)
    loss.recompute(zip(logits.split(7), target.split(7), strict=True))
    term = loss.eval()(logits, target) - F.cross_entropy(logits, target)
    assert term.item() == pytest.approx(np.mean([cmi(logits, target, a) for a in POWERS]), rel=1e-9)
    assert torch.equal(loss.centroids.counts, target.bincount(minlength=5).double())
    # A later batch of class c weighs n against decay * N.
    more = draw(1, n=2)[0]
    loss.train()(more, torch.tensor([3, 3]))
    assert loss.centroids.counts[3] == pytest.approx(0.9 * int((target == 3).sum()) + 2)
    with pytest.raises(InputError, match="needs at least one batch"):
        loss.recompute([])


def test_symmetric_centroids_are_the_nearest_of_their_family():
    logits, target = draw(0, n=50)
    loss = CMIMLoss(5, powers=(0.5,), weighting="none", centroids="symmetric").double()
    term = (loss(logits, target) - F.cross_entropy(logits, target)).item()
    probs = softmax(0.5 * logits.numpy(), axis=1)
    hot = np.eye(5)[target.numpy()]

    def distance(mass):
        centroids = hot * mass + (1 - hot) * (1 - mass) / 4
        return np.mean(np.sum(probs * np.log(probs / centroids), axis=1))

    assert term == pytest.approx(minimize_scalar(distance, bounds=(0.01, 0.99), method="bounded").fun, rel=1e-8)
    recomputed = CMIMLoss(5, powers=(0.5,), centroids="symmetric").double()
    recomputed.recompute([(logits, target)])
    torch.testing.assert_close(recomputed.centroids.sums, loss.centroids.sums)


@pytest.mark.parametrize("centroids", ["free", "symmetric"])
@pytest.mark.parametrize("aggregation", ["mean", "maximum", "power-mean"])
def test_extreme_logits_stay_finite(centroids, aggregation):
    loss = CMIMLoss(5, powers=POWERS, centroids=centroids, aggregation=aggregation)
    for seed in range(5):
        logits, target = draw(seed, dtype=torch.float32)
        logits = (200 * logits.sign()).requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()
    assert loss.eval()(-logits, target).isfinite()
    constant = torch.zeros(4, 5, requires_grad=True)
    CMIMLoss(5, aggregation=aggregation, centroids=centroids)(constant, torch.arange(4)).backward()
    assert constant.grad.isfinite().all()


def test_overflowed_rows_stay_out_of_the_centroids():
    logits, target = draw(0, dtype=torch.float32)
    broken = logits.clone()
    broken[2, 0], broken[5, 1] = math.inf, math.nan
    intact = [i for i in range(12) if i not in (2, 5)]
    for aggregation in ("mean", "maximum"):
        loss, without = (CMIMLoss(5, reduction="none", aggregation=aggregation) for _ in range(2))
        value = loss(broken, target)
        without(logits[intact], target[intact])
        assert value.isnan().nonzero()[:, 0].tolist() == [2, 5]
        torch.testing.assert_close(loss.centroids.sums, without.centroids.sums)
        torch.testing.assert_close(loss.centroids.counts, without.centroids.counts)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(autocast):
    logits, target = draw(0)
    half = logits.bfloat16().requires_grad_()
    full = half.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = CMIMLoss(5)(half, target)
    expected = CMIMLoss(5)(full, target)
    value.backward()
    expected.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad, full.grad.bfloat16())


def test_float32_keeps_the_digits_of_small_powers():
    powers = (1 / 20,)
    history = [draw(seed, n=50, scale=0.3) for seed in range(2)]
    loss = CMIMLoss(5, powers=powers)
    values = [loss(logits.float(), target) - F.cross_entropy(logits, target) for logits, target in history]
    expected, _ = expected_step(history, powers, 0.9, 1.0, "inverse-square", "mean")
    assert values[-1].item() == pytest.approx(expected - F.cross_entropy(*history[-1]).item(), rel=2e-3)


def test_minimising_it_removes_the_spread():
    logits, target = draw(0, n=60, dtype=torch.float32)
    parameters = logits.clone().requires_grad_()
    loss = CMIMLoss(5, powers=POWERS)
    optimiser = torch.optim.SGD([parameters], lr=5.0)
    for _ in range(100):
        optimiser.zero_grad()
        loss(parameters, target).backward()
        optimiser.step()
    before, after = (spectrum_compute(spectrum_update(z.detach(), target)) for z in (logits, parameters))
    assert after.supremum < before.supremum / 100
    assert after.within_variance < before.within_variance / 10


def test_two_processes_train_as_one(tmp_path):
    names = runpy.run_path(str(WORKER))
    processes = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), str(tmp_path / "meet"), str(tmp_path / f"{rank}.pt")])
        for rank in range(2)
    ]
    alone = names["make_loss"]()
    values, gradients = [], []
    for logits, target, _ in names["steps"]():
        logits.requires_grad_()
        value = alone(logits, target)
        value.sum().backward()
        values.append(value.detach())
        gradients.append(logits.grad)
    running = {name: tensor.clone() for name, tensor in alone.state_dict().items()}
    alone.recompute((logits, target) for logits, target, _ in names["steps"]())
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for state, expected in (("running", running), ("exact", alone.state_dict())):
        for name, tensor in expected.items():
            assert torch.equal(first[state][name], second[state][name])
            torch.testing.assert_close(first[state][name], tensor)
    for name, expected in (("values", values), ("gradients", gradients)):
        for step, tensor in enumerate(expected):
            torch.testing.assert_close(torch.cat([first[name][step], second[name][step]]), tensor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, r"weight must be a finite number of at least 0, got -1\.0"),
        ({"weight": -1.0, "decay": 1.0}, r"got -1\.0; decay must lie in \[0, 1\), got 1\.0"),
        ({"exponent": 0.5}, "exponent of the power mean must be a finite number of at least 1"),
        ({"powers": ()}, "at least one power is needed"),
        ({"powers": (1.0, -0.5, math.nan)}, r"powers must be finite numbers above 0 .* 2 of 3 are not: -0\.5, nan"),
        ({"weighting": "inverse"}, "unknown weighting 'inverse'; did you mean 'inverse-square'"),
        ({"aggregation": "max"}, "unknown aggregation 'max'; did you mean 'maximum'"),
        ({"centroids": "fixed"}, "unknown centroids 'fixed'"),
        ({"reduction": "batchmean"}, "unknown reduction 'batchmean'; did you mean 'mean'"),
        ({"ramp_steps": -1}, "ramp_steps counts training steps"),
        ({"num_classes": 1}, "at least 2 classes"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        CMIMLoss(**{"num_classes": 5, **settings})


def test_bad_batches_are_named():
    loss = CMIMLoss(5)
    logits, target = draw(0, dtype=torch.float32)
    with pytest.raises(InputError, match=r"shape \[batch, 5\], got torch.float32 of shape \[12, 4\]"):
        loss(logits[:, :4], target)
    with pytest.raises(InputError, match=r"one integer class for each of the 12 rows .* hard labels"):
        loss(logits, F.one_hot(target, 5).float())
    with pytest.raises(InputError, match=r"targets must lie in \[0, 5\), but 2 of 12 do not \(first: -100\)"):
        loss(logits, target.index_fill(0, torch.tensor([3, 4]), -100))
    assert loss.centroids.counts.sum() == 0
    with pytest.raises(InputError, match=r"kept in torch\.float16, which is too coarse"):
        loss.half()(logits, target)
