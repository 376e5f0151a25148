"""Outcomes on disk or at a URL: whole or absent, checked before they are used, and set aside when they are damaged."""

import errno
import json
import os
import re
import threading
import uuid
from dataclasses import replace

import fsspec
import pytest

from undistill.attacks import KD
from undistill.audit import Store, Trial
from undistill.audit import store as store_room
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.training import Recipe

TRIAL = Trial("t", "mlp-4", Recipe(), 0, attack=KD(4.0), smoothing=0.1)
OUTCOME = {"accuracy": 90.5, "loss": [0.5, 0.25], "notes": {}}


@pytest.fixture(params=["folder", "file", "memory"])
def where(request, tmp_path):
    """A place of each kind, that nobody has written to."""
    return {
        "folder": tmp_path / "trials",
        "file": f"file://{tmp_path}/trials",
        "memory": f"memory://{uuid.uuid4().hex}/trials",
    }[request.param]


@pytest.fixture
def files(where):
    """The place as fsspec sees it."""
    system, root = fsspec.core.url_to_fs(str(where))
    return lambda: [path.rpartition("/")[2] for path in system.ls(root, detail=False)]


def damage(where, name, content):
    with fsspec.open(f"{where}/{name}", "wb") as file:
        file.write(content)


def read(where, name):
    with fsspec.open(f"{where}/{name}", "rb") as file:
        return file.read()


def test_an_outcome_is_one_file_under_its_content_hash(where, files):
    store = Store(where)
    assert TRIAL not in store
    assert store.missing([TRIAL, TRIAL], pytest.fail) == [TRIAL]
    store.write(TRIAL, OUTCOME)
    for reader in (store, Store(where)):
        assert TRIAL in reader
        assert reader.missing([TRIAL, replace(TRIAL, seed=1)], pytest.fail) == [replace(TRIAL, seed=1)]
        assert reader.read(TRIAL) == OUTCOME
    assert files() == [f"{TRIAL.key}.json"]
    held = json.loads(read(where, f"{TRIAL.key}.json"))
    assert held["trial"] == json.loads(json.dumps(TRIAL.description()))
    assert content_hash(held["trial"]) == TRIAL.key
    assert held["checksum"] == content_hash({"trial": held["trial"], "outcome": held["outcome"]})


def test_outcomes_are_fetched_all_at_once(where, monkeypatch):
    trials = [replace(TRIAL, seed=seed) for seed in range(5)]
    for trial in trials[:4]:
        Store(where).write(trial, OUTCOME)
    damage(where, f"{trials[3].key}.json", b"{")
    reader, asked = Store(where), []
    place = type(reader.place)
    monkeypatch.setattr(place, "read", lambda self, names, read=place.read: asked.append(names) or read(self, names))
    for _ in range(2):
        reader.fetch(trials[:3])
    assert [reader.read(trial) for trial in trials[:3]] == [OUTCOME] * 3
    assert [len(names) for names in asked] == [3, 0]
    reader.fetch(trials)
    assert [trial in reader for trial in trials] == [True, True, True, False, False]


def test_a_store_that_was_deleted_between_runs_lacks_everything(where):
    assert Store(where).missing([TRIAL], pytest.fail) == [TRIAL]
    assert list(Store(where).entries()) == []


def flipped(content):
    """One digit of the accuracy is another one: still JSON, still of the right form."""
    return content.replace(b"90.5", b"91.5")


def another(content):
    """A whole outcome of another trial."""
    held = json.loads(content)
    held["trial"]["seed"] = 7
    held["checksum"] = content_hash({"trial": held["trial"], "outcome": held["outcome"]})
    return json.dumps(held).encode()


def earlier(content):
    """As it was written before there were checksums."""
    held = json.loads(content)
    del held["trial"]["format"], held["checksum"]
    return json.dumps(held).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, "its checksum is another one"),
        (another, "it is another trial's"),
        (earlier, r"of another version \(format None, here"),
        (lambda content: content[:-20], "it is no JSON of an outcome"),
        (lambda content: b"", "it is empty"),
        (lambda content: b'{"trial": {}}', "it lacks 'outcome'"),
        (lambda content: b"[]", "it is no JSON of an outcome"),
        (lambda content: b"\xff\xfe{}", "it is no JSON of an outcome"),
        (lambda content: b"[" * 100_000, "it is no JSON of an outcome"),
    ],
)
def test_a_damaged_file_is_set_aside_and_its_trial_is_missing(where, files, change, words):
    Store(where).write(TRIAL, OUTCOME)
    name = f"{TRIAL.key}.json"
    content = change(read(where, name))
    damage(where, name, content)
    with pytest.raises(InputError, match=rf"{name} is damaged \({words}.*run the same command again: it sets the file"):
        Store(where).read(TRIAL)
    notes, store = [], Store(where)
    assert TRIAL not in store
    assert store.missing([TRIAL], notes.append) == [TRIAL]
    [note] = notes
    assert re.search(words, note)
    assert f"{name} is damaged" in note
    assert note.endswith(f"it is set aside as {name}.damaged, and {TRIAL.title} runs again")
    assert read(where, f"{name}.damaged") == content, "nothing is thrown away"
    assert files() == [f"{name}.damaged"]
    store.write(TRIAL, OUTCOME)
    assert Store(where).missing([TRIAL], pytest.fail) == []


def test_the_entries_say_what_each_file_is(where):
    store, other = Store(where), replace(TRIAL, seed=1)
    store.write(TRIAL, OUTCOME)
    store.write(other, OUTCOME)
    damage(where, f"{other.key}.json", b"{}")
    store.missing([other], lambda note: None)  # it has read that outcome already, and does not look again
    Store(where).missing([other], lambda note: None)
    damage(where, ".unfinished.json", b"half")
    damage(where, "notes.txt", b"mine")
    entries = {entry.name: entry for entry in Store(where).entries()}
    assert set(entries) == {f"{TRIAL.key}.json", f"{other.key}.json.damaged"}
    good, bad = entries[f"{TRIAL.key}.json"], entries[f"{other.key}.json.damaged"]
    assert (good.key, good.problem, good.trial["role"]) == (TRIAL.key, None, "placebo")
    assert good.size == len(read(where, good.name))
    assert (bad.key, bad.problem) == (other.key, "set aside: it lacks 'trial'")
    store.delete([good, bad, bad])
    assert list(Store(where).entries()) == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, function):
    store = Store(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(f"undistill.files.os.{function}", full)
        with pytest.raises(InputError, match="the disk is full; finished trials are safe there, so free space"):
            store.write(TRIAL, OUTCOME)
    assert list(tmp_path.iterdir()) == []
    assert store.missing([TRIAL], pytest.fail) == [TRIAL]
    store.write(TRIAL, OUTCOME)
    assert TRIAL in store


def test_a_remote_write_that_fails_leaves_nothing(monkeypatch):
    where = f"memory://{uuid.uuid4().hex}/trials"
    store = Store(where)
    system, _ = fsspec.core.url_to_fs(where)

    def refused(*arguments, **settings):
        raise OSError("the bucket is read-only")

    with monkeypatch.context() as patch:
        patch.setattr(type(system), "mv", refused)
        with pytest.raises(InputError, match=r"cannot be written \(the bucket is read-only\); finished"):
            store.write(TRIAL, OUTCOME)
    assert system.find(where) == []


def test_a_folder_that_is_a_file_is_an_error_of_the_user(tmp_path):
    (tmp_path / "trials").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "trials").write(TRIAL, OUTCOME)


def test_an_unknown_protocol_is_an_error_of_the_user():
    with pytest.raises(InputError, match=r"ftpz://a/b cannot be used as a store .*or name a folder"):
        Store("ftpz://a/b")


def test_many_writers_and_readers_of_one_outcome_see_it_whole_or_not_at_all(where):
    wrong, stop = [], threading.Event()

    def write():
        for _ in range(25):
            Store(where).write(TRIAL, OUTCOME)

    def look():
        while not stop.is_set():
            Store(where).missing([TRIAL], wrong.append)

    writers, reader = [threading.Thread(target=write) for _ in range(4)], threading.Thread(target=look)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert wrong == []
    assert Store(where).read(TRIAL) == OUTCOME


def test_what_killed_writers_left_is_found_at_every_place(where, monkeypatch):
    store = Store(where)
    store.write(TRIAL, OUTCOME)
    name = f".{TRIAL.key}.json.{uuid.uuid4().hex}"
    damage(where, name, b"{")
    damage(where, f".{TRIAL.key}.json", b"{}")  # no name that a writer gives
    assert store.leftovers() == [], "it may still be written"
    monkeypatch.setattr(store_room, "STALE", -1.0)
    [entry] = store.leftovers()
    assert (entry.name, entry.size, entry.key, entry.unfinished) == (name, 1, TRIAL.key, True)
    assert [(held.name, held.unfinished) for held in store.entries()] == [(f"{TRIAL.key}.json", False)]
    store.delete([entry])
    assert store.leftovers() == []
    assert store.read(TRIAL) == OUTCOME


def test_a_writer_that_were_killed_now_would_leave_such_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(store_room, "STALE", -1.0)
    seen, replace_file = [], os.replace

    def look(old, new):
        seen.extend(Store(tmp_path).leftovers())
        replace_file(old, new)

    monkeypatch.setattr("undistill.files.os.replace", look)
    Store(tmp_path).write(TRIAL, OUTCOME)
    assert [entry.key for entry in seen] == [TRIAL.key]
    assert Store(tmp_path).leftovers() == []
