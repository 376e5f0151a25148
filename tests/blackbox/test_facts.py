"""What answers look like: rounding, zeros and sums are seen, and nothing else is taken for them."""

import json

import pytest
import torch

from undistill.blackbox import (
    FULL,
    CallableBlackBox,
    Decimals,
    LabelAccess,
    LocalBlackBox,
    TopK,
    answer_facts,
    log_probs_of_probabilities,
)
from undistill.tasks import Split


@pytest.fixture(params=[2, 10, 100], ids=lambda classes: f"{classes} classes")
def probs(request):
    """Probabilities of 300 answers, from nearly uniform to nearly certain, as a server computes them: in float32."""
    generator = torch.Generator().manual_seed(request.param)
    logits = torch.randn(300, request.param, generator=generator) * torch.linspace(0.1, 15, 300)[:, None]
    return torch.softmax(logits, 1)


def seen(probs, policy=FULL):
    """Facts of probabilities that came through a black box: as float32 logarithms."""
    return answer_facts(probs.double().log().float(), policy)


@pytest.mark.parametrize("places", range(1, 7))
def test_decimals_are_counted(probs, places):
    # Both as NumPy would round a double, and as a server that rounds float32.
    for precise in (probs.double(), probs):
        found = seen((precise * 10**places).round() / 10**places)
        assert found.decimals == places
        assert found.float_type is None


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_short_floats_are_known(probs, kind):
    found = seen(probs.to(getattr(torch, kind)))
    assert (found.float_type, found.decimals) == (kind, None)


def test_full_precision_is_taken_for_no_grid(probs):
    for rows in (probs, probs.double(), probs.double().pow(0.5), torch.full((5, 3), 1 / 3)):
        found = seen(rows / rows.sum(1, keepdim=True))
        assert (found.decimals, found.float_type) == (None, None)
    assert seen(probs * (1 - 1e-7)).decimals is None


def test_a_confident_network_is_taken_for_no_grid(teacher, probe):
    """Its answers are 1 and nearly 0, some below the least double; they are no whole numbers for that."""
    classifier = teacher()
    with torch.no_grad():
        classifier.net[-1].weight.mul_(5000)
    answers = LocalBlackBox("t", classifier).log_probs(probe)
    assert (answers.double().exp() == 0).any()
    assert answers.amax(1).exp().median() == 1
    found = answer_facts(answers)
    assert (found.decimals, found.float_type, found.with_zeros) == (None, None, 0)


def test_zeros_and_sums_are_counted():
    rows = torch.tensor([[0.5, 0.25, 0.25], [0.7, 0.29, 0.0], [1.0, 0.0, 0.0], [0.5, 0.51, 0.0]])
    found = seen(rows)
    assert (found.images, found.with_zeros, found.most_classes) == (4, 3, 3)
    assert found.least_sum == pytest.approx(0.99, abs=1e-6)
    assert found.largest_sum == pytest.approx(1.01, abs=1e-6)
    assert json.loads(json.dumps(found.to_json()))["with_zeros"] == 3


def test_labels_alone_have_no_decimals():
    found = seen(torch.eye(4)[torch.arange(20) % 4])
    assert (found.decimals, found.most_classes, found.with_zeros) == (0, 1, 20)


@pytest.mark.parametrize(
    ("policy", "kind", "places"),
    [(FULL, "full", None), (Decimals(3), "decimals", 3), (TopK(2), "top-k", None), (LabelAccess(), "label", None)],
)
def test_what_the_box_says_stands_beside_it(probs, policy, kind, places):
    found = answer_facts(policy.apply(probs.log()), policy)
    assert (found.kind, found.places) == (kind, places)


# APIs, from what they return to what is seen of them.


def api(change):
    """A black box around an API that does something to its probabilities."""

    def ask(images):
        return change((images.flatten(1)[:, 20:30] * 4).softmax(1))

    return ask


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda probs: (probs * 1e6).round() / 1e6, (6, None)),
        (lambda probs: (probs * 1e4).round() / 1e4, (4, None)),
        (torch.Tensor.half, (None, "float16")),
        (lambda probs: probs, (None, None)),
    ],
    ids=["6 decimals", "4 decimals", "float16", "as they are"],
)
def test_an_api_that_rounds_is_seen_through(probe, digits, change, expected):
    box = CallableBlackBox("api", api(change), 10, probe)
    found = answer_facts(box.answers(Split(digits.test.images[:300], digits.test.labels[:300])), box.policy)
    assert (found.decimals, found.float_type) == expected


def test_logarithms_of_rounded_probabilities_are_seen_through(probs):
    rounded = (probs.double() * 1000).round() / 1000
    kept = rounded[(rounded.sum(1) - 1).abs() < 5e-4]
    assert answer_facts(log_probs_of_probabilities(kept.float(), "file")).decimals == 3
