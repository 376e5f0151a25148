"""Frozen versions stay as they are, try as often everywhere, and can be run."""

from dataclasses import replace

import pytest
import torch

from undistill.attacks import ATTACKS, KD
from undistill.audit import VERSIONS, Protocol, customised
from undistill.audit.beforehand import misfit
from undistill.tasks import Split, Task, TrainingImages, load_task
from undistill.training import Recipe, classifier_for

SHAPES = {"signals": (1, 40), "small images": (1, 8, 8), "images": (3, 32, 32)}

# Whoever has to change one of these has changed a frozen version. Give it a new number, and keep the old one.
FROZEN = {
    ("quick", "signals"): "50fb4d15b0def49298ecbeac546166be639f7e865b21d40fb9e95680982f5a6c",
    ("quick", "small images"): "2e1b2bcce2b39e0bec90e01efdb92e723f866d239594660c97a082731210ce46",
    ("quick", "images"): "587c5c9a02b1e4f5605e95b212d990b0c455a3263e6943a7ab70e511a4409f85",
    ("standard", "signals"): "3e4a0c9ed3f59b8301c8ca6a7c296a19a2fa9602e54f2d5a181bd3a9b899c2d0",
    ("standard", "small images"): "7ebb1cce3b87a447b68bf6cae97b1da819fa02e23baa919246cc4813b139b069",
    ("standard", "images"): "b14cf62e2b94a49b02b944a0bf3bd434ed8ff3fdc3aea1073e28200a6dc1094f",
    ("plus", "signals"): "93e8afd3d2159e1b63f270bb43817b9ac280f168b0801602f4ee0743261be675",
    ("plus", "small images"): "66b2bc89c978057ebced43d11b7fd9156ffd0be64c83aca43ff7ed32a5380098",
    ("plus", "images"): "32cba99e4e58efc0448634d2b2b66c5a40674859e5fc4a0a973126cbb3669791",
}


def blank(shape, classes=2):
    def split(n):
        return Split(torch.zeros(n, *shape, dtype=torch.uint8), torch.arange(n) % classes)

    return Task("blank", tuple(map(str, range(classes))), split(4 * classes), split(classes), split(classes))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", VERSIONS)
def test_a_frozen_version_is_what_it_was(name, kind):
    protocol = VERSIONS[name](SHAPES[kind])
    assert protocol.version == f"undistill-{name} v1"
    assert protocol.hash == protocol.origin.hash == FROZEN[name, kind]


@pytest.mark.parametrize("shape", [(1, 40), (1, 8, 8), (3, 16, 16), (3, 32, 32), (1, 28, 28)])
def test_every_attack_of_a_version_can_use_its_students(shape):
    protocol = VERSIONS["plus"](shape)
    networks = [classifier_for(blank(shape), student, seed=0) for student in protocol.students]
    refused = [misfit(grid[0], network) for grid in protocol.attacks for network in networks]
    assert set(refused) == {None}


def test_versions_grow():
    quick, standard, plus = (version((1, 8, 8)) for version in VERSIONS.values())
    for smaller, larger in ((quick, standard), (standard, plus)):
        assert set(smaller.attacks) < set(larger.attacks)
        assert smaller.students == larger.students[: len(smaller.students)]
        assert smaller.seeds < larger.seeds
        assert smaller.margin >= larger.margin
        assert smaller.all_looks[0] == larger.all_looks[0] == 3
    assert not any(ATTACKS[grid[0].name].slow for grid in plus.attacks)


@pytest.mark.parametrize("name", VERSIONS)
def test_knockoffs_placebos_and_references_are_tried_equally_often(name):
    protocol = VERSIONS[name]((3, 32, 32))
    tries = {len(set(protocol.smoothings))}
    for grid in protocol.attacks:
        tries |= {len(set(grid)), len(set(protocol.placebo_settings(grid)))}
    assert tries == {protocol.tries}


def test_any_change_is_seen_and_its_undoing_too():
    standard = VERSIONS["standard"]((1, 8, 8))
    changes = [
        {"students": ("mlp-64",)},
        {"recipe": Recipe(epochs=99)},
        {"attacks": standard.attacks[1:]},
        {"placebo_smoothings": (0.1, 0.2)},
        {"seeds": 25},
        {"looks": (3, 6)},
        {"first_seed": 1},
        {"tuning_seeds": 1},
        {"margin": 0.6},
        {"alpha": 0.05},
        {"data": (TrainingImages(),)},
    ]
    hashes = {standard.hash}
    for change in changes:
        changed = replace(standard, **change)
        assert changed.version == "custom (from undistill-standard v1)"
        hashes.add(changed.hash)
        back = replace(changed, **{name: getattr(standard, name) for name in change})
        assert back.version == "undistill-standard v1"
    assert len(hashes) == len(changes) + 1
    assert Protocol(("mlp-4",), Recipe(), (KD.grid(),)).version == "custom"


def test_a_customised_protocol_keeps_what_still_fits():
    standard = VERSIONS["standard"]((1, 8, 8))
    assert customised(standard) == standard
    fewer = customised(standard, seeds=6, attacks=standard.attacks[:2])
    assert (fewer.looks, fewer.tries) == ((3,), 4)
    assert customised(standard, smoothings=(0.1,)).tries is None


def test_images_that_a_task_lacks_are_left_out_but_never_all_of_them():
    protocol = VERSIONS["quick"]((1, 8, 8))
    with_fresh, without = load_task("digits", fresh=0.2), load_task("digits")
    assert [str(data) for data in protocol.regimes(with_fresh)] == ["train", "fresh"]
    assert [str(data) for data in protocol.regimes(without)] == ["train"]
    assert [str(data) for data in protocol.left_out(without)] == ["fresh"]
    assert protocol.left_out(with_fresh) == ()
    only = replace(protocol, data=protocol.data[1:])
    assert only.regimes(without) == only.data
    assert only.left_out(without) == ()
