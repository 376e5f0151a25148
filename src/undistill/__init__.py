"""Protect classifiers against knowledge distillation, attack them, and audit the claim of protection.

The rooms, from the ground up:

- ``information``: conditional mutual information of a model's outputs, at every power a = 1/T;
- ``statistics``: paired differences, Holm, detectable gaps;
- ``tasks``, ``models``, ``attacks``, ``defences``: data, networks, and the methods on both sides;
- ``blackbox``, ``training``: what an outsider sees; the one training loop;
- ``audit``: from a teacher to a verdict;
- ``report``, ``serve``: what people look at; a teacher behind a URL;
- ``cli``: the commands.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from undistill.attacks import KD, KDWithoutLabels
from undistill.audit import Audit, Protocol, audit, audit_all
from undistill.defences.training import CMIM, CMIMLoss
from undistill.errors import InputError
from undistill.models import Classifier, load_checkpoint, save_checkpoint
from undistill.tasks import Task, load_task
from undistill.training import Recipe, train_teacher

if TYPE_CHECKING:
    from undistill.information import CMISpectrum

__version__ = version("undistill")

__all__ = [
    "CMIM",
    "KD",
    "Audit",
    "CMIMLoss",
    "CMISpectrum",
    "Classifier",
    "InputError",
    "KDWithoutLabels",
    "Protocol",
    "Recipe",
    "Task",
    "__version__",
    "audit",
    "audit_all",
    "load_checkpoint",
    "load_task",
    "save_checkpoint",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    """``CMISpectrum`` when it is asked for, as in ``undistill.information``."""
    if name == "CMISpectrum":
        from undistill.information import CMISpectrum

        return CMISpectrum
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
