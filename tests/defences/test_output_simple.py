"""Label only, top-k, rounding, high confidence, floor, noise, reverse sigmoid, centroids: each against its formula."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import optimize, stats
from scipy.special import expit

from undistill.defences.output import (
    CentroidServing,
    Floor,
    HighConfidence,
    KeepTopK,
    KeyedNoise,
    LabelOnly,
    OwnData,
    ReverseSigmoid,
    Rounding,
)
from undistill.defences.output.reverse_sigmoid import reverse_sigmoid
from undistill.errors import InputError


def draw(n=40, classes=6, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.log_softmax(scale * torch.randn(n, classes, generator=generator), 1)
    return rows, torch.randint(0, 256, (n, 1, 4, 4), generator=generator).to(torch.uint8).float() / 255


def own(rows, labels=None):
    images = torch.zeros(len(rows), 1, 4, 4, dtype=torch.uint8)
    return OwnData(images, rows, torch.zeros(len(rows), dtype=torch.int64) if labels is None else labels)


def probs_of(log_probs):
    return log_probs.double().exp().numpy()


# --- what leaves out a part


def by_hand(defence, p):
    """One row of probabilities."""
    order = sorted(range(len(p)), key=lambda c: (-p[c], c))
    match defence:
        case LabelOnly():
            return np.eye(len(p))[order[0]]
        case KeepTopK(k, renormalised):
            kept = np.where(np.isin(np.arange(len(p)), order[:k]), p, 0.0)
            return kept / kept.sum() if renormalised else kept
        case Rounding(places):
            rounded = np.array([float(f"{value:.{places}f}") for value in p])
            return rounded if rounded.any() else np.eye(len(p))[order[0]]
        case HighConfidence(cutoff):
            kept = np.where(p >= cutoff, p, 0.0)
            return kept / kept.sum() if kept.any() else np.eye(len(p))[order[0]]


@pytest.mark.parametrize(
    "defence",
    [
        LabelOnly(),
        *(KeepTopK(k, renormalised) for k in (1, 2, 6, 9) for renormalised in (True, False)),
        *(Rounding(places) for places in (1, 3, 7)),
        *(HighConfidence(cutoff) for cutoff in (0.01, 0.25, 0.6, 0.99)),
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_what_leaves_out_does_what_it_says(defence, scale):
    rows, images = draw(scale=scale)
    served = defence.apply(rows, images)
    expected = np.stack([by_hand(defence, row) for row in probs_of(rows)])
    np.testing.assert_allclose(probs_of(served), expected, rtol=1e-5, atol=1e-30)
    assert torch.equal(served == -torch.inf, torch.from_numpy(expected == 0)), "what is not served is an exact zero"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_floor_is_the_projection_that_an_optimiser_finds(share, reverse):
    rows, images = draw(n=12, scale=2.0)
    served, classes = probs_of(Floor(share).apply(rows, images)), rows.shape[1]

    def divergence(q, p):
        return np.sum(p * np.log(p / q)) if reverse else np.sum(q * np.log(q / p))

    for q, p in zip(served, probs_of(rows), strict=True):
        best = optimize.minimize(
            divergence,
            np.full(classes, 1 / classes),
            args=(p,),
            method="SLSQP",
            bounds=[(share / classes, 1.0)] * classes,
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        np.testing.assert_allclose(q, best.x, atol=1e-4)
        assert divergence(q, p) <= best.fun + 1e-7


@pytest.mark.parametrize("share", [0.3, 0.9, 1 - 1e-8, 1 - 1e-15])
def test_a_floor_sums_to_one_to_rounding(share):
    rows = draw(n=200, scale=5.0)[0].double()
    for log_probs in (rows, torch.full((3, 6), 1 / 6).log().double(), torch.eye(6).log().double()):
        served = Floor(share).apply(torch.log_softmax(log_probs, 1), torch.zeros(len(log_probs), 1, 4, 4))
        torch.testing.assert_close(served.exp().sum(1), torch.ones(len(served)).double(), rtol=0, atol=1e-14)


def test_a_floor_bounds_what_any_temperature_can_bring_out():
    rows, images = draw(n=200, scale=20.0)
    served = Floor(0.5).apply(rows, images)
    assert (served.amax(1) - served.amin(1)).max() <= math.log(2 * rows.shape[1])
    gentle = draw(n=200, scale=0.01)[0]
    torch.testing.assert_close(Floor(0.5).apply(gentle, images), gentle)  # what is above it stays as it is


def test_rows_of_which_nothing_would_be_left_keep_their_class():
    flat = torch.full((1, 60), 1 / 61).log()
    flat[0, 7] = math.log(2 / 61)
    images = torch.zeros(1, 1, 4, 4)
    for defence in (Rounding(1), HighConfidence(0.25)):
        assert torch.equal(defence.apply(flat, images).exp(), torch.eye(60)[[7]])


def test_rounding_can_lose_the_decision_to_a_lower_class():
    rows = torch.tensor([[0.333, 0.334, 0.333]]).log()
    assert Rounding(2).apply(rows, torch.zeros(1, 1, 4, 4)).argmax() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KeepTopK(0), "top-k cannot serve 0 classes; k must be at least 1"),
        (lambda: KeepTopK(2.5), "k of top-k is 2.5, must be a whole number, written without a decimal point"),
        (lambda: KeepTopK(math.nan), "k of top-k is nan, must be a whole number"),
        (lambda: KeepTopK(True), "k of top-k is True, must be a whole number"),
        (lambda: Rounding(2.0), "places of rounding is 2.0, must be a whole number"),
        (lambda: KeepTopK(11).check(10), "top-k cannot serve 11 classes where there are 10; k must be 1 to 10"),
        (lambda: Rounding(0), "rounding to 0 decimals is not possible; places must be 1 to 7"),
        (lambda: Rounding(8), "rounding to 8 decimals is not possible"),
        (lambda: HighConfidence(0.0), "high-confidence cannot cut at 0.0; cutoff must lie between 0 and 1"),
        (lambda: HighConfidence(math.nan), "high-confidence cannot cut at nan"),
        (lambda: Floor(0.0), "floor cannot lie at a share of 0.0 of the uniform probability; share must lie between"),
        (lambda: Floor(1.0), "floor cannot lie at a share of 1.0"),
        (lambda: Floor(math.nan), "floor cannot lie at a share of nan"),
        (lambda: KeyedNoise(0.0), "noise of scale 0.0 is not possible; scale must be finite and above 0"),
        (lambda: KeyedNoise(math.nan), "noise of scale nan"),
        (lambda: KeyedNoise(math.inf), "noise of scale inf"),
        (lambda: KeyedNoise(space="logit"), "unknown space of noise 'logit'; did you mean 'logits'?"),
        (lambda: KeyedNoise(key=""), "the key of noise is empty; give a secret of your own"),
        (lambda: ReverseSigmoid(beta=0.1, kept=0.9), "one of beta, l1 and kept, got beta=0.1, kept=0.9; leave out all"),
        (lambda: ReverseSigmoid(beta=0.0), "reverse-sigmoid: beta is 0.0, must be finite and above 0"),
        (lambda: ReverseSigmoid(beta=math.inf), "reverse-sigmoid: beta is inf"),
        (lambda: ReverseSigmoid(gamma=-1.0), "reverse-sigmoid: gamma is -1.0, must be finite and above 0"),
        (lambda: ReverseSigmoid(l1=2.0), "reverse-sigmoid: l1 is 2.0, must be above 0 and below 2"),
        (lambda: ReverseSigmoid(kept=0.0), "reverse-sigmoid: kept is 0.0, must be a share above 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type would be refused before the value
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        make()


# --- noise


@pytest.mark.parametrize("space", ["probabilities", "logits"])
@pytest.mark.parametrize("keeps_top1", [True, False])
def test_noise_is_added_where_it_is_said(space, keeps_top1):
    rows, images = draw(200, 6)
    defence = KeyedNoise(0.1, space, keeps_top1)
    served = probs_of(defence.apply(rows, images))
    draws = KeyedNoise._draws(defence, images, 6).numpy()
    p = probs_of(rows)
    noisy = np.maximum(p + 0.1 * draws, 0) if space == "probabilities" else p * np.exp(0.1 * draws)
    noisy /= noisy.sum(1, keepdims=True)
    if keeps_top1:
        for row, honest in zip(noisy, p, strict=True):
            first, now = honest.argmax(), row.argmax()
            row[[first, now]] = row[[now, first]]
    np.testing.assert_allclose(served, noisy, rtol=1e-4, atol=1e-7)
    if not keeps_top1:
        assert (served.argmax(1) != p.argmax(1)).any()


def test_draws_are_standard_normal_and_independent():
    images = draw(3000)[1]
    draws = KeyedNoise()._draws(images, 4).numpy()
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(draws, rowvar=False) - np.eye(4)
    assert np.abs(correlations).max() < 0.08
    assert len(np.unique(draws)) > 0.999 * draws.size


def test_the_draws_are_those_of_the_specification():
    """So that another implementation, or a later version, can serve the same answers."""
    import hashlib

    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
    stream = hashlib.shake_256(hashlib.sha256(b"secret").digest() + bytes([0, 255, 128, 64])).digest(12)
    words = [int.from_bytes(stream[i : i + 4], "little") for i in (0, 4, 8)]
    expected = [stats.norm.ppf((word + 0.5) / 2**32) for word in words]
    np.testing.assert_allclose(KeyedNoise(key="secret")._draws(image, 3).numpy()[0], expected, rtol=1e-9)


def test_noise_is_a_function_of_the_grey_levels_and_the_key():
    rows, images = draw(20)
    served = KeyedNoise(0.1).apply(rows, images)
    jitter = (torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 0.5) * 0.98 / 255
    assert torch.equal(KeyedNoise(0.1).apply(rows, (images + jitter).clamp(0, 1)), served)
    assert torch.equal(KeyedNoise(0.1).apply(rows, images.to(memory_format=torch.channels_last)), served)
    other = images.clone()
    other[:, 0, 0, 0] = (other[:, 0, 0, 0] - 1 / 255).abs()  # one grey level of one pixel
    for changed in (KeyedNoise(0.1).apply(rows, other), KeyedNoise(0.1, key="another").apply(rows, images)):
        assert (changed != served).any(1).all()


def test_noise_that_leaves_nothing_leaves_the_decision():
    classes = 3
    rows, images = torch.full((400, classes), 1 / classes).log(), draw(400)[1]
    defence = KeyedNoise(5.0, keeps_top1=False)
    below = (defence._draws(images, classes) * 5 + 1 / classes <= 0).all(1)
    assert below.any()
    assert torch.equal(defence.apply(rows, images)[below].exp(), torch.eye(classes)[[0]].expand(int(below.sum()), -1))


def test_a_key_is_shown_nowhere():
    defence = KeyedNoise(key="hush")
    assert "hush" not in f"{defence!r} {defence} {defence.description()}"
    assert defence.description() != KeyedNoise(key="hushed").description()


# --- reverse sigmoid


def reversed_by_hand(p, beta, gamma):
    with np.errstate(divide="ignore"):
        odds = np.log(p) - np.log1p(-p)
    moved = np.clip(p - beta * (expit(gamma * odds) - 0.5), 0, 1)
    return moved / moved.sum(1, keepdims=True)


@pytest.mark.parametrize(("beta", "gamma"), [(0.02, 0.2), (0.5, 0.2), (1.0, 1.0), (3.0, 5.0)])
def test_reverse_sigmoid_is_its_formula(beta, gamma):
    rows, images = draw(classes=20, scale=1.5)
    rows = torch.log_softmax(rows.double(), 1)
    served = ReverseSigmoid(beta=beta, gamma=gamma).set_up(own(rows[:0])).apply(rows, images)
    np.testing.assert_allclose(probs_of(served), reversed_by_hand(probs_of(rows), beta, gamma), rtol=1e-9, atol=1e-12)


def test_nothing_is_lost_where_the_teacher_is_sure():
    """1 - p of the largest class is far below the resolution of its probability."""
    gap = 40.0  # nats
    rows = torch.log_softmax(torch.tensor([[gap, 0.0, 0.0]], dtype=torch.float64), 1)
    served = reverse_sigmoid(rows, beta=1.0, gamma=0.05)[0].numpy()
    rest = math.exp(-gap)
    odds = np.array([gap - math.log(2), -gap, -gap])
    moved = np.array([1 - 2 * rest, rest, rest]) - (expit(0.05 * odds) - 0.5)
    np.testing.assert_allclose(served, moved / moved.sum(), rtol=1e-12)


def test_certain_answers_are_limits():
    served = reverse_sigmoid(torch.eye(4).log(), beta=0.1, gamma=0.2)
    moved = np.array([0.95, 0.05, 0.05, 0.05])
    np.testing.assert_allclose(served[0].numpy(), moved / moved.sum(), rtol=1e-12)


@pytest.mark.parametrize("l1", [0.05, 0.5, 1.2])
def test_strength_is_found_for_a_mean_move(l1):
    rows, images = draw(500, 20)
    transform = ReverseSigmoid(l1=l1).set_up(own(rows))
    moves = np.abs(probs_of(transform.apply(rows, images)) - probs_of(rows)).sum(1)
    assert moves.mean() == pytest.approx(l1, rel=1e-4)
    assert transform.facts() == {"beta": pytest.approx(transform.beta)}
    assert ReverseSigmoid().l1 == 1.0


@pytest.mark.parametrize("kept", [1.0, 0.9, 0.5])
def test_strength_keeps_enough_decisions_and_a_little_more_does_not(kept):
    rows, images = draw(500, 20, scale=1.0)
    beta = ReverseSigmoid(kept=kept, gamma=1.0).set_up(own(rows)).beta

    def share(strength):
        served = ReverseSigmoid(beta=strength, gamma=1.0).set_up(own(rows)).apply(rows.double(), images)
        return (served.argmax(1) == rows.argmax(1)).double().mean().item()

    assert share(beta) >= kept > share(1.01 * beta)


def test_a_target_out_of_reach_is_named_with_what_can_be_reached():
    two = torch.log_softmax(torch.tensor([[0.1, 0.0]] * 50), 1)
    words = r"cannot move these answers by 1.9 in the mean of L1: from \S+ to 1.0\d* can be reached with gamma=0.2; "
    with pytest.raises(InputError, match=words + "choose l1 in between"):
        ReverseSigmoid(l1=1.9).set_up(own(two))
    near = torch.log_softmax(torch.tensor([[3e-7, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), 1)
    words = r"a share 0.9 of these answers: beta=1e-06 keeps 0.75 with gamma=1e\+08; choose kept up to that"
    with pytest.raises(InputError, match=words):
        ReverseSigmoid(kept=0.9, gamma=1e8).set_up(own(near))


@pytest.mark.parametrize("kept", [0.5, 1.0])
def test_where_every_strength_keeps_enough_decisions_the_largest_is_taken(kept):
    even = torch.full((10, 4), 0.25).log()
    assert ReverseSigmoid(kept=kept).set_up(own(even)).facts() == {"beta": 10_000}


@pytest.mark.parametrize("classes", [3, 4, 10, 50])
@pytest.mark.parametrize("gamma", [0.2, 1.0])
def test_the_furthest_move_is_found_though_stronger_ones_move_less(classes, gamma):
    """Against a fine grid of strengths."""
    rows = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log() if classes == 4 else draw(30, classes, scale=1.0, seed=classes)[0]
    images = torch.zeros(len(rows), 1, 4, 4)

    def move(beta):
        return np.abs(reversed_by_hand(probs_of(rows), beta, gamma) - probs_of(rows)).sum(1).mean()

    most = max(move(beta) for beta in np.geomspace(1e-6, 1e4, 5000))
    with pytest.raises(InputError, match="in the mean of L1") as refusal:
        ReverseSigmoid(l1=1.01 * most, gamma=gamma).set_up(own(rows))
    said = float(str(refusal.value).split(" to ")[1].split()[0])
    assert said == pytest.approx(most, rel=2e-3)
    transform = ReverseSigmoid(l1=0.995 * most, gamma=gamma).set_up(own(rows))
    assert move(transform.beta) == pytest.approx(0.995 * most, rel=1e-6)
    served = probs_of(transform.apply(rows.double(), images))
    assert np.abs(served - probs_of(rows)).sum(1).mean() == pytest.approx(0.995 * most, rel=1e-6)
    if classes == 4:
        assert most > 1.2 * move(1e4), "a case in which the largest strength does not move furthest"


def test_a_given_strength_needs_no_answers():
    assert not ReverseSigmoid(beta=0.1).learns
    assert ReverseSigmoid().learns


# --- centroids


def test_centroids_are_class_means_of_predicted_classes():
    rows, _ = draw(300, 5)
    transform = CentroidServing().set_up(own(rows))
    asked, images = draw(60, 5, seed=1)
    p = probs_of(rows)
    means = np.stack([p[p.argmax(1) == c].mean(0) for c in range(5)])
    np.testing.assert_allclose(probs_of(transform.apply(asked, images)), means[probs_of(asked).argmax(1)], rtol=1e-5)
    assert transform.facts() == {}


def test_a_class_that_is_never_predicted_is_served_alone_and_reported():
    rows, images = draw(50, 4)
    rows[:, 2] = -30.0
    rows = torch.log_softmax(rows, 1)
    transform = CentroidServing().set_up(own(rows))
    asked = torch.tensor([[0.1, 0.1, 0.7, 0.1]]).log()
    assert torch.equal(transform.apply(asked, images[:1]).exp(), torch.eye(4)[[2]])
    assert transform.facts() == {"never_predicted": [2]}
