"""A teacher behind a URL, as ``undistill serve`` serves it."""

import math
import os
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from undistill.blackbox.access import FULL, Access
from undistill.blackbox.box import BlackBox
from undistill.blackbox.validate import check_log_probs
from undistill.errors import InputError, require
from undistill.files import content_hash

MODEL_PATH = "/v1/model"
ANSWERS_PATH = "/v1/answers"
TENSORS_PATH = "/v1/answers.safetensors"
TENSORS_TYPE = "application/x-safetensors"
KEY_VARIABLE = "UNDISTILL_API_KEY"

TIMEOUT = 60.0  # seconds for one answer
PATIENCE = 600.0  # seconds that a server may ask us to wait; beyond them the user is told
PAUSES = (1.0, 4.0, 16.0)  # seconds before asking again after a failure
MAY_PASS = frozenset({502, 503, 504})  # a gateway or a server that is starting


def is_url(teacher: str) -> bool:
    """Whether a teacher's name is the URL of a server."""
    return teacher.startswith(("http://", "https://"))


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
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{len(content)} bytes that are no safetensors file ({error})") from error
    if name not in tensors:
        raise InputError(f"no tensor {name!r} among {', '.join(sorted(tensors)) or 'none'}")
    return tensors[name]


@dataclass
class RemoteBlackBox(BlackBox):
    """A teacher at a URL. Answers come as float32 log-probabilities, the same bits that the server has.

    A server that is busy, or that limits how many images it answers, is waited for; one that fails is asked again a few
    times. A secret key is taken from the environment variable ``UNDISTILL_API_KEY`` and stored nowhere.

    Args:
        url: of the server, with ``http://`` or ``https://``.
        class_names: of the task, which the server must have in the same order.
        probe: a few of the task's images, float in [0, 1], by whose answers the teacher is known again.
        policy: what the server lets through of its answers. Where it says that it gives full ones, so does this box.

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
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError as error:
            raise InputError(f"{self.url!r} is no URL ({error}); write http://HOST:PORT") from error
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise InputError(
                f"{self.url!r} is not the URL of a server; write http://HOST:PORT, and put a key into the environment "
                f"variable {KEY_VARIABLE}"
            )
        where = [parts.hostname, *([str(port)] if port else []), *parts.path.strip("/").split("/")]
        self.name = "-".join(filter(None, where)).replace(":", "-")
        about = self._about()
        self.max_images = about["max_images"]
        self._check(about)
        # Four decimals: the same model must keep its fingerprint across thread counts and machines.
        answers = self.log_probs(self.probe).clamp_min(-100).mul(1e4).round().to(torch.int64)
        self.fingerprint = content_hash(["remote", self.url, self.class_names, answers.tolist()])

    def _about(self) -> dict[str, Any]:
        """What the server says of itself, of the right types."""
        response = self._ask("GET", MODEL_PATH)
        try:
            about = response.json()
            return {
                "classes": [str(name) for name in about["classes"]],
                "input_shape": [int(size) for size in about["input_shape"]],
                "access": str(about["access"]),
                "sentence": str(about["sentence"]),
                "max_images": max(1, int(about["max_images"])),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.url} is no teacher that 'undistill serve' serves (its {MODEL_PATH} says something else); for "
                "any other API write a function that asks it, and name that as package.module:callable"
            ) from error

    def _check(self, about: dict[str, Any]) -> None:
        classes, shape = about["classes"], list(self.probe.shape[1:])
        problems = []
        if len(classes) != len(self.class_names):
            problems.append(f"has {len(classes)} classes, the task has {len(self.class_names)}")
        elif sorted(classes) == sorted(self.class_names) and classes != list(self.class_names):
            problems.append("has the task's classes in another order")
        if about["input_shape"] != shape:
            problems.append(f"takes inputs of shape {about['input_shape']}, the task has {shape}")
        if problems:
            raise InputError(f"the teacher at {self.url} {' and '.join(problems)}; choose the task it was trained for")
        if about["access"] == FULL.kind:
            self.policy = FULL
        elif about["access"] != self.policy.kind:
            raise InputError(
                f"the teacher at {self.url} answers {about['sentence']}, but the access named is '{self.policy}'; name "
                f"the access {about['access']!r}, with its number if it has one"
            )

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        parts = images.split(self.max_images)
        return torch.cat([self._answer(part) for part in parts]).to(images.device)

    def _answer(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        content = self._ask("POST", TENSORS_PATH, pack_images(images)).content
        try:
            log_probs = _unpack(content, "log_probs")
        except InputError as error:
            raise InputError(f"{self.url} answered {error}") from error
        expected = (len(images), len(self.class_names))
        if tuple(log_probs.shape) != expected or log_probs.dtype != torch.float32:
            raise InputError(
                f"{self.url} answered {log_probs.dtype} of shape {tuple(log_probs.shape)} to {len(images)} images, "
                f"must answer float32 of shape {expected}"
            )
        check_log_probs(log_probs, self.url, self.policy.sums(len(self.class_names)))
        return log_probs

    def _ask(self, method: str, path: str, content: bytes | None = None) -> Any:
        """A response of status 200, after as much waiting as that takes.

        Raises:
            InputError: the server refuses, fails again and again, or wants to be left alone for too long.
        """
        httpx = require("httpx", "remote")
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Content-Type": TENSORS_TYPE} | ({"Authorization": f"Bearer {key}"} if key else {})
        failures = 0
        while True:
            try:
                response = _client().request(method, self.url + path, content=content, headers=headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                said = f"cannot be reached ({' '.join(str(error).split()) or type(error).__name__})"
            else:
                if response.status_code == 200:
                    return response
                said = f"answered {response.status_code}: {_detail(response)}"
                if response.status_code == 429:
                    time.sleep(self._wait(response))
                    continue
                if response.status_code == 401:
                    raise InputError(
                        f"{self.url} answers only those who have a key{' that it knows' if key else ''}; put yours "
                        f"into the environment variable {KEY_VARIABLE}"
                    )
                if response.status_code not in MAY_PASS:
                    raise InputError(f"{self.url} {said}")
            if failures == len(PAUSES):
                raise InputError(
                    f"{self.url} {said}, {failures + 1} times in a row; see that it is running, and run the same "
                    "command again: what it answered before is kept where an audit keeps answers"
                )
            time.sleep(PAUSES[failures])
            failures += 1

    def _wait(self, response: Any) -> float:
        """Seconds until the server wants to be asked again."""
        try:
            seconds = max(0.0, float(response.headers.get("Retry-After", "1")))
        except ValueError:  # a date
            seconds = math.inf
        if seconds > PATIENCE:
            raise InputError(
                f"{self.url} answers no more images for {seconds:,.0f} s ({_detail(response)}); run the same command "
                "again then: what it answered before is kept where an audit keeps answers"
            )
        return seconds


@cache
def _client() -> Any:
    """One per process, so that connections are kept."""
    return require("httpx", "remote").Client(timeout=TIMEOUT)


def _detail(response: Any) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return " ".join(response.text[:200].split()) or "nothing"
