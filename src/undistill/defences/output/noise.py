"""Noise that is a function of the image: the same question has the same answer, however often it is asked."""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import scipy  # its parts are loaded when they are first used
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from undistill.defences.output.decision import first, logarithms, probabilities
from undistill.defences.output.defence import FixedDefence
from undistill.defences.output.truncation import label_alone
from undistill.errors import InputError, unknown_name

SPACES = ("probabilities", "logits")
WORD = 4  # bytes of each draw; 32 bits reach 6.2 standard deviations


@dataclass(frozen=True)
class KeyedNoise(FixedDefence):
    """Serves probabilities with Gaussian noise that a secret key and the image determine.

        p'_c proportional to max(0, p_c + scale g_c)        in the space of probabilities
        p'_c proportional to p_c exp(scale g_c)             in the space of logits

    The g are standard normal, C for each image, made from SHAKE-256 of the key and of the image's grey levels (its
    values in [0, 1] rounded to 1/255). So whoever asks again gets the same answer, in any batch and on any machine, and
    a change of less than half a grey level changes nothing. A change of one grey level of one pixel draws anew:
    averaging over slightly different images, or over their augmented views, removes noise as it removes any other.

    Where noise leaves nothing of a row, the predicted class is served with probability 1.

    Args:
        scale: standard deviation, above 0.
        space: ``"probabilities"`` or ``"logits"``.
        keeps_top1: let the predicted class change places with the class that noise has put before it.
        key: the owner's secret. The default is public, which suffices for a study and not for a service: who knows
            the key can take the noise away.

    Raises:
        InputError: a scale that is not above 0, another space, or an empty key.

    Example:
        >>> rows, images = torch.tensor([[0.7, 0.2, 0.1]]).log().expand(2, 3), torch.zeros(2, 1, 2, 2)
        >>> served = KeyedNoise(0.1).apply(rows, images)
        >>> bool((served[0] == served[1]).all()), bool((served[0] == rows[0]).any())
        (True, False)

    Source: ART's ``GaussianNoise``, with its scale. Deviations: noise is no new draw for every question, which
    averaging over repeated questions would remove; rows always sum to 1; and the predicted class is kept unless that is
    turned off. In the space of logits, where Orekondy et al. draw uniform noise and project it onto a ball, it is
    Gaussian and is not projected.
    """

    name: ClassVar[str] = "noise"
    summary: ClassVar[str] = "Gaussian noise that a key and the image determine: same image, same answer"
    source: ClassVar[str] = "ART GaussianNoise (Nicolae et al., arXiv 1807.01069), made a function of the image"
    idempotent = False

    scale: float = 0.2
    space: str = "probabilities"
    keeps_top1: bool = True
    key: str = field(default="undistill", repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise InputError(f"noise of scale {self.scale} is not possible; scale must be finite and above 0")
        if self.space not in SPACES:
            raise unknown_name("space of noise", self.space, SPACES)
        if not self.key:
            raise InputError("the key of noise is empty; give a secret of your own")

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        moves = self.scale * self._draws(images, log_probs.shape[1]).to(log_probs.device)
        if self.space == "logits":
            served = torch.softmax(log_probs.double() + moves, 1)
        else:
            served = (probabilities(log_probs) + moves).clamp_min(0)
            nothing = (served == 0).all(1, keepdim=True)
            served = torch.where(nothing, label_alone(log_probs).double().exp(), served)
            served = served / served.sum(1, keepdim=True)
        if not self.keeps_top1:
            return logarithms(served, log_probs)
        predicted, ahead = log_probs.argmax(1, keepdim=True), served.argmax(1, keepdim=True)
        places = torch.cat([ahead, predicted], 1)
        served = served.scatter(1, places, served.gather(1, places.flip(1)))
        return first(logarithms(served, log_probs), predicted[:, 0])

    def _draws(self, images: Float[Tensor, "n *shape"], classes: int) -> Float64[Tensor, "n classes"]:
        key = hashlib.sha256(self.key.encode()).digest()
        levels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
        streams = [hashlib.shake_256(key + image.tobytes()).digest(WORD * classes) for image in levels]
        words = np.frombuffer(b"".join(streams), dtype="<u4").reshape(len(images), classes)
        return torch.from_numpy(scipy.special.ndtri((words + 0.5) / 2.0 ** (8 * WORD)))
