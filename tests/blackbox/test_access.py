"""What is let through of answers: each policy against its definition in NumPy, and boxes that have one."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from undistill.blackbox import (
    FULL,
    BlackBox,
    CallableBlackBox,
    Decimals,
    FullAccess,
    LabelAccess,
    LimitedBlackBox,
    LocalBlackBox,
    TopK,
    check_log_probs,
    open_black_box,
)
from undistill.errors import InputError
from undistill.models import save_checkpoint
from undistill.tasks import Split

NAMES = tuple("0123456789")
POLICIES = [
    FULL,
    *(Decimals(places) for places in (1, 2, 4, 7)),
    *(TopK(k, renormalised) for k in (1, 2, 5, 100) for renormalised in (True, False)),
    LabelAccess(),
]
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=str)


def rows(seed, count=12, classes=10, scale=3.0):
    logits = scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    return torch.log_softmax(logits, 1)


def by_hand(policy, probs):
    """One row of probabilities as the policy is defined."""
    order = sorted(range(len(probs)), key=lambda c: (-probs[c], c))
    match policy:
        case FullAccess():
            return probs
        case Decimals(places):
            rounded = np.array([float(f"{p:.{places}f}") for p in probs])
            return rounded if rounded.any() else np.eye(len(probs))[order[0]]
        case TopK(k, renormalised):
            kept = np.where(np.isin(np.arange(len(probs)), order[:k]), probs, 0.0)
            return kept / kept.sum() if renormalised else kept
        case LabelAccess():
            return np.eye(len(probs))[order[0]]


@every_policy
@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
def test_a_policy_does_what_it_says(policy, scale):
    log_probs = rows(0, scale=scale)
    expected = np.stack([by_hand(policy, row) for row in log_probs.double().exp().numpy()])
    served = policy.apply(log_probs)
    assert served.dtype == torch.float32
    np.testing.assert_allclose(served.double().exp().numpy(), expected, rtol=1e-5, atol=1e-30)
    assert torch.equal(served == -torch.inf, torch.from_numpy(expected == 0)), "what is not served is an exact zero"


@every_policy
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 30), scale=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
def test_a_policy_is_a_function_of_the_row_and_idempotent(policy, seed, classes, scale):
    log_probs = rows(seed, count=6, classes=classes, scale=scale)
    served = policy.apply(log_probs)
    kept = log_probs.clone()
    assert torch.equal(policy.apply(log_probs), served)
    assert torch.equal(log_probs, kept), "the answers were written to"
    alone = torch.cat([policy.apply(row[None]) for row in log_probs.flip(0)]).flip(0)
    assert torch.equal(alone.exp(), served.exp())
    torch.testing.assert_close(policy.apply(served).exp(), served.exp(), rtol=1e-5, atol=1e-7)
    check_log_probs(served, "answers", policy.sums(classes))


def test_rounding_that_leaves_nothing_keeps_the_predicted_class():
    log_probs = torch.full((1, 60), 1 / 61).log()
    log_probs[0, 7] = np.log(2 / 61)
    assert torch.equal(Decimals(1).apply(log_probs).exp(), torch.eye(60)[[7]])


def test_of_equal_probabilities_the_lower_class_is_served():
    even = torch.full((1, 5), 0.2).log()
    assert TopK(2).apply(even).exp().tolist() == [[0.5, 0.5, 0, 0, 0]]
    assert LabelAccess().apply(even).exp().tolist() == [[1, 0, 0, 0, 0]]


def test_exact_zeros_stay_zeros():
    one_hot = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    for policy in POLICIES:
        assert torch.equal(policy.apply(one_hot), one_hot)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Decimals(0), "access to 0 decimals is not possible; the number of decimals must be 1 to 7"),
        (lambda: Decimals(8), "access to 8 decimals"),
        (lambda: Decimals(True), "the number of decimals is True, must be a whole number"),
        (lambda: TopK(True), "k of an access is True, must be a whole number"),
        (lambda: TopK(0), "access to the top 0 classes is not possible; k must be at least 1"),
        (lambda: TopK(11).check(10), "access 'top-k:11' keeps 11 classes, but there are 10; k must be 1 to 10"),
        (lambda: TopK(11, renormalised=False).check(10), "access 'top-k-raw:11' keeps 11 classes"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_policies_describe_themselves():
    assert len({str(policy) for policy in POLICIES}) == len(POLICIES)
    assert {policy.kind for policy in POLICIES} == {"full", "decimals", "top-k", "top-k-raw", "label"}
    assert all(policy.sentence for policy in POLICIES)
    TopK(10).check(10)


# --- boxes


@every_policy
def test_a_limited_box_is_another_box(teacher, probe, policy):
    whole = LocalBlackBox("t", teacher())
    box = LimitedBlackBox(whole, policy)
    assert torch.equal(box.log_probs(probe), policy.apply(whole.log_probs(probe)))
    assert torch.equal(box.limit(rows(1), probe[:12]), policy.apply(rows(1)))
    assert (box.name, box.access, box.policy, box.unlimited) == ("t", policy.kind, policy, whole)
    assert pickle.loads(pickle.dumps(box)).fingerprint == box.fingerprint
    prints = {LimitedBlackBox(whole, other).fingerprint for other in POLICIES} | {whole.fingerprint}
    assert len(prints) == len(POLICIES) + 1


@every_policy
def test_answers_of_a_limited_box_are_checked_by_what_is_allowed(teacher, digits, policy):
    answers = LimitedBlackBox(LocalBlackBox("t", teacher()), policy).answers(
        Split(digits.test.images[:40], digits.test.labels[:40])
    )
    assert answers.shape == (40, 10)


def test_a_limit_on_a_limit_knows_both(teacher, probe):
    box = LimitedBlackBox(LimitedBlackBox(LocalBlackBox("t", teacher()), TopK(3)), LabelAccess())
    log_probs = rows(2)
    assert torch.equal(box.limit(log_probs, probe[:12]), LabelAccess().apply(TopK(3).apply(log_probs)))
    assert isinstance(box.unlimited, LocalBlackBox)


def test_a_teacher_is_opened_with_an_access(teacher, probe, tmp_path):
    save_checkpoint(teacher(), tmp_path / "teacher")
    whole = LocalBlackBox("t", teacher())
    for named in (tmp_path / "teacher", teacher(), whole):
        box = open_black_box(named, class_names=NAMES, probe=probe, access=TopK(3))
        assert box.access == "top-k"
        assert torch.equal(box.log_probs(probe), TopK(3).apply(whole.log_probs(probe)))
        assert open_black_box(box, class_names=NAMES, probe=probe, access=TopK(3)) is box
    assert open_black_box(whole, class_names=NAMES, probe=probe) is whole
    for other in (FULL, TopK(2), LabelAccess()):
        with pytest.raises(InputError, match=f"open to access 'top-k:3', not '{other}'; name that access"):
            open_black_box(box, class_names=NAMES, probe=probe, access=other)
    with pytest.raises(InputError, match="keeps 11 classes, but there are 10"):
        open_black_box(whole, class_names=NAMES, probe=probe, access=TopK(11))


class Api:
    """Serves answers to as many images as it is asked about."""

    def __init__(self, answers):
        self.answers = answers

    def __call__(self, images):
        return self.answers[: len(images)]


@pytest.mark.parametrize("policy", [Decimals(2), TopK(3), TopK(3, renormalised=False), LabelAccess()], ids=str)
def test_an_api_may_limit_its_answers_by_itself(probe, policy):
    served = policy.apply(rows(3, count=32))
    limited = open_black_box(Api(served.exp()), class_names=NAMES, probe=probe, access=policy, name="api")
    torch.testing.assert_close(limited.log_probs(probe).exp(), served.exp())
    assert limited.access == policy.kind
    # Or leave it to us: full answers, as probabilities or as logits.
    for full in (rows(3, count=32), rows(3, count=32).exp()):
        box = open_black_box(Api(full), class_names=NAMES, probe=probe, access=policy, name="api")
        torch.testing.assert_close(box.log_probs(probe).exp(), served.exp(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", [Decimals(1), TopK(3, renormalised=False)], ids=str)
def test_answers_that_are_cut_off_are_not_mistaken_for_logits(probe, policy):
    served = policy.apply(rows(4, count=32, scale=1.0)).exp()
    with pytest.raises(InputError, match=r"look like probabilities, but do not sum to 1 .* name the access"):
        CallableBlackBox("api", Api(served), 10, probe)
    with pytest.raises(InputError, match=r"hold -inf, so they are logarithms .* return the probabilities themselves"):
        CallableBlackBox("api", Api(served.log() - 0.1), 10, probe, policy)


def test_rounded_answers_to_many_classes_may_sum_to_little(probe):
    least, most = Decimals(3).sums(1000)
    assert (least, most) == pytest.approx((0.5, 1.5))
    with pytest.raises(InputError, match=r"do not sum to between 0.5 and 1.5 \(row 0 sums to 0.4, off by -0.1\)"):
        check_log_probs(torch.full((1, 1000), 0.0004).log(), "box", (least, most))


def test_an_answer_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"row 1 sums to 0, off by -1"):
        check_log_probs(torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]]), "box", (0.0, 1.0))


def test_a_box_of_ones_own_says_what_it_lets_through(probe):
    class Remote(BlackBox):
        name, fingerprint, policy = "remote", "f00", TopK(2, renormalised=False)

        def log_probs(self, images):
            return self.policy.apply(rows(5, count=len(images)))

    assert (Remote().access, Remote().unlimited.name) == ("top-k-raw", "remote")
    assert Remote().answers(
        Split(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    ).shape == (3, 10)
    with pytest.raises(InputError, match="'remote' is open to access 'top-k-raw:2', not 'full'"):
        open_black_box(Remote(), class_names=NAMES, probe=probe)


def test_one_class_of_probability_one_says_no_more_than_its_name():
    assert TopK(1).kind == "label"
    assert TopK(1, renormalised=False).kind == "top-k-raw"
    assert [str(TopK(1)), str(TopK(1, renormalised=False)), str(TopK(3))] == ["top-k:1", "top-k-raw:1", "top-k:3"]
