"""Who asks: clients known by a secret key, or else by their address."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from undistill.blackbox import check_key
from undistill.errors import InputError

LEAST_KEY = 16  # characters; shorter ones can be found by trying


@dataclass(frozen=True)
class Clients:
    """Who may ask.

    Args:
        names: of clients, by the SHA-256 of their keys. Without any, everybody may ask, and is known by his address.
    """

    names: Mapping[str, str]

    def named(self, authorization: str | None, address: str) -> str | None:
        """The name of who sends this ``Authorization`` header from this address; None if he may not ask.

        >>> clients = Clients({hashlib.sha256(b"a-long-secret-key").hexdigest(): "ann"})
        >>> clients.named("Bearer a-long-secret-key", "10.0.0.7"), clients.named(None, "10.0.0.7")
        ('ann', None)
        >>> Clients({}).named(None, "10.0.0.7")
        '10.0.0.7'
        """
        if not self.names:
            return address
        scheme, _, key = (authorization or "").partition(" ")
        # A hash is looked up, so how long that takes says nothing of the keys.
        return self.names.get(_hash(key.strip())) if scheme.lower() == "bearer" else None


def read_keys(path: Path) -> Clients:
    """Clients from a text file with a line ``NAME KEY`` for each; empty lines and those that begin with # are skipped.

    Raises:
        InputError: a file that cannot be read or holds no key, a line of another form, a key of fewer than 16
            characters, or a name or key that stands there twice.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:  # the line is not repeated, for it may hold a key
            raise InputError(f"{path}, line {number}: {len(words)} words, must be two: NAME KEY")
        name, key = words
        if len(key) < LEAST_KEY:
            raise InputError(
                f"{path}, line {number}: the key of {name!r} has {len(key)} characters, must have at least {LEAST_KEY}"
                "; make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        check_key(key, f"{path}, line {number}: the key of {name!r}")
        if name in names.values() or _hash(key) in names:
            raise InputError(
                f"{path}, line {number}: the name or the key of {name!r} stands there before; give each once"
            )
        names[_hash(key)] = name
    if not names:
        raise InputError(f"{path} holds no key, so nobody could ask; write a line NAME KEY for each client")
    return Clients(names)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
