"""The application: what can be asked of a teacher over HTTP, and how much of it."""

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from undistill.blackbox import (
    ANSWERS_PATH,
    MODEL_PATH,
    TENSORS_PATH,
    TENSORS_TYPE,
    BlackBox,
    Served,
    unpack_images,
)
from undistill.blackbox.box import QUERY_BATCH
from undistill.blackbox.remote import MALFORMED
from undistill.errors import InputError, check_whole, require
from undistill.serve.clients import Clients

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_IMAGES = 256
CHARACTERS = 24  # of a number in JSON at most, with the comma: Python writes 21
MAX_TENSORS = 2**26  # bytes
MAX_JSON = 2**24  # bytes; a list of numbers takes many times as much memory once it is parsed
HEADER = 4096  # bytes of a body beside the images
READING = 60.0  # seconds in which a body must have come
WAITING = 16  # requests that are read or wait for the teacher; more are told to come later
LATER = 2  # seconds after which they should


class Meter:
    """How many images each client may ask about.

    Args:
        rates: such as ``1000/minute`` or ``50000/year``, all of which hold; none is no limit.
        store: where counts are kept, as the library ``limits`` names it: ``memory://`` for this process alone,
            ``redis://HOST:PORT`` (needs the package redis) to share them among servers and to keep them over restarts.

    Raises:
        InputError: a rate or a store that cannot be understood, or a store that cannot be reached.
        MissingExtraError: the library is not installed.

    Example:
        >>> meter = Meter(["3/minute"])
        >>> meter.seconds_to_wait("ann", 2), meter.seconds_to_wait("ann", 1), meter.seconds_to_wait("ann", 1) > 0
        (0.0, 0.0, True)

    Images are counted, not requests: a request can hold many. Windows are fixed, so up to twice as many images pass
    around the end of one. Where two servers ask a shared store at the same moment, a request that is refused may be
    counted all the same.
    """

    def __init__(self, rates: Sequence[str] = (), store: str = "memory://") -> None:
        limits = require("limits", "serve")
        self._lock = threading.Lock()
        self._lost = require("limits.errors", "serve").StorageError
        self.words = " and ".join(rates)
        self.rates: list[Any] = []
        for rate in rates:
            try:
                parsed = limits.parse_many(rate)
            except ValueError as error:
                raise InputError(
                    f"rate {rate!r} is none; write it as 1000/minute, 20000/day or 100/10 seconds"
                ) from error
            if any(item.amount < 1 for item in parsed):
                raise InputError(f"rate {rate!r} lets nothing through; allow at least 1 image")
            self.rates += [item for item in dict.fromkeys(parsed) if item not in self.rates]
        where = store.rpartition("@")[2]  # before it there may be a password
        try:
            storage = require("limits.storage", "serve").storage_from_string(store, wrap_exceptions=True)
            self._limiter = require("limits.strategies", "serve").FixedWindowRateLimiter(storage)
            reached = storage.check()
        except Exception as error:  # each kind of storage has its own
            raise InputError(
                f"the store of rates {where!r} cannot be used ({type(error).__name__}); name memory://, or "
                "redis://HOST:PORT with the package redis installed"
            ) from error
        if not reached:
            raise InputError(f"the store of rates {where!r} does not answer; see that it is running")

    def seconds_to_wait(self, client: str, images: int) -> float:
        """Count the images of a request and return 0; or, if they are too many now, count nothing and return how long
        to wait until they may be asked about.

        Raises:
            ConnectionError: the store of the counts does not answer.
        """
        try:
            with self._lock:
                full = [item for item in self.rates if not self._limiter.test(item, client, cost=images)]
                # Another server may have counted in between; then the images are counted, and yet refused.
                full += [item for item in self.rates if not full and not self._limiter.hit(item, client, cost=images)]
                if not full:
                    return 0.0
                ends = [self._limiter.get_window_stats(item, client).reset_time for item in full]
        except self._lost as error:
            raise ConnectionError("the store of the counts does not answer") from error
        return max(1.0, max(ends) - time.time())


def create_app(
    box: BlackBox,
    *,
    class_names: tuple[str, ...],
    input_shape: tuple[int, ...],
    name: str = "teacher",
    clients: Clients = Clients({}),  # noqa: B008 (frozen)
    meter: Meter | None = None,
    max_images: int = MAX_IMAGES,
) -> "FastAPI":
    """A FastAPI application that answers as a black box does.

    ``GET /v1/model`` says what is served, ``POST /v1/answers`` answers JSON with JSON, and
    ``POST /v1/answers.safetensors`` answers float32 or uint8 tensors with log-probabilities, bit for bit those of the
    box. Errors are JSON with a sentence under ``detail``.

    Args:
        box: what answers: a teacher with everything that is set around it (output defences, an access policy).
        class_names: of its classes.
        input_shape: of one image.
        name: what clients are told. It need not say which defences there are.
        clients: who may ask; by default everybody.
        meter: how much each may ask; by default without a limit.
        max_images: in one request.

    Raises:
        InputError: ``max_images`` is not a whole number from 1 on.
        MissingExtraError: FastAPI is not installed.

    Example:
        >>> from undistill.blackbox import LocalBlackBox
        >>> from undistill.models import make_classifier
        >>> teacher = make_classifier(
        ...     "mlp-4", class_names=("a", "b"), input_shape=(1, 2, 2), mean=(0.0,), std=(1.0,), seed=0
        ... )
        >>> app = create_app(LocalBlackBox("mlp", teacher), class_names=("a", "b"), input_shape=(1, 2, 2))
        >>> "/v1/answers" in app.openapi()["paths"]
        True
    """
    require("fastapi", "serve")
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect

    check_whole("the number of images in a request", max_images)
    if max_images < 1:
        raise InputError(f"a request may hold {max_images} images, must be at least 1")
    meter = meter or Meter()
    fitting = max(1, MAX_TENSORS // (4 * math.prod(input_shape)))
    most = min([max_images, fitting, *(item.amount for item in meter.rates)])
    turn = asyncio.Lock()  # PyTorch uses all cores for one batch, and parsing JSON takes much memory
    taken = 0  # places of requests that are read, or wait
    policy = box.policy.equivalent(len(class_names)) if isinstance(box.policy, Served) else box.policy

    def refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> Exception:
        return HTTPException(status, detail, headers)

    def later(reason: str) -> Exception:
        return refuse(503, f"{reason}; come later", {"Retry-After": str(LATER)})

    def client_of(request: Request) -> str:
        address = request.client.host if request.client else "unknown"
        client = clients.named(request.headers.get("Authorization"), address)
        if client is None:
            raise refuse(
                401, "no valid key; send the header 'Authorization: Bearer KEY'", {"WWW-Authenticate": "Bearer"}
            )
        return client

    async def content_of(request: Request, a_number: int, limit: int) -> bytes:
        """The body, of which no more is read than it may have, whatever it says of its length."""
        image = a_number * math.prod(input_shape)
        longest = min(limit, most * image) + HEADER
        read = bytearray()
        try:
            async with asyncio.timeout(READING):
                async for part in request.stream():
                    read += part
                    if len(read) > longest:
                        break
        except TimeoutError:
            raise refuse(408, f"the request did not end within {READING:.0f} s; send it at once") from None
        except ClientDisconnect:
            raise refuse(400, "the request broke off") from None
        if len(read) > longest:
            fits = min(most, limit // image)
            instead = f"ask about at most {fits} images at once" if fits else f"send tensors to {TENSORS_PATH}"
            raise refuse(413, f"more than the {longest:,} bytes that a request may have; {instead}")
        return bytes(read)

    def checked(content: bytes, unpack: Callable[[bytes], Tensor]) -> Float[Tensor, "n *shape"]:
        try:
            images = unpack(content)
        except InputError as error:
            raise refuse(422, str(error)) from error
        expected = ("n", *input_shape)
        if images.ndim == 0 or tuple(images.shape[1:]) != tuple(input_shape) or len(images) == 0:
            raise refuse(422, f"images have shape {tuple(images.shape)}, must have ({', '.join(map(str, expected))})")
        outside = ~((images >= 0) & (images <= 1)).flatten(1).all(1)  # NaN is outside, too
        if outside.any():
            first = int(outside.nonzero()[0])
            raise refuse(422, f"image {first} holds values that are not in [0, 1]; divide bytes by 255")
        if len(images) > most:
            raise refuse(413, f"{len(images)} images in one request, may be at most {most}; ask about fewer at once")
        return images

    def admit(client: str, images: int) -> None:
        try:
            wait = meter.seconds_to_wait(client, images)
        except ConnectionError as error:
            raise later(str(error)) from error
        if wait:
            raise refuse(429, f"{client!r} may ask about {meter.words} images", {"Retry-After": str(math.ceil(wait))})

    def answered(images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        return torch.cat([box.log_probs(part).cpu() for part in images.split(QUERY_BATCH)])

    async def answer(
        request: Request, unpack: Callable[[bytes], Tensor], a_number: int, limit: int
    ) -> Float[Tensor, "n classes"]:
        nonlocal taken
        client = client_of(request)
        if taken >= WAITING:
            raise later(f"{WAITING} requests are waiting already")
        taken += 1
        try:
            content = await content_of(request, a_number, limit)
            async with turn:
                images = await run_in_threadpool(checked, content, unpack)
            await run_in_threadpool(admit, client, len(images))
            async with turn:
                return await run_in_threadpool(answered, images)
        except asyncio.CancelledError:
            raise later("the server stops") from None
        finally:
            taken -= 1

    # Without the pages of FastAPI that load from elsewhere.
    app = FastAPI(title=name, summary="A classifier.", version="1", docs_url=None, redoc_url=None)

    @app.get(MODEL_PATH, summary="What is served")
    def model() -> dict[str, Any]:
        return {
            "name": name,
            "classes": list(class_names),
            "input_shape": list(input_shape),
            "access": str(policy),
            "max_images": most,
        }

    def said(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}

    numbers = {"type": "array", "description": f"n images of shape {list(input_shape)}, values in [0, 1]", "items": {}}
    json_body = said("application/json", {"type": "object", "properties": {"images": numbers}, "required": ["images"]})
    tensor_body = said(TENSORS_TYPE, {"type": "string", "format": "binary"})

    @app.post(ANSWERS_PATH, summary="Probabilities, as JSON", openapi_extra=json_body)
    async def answers(request: Request) -> dict[str, Any]:
        log_probs = await answer(request, _images_of_json, CHARACTERS, MAX_JSON)
        predicted = [class_names[row] for row in log_probs.argmax(1).tolist()]
        return {
            "classes": list(class_names),
            "predicted": predicted,
            "probabilities": log_probs.double().exp().tolist(),
        }

    @app.post(
        TENSORS_PATH,
        summary="Log-probabilities, as safetensors",
        openapi_extra=tensor_body,
        response_class=Response,
    )
    async def tensors(request: Request) -> Response:
        log_probs = await answer(request, unpack_images, 4, MAX_TENSORS)
        return Response(save({"log_probs": log_probs.contiguous()}), media_type=TENSORS_TYPE)

    return app


def _images_of_json(body: bytes) -> Float[Tensor, "..."]:
    """The images in a JSON object.

    >>> _images_of_json(b'{"images": [[0, 0.5]]}')
    tensor([[0.0000, 0.5000]])

    Raises:
        InputError: no JSON, no field ``images`` in it, or lists of unequal lengths or of something else than numbers.
    """
    try:
        return torch.tensor(json.loads(body)["images"], dtype=torch.float32)
    except MALFORMED as error:
        reason = " ".join(str(error).split())
        raise InputError(
            'the body must be JSON such as {"images": [...]}, with nested lists of numbers, of equal lengths '
            f"({reason})"
        ) from error
