"""The server: a teacher behind HTTP."""

from undistill.serve.clients import Clients, read_keys
from undistill.serve.service import MAX_IMAGES, Meter, create_app

__all__ = ["MAX_IMAGES", "Clients", "Meter", "create_app", "read_keys"]
