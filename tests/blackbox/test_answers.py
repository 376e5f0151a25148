"""The cache of answers: asked once, by whoever comes first, for exactly the view that a training sees."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from undistill.blackbox import AnswerCache, BlackBox, CallableBlackBox, LocalBlackBox, Page, page_images
from undistill.blackbox.box import QUERY_BATCH
from undistill.errors import InputError
from undistill.tasks import load_task

WORKER = Path(__file__).with_name("answers_worker.py")


def usual(seed, crops):
    return Page("usual", seed, crops)


class Counted(BlackBox):
    """Another black box, with a count of the images it was asked about."""

    def __init__(self, box):
        self.box, self.name, self.fingerprint, self.images = box, box.name, box.fingerprint, 0

    def log_probs(self, images):
        self.images += len(images)
        return self.box.log_probs(images)


@pytest.fixture
def box(teacher):
    return Counted(LocalBlackBox("teacher", teacher()))


def test_answers_are_those_to_the_epochs_view(digits, box, tmp_path):
    cache = AnswerCache(tmp_path)
    for epoch in (0, 3):
        answers = cache.get(box, digits, usual(5, epoch))
        assert answers.shape == (500, 10)
        assert answers.dtype == torch.float32
        view = digits.view(5, epoch)
        direct = [box.log_probs(view.images(torch.tensor([index])).float() / 255)[0] for index in range(0, 500, 37)]
        torch.testing.assert_close(answers[::37], torch.stack(direct), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(cache.get(box, digits, usual(5, 0)), cache.get(box, digits, usual(5, 3))), (
        "the views differ"
    )


def test_what_came_before_an_interruption_is_not_asked_again(digits, teacher, box, tmp_path, monkeypatch):
    whole = AnswerCache(tmp_path / "whole").get(box, digits, usual(0, 0))

    class Broken(Counted):
        def log_probs(self, images):
            if self.images >= 5 * QUERY_BATCH:
                raise KeyboardInterrupt
            return super().log_probs(images)

    broken, cache = Broken(LocalBlackBox("teacher", teacher())), AnswerCache(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        cache.get(broken, digits, usual(0, 0))
    box.images = 0
    assert torch.equal(cache.get(box, digits, usual(0, 0)), whole)
    assert box.images == len(digits.train) - 5 * QUERY_BATCH
    assert len(list((tmp_path / "cut").glob("*/*"))) == 1, "the begun page is gone"

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    again = AnswerCache(tmp_path / "full")
    with pytest.raises(KeyboardInterrupt):
        again.get(Broken(LocalBlackBox("teacher", teacher())), digits, usual(0, 0))
    with monkeypatch.context() as patch:
        patch.setattr("undistill.blackbox.answers.write_atomic", full)
        with pytest.raises(InputError, match="cannot be kept"):
            again.get(box, digits, usual(0, 0))
    assert [path.suffix for path in (tmp_path / "full").glob("*/*")] == [".begun"], "what was had is not lost"
    with pytest.raises(KeyboardInterrupt):
        cache.get(broken, digits, usual(0, 1))  # without a single answer
    assert len(list((tmp_path / "cut").glob("*/*"))) == 1


def test_answers_are_asked_once(digits, teacher, box, tmp_path):
    first = AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    assert box.images == 500
    again = AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    assert box.images == 500
    assert torch.equal(first, again)
    # Another seed, another epoch or another teacher is another question.
    AnswerCache(tmp_path).get(box, digits, usual(1, 0))
    AnswerCache(tmp_path).get(box, digits, usual(0, 1))
    assert box.images == 1500
    other = Counted(LocalBlackBox("teacher", teacher(seed=1)))
    assert not torch.equal(AnswerCache(tmp_path).get(other, digits, usual(0, 0)), first)
    assert other.images == 500


def test_another_task_is_another_question(digits, teacher, box, tmp_path):
    AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    AnswerCache(tmp_path).get(box, load_task("digits"), usual(0, 0))  # the same images, not shifted
    assert box.images == 1000


def test_pages_are_views_or_clean_images(digits, box, tmp_path):
    cache = AnswerCache(tmp_path)
    seen = {kind: torch.cat(list(page_images(digits, Page(kind, 5, 1)))) for kind in ("usual", "strong", "clean")}
    everything = torch.arange(500)
    assert torch.equal(seen["usual"], digits.view(5, 1).images(everything))
    assert torch.equal(seen["strong"], digits.strong_view(5, 1).images(everything))
    assert torch.equal(seen["clean"], digits.train.images)
    for number, (kind, images) in enumerate(seen.items(), start=1):
        direct = box.box.log_probs(images.float() / 255)
        torch.testing.assert_close(cache.get(box, digits, Page(kind, 5, 1)), direct, rtol=1e-4, atol=1e-5)
        assert box.images == 500 * number, "one kind of page does not answer for another"


def test_exact_zeros_are_kept(digits, probe, tmp_path):
    one_hot = CallableBlackBox("top-1", lambda images: torch.eye(10)[torch.zeros(len(images), dtype=int)], 10, probe)
    for _ in range(2):
        answers = AnswerCache(tmp_path).get(one_hot, digits, usual(0, 0))
        assert torch.equal(answers.exp(), torch.eye(10)[torch.zeros(500, dtype=int)])
        assert (answers[:, 1:] == -torch.inf).all()


def test_what_a_killed_process_leaves_is_harmless(digits, box, tmp_path):
    expected = AnswerCache(tmp_path / "clean").get(box, digits, usual(0, 0))
    (file,) = (tmp_path / "clean").rglob("*.safetensors")
    stale = tmp_path / "stale" / file.parent.name
    stale.mkdir(parents=True)
    (stale / "usual-0.lock").write_text("12345")
    (stale / ".usual-0.safetensors.x1y2").write_bytes(b"half of a fi")
    assert torch.equal(AnswerCache(tmp_path / "stale").get(box, digits, usual(0, 0)), expected)


def test_files_can_be_deleted_between_runs(digits, box, tmp_path):
    first = AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    (file,) = tmp_path.rglob("*.safetensors")
    file.unlink()
    assert torch.equal(AnswerCache(tmp_path).get(box, digits, usual(0, 0)), first)
    assert box.images == 1000


def test_a_refused_answer_leaves_no_file(digits, probe, tmp_path):
    box = CallableBlackBox("fickle", lambda images: torch.full((len(images), 10), 0.1), 10, probe)
    box.function = lambda images: torch.full((len(images), 10), 0.2)
    with pytest.raises(ValueError, match="do not sum to 1"):
        AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    assert not list(tmp_path.rglob("*.safetensors"))
    box.function = lambda images: torch.full((len(images), 10), 0.1)
    assert AnswerCache(tmp_path).get(box, digits, usual(0, 0)).shape == (500, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks")
def test_two_processes_ask_once_between_them(tmp_path):
    command = [sys.executable, str(WORKER), str(tmp_path / "cache"), str(tmp_path / "log")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    asked = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert sum(asked) == 3 * 500, "each of 3 epochs once"
    assert max(asked) == QUERY_BATCH


# What is kept, and for how long.


def page_file(folder, crops=0):
    (file,) = folder.rglob(f"usual-{crops}.safetensors")
    return file


def test_answers_are_mapped_into_memory_and_survive_their_file(digits, box, tmp_path):
    AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    answers = AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    expected, path = answers.clone(), page_file(tmp_path)
    if Path("/proc/self/maps").exists():
        assert str(path) in Path("/proc/self/maps").read_text()
    path.unlink()
    assert torch.equal(answers, expected)


def kept(folder):
    """The numbers of the views that are there."""
    return sorted(int(path.stem.removeprefix("usual-")) for path in folder.rglob("usual-*.safetensors"))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def without_identity(path):
    path.write_bytes(save({"log_probs": torch.zeros(500, 10)}))


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, empty, without_identity])
def test_a_damaged_page_is_asked_again(digits, box, tmp_path, damage):
    expected = AnswerCache(tmp_path).get(box, digits, usual(0, 0)).clone()
    path = page_file(tmp_path)
    path = path.rename(path.with_name("moved"))  # what is mapped must not change under the reader
    path = Path(shutil.copy(path, path.with_name("usual-0.safetensors")))
    damage(path)
    assert torch.equal(AnswerCache(tmp_path).get(box, digits, usual(0, 0)), expected)
    assert box.images == 1000
    assert torch.equal(AnswerCache(tmp_path).get(box, digits, usual(0, 0)), expected)
    assert box.images == 1000, "and is whole again"


def test_a_page_of_another_teacher_data_or_view_code_is_not_used(digits, teacher, box, tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path)
    cache.get(box, digits, usual(0, 0))
    other = Counted(LocalBlackBox("teacher", teacher(seed=1)))
    other.fingerprint = box.fingerprint[:16] + other.fingerprint[16:]  # the same folder
    assert torch.equal(cache.get(other, digits, usual(0, 0)), other.box.log_probs(view_of(digits)))
    assert other.images == 500
    cache.get(box, digits, usual(0, 0))
    assert box.images == 1000, "the other's page is not taken for one's own"
    monkeypatch.setattr("undistill.blackbox.answers._views_code", lambda: "changed")
    cache.get(box, digits, usual(0, 0))
    assert box.images == 1500


def view_of(task):
    return torch.cat(list(page_images(task, usual(0, 0)))).float() / 255


def test_the_pages_that_were_not_read_for_longest_make_room(digits, box, tmp_path):
    AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    size = page_file(tmp_path).stat().st_size
    cache = AnswerCache(tmp_path, space=int(3.5 * size))
    for crops in (1, 2):
        cache.get(box, digits, usual(0, crops))
    for age, crops in enumerate((1, 0, 2)):  # page 1 was read longest ago
        os.utime(page_file(tmp_path, crops), (age, age))
    cache.get(box, digits, usual(0, 1))  # and now it is the last one
    unfinished = page_file(tmp_path).with_name(".usual-9.safetensors.x1y2")
    unfinished.write_bytes(b"what a killed process left")
    os.utime(unfinished, (0, 0))
    reading = cache.get(box, digits, usual(0, 2))
    os.utime(page_file(tmp_path, 2), (2, 2))
    expected = reading.clone()
    cache.get(box, digits, usual(0, 3))
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == [
        f"usual-{n}.safetensors" for n in (1, 2, 3)
    ]
    assert not unfinished.exists()
    cache.get(box, digits, usual(0, 4))
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == [
        f"usual-{n}.safetensors" for n in (1, 3, 4)
    ]
    assert torch.equal(reading, expected), "whoever reads a page still has it"
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= cache.space
    assert box.images == 5 * 500


def test_the_folder_is_looked_through_now_and_then_and_never_too_full(digits, box, tmp_path, monkeypatch):
    monkeypatch.setattr("undistill.blackbox.answers.ask", lambda box, task, page, parts: torch.zeros(4, 10))
    AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    size = page_file(tmp_path).stat().st_size
    cache, looks, make_room = AnswerCache(tmp_path, space=640 * size), [], AnswerCache._make_room
    monkeypatch.setattr(AnswerCache, "_make_room", lambda *given: looks.append(1) or make_room(*given))
    for crops in range(1000):
        cache.get(box, digits, usual(0, crops))
        if crops % 10 == 0:
            assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= cache.space
    assert len(looks) < 300
    assert len(kept(tmp_path)) > 590


def test_many_processes_that_write_together_stay_within_the_space(digits, box, tmp_path, monkeypatch):
    monkeypatch.setattr("undistill.blackbox.answers.ask", lambda box, task, page, parts: torch.zeros(4, 10))
    AnswerCache(tmp_path).get(box, digits, usual(0, 0))
    size = page_file(tmp_path).stat().st_size
    processes = [AnswerCache(tmp_path, space=320 * size, writers=32) for _ in range(32)]
    for crops in range(640):
        processes[crops % 32].get(box, digits, usual(0, crops))
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 321 * size


def test_answers_that_cannot_be_written_are_an_error_that_says_what_to_do(digits, box, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("undistill.blackbox.answers.write_atomic", full)
    with pytest.raises(InputError, match=r"cannot be kept \(No space left on device\); free space"):
        AnswerCache(tmp_path).get(box, digits, usual(0, 0))


def test_the_newest_page_is_kept_even_if_it_is_too_large(digits, box, tmp_path):
    cache = AnswerCache(tmp_path, space=1)
    for crops in (0, 1, 1):
        cache.get(box, digits, usual(0, crops))
    assert kept(tmp_path) == [1]
    assert box.images == 1000


def test_the_test_images_are_a_page_too(digits, box, tmp_path):
    cache = AnswerCache(tmp_path)
    for _ in range(2):
        answers = cache.get(box, digits, Page("test"))
    assert torch.equal(answers, box.box.answers(digits.test))
    assert box.images == len(digits.test)
