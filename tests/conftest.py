import socket
import threading
import time
from contextlib import contextmanager

import pytest
import torch

# The tests run in several processes at once; more threads than cores would only slow them down.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def serving():
    """Serves an ASGI application at a free port of this machine: ``with serving(app) as url``."""
    import uvicorn

    @contextmanager
    def serve(app):
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started and time.monotonic() < until:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            listening.close()

    return serve
