"""Defences by training: losses that a teacher is trained with."""

from undistill.defences.training.cmim import CMIM
from undistill.defences.training.cmim_loss import CMIMLoss
from undistill.defences.training.cross_entropy import CrossEntropy
from undistill.defences.training.defence import Defence
from undistill.defences.training.label_smoothing import LabelSmoothing

DEFENCES: dict[str, type[Defence]] = {defence.name: defence for defence in (CrossEntropy, LabelSmoothing, CMIM)}

__all__ = ["CMIM", "DEFENCES", "CMIMLoss", "CrossEntropy", "Defence", "LabelSmoothing"]
