"""Which images an attacker has: derived tasks, and what the teacher never saw."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from undistill.errors import InputError
from undistill.tasks import (
    TRAINING_IMAGES,
    FreshImages,
    NoImages,
    OtherImages,
    Split,
    TrainingImages,
    load_task,
)


@pytest.fixture(scope="module")
def task():
    return load_task("digits")


@pytest.fixture(scope="module")
def reserved():
    return load_task("digits", fresh=0.2)


def rows(split):
    """Images as comparable values. The digits hold no two equal images of one class."""
    return {(image.numpy().tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


def test_without_fresh_images_nothing_changes(task):
    # As they were before tasks had fresh images: stored trials and teachers hold on to them.
    assert task.fingerprint == "7726b86eefcdfd7994ee5bf2f3d25cabfdb9878432e710615d26d6e4638efd43"
    assert load_task("digits", fresh=0.0).fingerprint == task.fingerprint
    assert task.fresh is None
    assert "fresh" not in task.source


def test_fresh_images_are_taken_from_the_training_part_alone(task, reserved):
    assert (len(reserved.train), len(reserved.fresh)) == (400, 100)
    assert reserved.validation.images.equal(task.validation.images)
    assert reserved.test.images.equal(task.test.images)
    train, fresh = rows(reserved.train), rows(reserved.fresh)
    assert not train & fresh
    assert train | fresh == rows(task.train)
    shares = torch.bincount(reserved.fresh.labels) - 0.2 * torch.bincount(task.train.labels)
    assert shares.abs().max() < 1, "stratified"
    assert reserved.fingerprint != task.fingerprint
    assert reserved.fingerprint != replace(reserved, fresh=None).fingerprint
    assert load_task(**reserved.source).fingerprint == reserved.fingerprint
    assert pickle.loads(pickle.dumps(reserved)).fingerprint == reserved.fingerprint


def test_less_training_data_leaves_the_fresh_images_as_they_are(reserved):
    part = load_task("digits", fresh=0.2, fraction=0.5)
    assert part.fresh.images.equal(reserved.fresh.images)
    assert rows(part.train) < rows(reserved.train)
    few = load_task("digits", fresh=0.2, classes=3)
    assert rows(few.fresh) == {row for row in rows(reserved.fresh) if row[1] < 3}


@pytest.mark.parametrize("fresh", [-0.1, 1.0, float("nan")])
def test_a_share_of_fresh_images_that_cannot_be_is_refused(fresh):
    with pytest.raises(InputError, match=f"fresh is {fresh}, but must be a share of at least 0 and below 1"):
        load_task("digits", fresh=fresh)


def test_fresh_images_are_checked_as_all_others(task, reserved):
    with pytest.raises(InputError, match="it has no fresh images"):
        load_task("digits", fresh=0.0001)
    with pytest.raises(InputError, match=r"1 fresh labels are outside 0\.\.9 \(values: 10\)"):
        replace(task, fresh=Split(task.train.images[:1], torch.tensor([10])))
    with pytest.raises(InputError, match=r"different shapes .*fresh \(1, 4, 8\)"):
        replace(task, fresh=Split(task.train.images[:1, :, :4], torch.tensor([1])))


def test_the_training_images_are_the_task_itself(task):
    assert TRAINING_IMAGES.attackers_task(task) is task
    assert TRAINING_IMAGES.controls_task(task) is task


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 0.33])
def test_a_share_is_stratified_and_always_the_same(task, share):
    data = TrainingImages(share)
    part = data.attackers_task(task)
    assert len(part.train) == round(500 * share)
    assert (torch.bincount(part.train.labels) - share * torch.bincount(task.train.labels)).abs().max() < 1
    assert rows(part.train) < rows(task.train)
    assert part.fingerprint == TrainingImages(share).attackers_task(task).fingerprint != task.fingerprint
    assert data.controls_task(task).fingerprint == part.fingerprint, "the attacker's own labelled images"
    assert part.test is task.test
    assert part.labelled


def test_the_attackers_fresh_images_are_his_training_images(task, reserved):
    attackers = FreshImages().attackers_task(reserved)
    assert attackers.train is reserved.fresh
    assert FreshImages().controls_task(reserved).train is reserved.fresh
    assert attackers.fingerprint not in (reserved.fingerprint, task.fingerprint)
    with pytest.raises(InputError, match="'digits' has no fresh images; reserve a share of its training images"):
        FreshImages().attackers_task(task)


def test_images_of_another_task_have_no_labels(reserved):
    few, others = load_task("digits", classes=3), load_task("digits", classes=["5", "6", "7", "8", "9"])
    data = OtherImages(others)
    attackers = data.attackers_task(few)
    assert not attackers.labelled
    assert torch.equal(attackers.train.images, others.train.images)
    assert attackers.train.labels[:4].tolist() == [0, 1, 2, 0]
    assert attackers.class_names == few.class_names
    assert attackers.test is few.test
    assert data.controls_task(few) is few
    assert attackers.fingerprint not in (few.fingerprint, others.fingerprint)
    np.testing.assert_allclose(attackers.mean, others.mean)
    described = data.description()
    assert described["other"]["fingerprint"] == others.fingerprint
    assert described["controls"] == "the teacher's training images"
    assert OtherImages(others).attackers_task(reserved).fresh is None


def test_images_that_cannot_stand_in_are_refused(task):
    with pytest.raises(
        InputError, match=r"images of 'mnist1d' have shape \(1, 40\), those of 'digits' have \(1, 8, 8\)"
    ):
        OtherImages(load_task("mnist1d")).attackers_task(task)
    tiny = load_task("digits", classes=2, fraction=0.1)
    with pytest.raises(
        InputError, match="'digits' has 10 training images, must have 20 to stand in for the 10 classes"
    ):
        OtherImages(tiny).attackers_task(task)


def test_no_images_are_black_and_white(task):
    attackers = NoImages().attackers_task(task)
    assert (attackers.mean, attackers.std) == ((0.5,), (0.5,))
    assert not attackers.labelled
    assert attackers.input_shape == task.input_shape
    assert NoImages().controls_task(task) is task
    assert pickle.loads(pickle.dumps(attackers)).fingerprint == attackers.fingerprint


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(InputError, match=f"share of the training images is {share}, must be above 0 and at most 1"):
        TrainingImages(share)


def test_a_share_that_leaves_a_class_out_says_whose_it_is(task):
    with pytest.raises(
        InputError, match=r"'digits \(1% of its training images\)' cannot be used: every class needs at"
    ):
        TrainingImages(0.01).attackers_task(task)


def test_query_data_describe_themselves(task):
    every = [TrainingImages(), TrainingImages(0.05), FreshImages(), OtherImages(task), NoImages()]
    assert [str(data) for data in every] == ["train", "train:0.05", "fresh", "other", "none"]
    assert [data.labelled for data in every] == [True, True, True, False, False]
    assert "5%" in every[1].sentence
    assert len({data.sentence for data in every}) == 5
