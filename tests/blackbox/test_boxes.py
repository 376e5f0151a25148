"""Black boxes: what they answer, what they refuse, when two are the same."""

import importlib
import math
import sys
from functools import partial

import pytest
import torch
from torch import nn

from undistill.blackbox import BlackBox, CallableBlackBox, Decimals, LocalBlackBox, open_black_box
from undistill.errors import InputError
from undistill.models import make_classifier, save_checkpoint
from undistill.source import code_hash

NAMES = tuple("0123456789")


class Answering:
    """A callable that gives the first of its rows, whatever it is asked; ``then`` takes over after the first call."""

    def __init__(self, rows, then=None):
        self.rows, self.then = rows, then

    def __call__(self, images):
        rows, self.rows = self.rows, self.rows if self.then is None else self.then
        return rows[: len(images)]


def box_of(rows, probe, then=None, name="box"):
    return CallableBlackBox(name, Answering(rows, then), 10, probe)


# --- a classifier of one's own


def test_a_classifier_answers_with_normalised_logits(teacher, probe):
    classifier = teacher(mean=0.3, std=0.4)
    box = LocalBlackBox("t", classifier)
    with torch.no_grad():
        logits = classifier.net((probe - 0.3) / 0.4)  # normalisation is the teacher's own business
    log_probs = box.log_probs(probe)
    torch.testing.assert_close(log_probs, logits - logits.exp().sum(1, keepdim=True).log())
    assert log_probs.dtype == torch.float32
    assert not log_probs.requires_grad


def test_a_classifier_answers_in_evaluation_mode(teacher, probe):
    classifier = teacher("cnn")
    assert classifier.training
    box = LocalBlackBox("t", classifier)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    torch.testing.assert_close(box.log_probs(probe)[:1], box.log_probs(probe[:1]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_a_classifier_that_gives_nan_is_refused(teacher, probe):
    classifier = teacher()
    with torch.no_grad():
        classifier.net[-1].bias[3] = math.nan
    with pytest.raises(InputError, match=r"t: 32 of 32 rows hold NaN \(first: row 0\); a model that gives NaN"):
        LocalBlackBox("t", classifier).log_probs(probe)


def test_fingerprints_of_classifiers(teacher):
    assert LocalBlackBox("a", teacher(seed=0)).fingerprint == LocalBlackBox("b", teacher(seed=0)).fingerprint
    others = [teacher(seed=1), teacher(mean=0.31), teacher(std=0.41), teacher("mlp-5"), teacher(classes=9)]
    prints = {LocalBlackBox("a", classifier).fingerprint for classifier in [teacher(seed=0), *others]}
    assert len(prints) == 6


# --- anything that can be called


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probabilities", "float64 probabilities", "shifted logits"])
def test_every_kind_of_answer_becomes_log_probabilities(soft, probe, kind):
    log_probs = torch.log_softmax(soft.double(), 1)
    answers = {
        "logits": soft,
        "log_probs": log_probs.float(),
        "probabilities": log_probs.exp().float(),
        "float64 probabilities": log_probs.exp(),
        "shifted logits": soft + 100,
    }[kind]
    box = box_of(answers, probe)
    assert box.gives_probabilities == ("probabilities" in kind)
    got = box.log_probs(probe)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), log_probs, rtol=1e-5, atol=1e-5)


def test_labels_alone_are_an_answer(probe):
    one_hot = torch.eye(10)[torch.arange(32) % 10]
    for answers in (one_hot, one_hot.log(), one_hot.to(torch.int64)):
        got = box_of(answers, probe).log_probs(probe)
        assert torch.equal(got.exp(), one_hot)


def test_what_is_decided_on_the_probe_is_held_to(soft, probe):
    # Logits of which some rows look like probabilities stay logits.
    box = box_of(soft, probe, then=torch.full((32, 10), 0.1))
    assert not box.gives_probabilities
    # What the probe found to be probabilities must stay so.
    probs = torch.softmax(soft, 1)
    box = box_of(probs, probe)
    box.function = Answering(probs * torch.linspace(1, 0.9, 32)[:, None])
    with pytest.raises(InputError, match=r"box: probabilities of 31 of 32 rows do not sum to 1 \(row 31 sums to 0\.9,"):
        box.log_probs(probe)
    box.function = Answering(soft)
    with pytest.raises(InputError, match=r"box: \d+ of 32 rows hold negative probabilities \(first: row 0\)"):
        box.log_probs(probe)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("probabilities", [True, False])
def test_answers_that_are_no_numbers_are_refused(soft, probe, value, probabilities):
    good = torch.softmax(soft, 1) if probabilities else soft
    bad = good.clone()
    bad[4, 2] = value
    refusal = "box: 1 of 32 rows hold NaN" if not (probabilities and value == math.inf) else "do not sum to 1 .*inf"
    box = box_of(good, probe)
    box.function = Answering(bad)
    with pytest.raises(InputError, match=refusal):
        box.log_probs(probe)
    with pytest.raises(InputError, match="box: "):
        box_of(bad, probe)


@pytest.mark.parametrize("shape", [(32, 9), (32, 11), (31, 10), (32,), (32, 10, 1)])
def test_answers_of_another_shape_are_refused(probe, shape):
    with pytest.raises(InputError) as refusal:
        box_of(torch.zeros(shape), probe)
    assert str(refusal.value) == (
        f"box returned shape {shape} for 32 images, must return (32, 10): one row per image, one column per class of "
        "the task"
    )


@pytest.mark.parametrize("answer", [None, [[0.1] * 10] * 32, {"logits": torch.zeros(32, 10)}])
def test_answers_of_another_type_are_refused(probe, answer):
    with pytest.raises(InputError, match=f"box returned a {type(answer).__name__}, must return a torch.Tensor"):
        CallableBlackBox("box", lambda images: answer, 10, probe)


def test_a_module_is_put_into_evaluation_mode(probe):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5), nn.BatchNorm1d(10))
    assert module.training
    box = CallableBlackBox("box", module, 10, probe)
    assert not module.training
    assert torch.equal(box.log_probs(probe), box.log_probs(probe))
    assert not box.log_probs(probe).requires_grad


def test_fingerprints_of_callables(soft, probe):
    def fingerprint(rows, name="box"):
        return box_of(rows, probe, name=name).fingerprint

    shifted = soft.clone()
    shifted[5, 5] += 0.125
    assert fingerprint(soft) == fingerprint(soft.clone())
    assert fingerprint(soft) == fingerprint(soft + 1e-7), "other thread counts round otherwise"
    assert len({fingerprint(soft), fingerprint(shifted), fingerprint(soft, "other")}) == 3


def test_one_hot_answers_have_fingerprints(probe):
    rows = torch.eye(10)[torch.arange(32) % 10]
    assert box_of(rows, probe).fingerprint == box_of(rows, probe).fingerprint
    assert box_of(rows, probe).fingerprint != box_of(rows.roll(1, 0), probe).fingerprint


@pytest.mark.parametrize(("entry", "words"), [(0.2, "2, off by +1"), (0.05, "0.5, off by -0.5"), (0.0, "0, off by -1")])
def test_rows_between_0_and_1_must_sum_to_1(probe, entry, words):
    with pytest.raises(InputError) as refusal:
        box_of(torch.full((32, 10), entry), probe)
    assert str(refusal.value) == (
        f"box: its answers look like probabilities, but do not sum to 1 (row 0 sums to {words}); if it rounds them or "
        "serves only some, name the access (such as decimals:3 or top-k-raw:5), and if they are logits, return their "
        "log_softmax"
    )
    log_probs = torch.log_softmax(torch.full((32, 10), entry), 1)
    torch.testing.assert_close(box_of(log_probs, probe).log_probs(probe), log_probs)


@pytest.mark.parametrize("rounded", [False, True])
def test_percentages_are_refused(soft, probe, rounded):
    percent = 100 * torch.softmax(soft, 1)
    with pytest.raises(InputError) as refusal:
        box_of(percent.round() if rounded else percent, probe)
    assert str(refusal.value) == (
        "box: its answers are not negative and sum to about 100, so they look like percentages; divide them by 100, "
        "and if they are logits, return their log_softmax"
    )
    for logits in (soft.clamp_min(0), soft.abs() * 5, soft + 100):
        torch.testing.assert_close(box_of(logits, probe).log_probs(probe), torch.log_softmax(logits, 1))


# What APIs do to probabilities: each is refused, or seen by `answer_facts` (test_facts.py) and flagged.


@pytest.mark.parametrize(
    ("served", "refusal"),
    [
        (lambda probs: (probs * 1e6).round() / 1e6, None),
        (torch.Tensor.half, None),
        # Rounded to 2 decimals and not renormalised: sums from 0.98 to 1.02.
        (
            lambda probs: (probs * 100).round() / 100,
            r"look like probabilities, but do not sum to 1 \(row \d+ sums to .*name the access \(such as decimals:3",
        ),
        (lambda probs: probs * 100, "look like percentages"),
        (lambda probs: probs.clamp_max(0.5), "look like probabilities, but do not sum to 1"),
    ],
    ids=["6 decimals", "float16", "2 decimals", "percentages", "clipped"],
)
def test_what_apis_serve_is_taken_or_refused(probe, served, refusal):
    def api(images):
        return served((images.flatten(1)[:, 20:30] * 4).softmax(1))

    if refusal is None:
        assert CallableBlackBox("api", api, 10, probe).gives_probabilities
        return
    with pytest.raises(InputError, match=refusal):
        CallableBlackBox("api", api, 10, probe)


def test_sums_that_go_astray_after_the_probe_are_refused_with_advice(soft, probe):
    probs = torch.softmax(soft, 1)
    box = box_of(probs, probe)
    box.function = Answering((probs * 100).round() / 100)
    with pytest.raises(InputError, match=r"do not sum to 1 .*if they are rounded or cut off, name the access \(such"):
        box.log_probs(probe)
    box = CallableBlackBox("box", Answering((probs * 100).round() / 100), 10, probe, Decimals(2))
    assert box.log_probs(probe).exp().sum(1).min() < 0.999


def test_a_callable_that_fails_is_named_with_its_error(probe):
    def api(images):
        raise RuntimeError("no\nconnection")

    with pytest.raises(InputError) as refusal:
        open_black_box(api, class_names=NAMES, probe=probe)
    assert str(refusal.value) == (
        "api failed when it was asked about 32 images, with RuntimeError: no connection; mend it and run the same "
        "command again"
    )
    assert isinstance(refusal.value.__cause__, RuntimeError)


# --- what a user calls a teacher


def test_a_folder_is_opened(teacher, probe, tmp_path):
    save_checkpoint(teacher(), tmp_path / "my-teacher")
    for path in (tmp_path / "my-teacher", str(tmp_path / "my-teacher")):
        box = open_black_box(path, class_names=NAMES, probe=probe)
        assert isinstance(box, LocalBlackBox)
        assert box.name == "my-teacher"
        assert box.fingerprint == LocalBlackBox("t", teacher()).fingerprint
        torch.testing.assert_close(box.log_probs(probe), LocalBlackBox("t", teacher()).log_probs(probe))
    assert open_black_box(tmp_path / "my-teacher", class_names=NAMES, probe=probe, name="x").name == "x"


def test_an_import_path_is_opened(probe, tmp_path, monkeypatch):
    package = tmp_path / "served_teacher"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "api.py").write_text("def ask(images):\n    return images.flatten(1)[:, :10] * 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    box = open_black_box("served_teacher.api:ask", class_names=NAMES, probe=probe)
    assert box.name == "served_teacher.api:ask"
    torch.testing.assert_close(box.log_probs(probe), torch.log_softmax(probe.flatten(1)[:, :10] * 5, 1))
    with pytest.raises(InputError, match="has no 'aks'"):
        open_black_box("served_teacher.api:aks", class_names=NAMES, probe=probe)
    with pytest.raises(InputError, match="cannot import the module 'served_student'"):
        open_black_box("served_student:ask", class_names=NAMES, probe=probe)


def test_classifiers_callables_and_boxes_are_opened(teacher, probe):
    def my_model(images):
        return images.flatten(1)[:, :10] * 5

    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    opened = {
        teacher(): ("mlp-4", LocalBlackBox),
        my_model: ("my_model", CallableBlackBox),
        module: ("Sequential", CallableBlackBox),
    }
    for given, (name, kind) in opened.items():
        box = open_black_box(given, class_names=NAMES, probe=probe)
        assert isinstance(box, kind)
        assert box.name == name

    class Remote(BlackBox):
        name, fingerprint = "remote", "f00"

        def log_probs(self, images):
            raise NotImplementedError

    remote = Remote()
    assert open_black_box(remote, class_names=NAMES, probe=probe) is remote


def test_a_missing_folder_is_refused(probe, tmp_path):
    with pytest.raises(InputError, match="nowhere is not a checkpoint"):
        open_black_box(tmp_path / "nowhere", class_names=NAMES, probe=probe)


def test_another_class_count_is_refused(teacher, probe):
    with pytest.raises(InputError, match="teacher 'mlp-4' has 9 classes, the task has 10; choose the task"):
        open_black_box(teacher(classes=9), class_names=NAMES, probe=probe)


def test_another_input_shape_is_refused(teacher, probe):
    with pytest.raises(InputError, match=r"takes inputs of shape \(3, 8, 8\), the task has \(1, 8, 8\)"):
        open_black_box(teacher(input_shape=(3, 8, 8)), class_names=NAMES, probe=probe)


def test_a_callable_is_known_by_its_code(tmp_path, monkeypatch):
    """Even where the few images that are asked about do not tell two versions apart."""
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for limit in (2, 2, 3):
        (tmp_path / "own_api.py").write_text(
            f"def api(images):\n    return -images.flatten(1)[:, :3].clamp(max={limit})\n"
        )
        monkeypatch.delitem(sys.modules, "own_api", raising=False)
        code_hash.cache_clear()
        importlib.invalidate_caches()
        api = importlib.import_module("own_api").api
        found.append(CallableBlackBox("api", partial(api), 3, torch.full((4, 1, 2, 2), 0.1)).fingerprint)
    code_hash.cache_clear()
    assert found[0] == found[1] != found[2]


def test_a_classifier_is_known_by_the_code_of_its_network(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for factor in (1, 1, 2):
        (tmp_path / "own_net.py").write_text(
            "from torch import nn\n\n"
            "class Scaled(nn.Module):\n"
            "    def __init__(self, classes, pixels):\n"
            "        super().__init__()\n"
            "        self.head = nn.Linear(pixels, classes)\n\n"
            "    def forward(self, images):\n"
            f"        return {factor} * self.head(images.flatten(1))\n\n\n"
            "def make(num_classes, input_shape):\n"
            "    return Scaled(num_classes, input_shape[0] * input_shape[1] * input_shape[2])\n"
        )
        monkeypatch.delitem(sys.modules, "own_net", raising=False)
        code_hash.cache_clear()
        importlib.invalidate_caches()
        made = {"class_names": ("a", "b"), "input_shape": (1, 2, 2), "mean": (0.0,), "std": (1.0,), "seed": 0}
        found.append(LocalBlackBox("own", make_classifier("own_net:make", **made)).fingerprint)
    code_hash.cache_clear()
    assert found[0] == found[1] != found[2]
