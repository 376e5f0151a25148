"""Networks for small images by name, classifiers that carry their normalisation, and checkpoints."""

from undistill.models.checkpoint import load_checkpoint, save_checkpoint
from undistill.models.classifier import Classifier, make_classifier
from undistill.models.imports import import_callable
from undistill.models.registry import MODELS, ModelInfo, build

__all__ = [
    "MODELS",
    "Classifier",
    "ModelInfo",
    "build",
    "import_callable",
    "load_checkpoint",
    "make_classifier",
    "save_checkpoint",
]
