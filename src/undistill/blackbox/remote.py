"""A teacher behind a URL, as ``undistill serve`` serves it."""

import json
import math
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from undistill.blackbox.access import FULL, Access, parse_access
from undistill.blackbox.box import QUERY_BATCH, BlackBox
from undistill.blackbox.validate import check_log_probs
from undistill.errors import InputError, require
from undistill.files import content_hash

MODEL_PATH = "/v1/model"
ANSWERS_PATH = "/v1/answers"
TENSORS_PATH = "/v1/answers.safetensors"
TENSORS_TYPE = "application/x-safetensors"
KEY_VARIABLE = "UNDISTILL_API_KEY"

PROBED = 16  # images by which a teacher is known again: every start asks about them anew
TIMEOUT = 300.0  # seconds for one answer, from the question to its last byte
PATIENCE = 600.0  # seconds in which a server may ask us to wait before it answers; beyond them the user is told
PAUSES = (1.0, 4.0, 16.0)  # seconds before asking again after a failure
MAY_PASS = frozenset({502, 503, 504})  # a gateway, or a server that is starting
ERROR_SIZE = 2**16  # bytes of an error that are read
ABOUT_SIZE = 2**22  # bytes of what a server may say of itself, with many thousand names of classes
WORDS = 200  # characters of what a server says that are repeated
MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RuntimeError)  # what parsing a stranger's bytes can raise

_sleep = time.sleep


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    content: bytes
    retry_after: str | None


def is_url(teacher: str) -> bool:
    """Whether a teacher's name is the URL of a server."""
    return teacher.lower().startswith(("http://", "https://"))


def check_key(key: str, whose: str) -> None:
    """Refuse a key that cannot stand in a header, without repeating it.

    Raises:
        InputError: it holds blanks, control characters, or others than ASCII's.
    """
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(
            f"{whose} holds characters that cannot be sent; use letters, digits and signs of ASCII without blanks"
        )


def pack_images(images: Float[Tensor, "n *shape"]) -> bytes:
    """Raw images in [0, 1] as safetensors: as bytes where they are whole 255ths, for a quarter of the size.

    >>> unpack_images(pack_images(torch.tensor([[0.2, 1.0]])))
    tensor([[0.2000, 1.0000]])
    """
    images = images.detach().cpu()
    whole = images.mul(255).round().clamp(0, 255).to(torch.uint8)
    exact = torch.equal(whole.float().div(255), images)
    return save({"images": whole if exact else images.contiguous()})


def unpack_images(content: bytes) -> Float[Tensor, "..."]:
    """The other way round.

    Raises:
        InputError: no safetensors, or no tensor ``images`` of bytes or float32 in it.
    """
    images = _unpack(content, "images")
    if images.dtype == torch.uint8:
        return images.float().div(255)
    if images.dtype != torch.float32:
        raise InputError(f"images are {images.dtype}, must be uint8 (0 to 255) or float32 (0 to 1)")
    return images


def _unpack(content: bytes, name: str) -> Tensor:
    try:
        tensors = load(content)
    except (SafetensorError, *MALFORMED) as error:
        raise InputError(f"{len(content)} bytes that are no safetensors file ({_clean(str(error))})") from error
    if name not in tensors:
        raise InputError(f"no tensor {name!r} among {_clean(', '.join(sorted(tensors))) or 'none'}")
    return tensors[name]


def _clean(text: str) -> str:
    """What a stranger says, fit for a terminal: one line of printable characters, and not too many.

    >>> _clean("all\\x1b[2J  is\\nwell")
    'all[2J is well'
    """
    return " ".join("".join(c if c.isprintable() else " " * c.isspace() for c in text[: 2 * WORDS]).split())[:WORDS]


@dataclass
class RemoteBlackBox(BlackBox):
    """A teacher at a URL. Answers come as float32 log-probabilities, the same bits that the server has.

    A server that is busy, or that limits how many images it answers, is waited for; one that fails is asked again a few
    times. A secret key is taken from the environment variable ``UNDISTILL_API_KEY`` and stored nowhere.

    Args:
        url: of the server, with ``http://`` or ``https://``.
        class_names: of the task, which the server must have in the same order.
        probe: a few of the task's images, float in [0, 1], by whose answers the teacher is known again.
        policy: what the server lets through of its answers; by default what it says of itself. Where it says that it
            gives full answers, so does this box, whatever is named here.

    Attributes:
        name: host, port and path of the URL: what a server calls itself does not become a name of folders here.
        fingerprint: of the URL and the answers to ``probe``, so another teacher at the same URL is another box.

    Raises:
        InputError: a server that cannot be reached or refuses, one that is no ``undistill serve``, another access than
            it says of itself, or a teacher of other classes or another input shape than the task's.
        MissingExtraError: httpx is not installed.
    """

    url: str
    class_names: tuple[str, ...]
    probe: Float[Tensor, "n *shape"]
    policy: Access = FULL
    name: str = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise InputError(f"the URL of a teacher is none ({error}); write http://HOST:PORT") from error
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise InputError(
                "the URL of a teacher has no host, or has a user, a query or a fragment; write http://HOST:PORT, and "
                f"put a key into the environment variable {KEY_VARIABLE}"
            )
        where = [parts.hostname, *([str(port)] if port else []), *parts.path.strip("/").split("/")]
        self.name = "-".join(filter(None, where)).replace(":", "-")
        about = self._about()
        self.max_images = about["max_images"]
        self._check(about)
        # Four decimals: the same model must keep its fingerprint across thread counts and machines.
        answers = self.log_probs(self.probe[:PROBED]).clamp_min(-100).mul(1e4).round().to(torch.int64)
        self.fingerprint = content_hash(["remote", self.url, self.class_names, answers.tolist()])

    def _about(self) -> dict[str, Any]:
        """What the server says of itself, of the right types."""
        content = self._ask("GET", MODEL_PATH, ABOUT_SIZE)
        try:
            about = json.loads(content)
            return {
                "classes": [str(name) for name in about["classes"]],
                "input_shape": [int(size) for size in about["input_shape"]],
                "access": parse_access(str(about["access"])),
                "max_images": min(max(1, int(about["max_images"])), QUERY_BATCH),
            }
        except MALFORMED as error:
            raise InputError(
                f"{self.url} is no teacher that 'undistill serve' serves (its {MODEL_PATH} says something else); for "
                "any other API write a function that asks it, and name that as package.module:callable"
            ) from error

    def _check(self, about: dict[str, Any]) -> None:
        classes, shape, access = about["classes"], list(self.probe.shape[1:]), about["access"]
        problems = []
        if len(classes) != len(self.class_names):
            problems.append(f"has {len(classes)} classes, the task has {len(self.class_names)}")
        elif sorted(classes) == sorted(self.class_names) and classes != list(self.class_names):
            problems.append("has the task's classes in another order")
        if about["input_shape"] != shape:
            problems.append(f"takes inputs of shape {_clean(str(about['input_shape']))}, the task has {shape}")
        if problems:
            raise InputError(f"the teacher at {self.url} {' and '.join(problems)}; choose the task it was trained for")
        if access == FULL or self.policy == FULL:
            self.policy = access
        elif access != self.policy:
            raise InputError(
                f"the teacher at {self.url} answers with access '{access}', not '{self.policy}'; name that one, or none"
            )

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        parts = images.split(self.max_images)
        return torch.cat([self._answer(part) for part in parts]).to(images.device)

    def _answer(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        expected = (len(images), len(self.class_names))
        content = self._ask("POST", TENSORS_PATH, 4 * math.prod(expected) + 4096, pack_images(images))
        try:
            log_probs = _unpack(content, "log_probs")
        except InputError as error:
            raise InputError(f"{self.url} answered {error}") from error
        if tuple(log_probs.shape) != expected or log_probs.dtype != torch.float32:
            raise InputError(
                f"{self.url} answered {log_probs.dtype} of shape {tuple(log_probs.shape)} to {len(images)} images, "
                f"must answer float32 of shape {expected}"
            )
        check_log_probs(log_probs, self.url, self.policy.sums(len(self.class_names)))
        return log_probs

    def _ask(self, method: str, path: str, most: int, content: bytes | None = None) -> bytes:
        """The content, of ``most`` bytes, of a response of status 200, after as much waiting as that takes.

        Raises:
            InputError: the server refuses, fails again and again, says too much, or wants to be left alone for long.
        """
        failures, waited = 0, 0.0
        while True:
            try:
                reply = _send(method, self.url + path, content, most)
            except ConnectionError as error:
                said = f"cannot be reached ({error})"
            else:
                if reply.status == 200:
                    return reply.content
                said = f"answered {reply.status}: {_detail(reply)}"
                if reply.status == 401:
                    raise InputError(
                        f"{self.url} answers only those who have a key that it knows; put yours into the environment "
                        f"variable {KEY_VARIABLE}"
                    )
                if reply.status == 429 or (reply.status == 503 and reply.retry_after is not None):
                    seconds = _seconds(reply.retry_after)
                    waited += seconds
                    if waited > PATIENCE:
                        raise InputError(
                            f"{self.url} answers no more images for {seconds:,.0f} s ({_detail(reply)}); run the same "
                            "command again then: audits and attacks keep what it answered before"
                        )
                    _sleep(seconds)
                    continue
                if reply.status not in MAY_PASS:
                    raise InputError(f"{self.url} {said}")
            if failures == len(PAUSES):
                raise InputError(
                    f"{self.url} {said}, {failures + 1} times in a row; see that it is running, and run the same "
                    "command again: audits and attacks keep what it answered before"
                )
            _sleep(PAUSES[failures])
            failures += 1


def _send(method: str, url: str, content: bytes | None, most: int) -> Reply:
    """Ask once.

    Raises:
        ConnectionError: no answer came, which may be another time.
        InputError: the question cannot be sent, or the answer does not end.
    """
    httpx = require("httpx", "remote")
    key = os.environ.get(KEY_VARIABLE, "").strip()
    headers = {"Content-Type": TENSORS_TYPE, "Accept-Encoding": "identity"}
    if key:
        check_key(key, f"the environment variable {KEY_VARIABLE}")
        headers["Authorization"] = f"Bearer {key}"
    received, until = bytearray(), time.monotonic() + TIMEOUT
    try:
        with _client().stream(method, url, content=content, headers=headers) as response:
            for part in response.iter_bytes(65536):
                received += part
                if len(received) > most and response.status_code == 200:
                    raise InputError(
                        f"{url} answered more than the {most:,} bytes that an answer has; it is another API"
                    )
                if len(received) > max(most, ERROR_SIZE) or time.monotonic() > until:
                    break
            if time.monotonic() > until:
                raise ConnectionError(f"its answer took more than {TIMEOUT:.0f} s")
            return Reply(response.status_code, bytes(received), response.headers.get("Retry-After"))
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise ConnectionError(_clean(str(error)) or type(error).__name__) from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ImportError) as error:
        raise InputError(
            f"{url} cannot be asked ({_clean(str(error))}); check the URL, and the proxy if there is one"
        ) from error


@cache
def _client() -> Any:
    """One per process, so that connections are kept."""
    try:
        return require("httpx", "remote").Client(timeout=TIMEOUT)
    except (ValueError, ImportError) as error:
        raise InputError(f"the proxy of this environment cannot be used ({_clean(str(error))}); correct it") from error


def _seconds(retry_after: str | None) -> float:
    """How long a server wants to be left alone: a number or a date; at least a second, so that it is never stormed.

    >>> _seconds("7"), _seconds("0"), _seconds(None), _seconds("soon"), _seconds("nan")
    (7.0, 1.0, 1.0, 1.0, 1.0)
    """
    try:
        seconds = float(retry_after or 1)
    except ValueError:
        try:
            when = parsedate_to_datetime(str(retry_after))
        except MALFORMED:
            return 1.0
        now = datetime.now(UTC)
        seconds = ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    return seconds if seconds > 1 else 1.0


def _detail(reply: Reply) -> str:
    try:
        return _clean(str(json.loads(reply.content)["detail"]))
    except MALFORMED:
        return _clean(reply.content[: 2 * WORDS].decode(errors="replace")) or "nothing"
