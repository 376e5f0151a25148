"""What HTTP adds to an answer."""

import socket
import threading
import time

import httpx
import torch
import uvicorn
from jaxtyping import Float
from torch import Tensor

from benchmarks.timing import Figure, milliseconds, quotients, stopwatch, take_turns
from undistill.blackbox import ANSWERS_PATH, LocalBlackBox, open_black_box
from undistill.models import make_classifier
from undistill.serve import create_app

SHAPE = (3, 32, 32)


class OnOneCore(LocalBlackBox):
    """The threads of the server would take all cores, whatever the main thread was told."""

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        torch.set_num_threads(1)
        return super().log_probs(images)


def serving(*, classes: int = 100, images: int = 64, repeats: int = 20) -> list[Figure]:
    """A request of 64 images to a ResNet-20: asked directly, at its URL as tensors, and at its URL as JSON.

    Server and client share the core, and the connection stays open.
    """
    names = tuple(map(str, range(classes)))
    classifier = make_classifier(
        "resnet20", class_names=names, input_shape=SHAPE, mean=[0.5] * 3, std=[0.25] * 3, seed=0
    )
    local = OnOneCore("resnet20", classifier)
    asked = torch.randint(0, 256, (images, *SHAPE), generator=torch.Generator().manual_seed(0)).float() / 255
    app = create_app(local, class_names=names, input_shape=SHAPE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            remote = open_black_box(url, class_names=names, probe=asked[:8])
            with httpx.Client(timeout=60) as client:

                def as_json() -> None:
                    client.post(url + ANSWERS_PATH, json={"images": asked.tolist()}).raise_for_status()

                pieces = {
                    "directly": stopwatch(lambda: local.log_probs(asked)),
                    "at its URL, tensors": stopwatch(lambda: remote.log_probs(asked)),
                    "at its URL, JSON": stopwatch(as_json),
                }
                seconds = take_turns(pieces, repeats=repeats)
        finally:
            server.should_exit = True
            thread.join()
    return [
        *(Figure(name, "ms", milliseconds(values)) for name, values in seconds.items()),
        Figure("tensors / directly", "x", quotients(seconds["at its URL, tensors"], seconds["directly"])),
        Figure("JSON / directly", "x", quotients(seconds["at its URL, JSON"], seconds["directly"])),
    ]
