"""The soft part that most attacks share."""

from jaxtyping import Float
from torch import Tensor

from undistill.information import kl_divergence, temper


def soft_loss(
    logits: Float[Tensor, "b classes"], log_probs: Float[Tensor, "b classes"], temperature: float
) -> Float[Tensor, "b"]:
    """T^2 KL(p^(1/T) || q^(1/T)) per example: the answers' power transform against the student's, both in float32."""
    power = 1 / temperature
    answers = temper(log_probs.detach().float(), power)
    return temperature**2 * kl_divergence(answers, temper(logits.float(), power))
