"""What every attack must do, at every setting that an audit may choose. A registered attack is picked up by itself."""

import json
import math
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace

import pytest
import torch

from undistill.attacks import ATTACKS, Attack
from undistill.errors import InputError
from undistill.files import content_hash

SETTINGS = [
    pytest.param(attack, id=f"{attack.name}-{number}")
    for kind in ATTACKS.values()
    for number, attack in enumerate(dict.fromkeys((kind(), *kind.grid())))
]
every_setting = pytest.mark.parametrize("attack", SETTINGS)
every_attack = pytest.mark.parametrize("kind", ATTACKS.values(), ids=ATTACKS.keys())
every_size = pytest.mark.parametrize(("batch", "classes"), [(8, 10), (1, 10), (1, 2), (6, 2), (3, 1000), (1, 1000)])


def draw(attack, batch=8, classes=10, seed=0, scale=3.0):
    """Student's logits, answers and labels, in as many blocks as the attack sees.

    The logits are multiples of 1/128, so that shifts lose no digit."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count):
        return (scale * torch.randn(count, classes, generator=generator)).mul(128).round().div(128)

    logits, teacher = rows(attack.blocks * batch), rows(attack.views * batch)
    return logits, torch.log_softmax(teacher, 1), torch.randint(classes, (batch,), generator=generator)


def as_student(attack, log_probs):
    """Logits of a student whose every output is the teacher's answer to the same view."""
    return log_probs.repeat(attack.blocks // attack.views, 1)


def soft_part(attack):
    """The attack, or what it is built on, without the cross entropy of the labels, where it has one."""
    names = {field.name for field in fields(attack)}
    if "base" in names:
        return replace(attack, base=soft_part(attack.base))
    return replace(attack, hard=0.0) if "hard" in names else attack


def top_k(log_probs, k):
    """Answers of which only the k largest are served, renormalised; the others are exact zeros."""
    kept = torch.full_like(log_probs, -torch.inf)
    largest = log_probs.topk(min(k, log_probs.shape[1]), dim=1)
    return torch.log_softmax(kept.scatter(1, largest.indices, largest.values), 1)


def three_decimals(log_probs):
    probs = log_probs.double().exp().mul(1000).round()
    probs[probs.sum(1) == 0, 0] = 1  # of a thousand classes, all may round to zero
    return (probs / probs.sum(1, keepdim=True)).log().float()


ANSWERS = {
    "full": lambda log_probs: log_probs,
    "one-hot": lambda log_probs: top_k(log_probs, 1),
    "top-3": lambda log_probs: top_k(log_probs, 3),
    "three decimals": three_decimals,
    "uniform": lambda log_probs: torch.full_like(log_probs, -math.log(log_probs.shape[1])),
    "peaked": lambda log_probs: torch.log_softmax(2 * log_probs, 1),
    "saturated": lambda log_probs: torch.log_softmax(60 * log_probs, 1),
}


OPTIMUM_ELSEWHERE = {  # each has the optimum that it should have in a test of its own
    "nkd": "the term -p_y log q_y is least at q_y = 1, whatever p_y is",
    "ttm": "the student has no temperature, so it is to become the tempered teacher",
    "ttm-no-labels": "as ttm",
    "wttm": "as ttm",
    "wttm-no-labels": "as ttm",
    "averager": "the mean over a label's images in the batch is to be learnt",
    "mkd": "the answers mixed by a matrix are to be learnt",
    "knockoff-hard": "the predicted class is to be learnt with probability 1",
    "label-only": "as knockoff-hard",
}
CLASSES_COUNT = {  # by definition; their formulas are tested against brute force with other numbers of classes
    "dkd": "the label's class stands apart, and its twin is a wrong class",
    "nkd": "as dkd",
    "rld": "as dkd",
    "lskd-dkd": "as dkd",
    "label-only": "the label's twin is a wrong class",
    "knockoff-hard": "the predicted class's twin is a wrong class",
    "wttm": "weighted by the sum of powers, which grows with the number of classes",
    "wttm-no-labels": "as wttm",
    "lskd": "standardised by the unbiased deviation, which knows the number of classes",
    "lskd-no-labels": "as lskd",
    "mlkd": "the correlations of classes are summed over pairs of classes",
    "lskd-mlkd": "as mlkd",
    "mkd": "one matrix per class, drawn at random",
}


def settings_without(names):
    assert set(names) <= set(ATTACKS)
    return pytest.mark.parametrize("attack", [entry for entry in SETTINGS if entry.values[0].name not in names])


def test_there_are_attacks():
    assert ATTACKS
    assert len(SETTINGS) >= len(ATTACKS)


@every_attack
def test_an_attack_describes_itself(kind):
    assert issubclass(kind, Attack)
    assert ATTACKS[kind.name] is kind
    assert kind.name == kind.name.lower()
    for words in (kind.name, kind.summary, kind.source):
        assert isinstance(words, str)
        assert words
        assert "\n" not in words
    assert isinstance(kind.needs_labels, bool)
    assert kind.grid()
    assert {type(attack) for attack in kind.grid()} == {kind}
    assert len(set(kind.grid())) == len(kind.grid()), "a setting twice would be tried twice"


@every_setting
def test_an_attack_is_a_frozen_value(attack):
    assert is_dataclass(attack)
    with pytest.raises(FrozenInstanceError):
        setattr(attack, next((field.name for field in fields(attack)), "name"), 1.0)
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert replace(attack) == attack
    assert hash(replace(attack)) == hash(attack)
    assert content_hash(json.loads(json.dumps(asdict(attack))))


@every_attack
def test_bad_settings_are_refused_with_words(kind):
    numbers = [field.name for field in fields(kind) if field.type is float]
    for name in numbers:
        for value in (math.nan, math.inf, -1.0):
            with pytest.raises(InputError, match=rf"is {value}, must (lie|be) .*\d"):
                kind(**{name: value})


@every_setting
def test_an_attack_that_reads_labels_only_says_so(attack):
    logits, log_probs, labels = draw(attack)
    labels = labels.roll(1)  # wrong ones, of which an attack may yet use the answer's probability
    told = torch.equal(attack.loss(logits, log_probs, labels), attack.loss(logits, top_k(log_probs, 1), labels))
    assert told is attack.label_only


@every_setting
@every_size
def test_one_value_per_example_in_float32(attack, batch, classes):
    logits, log_probs, labels = draw(attack, batch, classes)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        loss = attack.loss(logits.to(dtype), log_probs.to(dtype), labels)
        assert loss.shape == (batch,)
        assert loss.dtype == torch.float32


@every_setting
@pytest.mark.parametrize("served", ANSWERS)
@every_size
def test_values_and_gradients_are_finite(attack, served, batch, classes):
    logits, log_probs, labels = draw(attack, batch, classes)
    for extreme in (logits, 200 * logits.sign(), logits + 200, logits - 200, logits.clone().zero_()):
        student = extreme.clone().requires_grad_()
        loss = attack.loss(student, ANSWERS[served](log_probs), labels)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert student.grad.isfinite().all()


@every_setting
@every_size
def test_shifted_logits_are_the_same_student(attack, batch, classes):
    logits, log_probs, labels = draw(attack, batch, classes)
    shifts = torch.linspace(-64, 64, len(logits)).round()[:, None]
    expected = attack.loss(logits, log_probs, labels)
    torch.testing.assert_close(attack.loss(logits + shifts, log_probs, labels), expected, rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(
        attack.loss(torch.log_softmax(logits, 1), log_probs, labels), expected, rtol=1e-4, atol=2e-3
    )


@settings_without(OPTIMUM_ELSEWHERE)
@pytest.mark.parametrize("served", ["full", "peaked"])
def test_the_teacher_itself_is_the_optimum(attack, served):
    attack = soft_part(attack)
    _, log_probs, _ = draw(attack, batch=40)
    log_probs = ANSWERS[served](log_probs)
    labels = log_probs[:40].argmax(1)
    teacher = as_student(attack, log_probs)
    student = teacher.clone().requires_grad_()
    at_teacher = attack.loss(student, log_probs, labels)
    at_teacher.sum().backward()
    assert student.grad.abs().max() < 1e-4
    for seed, size in enumerate((0.3, 1.0, 3.0, 10.0)):
        noise = size * torch.randn(teacher.shape, generator=torch.Generator().manual_seed(seed))
        assert attack.loss(teacher + noise, log_probs, labels).mean() > at_teacher.mean() + 1e-3


@every_setting
def test_a_step_down_the_gradient_helps(attack):
    logits, log_probs, labels = draw(attack, batch=20)
    student = logits.clone().requires_grad_()
    before = attack.loss(student, log_probs, labels).mean()
    before.backward()
    with torch.no_grad():
        direction = student.grad / student.grad.norm()
        slope = (before - attack.loss(student - 0.1 * direction, log_probs, labels).mean()) / 0.1
    assert slope == pytest.approx(student.grad.norm().item(), rel=0.2)


@settings_without(CLASSES_COUNT)
def test_twice_the_classes_is_the_same_problem(attack):
    """Each class split into two equal halves leaves every sum over classes as it was, and so the pull on a class (on
    both halves together). A mean over classes in a sum's place would halve it."""
    attack = soft_part(attack)
    logits, log_probs, labels = draw(attack)

    def pull(logits, log_probs):
        student = logits.clone().requires_grad_()
        attack.loss(student, log_probs, labels).sum().backward()
        return student.grad

    split = pull(logits.repeat(1, 2), log_probs.repeat(1, 2) - math.log(2))
    whole = pull(logits, log_probs)
    torch.testing.assert_close(split[:, :10] + split[:, 10:], whole, rtol=1e-3, atol=1e-3 * whole.abs().max().item())


@every_setting
def test_logits_of_the_teacher_say_the_same_as_its_probabilities(attack):
    logits, _, labels = draw(attack)
    teacher = 2 * torch.randn(attack.views * len(labels), 10, generator=torch.Generator().manual_seed(1))
    from_logits = attack.loss(logits, torch.log_softmax(teacher, 1), labels)
    from_probs = attack.loss(logits, torch.softmax(teacher.double(), 1).log().float(), labels)
    torch.testing.assert_close(from_probs, from_logits, rtol=1e-4, atol=1e-3)


@every_setting
def test_the_answers_are_constants(attack):
    logits, log_probs, labels = draw(attack)
    kept = [tensor.clone() for tensor in (logits, log_probs, labels)]
    student, answers = logits.requires_grad_(), log_probs.requires_grad_()
    attack.loss(student, answers, labels).sum().backward()
    assert student.grad.abs().sum() > 0
    assert answers.grad is None
    for tensor, before in zip((student, answers, labels), kept, strict=True):
        assert torch.equal(tensor, before), "an input was written to"


@every_attack
def test_labels_are_read_if_and_only_if_they_are_needed(kind):
    logits, log_probs, labels = draw(kind)
    changes = [
        not torch.equal(attack.loss(logits, log_probs, labels), attack.loss(logits, log_probs, (labels + 1) % 10))
        for attack in kind.grid()
    ]
    assert any(changes) if kind.needs_labels else not any(changes)


ROW_WISE = [attack for attack in (param.values[0] for param in SETTINGS) if vars(type(attack)).get("row_wise")]


@pytest.mark.parametrize("attack", ROW_WISE, ids=str)
@pytest.mark.parametrize("answers", ANSWERS)
def test_a_loss_that_claims_to_look_at_rows_alone_does(attack, answers):
    logits, log_probs, labels = draw(attack, batch=12)
    log_probs = ANSWERS[answers](log_probs)
    loss = attack.start(10, seed=0)
    loss.begin_epoch(0, 10)
    whole = loss(logits, log_probs, labels)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for rows in (*order.split(5), *order.split(1)):
        part = loss(logits[rows], log_probs[rows], labels[rows])
        torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-5)
