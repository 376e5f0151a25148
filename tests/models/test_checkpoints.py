"""Classifiers: normalisation, seeds, fingerprints; and checkpoints, whole, damaged, interrupted and distrusted."""

import hashlib
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from undistill.errors import InputError
from undistill.models import Classifier, load_checkpoint, make_classifier, save_checkpoint

NAMES = ["cat", "dog", "owl"]


def tiny(architecture: str = "cnn", seed: int = 0, **changes: Any) -> Classifier:
    settings: dict[str, Any] = {
        "class_names": NAMES,
        "input_shape": (3, 8, 8),
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "seed": seed,
    }
    return make_classifier(architecture, **(settings | changes))


def trained(architecture: str = "cnn") -> Classifier:
    """A classifier whose batch normalisation has moved, with provenance."""
    classifier = tiny(architecture)
    classifier(torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    classifier.provenance = {"task": "digits", "epochs": 3, "accuracy": 0.1 + 0.2}
    return classifier


def edit(folder: Path, **changes: Any) -> None:
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | changes))


def test_images_are_normalised_per_channel() -> None:
    classifier = tiny("mlp-16").eval()
    images = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 0.4), (0.2, 0.5), (0.3, 0.6)])], 1)
    torch.testing.assert_close(classifier(images), classifier.net(by_hand))
    assert classifier.num_classes == 3
    assert not {"mean", "std"} & set(classifier.state_dict())


def test_signals_are_normalised_per_channel() -> None:
    classifier = tiny("cnn1d", input_shape=(2, 40), mean=[0.5, 0.0], std=[0.5, 1.0]).eval()
    signal = torch.rand(4, 2, 40)
    by_hand = torch.stack([signal[:, 0] * 2 - 1, signal[:, 1]], 1)
    torch.testing.assert_close(classifier(signal), classifier.net(by_hand))


def test_weights_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = tiny(seed=5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = tiny(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != tiny(seed=6).fingerprint()


def test_weights_start_as_kaiming_normal() -> None:
    weight = tiny("resnet18").net.stages[3][1].residual[3].weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_fingerprint_tells_what_decides_the_logits() -> None:
    fingerprint = trained().fingerprint()
    assert len(fingerprint) == 64
    assert trained().to(memory_format=torch.channels_last).fingerprint() == fingerprint
    moved = trained()
    moved.net.layers[1].running_mean[0] += 1e-6
    for other in (moved, tiny(), tiny(std=[0.4, 0.5, 0.7]), tiny(mean=[0.1, 0.2, 0.4])):
        assert other.fingerprint() != fingerprint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ["a", "b", "a"]}, r"class names repeat: 'a' \(1 in all\)"),
        ({"class_names": ["a"]}, "at least 2 classes, got 1"),
        ({"mean": [0.0], "std": [1.0] * 4}, "mean has 1 values for 3 channels; std has 4 values for 3 channels"),
        ({"std": [0.5, 0.0, 0.5]}, r"std must be positive, got \[0.5, 0.0, 0.5\]"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean is not finite"),
        ({"input_shape": ()}, r"positive sizes, such as \(3, 32, 32\), got \(\)"),
    ],
)
def test_a_wrong_description_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny(**changes)


@pytest.mark.parametrize("architecture", ["cnn", "resnet8", "wrn-10-1", "mlp-16", "timm:resnet10t"])
def test_a_checkpoint_holds_everything_exactly(architecture: str, tmp_path: Path) -> None:
    classifier = trained(architecture)
    save_checkpoint(classifier, tmp_path / "deep" / "teacher")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    loaded = load_checkpoint(tmp_path / "deep" / "teacher")
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    assert loaded.state_dict().keys() == classifier.state_dict().keys()
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.fingerprint() == classifier.fingerprint()
    for attribute in ("architecture", "class_names", "input_shape", "provenance"):
        assert getattr(loaded, attribute) == getattr(classifier, attribute)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded(images), classifier.eval()(images))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "model.json", "model.safetensors", "teacher"]


def test_the_description_is_readable(tmp_path: Path) -> None:
    save_checkpoint(trained(), tmp_path / "t")
    description = json.loads((tmp_path / "t" / "model.json").read_text())
    assert description["format"] == 1
    assert description["undistill"][0].isdigit()
    assert description["class_names"] == NAMES
    assert description["mean"] == pytest.approx([0.1, 0.2, 0.3])


def test_saving_replaces_and_follows_links(tmp_path: Path) -> None:
    save_checkpoint(tiny(seed=1), tmp_path / "t")
    (tmp_path / "link").symlink_to(tmp_path / "t")
    save_checkpoint(tiny(seed=2), tmp_path / "link")
    assert load_checkpoint(tmp_path / "t").fingerprint() == tiny(seed=2).fingerprint()
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "t"]


@pytest.mark.parametrize("calls", range(6))
def test_a_crash_leaves_the_old_or_the_new(calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at its n-th rename; nothing after it runs, not even tidying up."""
    save_checkpoint(tiny(seed=1), tmp_path / "t")
    rename, left = os.replace, [calls]

    class Killed(BaseException):
        pass

    def dying(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", dying)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        try:
            save_checkpoint(tiny(seed=2), tmp_path / "t")
            finished = True
        except Killed:
            finished = False
    expected = tiny(seed=2 if finished else 1).fingerprint()
    assert finished == (calls >= 4)  # two files, then the old folder away and the new one in
    assert load_checkpoint(tmp_path / "t").fingerprint() == expected
    save_checkpoint(tiny(seed=3), tmp_path / "t")
    assert load_checkpoint(tmp_path / "t").fingerprint() == tiny(seed=3).fingerprint()


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds 'thesis.tex' \(1 such\), which is no part of a checkpoint"):
        save_checkpoint(tiny(), tmp_path)
    with pytest.raises(InputError, match=r"thesis.tex is a file; a checkpoint is a folder"):
        save_checkpoint(tiny(), tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    save_checkpoint(tiny(), tmp_path / "t")
    content = pickle.dumps(Trap(tmp_path / "sprung"))
    (tmp_path / "t" / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="its SHA-256 differs"):
        load_checkpoint(tmp_path / "t")
    edit(tmp_path / "t", sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(InputError, match=r"not a safetensors file .*; pickles are never loaded"):
        load_checkpoint(tmp_path / "t")
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"model.pt is a file; .* pickled files \(.pt, .pth\) are never loaded"):
        load_checkpoint(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(tiny(), tmp_path / "t")
    content = bytearray((tmp_path / "t" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "t" / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged or was replaced; copy the checkpoint again"):
        load_checkpoint(tmp_path / "t")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2, "undistill": "9.9"}, "saved in format 2 by undistill 9.9; .* up to format 1, so upgrade it"),
        ({"format": None}, "it has no format number"),
        ({"class_names": "cat", "mean": [True]}, "damaged: class_names, mean missing or of the wrong type"),
        ({"architecture": "resnet21"}, "unknown model 'resnet21'"),
        ({"architecture": "mlp-16"}, r"do not fit 'mlp-16': lacks 1.weight; .* \(\d+ problems in all\)"),
        ({"class_names": ["a", "b"]}, r"head.weight has shape \(3, 64\), not \(2, 64\)"),
        ({"std": [0.5, -0.5, 0.5]}, "std must be positive"),
    ],
)
def test_a_wrong_model_json_says_why(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    save_checkpoint(tiny(), tmp_path / "t")
    edit(tmp_path / "t", **changes)
    with pytest.raises(InputError, match=words):
        load_checkpoint(tmp_path / "t")


def test_missing_and_broken_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a checkpoint: it lacks model.json and model.safetensors"):
        load_checkpoint(tmp_path / "nothing")
    save_checkpoint(tiny(), tmp_path / "t")
    for broken in (b'{"format": 1, ', b"\xff\xfe", b""):
        (tmp_path / "t" / "model.json").write_bytes(broken)
        with pytest.raises(InputError, match=r"model.json is damaged \(.*\); copy the checkpoint again"):
            load_checkpoint(tmp_path / "t")
    (tmp_path / "t" / "model.json").write_text("[1]")
    with pytest.raises(InputError, match="is not the description of a checkpoint"):
        load_checkpoint(tmp_path / "t")
    (tmp_path / "t" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"it lacks model.safetensors;"):
        load_checkpoint(tmp_path / "t")


OWN_CODE = """
from torch import nn

def tied(num_classes, input_shape):
    first = nn.Linear(192, 192)
    second = nn.Linear(192, 192)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.Linear(192, num_classes))
"""


def test_own_code_runs_only_when_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tied.py").write_text(OWN_CODE)
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the import adds to
    monkeypatch.chdir(tmp_path)
    classifier = tiny("own_tied:tied")
    save_checkpoint(classifier, tmp_path / "t")
    with pytest.raises(InputError, match=r"code at 'own_tied:tied'; .* allow it with trust_import_path=True"):
        load_checkpoint(tmp_path / "t")
    loaded = load_checkpoint(tmp_path / "t", trust_import_path=True)
    assert loaded.fingerprint() == classifier.fingerprint()
    assert loaded.net[1].weight is loaded.net[3].weight


def test_a_small_network_learns() -> None:
    """Three classes that differ in brightness: the gradient goes the right way through normalisation and network."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 3
    images = torch.rand(64, 3, 8, 8, generator=generator) * 0.3 + labels[:, None, None, None] * 0.3
    classifier = tiny("cnn")
    optimiser = torch.optim.SGD(classifier.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(classifier(images), labels).backward()
        optimiser.step()
    assert (classifier(images).argmax(1) == labels).float().mean() > 0.95
