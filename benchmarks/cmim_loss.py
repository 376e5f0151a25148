"""The CMIM loss alone, beside the same loss left to autograd."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.material import TEN_POWERS
from benchmarks.timing import Figure, milliseconds, quotients, stopwatch, take_turns
from undistill.defences.training import CMIMLoss


def cmim_loss(*, classes: int = 1000, batch_size: int = 256, repeats: int = 60) -> list[Figure]:
    """The CMIM loss, forward and backward to the logits, at ten powers: in closed form and by autograd."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(batch_size, classes, generator=generator)).requires_grad_()
    labels = torch.randint(classes, (batch_size,), generator=generator)

    def forward_and_backward(loss: nn.Module) -> None:
        logits.grad = None
        loss(logits, labels).backward()

    losses: dict[str, nn.Module] = {
        "closed form": CMIMLoss(classes, powers=TEN_POWERS),
        "autograd": AutogradCMIM(classes, TEN_POWERS),
        "cross entropy": nn.CrossEntropyLoss(),
    }
    seconds = take_turns(
        {name: stopwatch(partial(forward_and_backward, loss)) for name, loss in losses.items()},
        repeats=repeats,
        warmups=3,
    )
    return [
        Figure("closed form", "ms", milliseconds(seconds["closed form"]), at_most=12),
        Figure("autograd", "ms", milliseconds(seconds["autograd"])),
        Figure("cross entropy", "ms", milliseconds(seconds["cross entropy"])),
        Figure("autograd / closed form", "x", quotients(seconds["autograd"], seconds["closed form"])),
    ]


class AutogradCMIM(nn.Module):
    """:class:`undistill.CMIMLoss` at its default settings, in training mode, as one would write it first."""

    def __init__(self, num_classes: int, powers: tuple[float, ...], decay: float = 0.9) -> None:
        super().__init__()
        self.powers, self.decay = powers, decay
        self.sums = torch.zeros(len(powers), num_classes, num_classes)
        self.counts = torch.zeros(num_classes)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        present = labels.unique()
        self.counts[present] *= self.decay
        self.counts.index_add_(0, labels, torch.ones(len(labels)))
        loss = F.cross_entropy(logits, labels)
        for sums, power in zip(self.sums, self.powers, strict=True):
            log_probs = F.log_softmax(power * logits, dim=1)
            probs = log_probs.exp()
            sums[present] *= self.decay
            sums.index_add_(0, labels, probs.detach())
            log_centroids = (sums[labels] / self.counts[labels][:, None]).log()
            divergence = (probs * (log_probs - log_centroids)).sum(dim=1).mean()
            loss = loss + divergence / (power**2 * len(self.powers))
        return loss
