"""Defences by training: losses that a teacher is trained with."""

from undistill.defences.training.adversarial_sparse import AdversarialSparse
from undistill.defences.training.cmic_dl import CMICDL
from undistill.defences.training.cmim import CMIM
from undistill.defences.training.cmim_loss import CMIMLoss
from undistill.defences.training.cross_entropy import CrossEntropy
from undistill.defences.training.defence import Check, Defence, FineTuning, Workshop
from undistill.defences.training.label_smoothing import LabelSmoothing
from undistill.defences.training.mcmi import MCMI
from undistill.defences.training.nasty import Nasty
from undistill.defences.training.ncmi import NCMI

DEFENCES: dict[str, type[Defence]] = {
    defence.name: defence
    for defence in (CrossEntropy, LabelSmoothing, CMIM, CMICDL, NCMI, Nasty, AdversarialSparse, MCMI)
}

__all__ = [
    "CMICDL",
    "CMIM",
    "DEFENCES",
    "MCMI",
    "NCMI",
    "AdversarialSparse",
    "CMIMLoss",
    "Check",
    "CrossEntropy",
    "Defence",
    "FineTuning",
    "LabelSmoothing",
    "Nasty",
    "Workshop",
]
