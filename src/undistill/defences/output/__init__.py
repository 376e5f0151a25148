"""Output defences: row-wise transforms of a teacher's answers, which can be set around any teacher and stacked."""

from undistill.defences.output.apgp import APGP
from undistill.defences.output.centroid import CentroidServing
from undistill.defences.output.defence import FixedDefence, Form, OutputDefence, OwnData, Transform
from undistill.defences.output.floor import Floor
from undistill.defences.output.mad import MAD
from undistill.defences.output.modelguard import ModelGuardW
from undistill.defences.output.noise import KeyedNoise
from undistill.defences.output.noise_transition import NoiseTransition
from undistill.defences.output.reverse_sigmoid import ReverseSigmoid
from undistill.defences.output.truncation import HighConfidence, KeepTopK, LabelOnly, Rounding

OUTPUT_DEFENCES: dict[str, type[OutputDefence]] = {
    defence.name: defence
    for defence in (
        LabelOnly,
        KeepTopK,
        Rounding,
        HighConfidence,
        Floor,
        KeyedNoise,
        ReverseSigmoid,
        MAD,
        ModelGuardW,
        APGP,
        NoiseTransition,
        CentroidServing,
    )
}

__all__ = [
    "APGP",
    "MAD",
    "OUTPUT_DEFENCES",
    "CentroidServing",
    "FixedDefence",
    "Floor",
    "Form",
    "HighConfidence",
    "KeepTopK",
    "KeyedNoise",
    "LabelOnly",
    "ModelGuardW",
    "NoiseTransition",
    "OutputDefence",
    "OwnData",
    "ReverseSigmoid",
    "Rounding",
    "Transform",
]
