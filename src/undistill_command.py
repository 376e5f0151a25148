"""The command ``undistill``, outside of the package so that it is there before PyTorch is imported.

Importing PyTorch makes some hundred thousand objects that stay. The garbage collector would look through them again and
again meanwhile, and at the end of the process Python would free them one by one: a quarter of the time that a short
command takes.
"""

import atexit
import gc
import os
import sys
from contextlib import suppress

status = 1  # of a command that ends in a traceback


def main() -> None:
    """Run the command line, and exit with its status."""
    global status
    atexit.register(_leave)  # what is registered first runs last
    gc.disable()
    from undistill.cli import main as run

    gc.freeze()
    gc.enable()
    status = run()


def _leave() -> None:
    """End the process when threads and exit handlers are done, and leave its memory to the system."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(status)
