"""How much a served distribution says beyond the class: conditional mutual information (CMI) at every power a = 1/T."""

from typing import TYPE_CHECKING, Any

from undistill.information.divergence import kl_divergence
from undistill.information.powers import DEFAULT_POWERS, at_least_float32, check_powers, temper
from undistill.information.sample import ClusterSample, answers_per_class, empty_sample, sample_join
from undistill.information.spectrum import (
    Spectrum,
    SpectrumSums,
    cmi,
    merge,
    spectrum_compute,
    spectrum_json,
    spectrum_update,
)

if TYPE_CHECKING:
    from undistill.information.metrics import CMISpectrum

__all__ = [
    "DEFAULT_POWERS",
    "CMISpectrum",
    "ClusterSample",
    "Spectrum",
    "SpectrumSums",
    "answers_per_class",
    "at_least_float32",
    "check_powers",
    "cmi",
    "empty_sample",
    "kl_divergence",
    "merge",
    "sample_join",
    "spectrum_compute",
    "spectrum_json",
    "spectrum_update",
    "temper",
]


def __getattr__(name: str) -> Any:
    """``CMISpectrum`` when it is asked for: torchmetrics takes longer to import than all the rest, PyTorch included."""
    if name == "CMISpectrum":
        from undistill.information.metrics import CMISpectrum

        return CMISpectrum
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
