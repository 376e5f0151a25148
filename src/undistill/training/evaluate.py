"""A network's answers on a split."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undistill.tasks import Split

EVALUATION_BATCH = 64  # as for queries: larger batches fall out of the caches


@torch.inference_mode()
def predict(network: nn.Module, split: Split, device: torch.device | str = "cpu") -> Float[Tensor, "n classes"]:
    """Logits of ``network`` (images in [0, 1] in, logits out) for every image of ``split``, in float32, on the CPU.

    The network runs in evaluation mode and is left in the mode in which it came.
    """
    training = network.training
    network.eval()
    try:
        logits = [
            network(images.to(device).float().div_(255)).float().cpu()
            for images in split.images.split(EVALUATION_BATCH)
        ]
    finally:
        network.train(training)
    return torch.cat(logits)


def accuracy(logits: Float[Tensor, "n classes"], split: Split) -> float:
    """Top-1 accuracy in percent.

    >>> accuracy(torch.eye(2), Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 0])))
    50.0
    """
    return 100 * (logits.argmax(1) == split.labels).double().mean().item()
