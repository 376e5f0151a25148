import errno
import json
import os

import pytest

from undistill.attacks import KD
from undistill.audit import Store, Trial
from undistill.errors import InputError
from undistill.training import Recipe

TRIAL = Trial("t", "mlp-4", Recipe(), 0, attack=KD(4.0), smoothing=0.1)


def test_an_outcome_is_one_file_under_its_content_hash(tmp_path):
    store = Store(tmp_path / "trials")
    assert TRIAL not in store
    store.write(TRIAL, {"accuracy": 90.5})
    assert TRIAL in store
    assert store.read(TRIAL) == {"accuracy": 90.5}
    [path] = (tmp_path / "trials").iterdir()
    assert path.name == f"{TRIAL.key}.json"
    assert json.loads(path.read_text())["trial"] == json.loads(json.dumps(TRIAL.description()))


@pytest.mark.parametrize("content", [b"", b'{"trial": {}', b'{"trial": {}}', b"[]", b"\xff\xfe{}"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, content):
    store = Store(tmp_path)
    (tmp_path / f"{TRIAL.key}.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"{TRIAL.key}\.json is damaged .*delete it and run the same command again"):
        store.read(TRIAL)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, function):
    store = Store(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(f"undistill.files.os.{function}", full)
        with pytest.raises(InputError, match="the disk is full; finished trials are safe there, so free space"):
            store.write(TRIAL, {"accuracy": 90.5})
    assert list(tmp_path.iterdir()) == []
    store.write(TRIAL, {"accuracy": 90.5})
    assert TRIAL in store


def test_a_folder_that_is_a_file_is_an_error_of_the_user(tmp_path):
    (tmp_path / "trials").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(tmp_path / "trials").write(TRIAL, {"accuracy": 90.5})
