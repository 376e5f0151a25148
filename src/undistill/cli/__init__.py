"""The commands. Strings become values here, and nowhere else."""

from undistill.cli.app import main

__all__ = ["main"]
