"""The spectrum as a torchmetrics metric, for use in a training or evaluation loop."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from undistill.errors import InputError
from undistill.information.powers import DEFAULT_POWERS, check_powers
from undistill.information.spectrum import (
    Spectrum,
    SpectrumSums,
    accumulate,
    check_outputs,
    spectrum_compute,
    zero_sums,
)

_SUMS = tuple(field.name for field in fields(SpectrumSums) if field.name != "powers")


class CMISpectrum(Metric):
    """CMI, NCMI and the residual W of a classifier over a grid of powers; formulas in :func:`spectrum_compute`.

    States are float64 sums, joined by addition across batches and processes. Their memory is about 8 K C^2 bytes (at
    the 20 default powers 1.6 MB for C = 100, 160 MB for C = 1000), whatever the number of samples.

    Args:
        num_classes: number C of classes.
        powers: K powers a = 1/T, each above 0.
        **kwargs: of ``torchmetrics.Metric``.

    Raises:
        InputError: fewer than 2 classes, or powers that are not above 0.

    >>> import torch
    >>> metric = CMISpectrum(num_classes=2, powers=[1.0])
    >>> metric.update(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log(), torch.tensor([0, 0]))
    >>> result = metric.compute()
    >>> round(result["cmi"].item(), 6), result["counts"].tolist()
    (0.024157, [2, 0])
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(self, num_classes: int, powers: Sequence[float] = DEFAULT_POWERS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 2:
            raise InputError(f"a classifier has at least 2 classes, but num_classes is {num_classes}.")
        self.num_classes = num_classes
        self.powers = check_powers(powers)
        sums = zero_sums(num_classes, self.powers)
        for name in _SUMS:
            self.add_state(name, default=getattr(sums, name), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in a batch.

        Args:
            preds: logits or log-probabilities, [n, C].
            target: true classes, [n], in [0, C).

        Raises:
            InputError: as :func:`spectrum_update`, or another number of classes than the metric's.
        """
        check_outputs(preds, target)
        if preds.shape[1] != self.num_classes:
            raise InputError(f"this metric was made for {self.num_classes} classes, but preds have {preds.shape[1]}.")
        accumulate(self.sums, preds, target.long())

    def compute(self) -> dict[str, Tensor]:
        """The spectrum as tensors: fields of :class:`Spectrum`, the supremum of CMI over the grid, and its power."""
        spectrum = self.spectrum()
        return {
            "powers": spectrum.cmi.new_tensor(spectrum.powers),
            "cmi": spectrum.cmi,
            "cmi_per_class": spectrum.cmi_per_class,
            "counts": spectrum.counts,
            "separation": spectrum.separation,
            "ncmi": spectrum.ncmi,
            "within_variance": spectrum.cmi.new_tensor(spectrum.within_variance),
            "supremum": spectrum.cmi.new_tensor(spectrum.supremum),
            "supremum_power": spectrum.cmi.new_tensor(spectrum.supremum_power),
        }

    @property
    def sums(self) -> SpectrumSums:
        """The sums so far, to be saved or merged with others'."""
        return SpectrumSums(powers=self.powers, **{name: getattr(self, name) for name in _SUMS})

    def spectrum(self) -> Spectrum:
        """The same as a :class:`Spectrum`, of this process's data alone unless the metric is synchronised."""
        return spectrum_compute(self.sums)
