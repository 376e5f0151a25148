"""The skeptical student: its loss against the formula, and the exit it is given."""

import copy
import pickle

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn

from undistill.attacks.skeptical import Skeptical
from undistill.errors import InputError
from undistill.models import make_classifier

STUDENTS = [
    ("resnet8", (3, 32, 32)),
    ("wrn-10-1", (3, 16, 16)),
    ("vgg8", (3, 16, 16)),
    ("mobilenetv2", (3, 32, 32)),
    ("shufflenetv2", (3, 32, 32)),
    ("cnn", (1, 8, 8)),
    ("cnn1d", (1, 40)),
    ("cnn1d-small", (2, 40)),
    ("mlp-16", (1, 8, 8)),
    ("mlp-32-24-16", (1, 40)),
]


def classifier(architecture="cnn", shape=(1, 8, 8), seed=0):
    names = [str(number) for number in range(5)]
    channels = [0.5] * shape[0]
    return make_classifier(architecture, class_names=names, input_shape=shape, mean=channels, std=channels, seed=seed)


def draw(batch=16, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2 * batch, classes, generator=generator, dtype=torch.float64)
    teacher = 3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    return logits, teacher, torch.randint(classes, (batch,), generator=generator)


def formula(logits, teacher, labels, temperature, soft, hard):
    batch = len(labels)
    z, e, t = logits[:batch].numpy(), logits[batch:].numpy(), teacher.numpy()

    def tempered(values):
        return scipy.special.softmax(values / temperature, 1)

    def cross_entropy(values):
        return -scipy.special.log_softmax(values, 1)[np.arange(batch), labels.numpy()]

    from_teacher = temperature**2 * scipy.special.rel_entr(tempered(t), tempered(e)).sum(1)
    from_head = scipy.special.rel_entr(tempered(z), tempered(e)).sum(1)
    labelled = cross_entropy(z) + (1 - soft) * cross_entropy(e)
    return hard * labelled + soft * from_teacher + 0.3 * from_head


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("soft", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("hard", [0.0, 1.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_values_are_those_of_the_formula(temperature, soft, hard, classes):
    logits, teacher, labels = draw(classes=classes)
    attack = Skeptical(temperature, soft, hard)
    loss = attack.loss(logits.float(), torch.log_softmax(teacher, 1).float(), labels)
    expected = formula(logits, teacher, labels, temperature, soft, hard)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5, atol=1e-5 * max(1, temperature**2 / 16))


def test_the_head_hears_of_the_teacher_only_through_the_exit():
    logits, teacher, labels = draw()
    gradients = []
    for answers in (teacher, -teacher):
        student = logits.float().requires_grad_()
        Skeptical().loss(student, torch.log_softmax(answers, 1).float(), labels).sum().backward()
        gradients.append(student.grad)
    assert torch.equal(gradients[0][:16], gradients[1][:16])
    assert not torch.allclose(gradients[0][16:], gradients[1][16:])


def test_the_first_ninth_of_the_training_has_labels_only():
    attack = Skeptical()
    loss = attack.start(10, seed=0)
    logits, teacher, labels = draw()
    logits, log_probs = logits.float(), torch.log_softmax(teacher, 1).float()
    labels_only = nn.functional.cross_entropy(logits[:16], labels, reduction="none")
    assert torch.equal(loss(logits, log_probs, labels), attack.loss(logits, log_probs, labels)), "full strength"
    for epochs, without in ((180, 20), (18, 2), (9, 1), (1, 1)):
        for epoch in (0, without - 1, without, epochs - 1):
            loss.begin_epoch(epoch, epochs)
            expected = labels_only if epoch < without else attack.loss(logits, log_probs, labels)
            assert torch.equal(loss(logits, log_probs, labels), expected)
    never = Skeptical(delay=0.0).start(10, seed=0)
    never.begin_epoch(0, 180)
    assert torch.equal(never(logits, log_probs, labels), attack.loss(logits, log_probs, labels))


@pytest.mark.parametrize(("architecture", "shape"), STUDENTS)
def test_an_exit_is_attached_to_every_kind_of_student(architecture, shape):
    student = classifier(architecture, shape)
    before = copy.deepcopy(student)
    dressed = Skeptical().dress(student, seed=3)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name]), "neither weights nor running statistics are touched"
    assert student.training
    images = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    dressed.train()
    logits = dressed(images)
    assert logits.shape == (12, 5)
    torch.testing.assert_close(logits[:6], before.train()(images))
    torch.testing.assert_close(dressed.eval()(images), before.eval()(images))
    exit_alone = dressed.train()(images)[6:].sum()
    exit_alone.backward()
    names = {name for name, value in student.named_parameters() if value.grad is not None and value.grad.any()}
    assert names, "the exit reaches the first half"
    assert not any("head" in name for name in names), "and not the head"
    assert names < set(dict(student.named_parameters()))


def test_half_depth_is_the_first_stage_at_which_half_are_done():
    for architecture, shape, width in (
        ("resnet8", (3, 32, 32), 32),
        ("vgg8", (3, 16, 16), 256),
        ("cnn", (1, 8, 8), 64),
    ):
        dressed = Skeptical().dress(classifier(architecture, shape), seed=0)
        assert dressed.exit[0].in_channels == width
    assert Skeptical().dress(classifier("mlp-32-24-16"), seed=0).exit[0].in_features == 24


def test_the_student_is_as_before_once_it_is_trained():
    student = classifier()
    dressed = Skeptical().dress(student, seed=0)
    dressed.train()
    dressed(torch.rand(4, 1, 8, 8))
    assert not any(module._forward_hooks for module in student.modules())
    pickle.dumps(dressed)
    assert set(student.state_dict()) == set(classifier().state_dict())
    own = {f"student.{name}" for name in student.state_dict()}
    assert own < set(dressed.state_dict()), "the exit is trained, kept and checked with the student"
    assert all(name.startswith("exit.") for name in set(dressed.state_dict()) - own)


def test_the_exits_weights_are_a_function_of_the_seed_alone():
    student = classifier()
    state = torch.get_rng_state()
    first, again, other = (Skeptical().dress(student, seed=seed).exit.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_student_without_stages_is_refused():
    student = classifier()
    student.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(InputError) as refusal:
        Skeptical().dress(student, seed=0)
    assert str(refusal.value) == (
        "attack skeptical attaches an exit at half depth, but the student's network Sequential has no list of modules "
        "`stages`; choose a network of this package (see: undistill list models), or give your own that attribute"
    )


def test_bad_settings_are_refused():
    for setting, words in (
        ({"temperature": 0.0}, "the temperature is 0.0, must be finite and above 0"),
        ({"soft": 1.5}, "the share of soft labels is 1.5, must lie between 0 and 1"),
        ({"hard": -1.0}, "the weight of hard labels is -1.0, must be finite and at least 0"),
        ({"delay": 2.0}, "the share of the training without the teacher is 2.0, must lie between 0 and 1"),
    ):
        with pytest.raises(InputError, match=words):
            Skeptical(**setting)
