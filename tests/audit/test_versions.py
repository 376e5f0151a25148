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
    ("quick", "signals"): "a13e10f7af5abc669a5b01263349323d138593f09802b81cee8ab08cd9be007b",
    ("quick", "small images"): "cbdb2c4792ed50f012daaf87ca556cf1dfc31e935b20df18da40fe7e25f5c364",
    ("quick", "images"): "4116ba80bacb7d4bfd2f8d2dead9b0912d0b0169b01e34e82fa4f3e7708d4cd1",
    ("standard", "signals"): "9237ccfe85bacc68c0b028ad42619d783e618649224424f8e0fab1cc8d2cc310",
    ("standard", "small images"): "41c537bd4a668c7d443d759248bcf37dbc745bdb7e5e4d7ee02b0268c98c215f",
    ("standard", "images"): "f2a54b4e0383f0a5e9b49c3f66385dd48ca3ceea12034381fa7f70a0a6c485aa",
    ("plus", "signals"): "18360d9c0df5add7bbb766d125731f8407f5c708b3162099387aa211b8a50a06",
    ("plus", "small images"): "33b0baba6ca3a43551f4f094fc8c427f461b9982b7333ac111b7d5462aeec3c2",
    ("plus", "images"): "0a81e3caf92faa06588caec665ceb9dc7c9ac6cc00fa51a50855990f8704abc1",
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
