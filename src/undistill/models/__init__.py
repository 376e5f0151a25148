"""Networks for small images by name, classifiers that carry their normalisation, and checkpoints."""

from undistill.models.checkpoint import load_checkpoint, save_checkpoint
from undistill.models.classifier import Classifier, make_classifier
from undistill.models.imports import import_callable
from undistill.models.registry import MODELS, ModelInfo, architecture_code, build

__all__ = [
    "MODELS",
    "Classifier",
    "ModelInfo",
    "architecture_code",
    "build",
    "import_callable",
    "load_checkpoint",
    "make_classifier",
    "save_checkpoint",
]
