"""A defended teacher as a folder."""

import json
import math
import shutil
import stat
from dataclasses import dataclass

import pytest
import torch

from undistill.blackbox import (
    DefendedBlackBox,
    LabelAccess,
    defend,
    load_defended,
    open_black_box,
    save_defended,
    saved,
)
from undistill.defences.output import (
    MAD,
    OUTPUT_DEFENCES,
    CentroidServing,
    FixedDefence,
    KeepTopK,
    KeyedNoise,
    LabelOnly,
    ReverseSigmoid,
)
from undistill.errors import InputError
from undistill.files import write_json
from undistill.models import save_checkpoint

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def classifier(teacher):
    made = teacher("mlp-16")
    with torch.no_grad():
        made.net[-1].weight.mul_(30)  # sure of its answers, as a trained one is
    return made


@pytest.mark.parametrize("name", OUTPUT_DEFENCES)
def test_every_defence_comes_back_with_the_same_answers_and_name(name, classifier, digits, probe, tmp_path):
    kind = OUTPUT_DEFENCES[name]
    box = defend(classifier, [kind(key="mine") if kind is KeyedNoise else kind()], digits, name="served")
    save_defended(box, str(tmp_path / "served"))
    again = load_defended(str(tmp_path / "served"))
    assert torch.equal(again.log_probs(probe), box.log_probs(probe))
    assert (again.name, again.fingerprint, again.policy) == (box.name, box.fingerprint, box.policy)
    assert again.defences == box.defences


def test_a_stack_comes_back_in_its_order(classifier, digits, probe, tmp_path):
    box = defend(classifier, [ReverseSigmoid(l1=0.2), KeyedNoise(0.1, key="mine"), KeepTopK(3)], digits)
    save_defended(box, tmp_path / "served")
    again = open_black_box(str(tmp_path / "served"), class_names=NAMES, probe=probe, name="theirs")
    assert again.name == "theirs+reverse-sigmoid+noise+top-k"
    assert torch.equal(again.log_probs(probe), box.log_probs(probe))
    assert again.fingerprint == box.fingerprint
    assert isinstance(again, DefendedBlackBox)
    more = defend(tmp_path / "served", [LabelOnly()], digits)
    assert torch.equal(more.log_probs(probe), LabelOnly().apply(box.log_probs(probe), probe)), (
        "it can be defended again"
    )


def test_a_folder_with_a_key_is_for_its_owner_alone_from_the_first(classifier, digits, tmp_path, monkeypatch):
    seen = []

    def watched(path, content):
        seen.append(stat.S_IMODE(path.parent.stat().st_mode))
        write_json(path, content)

    monkeypatch.setattr(saved, "write_json", watched)
    save_defended(defend(classifier, [KeyedNoise(key="secret")], digits), tmp_path / "served")
    assert "secret" in (tmp_path / "served" / "defences.json").read_text(), "it could not be served without"
    assert [*seen, stat.S_IMODE((tmp_path / "served").stat().st_mode)] == [0o700, 0o700]


def test_the_public_key_is_refused(classifier, digits, tmp_path):
    with pytest.raises(InputError, match=r"the key of noise is the public default, .* noise:key=SECRET"):
        save_defended(defend(classifier, [KeyedNoise()], digits), tmp_path / "served")


def test_what_cannot_be_saved_is_refused(classifier, digits, probe, tmp_path):
    @dataclass(frozen=True)
    class Mine(FixedDefence):
        name, summary, source, keeps_top1, idempotent = "mine", "mine", "me", True, True

        def apply(self, log_probs, images):
            return log_probs

    def sum_of_pixels(images):
        return 9 * images.flatten(1)[:, 20:30]

    to = tmp_path / "served"
    plain = open_black_box(classifier, class_names=NAMES, probe=probe, name="plain")
    limited = open_black_box(classifier, class_names=NAMES, probe=probe, access=LabelAccess())
    for box, words in (
        (plain, "'plain' has no output defence around it; save it as a checkpoint"),
        (limited, "is no checkpoint or classifier"),
        (defend(sum_of_pixels, [LabelOnly()], digits), "'sum_of_pixels' is no checkpoint or classifier"),
        (defend(classifier, [Mine()], digits), "mine: only defences of undistill itself can be saved"),
        (defend(classifier, [MAD()], digits, surrogate=classifier), "mad with a surrogate cannot be saved"),
    ):
        with pytest.raises(InputError, match=words):
            save_defended(box, to)
        assert not to.exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there is there already; name a new folder"):
        save_defended(defend(classifier, [LabelOnly()], digits), tmp_path / "there")


def test_another_task_is_refused(classifier, digits, probe, tmp_path):
    save_defended(defend(classifier, [CentroidServing()], digits), tmp_path / "served")
    for names, images, words in (
        (NAMES[:3], probe, "has 10 classes, the task has 3"),
        (NAMES[::-1], probe, "has the task's classes in another order"),
        (NAMES, torch.zeros(2, 3, 32, 32), r"takes inputs of shape \(1, 8, 8\), the task has \(3, 32, 32\)"),
    ):
        with pytest.raises(InputError, match=words):
            open_black_box(tmp_path / "served", class_names=names, probe=images)


def test_a_damaged_folder_is_refused(classifier, digits, tmp_path):
    save_defended(defend(classifier, [CentroidServing()], digits), tmp_path / "whole")
    about = json.loads((tmp_path / "whole" / "defences.json").read_bytes())
    first = about["defences"][0]

    def damage(words, description=None, tensors=None, gone=None):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", folder)
        if description is not None:
            text = description if isinstance(description, str) else json.dumps(description)
            (folder / "defences.json").write_text(text)
        if tensors is not None:
            (folder / "defences.safetensors").write_bytes(tensors)
        if gone is not None:
            (folder / gone).unlink()
        with pytest.raises(InputError, match=words):
            load_defended(folder)
        shutil.rmtree(folder)

    damage("is damaged", "{")
    damage("is damaged", [])
    damage("is damaged", {"format": 1})
    damage("saved in format 9 by undistill 0.1.0; this undistill reads up to format 1", about | {"format": 9})
    damage("is not what was saved there", about | {"defences": []})
    damage("is not what was saved there", about | {"defences": [first | {"name": "label-only"}]})
    damage("is not what was saved there", about | {"defences": [first | {"learnt_from": None}]})
    damage("is damaged", about | {"defences": [first | {"learnt_from": math.nan}]})
    damage("is damaged", "[" * 100_000)
    damage("is damaged", json.dumps(about).replace('"format": 1', '"format": 1e999'))
    damage("is damaged", about | {"defences": [first | {"name": "cloak"}]})
    damage("is damaged", about | {"defences": [first | {"settings": {"colour": 1}}]})
    damage("is damaged", about | {"defences": [first | {"name": "reverse-sigmoid"}]})
    damage("top-k", about | {"defences": [first | {"name": "top-k", "settings": {"k": 0}}]})
    damage("its SHA-256 differs", tensors=b"other")
    damage("is not the file that defences.json describes", gone="defences.safetensors")
    damage("is not a checkpoint: it lacks model.json", gone="teacher/model.json")


def test_another_teacher_under_the_same_defences_is_refused(classifier, teacher, digits, tmp_path):
    save_defended(defend(classifier, [CentroidServing()], digits), tmp_path / "served")
    save_checkpoint(teacher("mlp-16", seed=1), tmp_path / "served" / "teacher")
    with pytest.raises(InputError, match="teacher, defences and what they learnt do not belong together"):
        load_defended(tmp_path / "served")
