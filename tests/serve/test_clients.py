"""Who may ask: keys in a file, and addresses."""

import pytest

from undistill.errors import InputError
from undistill.serve import read_keys

ANN, BOB = "a-key-of-ann-that-is-long", "a-key-of-bob-that-is-long"


def test_a_client_is_known_by_his_key_wherever_he_is(tmp_path):
    (tmp_path / "keys").write_text(f"\ufeffann {ANN}\n# who may ask\n\n  bob\t{BOB}  \n")
    clients = read_keys(tmp_path / "keys")
    assert [clients.named(f"Bearer {key}", "10.0.0.1") for key in (ANN, BOB)] == ["ann", "bob"]
    assert clients.named(f"bearer  {ANN}", "10.0.0.2") == "ann", "the scheme's case and blanks do not matter"
    for header in (None, "", ANN, f"Basic {ANN}", "Bearer", f"Bearer {ANN}x", "Bearer ann"):
        assert clients.named(header, "10.0.0.1") is None


def test_keys_are_not_kept_as_they_are(tmp_path):
    (tmp_path / "keys").write_text(f"ann {ANN}\n")
    assert ANN not in repr(read_keys(tmp_path / "keys"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key, so nobody could ask"),
        ("# nobody yet\n", "holds no key, so nobody could ask"),
        ("ann\n", "line 1: 1 words, must be two: NAME KEY"),
        (f"\nann {ANN} extra\n", "line 2: 3 words, must be two"),
        ("ann short\n", "line 1: the key of 'ann' has 5 characters, must have at least 16"),
        (f"ann {ANN}\u00fc\n", "line 1: the key of 'ann' holds characters that cannot be sent"),
        (f"ann {ANN}\nann {BOB}\n", "line 2: the name or the key of 'ann' stands there before"),
        (f"ann {ANN}\nbob {ANN}\n", "line 2: the name or the key of 'bob' stands there before"),
    ],
)
def test_a_wrong_file_is_refused_without_repeating_a_key(tmp_path, text, words):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_keys(tmp_path / "keys")
    assert ANN not in str(error.value)
    assert BOB not in str(error.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"keys cannot be read \(No such file"):
        read_keys(tmp_path / "keys")
