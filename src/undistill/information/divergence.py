"""Kullback-Leibler divergence of log-probabilities, exact at zeros."""

import torch
from jaxtyping import Float
from torch import Tensor


def kl_divergence(
    log_p: Float[Tensor, "*batch classes"], log_q: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) = sum over classes of p (log p - log q), in nats; summed, never averaged, over classes.

    Where p is exactly zero (``log_p = -inf``) the term and its gradient are exactly zero.

    Args:
        log_p: the distribution under which the mean is taken.
        log_q: the distribution it is compared with.

    Example:
        >>> one_hot = torch.tensor([0.0, -torch.inf])
        >>> kl_divergence(one_hot, torch.tensor([0.5, 0.5]).log()).exp().item()
        2.0
    """
    return (log_p.exp() * torch.where(log_p > -torch.inf, log_p - log_q, 0.0)).sum(-1)
