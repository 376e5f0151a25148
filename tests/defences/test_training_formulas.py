"""The losses of the defences against their formulas in NumPy, in float64, with gradients by central differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from undistill.defences.training import (
    CMICDL,
    DEFENCES,
    MCMI,
    NCMI,
    AdversarialSparse,
    CrossEntropy,
    LabelSmoothing,
    Nasty,
    Workshop,
)
from undistill.defences.training.adversarial_sparse import adversarial_images
from undistill.defences.training.mcmi import log_class_means
from undistill.defences.training.nasty import another_of_the_class
from undistill.errors import InputError
from undistill.information import kl_divergence

N, C = 9, 4
Y = np.array([0, 1, 2, 3, 0, 1, 2, 0, 0])


def draw(seed, scale=1.5):
    return scale * np.random.default_rng(seed).standard_normal((N, C))


def cross_entropy(z):
    return -log_softmax(z, axis=1)[np.arange(len(z)), Y[: len(z)]]


def kl(p, q):
    return rel_entr(p, q).sum(axis=1)


def check(loss, oracle, z, *beside, rtol=1e-6):
    """Values per example, and the gradient of their mean."""
    logits = torch.tensor(z, requires_grad=True)
    value = loss.double()(logits, torch.tensor(Y), *(torch.tensor(other) for other in beside))
    np.testing.assert_allclose(value.detach().numpy(), oracle(z), rtol=rtol, atol=1e-8)
    value.mean().backward()
    numeric, h = np.zeros_like(z), 1e-5
    for place in np.ndindex(*z.shape):
        moved = np.zeros_like(z)
        moved[place] = h
        numeric[place] = (oracle(z + moved).mean() - oracle(z - moved).mean()) / (2 * h)
    np.testing.assert_allclose(logits.grad.numpy(), numeric, rtol=1e-4, atol=1e-7)


def test_cross_entropy_and_label_smoothing():
    z = draw(0)
    check(CrossEntropy().loss(C, 1), cross_entropy, z)
    smooth = 0.8 * np.eye(C)[Y] + 0.2 / C
    check(LabelSmoothing(0.2).loss(C, 1), lambda z: -(smooth * log_softmax(z, axis=1)).sum(axis=1), z)


def running_means(batches, decay, start=0.0, weight=0.0):
    """Class means over batches, each batch that holds a class making its past lighter."""
    sums, counts = start * weight * np.ones((C, C)), np.full(C, float(weight))
    for z in batches:
        p = softmax(z, axis=1)
        for y in set(Y):
            of_class = p[y == Y]
            sums[y] = decay * sums[y] + of_class.sum(axis=0)
            counts[y] = decay * counts[y] + len(of_class)
    return sums / counts[:, None]


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_cmic_dl(floor):
    defence = CMICDL(weight=0.7, separation=0.4, floor=floor, decay=0.6)
    first, z = draw(1), draw(2, scale=3.0)
    loss = defence.loss(C, 1).double()
    loss(torch.tensor(first), torch.tensor(Y))
    q = running_means([first, z], 0.6)

    def oracle(z):
        p, log_p = softmax(z, axis=1), log_softmax(z, axis=1)
        if floor:
            log_p = np.maximum(log_p, np.log(floor / C))
        gamma = np.zeros(N)
        for i in range(N):
            for j in range(N):
                if Y[i] != Y[j]:
                    gamma[i] -= p[i] @ log_p[j] / N
        return cross_entropy(z) + 0.7 * kl(p, q[Y]) - 0.4 * gamma

    assert floor == 0.0 or (softmax(z, axis=1) < floor / C).any(), "or the floor is not tested"
    check(loss, oracle, z)


def test_cmic_dl_cannot_gain_by_growing_logits():
    z = 50.0 * torch.eye(C, dtype=torch.float64)[Y]
    values = [CMICDL().loss(C, 1).double()(scale * z, torch.tensor(Y)).mean() for scale in (1, 10)]
    torch.testing.assert_close(*values)
    unbounded = [CMICDL(floor=0.0).loss(C, 1).double()(scale * z, torch.tensor(Y)).mean() for scale in (1, 10)]
    assert unbounded[1] < unbounded[0] - 1


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_ncmi(floor):
    defence = NCMI(anchor=0.7, images=5.0, floor=floor, decay=0.8)
    first, z = draw(3), draw(4, scale=3.0)
    loss = defence.loss(C, 1).double()
    loss(torch.tensor(first), torch.tensor(Y))
    q = running_means([first, z], 0.8, 0.1 + 0.6 * np.eye(C), 5.0)

    def oracle(z):
        p = softmax(z, axis=1)
        gamma = [
            sum((q[c] * np.log(q[c] / np.maximum(row, floor / C))).sum() for c in range(C) if c != y) / C
            for row, y in zip(p, Y, strict=True)
        ]
        return kl(p, q[Y]) / (np.maximum(gamma, 0) + 0.01)

    check(loss, oracle, z)


def test_ncmi_knows_which_logit_is_which_class_by_its_anchors():
    right = 4 * torch.eye(C)[Y]
    for shift in (1, 2):
        loss, renamed = NCMI().loss(C, 1), NCMI().loss(C, 1)
        assert (loss(right, torch.tensor(Y)) < renamed(right.roll(shift, dims=1), torch.tensor(Y))).all()


@pytest.mark.parametrize("direction", ["nasty-to-normal", "normal-to-nasty"])
@pytest.mark.parametrize("reduction", ["batch-mean", "all-mean"])
def test_nasty(direction, reduction):
    z, normal = draw(5), draw(6)
    defence = Nasty(temperature=4.0, weight=0.04, direction=direction, reduction=reduction)

    def oracle(z):
        p, n = softmax(z / 4, axis=1), softmax(normal / 4, axis=1)
        apart = kl(p, n) if direction == "nasty-to-normal" else kl(n, p)
        return cross_entropy(z) - 0.04 * 16 * apart / (C if reduction == "all-mean" else 1)

    check(defence.loss(C, 1), oracle, z, normal)


def test_nasty_is_bounded_in_its_own_direction_alone():
    normal = torch.tensor(draw(6))
    bound = -(normal / 4).log_softmax(dim=1).amin(dim=1)
    far = 1e4 * F.one_hot(normal.argmin(dim=1), C).double()
    apart = {
        direction: Nasty(temperature=4.0, direction=direction).divergence(far, normal)
        for direction in ("nasty-to-normal", "normal-to-nasty")
    }
    torch.testing.assert_close(apart["nasty-to-normal"], bound)
    assert (apart["normal-to-nasty"] > 10 * bound).all()


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_ast(kept):
    z, adversarial = draw(7), draw(8)
    defence = AdversarialSparse(share=0.3, temperature=6.0, kept=kept)
    sparse = np.zeros((N, C))
    for i, row in enumerate(adversarial):
        top = np.argsort(row)[-kept:]
        sparse[i, top] = softmax(row[top] / 6)

    def oracle(z):
        pull = (np.exp(sparse) * (sparse - softmax(z / 6, axis=1))).sum(axis=1)
        return 0.7 * cross_entropy(z) + 0.3 * 36 * pull

    check(defence.loss(C, 1), oracle, z, adversarial)


def test_asts_pull_is_no_divergence():
    loss = AdversarialSparse(share=1.0, temperature=1.0, kept=C).loss(C, 1)
    adversarial = torch.tensor(draw(8))
    torch.testing.assert_close(
        loss(adversarial, torch.tensor(Y), adversarial), torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-12
    )
    one_hot = 100 * F.one_hot(adversarial.argmax(dim=1), C).double()
    assert (loss(one_hot, torch.tensor(Y), adversarial) < 0).all()


def test_adversarial_images_are_those_of_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (70, 1, 3, 3), generator=generator, dtype=torch.uint8)
    labels = torch.arange(70) % C
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, C)).requires_grad_(False)
    weight, bias = network[1].weight.double().numpy(), network[1].bias.double().numpy()
    made = adversarial_images(network, images, labels, radius=0.11, step=0.04, iterations=5)
    clean = images.double().numpy().reshape(70, 9) / 255
    moved = clean.copy()
    for _ in range(5):
        p = softmax(moved @ weight.T + bias, axis=1)
        moved = moved + 0.04 * np.sign((p - np.eye(C)[labels]) @ weight)
        moved = np.clip(np.clip(moved, clean - 0.11, clean + 0.11), 0, 1)
    assert made.dtype == torch.uint8
    np.testing.assert_array_equal(made.numpy().reshape(70, 9), np.round(255 * moved))
    assert (np.abs(moved - clean).max(axis=1) > 0.1).all(), "they move as far as they may"
    before, after = (F.cross_entropy(network(x.float() / 255), labels) for x in (images, made))
    assert after > before


def test_mcmi():
    z, normal = draw(9), draw(10)
    q = np.stack([softmax(normal[y == Y], axis=1).mean(axis=0) for y in range(C)])
    np.testing.assert_allclose(log_class_means(torch.tensor(normal), torch.tensor(Y)).exp().numpy(), q, rtol=1e-12)
    loss = MCMI(weight=0.15).loss(C, 1).double()
    loss.log_centroids.copy_(torch.tensor(np.log(q)))

    def oracle(z):
        return cross_entropy(z) - 0.15 * kl(softmax(z, axis=1), q[Y])

    check(loss, oracle, z)
    # The closed form: d KL(P || Q) / dz_k = P_k (log(P_k / Q_k) - KL).
    logits = torch.tensor(z, requires_grad=True)
    (loss(logits, torch.tensor(Y)) - F.cross_entropy(logits, torch.tensor(Y), reduction="none")).sum().backward()
    p = softmax(z, axis=1)
    closed = -0.15 * p * (np.log(p / q[Y]) - kl(p, q[Y])[:, None])
    np.testing.assert_allclose(logits.grad.numpy(), closed, rtol=1e-9, atol=1e-12)


def test_class_means_do_not_underflow():
    logits = torch.tensor([[0.0, -1000.0], [0.0, -1000.0], [-1000.0, 0.0]])
    means = log_class_means(logits, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(means, torch.tensor([[0.0, -1000.0], [-1000.0, 0.0]], dtype=torch.float64))
    with pytest.raises(InputError, match=r"1 class\(es\) have no sample, and so no mean \(first: 1\)"):
        log_class_means(logits, torch.tensor([0, 0, 0]))


def test_kl_is_of_the_first_from_the_second_and_exact_at_zeros():
    p, q = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), np.array([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    found = kl_divergence(torch.tensor(p).log(), torch.tensor(q).log())
    np.testing.assert_allclose(found.numpy(), kl(p, q), rtol=1e-12)
    assert kl_divergence(torch.tensor(q).log(), torch.tensor(p).log()).isinf().all()


def test_another_of_the_class():
    labels = torch.tensor(Y)
    others = another_of_the_class(labels)
    assert sorted(others.tolist()) == list(range(N)), "each is taken once"
    assert torch.equal(labels[others], labels)
    assert (others != torch.arange(N))[labels != 3].all(), "class 3 has one image"


@pytest.mark.parametrize(("scale", "nasty"), [(0.0, False), (1.0, True)])
def test_the_check_of_nasty_tells_a_copy_from_a_nasty_teacher(scale, nasty):
    """A teacher that is the normal one is not nasty; one whose second guesses are turned round is."""

    labels = torch.arange(40) % C
    z = torch.randn(40, C, generator=torch.Generator().manual_seed(0)) + 8 * F.one_hot(labels, C)
    hidden = z.masked_fill(F.one_hot(labels, C).bool(), 0.0)

    class Bench(Workshop):
        images, started = torch.zeros(40, 1, dtype=torch.uint8), False
        teacher, normal = nn.Identity(), nn.Flatten()

        def logits(self, network):
            return z if network is self.normal else z - 2 * scale * hidden

        def once(self, name, make):
            return make()

    Bench.labels = labels
    found = Nasty(temperature=4.0).check(Bench())
    assert found.holds is nasty
    assert found.sentence.startswith("became nasty" if nasty else "did NOT become nasty")
    assert (found.numbers["second_guess_agreement"] == 100.0) is not nasty
    p, n = (softmax(logits.double().numpy() / 4, axis=1) for logits in (z - 2 * scale * hidden, z))
    expected = kl(p, n).mean()
    assert found.numbers["divergence"] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_every_defence_is_tested_here():
    """cmim has a file of its own."""
    assert DEFENCES.keys() == {"ce", "label-smoothing", "cmim", "cmic-dl", "ncmi", "nasty", "ast", "mcmi"}
