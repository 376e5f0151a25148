"""The command ``undistill``, outside of the package so that it is there before PyTorch is imported.

Importing PyTorch makes some hundred thousand objects that stay. The garbage collector would look through them again and
again meanwhile, and once more at the end of the process: a quarter of the time that a short command takes.
"""

import gc
import sys


def main() -> None:
    """Run the command line, and exit with its status."""
    gc.disable()
    from undistill.cli import main as run

    gc.freeze()
    gc.enable()
    sys.exit(run())
