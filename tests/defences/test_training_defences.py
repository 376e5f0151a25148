"""What every defence by training must do, and the settings of each."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from undistill.defences.training import (
    CMICDL,
    CMIM,
    DEFENCES,
    MCMI,
    NCMI,
    AdversarialSparse,
    CMIMLoss,
    CrossEntropy,
    LabelSmoothing,
    Nasty,
    Workshop,
)
from undistill.errors import InputError

EVERY = [
    *(defence() for defence in DEFENCES.values()),
    Nasty(direction="normal-to-nasty", reduction="all-mean"),
    CMICDL(floor=0.0),
    NCMI(floor=0.0),
    CMIM(held_out=0.4),
]
every = pytest.mark.parametrize("defence", EVERY, ids=lambda defence: f"{defence.name}-{EVERY.index(defence)}")


class Bench(Workshop):
    """A workshop with linear networks on random images, three of each class."""

    def __init__(self, classes):
        generator = torch.Generator().manual_seed(classes)
        self.images = torch.randint(256, (3 * classes, 1, 4, 4), generator=generator, dtype=torch.uint8)
        self.labels = torch.arange(3 * classes) % classes
        self.teacher, self._normal = self.linear(classes, generator), self.linear(classes, generator)
        self._normal.eval().requires_grad_(False)
        self.started = False
        self.made = []

    @staticmethod
    def linear(classes, generator):
        layer = nn.Linear(16, classes)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(classes, 16, generator=generator))
            layer.bias.zero_()
        return nn.Sequential(nn.Flatten(), layer)

    @property
    def normal(self):
        return self._normal

    def logits(self, network):
        with torch.no_grad():
            return network(self.images.float() / 255)

    def once(self, name, make):
        self.made.append(name)
        return make()


def begin(defence, classes=4):
    """A loss as it is before the first step, and a function that takes a step's logits, targets and places."""
    workshop = Bench(classes)
    if isinstance(defence, AdversarialSparse):
        defence = dataclasses.replace(defence, iterations=2)
    loss = defence.loss(num_classes=classes, steps=20)
    defence.prepare(loss, workshop)

    def step(logits, target, indices=None):
        indices = torch.arange(len(target)) if indices is None else indices
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            beside = defence.beside(loss, workshop, workshop.images[indices].float() / 255, indices)
        return loss(logits, target) if beside is None else loss(logits, target, 20 * beside)

    return loss, step


def draw(n=10, classes=4, scale=2.0):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, classes, generator=generator), torch.arange(n) % classes


def test_registry_holds_every_defence_by_its_name():
    assert list(DEFENCES) == ["ce", "label-smoothing", "cmim", "cmic-dl", "ncmi", "nasty", "ast", "mcmi"]
    assert all(name == defence.name for name, defence in DEFENCES.items())
    assert all(defence.summary and "\n" not in defence.summary for defence in DEFENCES.values())
    assert all(defence.source for defence in DEFENCES.values())
    assert [name for name, defence in DEFENCES.items() if defence.needs_normal] == ["nasty", "ast", "mcmi"]
    assert [name for name, defence in DEFENCES.items() if defence().fine_tuning is not None] == ["mcmi"]


@every
def test_is_a_frozen_value(defence):
    assert defence == dataclasses.replace(defence)
    assert hash(defence) == hash(dataclasses.replace(defence))
    with pytest.raises(dataclasses.FrozenInstanceError):
        defence.name = "other"


@every
@pytest.mark.parametrize("classes", [2, 4, 1000])
@pytest.mark.parametrize("n", [1, 6])
def test_loss_is_one_finite_value_per_example(defence, classes, n):
    """At logits of +-200, too, where probabilities underflow."""
    _, step = begin(defence, classes)
    extreme = torch.where(torch.arange(n * classes).reshape(n, classes) % 3 == 0, 200.0, -200.0)
    for logits in (draw(n, classes, scale=200.0)[0], extreme, torch.zeros(n, classes)):
        logits.requires_grad_()
        value = step(logits, torch.arange(n) % classes)
        value.mean().backward()
        assert value.shape == (n,)
        assert value.isfinite().all()
        assert logits.grad.isfinite().all()


@every
def test_order_of_examples_does_not_matter(defence):
    logits, target = draw()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    (_, first), (_, second) = begin(defence), begin(defence)
    torch.testing.assert_close(
        second(logits[order], target[order], order), first(logits, target)[order], rtol=1e-5, atol=1e-6
    )


@every
def test_a_constant_added_to_the_logits_changes_nothing(defence):
    logits, target = draw()
    (_, first), (_, second) = begin(defence), begin(defence)
    shift = torch.linspace(-30, 30, 10)[:, None]
    torch.testing.assert_close(second(logits + shift, target), first(logits, target), rtol=1e-4, atol=1e-4)


@every
def test_autocast_and_16_bit_logits_are_computed_in_float32(defence):
    logits, target = draw()
    coarse = logits.bfloat16()
    (_, plain), (_, casted), (_, narrow) = begin(defence), begin(defence), begin(defence)
    expected = plain(coarse.float(), target)
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(casted(coarse.float(), target), expected)
    if defence.name not in ("ce", "label-smoothing"):  # torch's own module keeps the type; the loop gives float32
        assert torch.equal(narrow(coarse, target), expected)


@every
def test_a_restored_state_goes_on_bit_for_bit(defence):
    logits, target = draw()
    loss, step = begin(defence)
    step(logits, target)
    state = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    resumed, go_on = begin(defence)
    resumed.load_state_dict(state)
    for _ in range(2):
        assert torch.equal(step(logits.flip(0), target), go_on(logits.flip(0), target))
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in loss.state_dict().items())


@every
def test_no_gradient_reaches_the_normal_teacher_or_the_answers_beside(defence):
    workshop, (logits, target) = Bench(4), draw()
    loss, _ = begin(defence)
    beside = defence.beside(loss, workshop, workshop.images[:10].float() / 255, torch.arange(10))
    if beside is None:
        return
    beside = beside.detach().requires_grad_()
    loss(logits.requires_grad_(), target, beside).sum().backward()
    assert logits.grad is not None
    assert beside.grad is None


def test_ast_leaves_the_network_in_training_mode_and_its_statistics_alone():
    workshop, defence = Bench(4), AdversarialSparse(iterations=1)
    workshop.teacher = nn.Sequential(nn.BatchNorm2d(1), workshop.teacher).train()
    loss = defence.loss(4, 1)
    defence.prepare(loss, workshop)
    before = workshop.teacher[0].running_mean.clone()
    answered = defence.beside(loss, workshop, torch.zeros(3, 1, 4, 4), torch.tensor([4, 0, 2]))
    assert workshop.teacher.training
    assert torch.equal(workshop.teacher[0].running_mean, before)
    expected = workshop.teacher.eval()(loss.adversarial[[4, 0, 2]] / 255)
    torch.testing.assert_close(answered, expected)
    assert workshop.made == ["adversarial"]
    assert "adversarial" not in loss.state_dict(), "it would be written again at each epoch's end"


@pytest.mark.parametrize("defence", [CMIM(), CMIM(centroids="symmetric"), CMICDL(), NCMI()], ids=str)
def test_centroids_begin_with_a_full_pass_over_a_trained_network_only(defence):
    workshop = Bench(4)
    fresh, begun = defence.loss(4, 20), defence.loss(4, 20)
    defence.prepare(fresh, workshop)
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in begun.state_dict().items())
    workshop.started = True
    defence.prepare(begun, workshop)
    assert begun.centroids.counts.tolist() == [3.0] * 4
    logits = workshop.logits(workshop.teacher)
    means = torch.stack([logits[workshop.labels == y].softmax(dim=1).mean(dim=0) for y in range(4)])
    if getattr(defence, "centroids", "free") == "symmetric":
        mass = means.diagonal().mean()
        means = torch.full((4, 4), (1 - mass.item()) / 3).fill_diagonal_(mass.item())
    torch.testing.assert_close(begun.centroids.rows(-1, torch.arange(4)), means)  # power 1 is the last


def test_cmim_gives_its_settings_to_the_loss():
    defence = CMIM(0.3, (0.5, 1.0), "none", "power-mean", 6.0, "symmetric", 0.5, ramp=0.25)
    loss = defence.loss(num_classes=4, steps=50)
    assert isinstance(loss, CMIMLoss)
    direct = CMIMLoss(
        4,
        0.3,
        powers=(0.5, 1.0),
        weighting="none",
        aggregation="power-mean",
        exponent=6.0,
        centroids="symmetric",
        decay=0.5,
        ramp_steps=12,
        reduction="none",
    )
    for _ in range(4):
        assert torch.equal(loss(*draw()), direct(*draw()))


@pytest.mark.parametrize(("second_view", "held_out"), [("mixed", 0.0), ("none", 0.5), ("strong", 0.5)])
def test_cmim_can_show_images_to_its_second_term_alone(second_view, held_out):
    """Over an epoch in one batch: mean cross entropy of the labelled images + weight * mean divergence of all rows."""
    workshop, blocks = Bench(4), 1 if second_view == "none" else 2
    defence = CMIM(weight=3.0, second_view=second_view, held_out=held_out)
    loss = defence.loss(4, 1)
    defence.prepare(loss, workshop)
    logits, labels = draw(12 * blocks)[0], workshop.labels
    indices = torch.arange(12)
    weights = defence.beside(loss, workshop, torch.zeros(12 * blocks, 1, 4, 4), indices)
    assert weights.shape == (12 * blocks,)
    labelled = weights[:12] > 0
    assert torch.bincount(labels[~labelled], minlength=4).tolist() == [int(3 * held_out)] * 4
    assert not weights[12:].any()
    found = loss(logits, labels.repeat(blocks), weights).mean()
    cross_entropy = -logits[:12].log_softmax(1)[indices, labels][labelled].mean()
    both = CMIMLoss(4, 3.0)(logits, labels.repeat(blocks))
    information = both + logits.log_softmax(1)[torch.arange(12 * blocks), labels.repeat(blocks)].mean()
    torch.testing.assert_close(found, cross_entropy + information)


def test_which_images_are_held_out_is_fixed():
    workshop, chosen = Bench(4), []
    for _ in range(2):
        loss = CMIM(held_out=0.4).loss(4, 1)
        CMIM(held_out=0.4).prepare(loss, workshop)
        chosen.append(loss.get_buffer("labelled"))
        assert "labelled" not in loss.state_dict(), "it follows from the labels"
    assert torch.equal(*chosen)


@pytest.mark.parametrize(
    ("classes", "nasty", "sparse"),
    [
        (2, (4.0, 0.04), (0.05, 6.0, 2)),
        (10, (4.0, 0.04), (0.05, 6.0, 2)),
        (20, (4.0, 0.04), (0.05, 6.0, 2)),
        (100, (20.0, 0.005), (0.035, 30.0, 7)),
        (200, (20.0, 0.01), (0.035, 30.0, 7)),
        (1000, (20.0, 0.01), (0.035, 30.0, 7)),
    ],
)
def test_published_settings_by_number_of_classes(classes, nasty, sparse):
    found = Nasty().for_classes(classes)
    assert (found.temperature, found.weight) == nasty
    found = AdversarialSparse().for_classes(classes)
    assert (found.share, found.temperature, found.kept) == sparse
    named = Nasty(temperature=3.0, weight=0.5)
    assert named.for_classes(classes) == named
    named = AdversarialSparse(share=0.5, temperature=3.0, kept=1)
    assert named.for_classes(classes) == named


@pytest.mark.parametrize(
    ("defence", "settings", "message"),
    [
        (LabelSmoothing, {"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), got 1\.0"),
        (LabelSmoothing, {"smoothing": math.nan}, "smoothing must lie"),
        (CMIM, {"weight": -0.1}, "weight must be a finite number of at least 0"),
        (CMIM, {"powers": (0.0,)}, "powers must be finite numbers above 0"),
        (CMIM, {"ramp": 1.5}, r"ramp is a share of the training and must lie in \[0, 1\], got 1\.5"),
        (CMIM, {"aggregation": "median"}, "unknown aggregation 'median'"),
        (CMIM, {"second_view": "weak"}, "unknown second view 'weak'.*known: mixed, none, strong"),
        (CMIM, {"held_out": 1.0}, r"held_out is the share .* must lie in \[0, 1\), got 1\.0"),
        (CMICDL, {"weight": -1.0, "separation": math.inf}, "weight must be .* got -1.0; separation must be .* got inf"),
        (CMICDL, {"floor": 1.0}, r"floor is a share of 1/C and must lie in \[0, 1\), got 1\.0"),
        (CMICDL, {"decay": 1.0}, r"decay must lie in \[0, 1\), got 1\.0"),
        (NCMI, {"anchor": 1.0}, r"anchor is a probability and must lie in \(0, 1\), got 1\.0"),
        (NCMI, {"images": 0.0}, r"images must be a finite number above 0, got 0\.0"),
        (NCMI, {"floor": -0.1, "decay": -1.0}, r"floor is a share .* got -0\.1; decay must lie in \[0, 1\), got -1\.0"),
        (Nasty, {"weight": -0.04}, r"weight must be a finite number of at least 0, got -0\.04"),
        (Nasty, {"temperature": 0.0}, r"temperature must be a finite number above 0, got 0\.0"),
        (Nasty, {"direction": "normal"}, "unknown direction 'normal'.*known: nasty-to-normal, normal-to-nasty"),
        (Nasty, {"reduction": "mean"}, "unknown reduction 'mean'.*known: all-mean, batch-mean"),
        (AdversarialSparse, {"share": 1.5}, r"share must lie in \[0, 1\], got 1\.5"),
        (AdversarialSparse, {"temperature": math.nan}, "temperature must be a finite number above 0, got nan"),
        (AdversarialSparse, {"kept": 0}, "kept counts classes and must be at least 1, got 0"),
        (AdversarialSparse, {"radius": -1.0}, "radius must be a finite number of at least 0"),
        (AdversarialSparse, {"iterations": 0}, "iterations must be at least 1, got 0"),
        (MCMI, {"weight": -0.1}, "weight must be a finite number of at least 0"),
        (MCMI, {"epochs": 0.0, "rate": 2.0}, r"epochs is a share .* got 0\.0; rate is a share .* got 2\.0"),
    ],
)
def test_bad_settings_are_named(defence, settings, message):
    with pytest.raises(InputError, match=message):
        defence(**settings)


def test_more_kept_classes_than_there_are_is_refused():
    with pytest.raises(InputError, match="kept is 5, but there are 4 classes; keep at most as many"):
        AdversarialSparse(kept=5).for_classes(4)


def test_mcmi_without_its_centroids_is_refused():
    with pytest.raises(InputError, match="the centroids of MCMI are not set; call prepare"):
        MCMI().loss(4, 1)(*draw())


def test_plain_defences_are_fitted_to_no_number_of_classes():
    assert CrossEntropy().for_classes(7) == CrossEntropy()
