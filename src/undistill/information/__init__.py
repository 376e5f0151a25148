"""How much a served distribution says beyond the class: conditional mutual information (CMI) at every power a = 1/T."""

from undistill.information.divergence import kl_divergence
from undistill.information.metrics import CMISpectrum
from undistill.information.powers import DEFAULT_POWERS, check_powers, temper
from undistill.information.spectrum import (
    Spectrum,
    SpectrumSums,
    cmi,
    merge,
    spectrum_compute,
    spectrum_json,
    spectrum_update,
)

__all__ = [
    "DEFAULT_POWERS",
    "CMISpectrum",
    "Spectrum",
    "SpectrumSums",
    "check_powers",
    "cmi",
    "kl_divergence",
    "merge",
    "spectrum_compute",
    "spectrum_json",
    "spectrum_update",
    "temper",
]
