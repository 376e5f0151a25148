"""Output defences around a black box: what is served, under which name, and what is refused."""

import pickle

import pytest
import torch

from undistill.blackbox import (
    FULL,
    BlackBox,
    CallableBlackBox,
    Decimals,
    DefendedBlackBox,
    LabelAccess,
    LimitedBlackBox,
    LocalBlackBox,
    TopK,
    check_black_box,
    defend,
    open_black_box,
)
from undistill.defences.output import (
    MAD,
    OUTPUT_DEFENCES,
    CentroidServing,
    FixedDefence,
    HighConfidence,
    KeepTopK,
    KeyedNoise,
    LabelOnly,
    OutputDefence,
    OwnData,
    ReverseSigmoid,
    Rounding,
    Transform,
)
from undistill.errors import InputError
from undistill.models import save_checkpoint
from undistill.tasks import Split

NAMES = tuple("0123456789")


class Counting(BlackBox):
    """Counts the images that it is asked about."""

    name, fingerprint = "counting", "c" * 64

    def __init__(self):
        self.asked = 0

    def log_probs(self, images):
        self.asked += len(images)
        return torch.log_softmax(images.flatten(1)[:, 20:30] * 5, 1)


def sure(classifier):
    """A classifier that is sure of its answers, as a trained one is."""
    with torch.no_grad():
        classifier.net[-1].weight.mul_(30)
    return classifier


@pytest.fixture
def whole(teacher):
    return LocalBlackBox("ce", sure(teacher()))


def test_defences_are_applied_in_their_order(whole, digits, probe):
    stack = [ReverseSigmoid(beta=0.5), KeepTopK(3), Rounding(2)]
    box = defend(whole, stack, digits)
    rows = whole.log_probs(probe)
    for defence in stack:
        rows = defence.set_up(OwnData(digits.train.images[:0], rows[:0], digits.train.labels[:0])).apply(rows, probe)
    assert torch.equal(box.log_probs(probe), rows)
    assert box.name == "ce+reverse-sigmoid+top-k+rounding"
    assert [defence["name"] for defence in box.defences] == ["reverse-sigmoid", "top-k", "rounding"]
    assert (box.undefended, box.unlimited) == (whole, box)
    turned = defend(whole, stack[::-1], digits)
    assert not torch.equal(turned.log_probs(probe), rows)
    assert turned.fingerprint != box.fingerprint
    assert defend(defend(whole, stack[:1], digits), stack[1:], digits).fingerprint == box.fingerprint


def test_what_does_not_sum_to_1_is_renormalised_before_the_next_defence(whole, digits, probe):
    box = defend(whole, [KeepTopK(3, renormalised=False), KeyedNoise(0.1, "logits", keeps_top1=False)], digits)
    kept = KeepTopK(3).apply(whole.log_probs(probe), probe)
    torch.testing.assert_close(box.log_probs(probe), KeyedNoise(0.1, "logits", False).apply(kept, probe))


@pytest.mark.parametrize("name", OUTPUT_DEFENCES)
def test_a_defended_box_is_a_black_box(whole, digits, probe, name):
    box = defend(whole, [OUTPUT_DEFENCES[name]()], digits)
    check_black_box(box, probe[:8])
    answers = box.answers(Split(digits.test.images[:70], digits.test.labels[:70]))
    assert answers.shape == (70, 10)
    assert answers.dtype == torch.float32
    copy = pickle.loads(pickle.dumps(box))
    assert copy.fingerprint == box.fingerprint
    assert torch.equal(copy.log_probs(probe), box.log_probs(probe))
    assert torch.equal(box.limit(whole.log_probs(probe), probe), box.log_probs(probe))


def test_a_fingerprint_names_all_that_decides_on_answers(teacher, whole, digits):
    other, part = LocalBlackBox("ce", sure(teacher(seed=1))), digits.with_fewer_images(100, seed=0)
    boxes = [
        whole,
        defend(whole, [ReverseSigmoid()], digits),
        defend(whole, [ReverseSigmoid(l1=0.5)], digits),
        defend(other, [ReverseSigmoid()], digits),
        defend(whole, [ReverseSigmoid()], part),
        defend(whole, [KeyedNoise()], digits),
        defend(whole, [KeyedNoise(key="mine")], digits),
        defend(whole, [MAD()], digits),
        defend(whole, [MAD()], digits, surrogate=teacher("mlp-5")),
        defend(whole, [MAD()], digits, surrogate=teacher("mlp-6")),
    ]
    assert len({box.fingerprint for box in boxes}) == len(boxes)
    again = defend(LocalBlackBox("ce", sure(teacher())), [ReverseSigmoid()], digits)
    assert again.fingerprint == boxes[1].fingerprint
    fixed = [defend(whole, [KeepTopK()], task).fingerprint for task in (digits, part)]
    assert fixed[0] == fixed[1], "what learns nothing does not depend on the images"


def test_a_teacher_is_asked_only_for_what_is_learnt(digits):
    counting = Counting()
    defend(counting, [KeepTopK(3), KeyedNoise()], digits)
    assert counting.asked == 0
    defend(counting, [CentroidServing(), ReverseSigmoid(l1=0.1)], digits)
    assert counting.asked == len(digits.train), "the second learns from what the first serves"


class Recording(OutputDefence):
    """Remembers what it was set up with."""

    name, summary, source = "recording", "remembers", "a test"
    keeps_top1 = idempotent = True

    def __init__(self):
        self.seen = []

    def set_up(self, own):
        self.seen.append(own)
        return LabelOnly()

    def description(self):
        return {"name": self.name}


def test_a_defence_learns_from_what_the_one_before_it_serves(whole, digits):
    recording = Recording()
    defend(whole, [KeepTopK(2), recording], digits)
    [own] = recording.seen
    expected = KeepTopK(2).apply(whole.answers(digits.train), torch.zeros(len(digits.train), 1, 8, 8))
    torch.testing.assert_close(own.log_probs.exp(), expected.exp())
    assert torch.equal(own.images, digits.train.images)
    assert torch.equal(own.labels, digits.train.labels)
    assert own.surrogate is None


@pytest.mark.parametrize(
    ("stack", "kind", "sums"),
    [
        ([ReverseSigmoid(beta=0.1)], "full", (1, 1)),
        ([LabelOnly()], "label", (1, 1)),
        ([KeepTopK(3)], "top-k", (1, 1)),
        ([KeepTopK(1)], "label", (1, 1)),
        ([KeepTopK(3, renormalised=False)], "top-k-raw", (0, 1)),
        ([HighConfidence()], "top-k", (1, 1)),
        ([Rounding(2)], "decimals", (0.95, 1.05)),
        ([KeepTopK(3), Rounding(2)], "decimals", (0.95, 1.05)),
        ([Rounding(2), KeepTopK(3)], "top-k", (1, 1)),
        ([LabelOnly(), Rounding(2)], "label", (0.95, 1.05)),
        ([LabelOnly(), HighConfidence()], "label", (1, 1)),
        ([LabelOnly(), KeyedNoise()], "full", (1, 1)),
        ([KeepTopK(3, renormalised=False), KeyedNoise()], "full", (1, 1)),
    ],
    ids=lambda value: "+".join(map(str, value)) if isinstance(value, list) else None,
)
def test_a_stack_says_what_kind_of_answers_come_of_it(whole, digits, stack, kind, sums):
    box = defend(whole, stack, digits)
    assert box.access == kind
    assert box.policy.sums(10) == pytest.approx(sums)
    assert (box.policy == FULL) == (kind == "full")
    assert box.policy.sentence
    box.answers(Split(digits.test.images[:40], digits.test.labels[:40]))


def test_an_access_on_top_of_defences(whole, digits, probe):
    asking = {"class_names": NAMES, "probe": probe}
    moved = defend(whole, [ReverseSigmoid(beta=0.1)], digits)
    limited = open_black_box(moved, access=TopK(3), **asking)
    assert torch.equal(limited.log_probs(probe), TopK(3).apply(moved.log_probs(probe)))
    assert (limited.access, limited.unlimited, limited.undefended) == ("top-k", moved, whole)
    assert limited.defences == moved.defences
    rows = whole.log_probs(probe)
    assert torch.equal(limited.limit(rows, probe), limited.log_probs(probe))
    cut = defend(whole, [KeepTopK(3)], digits)
    assert open_black_box(cut, **asking) is cut
    with pytest.raises(
        InputError,
        match=r"'ce\+top-k' serves the largest probabilities, renormalised by its output defences, so access 'label' "
        "cannot be set on top; leave it out",
    ):
        open_black_box(cut, access=LabelAccess(), **asking)


def test_a_defence_on_top_of_an_access(whole, digits, probe):
    limited = LimitedBlackBox(whole, Decimals(1))
    box = defend(limited, [ReverseSigmoid(beta=0.1)], digits)
    assert box.undefended is whole
    torch.testing.assert_close(box.log_probs(probe).exp().sum(1), torch.ones(len(probe)))


def test_what_a_user_calls_a_teacher_is_opened(teacher, digits, probe, tmp_path):
    save_checkpoint(teacher(), tmp_path / "mine")
    for named, name in ((tmp_path / "mine", "mine"), (str(tmp_path / "mine"), "mine"), (teacher(), "mlp-4")):
        box = defend(named, [LabelOnly()], digits)
        assert box.name == f"{name}+label-only"
        assert box.log_probs(probe).exp().amax(1).tolist() == [1.0] * 32
    assert defend(teacher(), [LabelOnly()], digits, name="x").name == "x+label-only"


@pytest.mark.parametrize(
    ("stack", "more", "words"),
    [
        ([], {}, "no output defence is named; name at least one"),
        ([KeepTopK(11)], {}, "top-k cannot serve 11 classes where there are 10"),
        ([KeepTopK(11), KeepTopK(12)], {}, "11 classes .*; top-k cannot serve 12 classes"),
        ([LabelOnly()], {"surrogate": "nowhere"}, "a surrogate is given, but label-only cannot make use of one"),
        ([MAD()], {"surrogate": "nowhere"}, "nowhere is not a checkpoint"),
        ([ReverseSigmoid(l1=1.99)], {}, r"cannot move these answers by 1.99 in the mean of L1: from .* can be reached"),
    ],
)
def test_what_cannot_be_set_up_is_refused(whole, digits, stack, more, words):
    with pytest.raises(InputError, match=words):
        defend(whole, stack, digits, **more)


def test_a_surrogate_of_other_classes_is_refused(teacher, whole, digits):
    with pytest.raises(InputError, match="'mlp-4' has 9 classes, the task has 10"):
        defend(whole, [MAD()], digits, surrogate=teacher(classes=9))


# --- the check of a box looks at its defences


class Wrong(FixedDefence):
    """A defence that breaks the rules."""

    name, summary, source = "wrong", "breaks the rules", "a test"
    keeps_top1 = idempotent = False

    def __init__(self, how):
        self.how, self.calls = how, 0

    def description(self):
        return {"name": self.name}

    def apply(self, log_probs, images):
        self.calls += 1
        probs = log_probs.exp()
        moved = {
            "batch": lambda: probs - 0.5 * probs.amin(0),
            "released": lambda: probs - probs.amin(0),  # with the CMIM paper; a row alone is all zeros
            "order": lambda: probs + 0.1 * torch.arange(len(probs))[:, None] * torch.eye(10)[0],
            "time": lambda: probs + 0.1 * self.calls * torch.eye(10)[0],
            "sum": lambda: probs,
        }[self.how]()
        if self.how == "sum":
            return (0.9 * probs).log()
        return (moved / moved.sum(1, keepdim=True)).log()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("batch", r"box\+wrong answers differently about an image alone than in a batch"),
        ("order", r"box\+wrong answers differently about an image alone than in a batch"),
        ("released", r"box\+wrong: 1 of 1 rows hold NaN"),
        ("sum", r"box\+wrong: probabilities of 8 of 8 rows do not sum to 1 \(row \d sums to 0.9"),
        ("time", r"box\+wrong answers differently when it is asked about the same images again"),
    ],
)
def test_a_defence_that_is_no_function_of_the_row_is_refused(soft, probe, digits, how, words):
    plain = CallableBlackBox("box", lambda images: images.flatten(1)[:, 20:30] * 5, 10, probe)
    with pytest.raises(InputError, match=words):
        check_black_box(defend(plain, [Wrong(how)], digits), probe[:8])


def test_a_tie_that_arithmetic_breaks_is_no_fault_of_the_defence(probe, digits):
    """An answer alone differs from that in a batch by the last bit, and a label follows it."""

    def near_tie(images):
        rows = torch.full((len(images), 10), -1.0)
        rows[:, 0] += 1e-6 if len(images) == 1 else 0.0
        rows[:, 1] += 1e-6 if len(images) > 1 else 0.0
        return rows

    box = defend(CallableBlackBox("tie", near_tie, 10, probe), [LabelOnly()], digits)
    check_black_box(box, probe[:8])


def test_a_transform_is_handed_what_it_needs(whole, digits, probe):
    class Looks(Transform):
        def apply(self, log_probs, images):
            assert images.shape == (len(log_probs), 1, 8, 8)
            return log_probs

    box = DefendedBlackBox(whole, KeyedNoise(), Looks())
    assert torch.equal(box.log_probs(probe), whole.log_probs(probe))
