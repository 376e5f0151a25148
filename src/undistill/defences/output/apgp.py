"""APGP: answers perturbed by a small network that learns to move them far while the decision stays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from undistill.defences.output.decision import changed_share, drawn_back, first, logarithms, probabilities
from undistill.defences.output.defence import OutputDefence, OwnData, Transform
from undistill.errors import InputError, check_whole

LAYERS = 3  # hidden ones, as released
BATCH = 128
ROWS = 4096  # of the owner's answers that tell how often the network alone would change the decision
RATE = 1e-3  # of Adam
SOFTEST = 1 / 4  # least power at which the network sees its owner's answers

Layers = tuple[tuple[Float[Tensor, "_ _"], Float[Tensor, "_"]], ...]


@dataclass(frozen=True)
class APGP(OutputDefence):
    """Serves the softmax of the answer plus a correction by a perceptron g that was trained to move it far.

        p' = softmax(p + g(p)),   g: C -> hidden -> hidden -> hidden -> C with ReLU

    The probabilities p themselves, not their logarithms, are part of the logits, as published: differences between
    small probabilities, which a high temperature would bring out, all but vanish. g minimises, on the owner's answers,

        mean over rows of  abs(logit(p'_k) - logit(exp(-bound))) - weight * min(KL(p || p'), bound)

    with k = argmax p and logit(u) = log(u / (1 - u)). Its least value, -weight * bound, is reached where the decision
    has a probability of exp(-bound) and the answer has moved by ``bound`` nats or more. With a bound below log 2 the
    decision is then the largest. Where g misses that, the row is drawn back towards p, just as far as is needed.

    Args:
        weight: of the divergence, above 0; 1 as published.
        bound: in nats, above 0: divergence beyond it counts no more, and the decision is held at exp(-bound).
        hidden: width of the three hidden layers.
        steps: of the training, on 128 rows each.
        seed: of the initial weights and the order of the rows.

    Raises:
        InputError: a setting outside of its range; when it is set up, without any answers.

    Example:
        >>> log_probs = torch.log_softmax(10 * torch.eye(4), 1)
        >>> own = OwnData(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), log_probs, torch.arange(4))
        >>> served = APGP().set_up(own).apply(log_probs, torch.zeros(4, 1, 2, 2))
        >>> served.argmax(1), bool((served.exp().amax(1) < 0.8).all())
        (tensor([0, 1, 2, 3]), True)

    Source: our reading of Cheng, Cheng, "Accuracy-Preserving Generative Perturbation for Defending Against Model
    Cloning Attacks", ICASSP 2023, of which no text could be had, after the only code, ``train_APGP.py`` of
    ``Linfeng-Ye/CMIM``: CE(p + g(p), y) - KL(p || p'), with stochastic gradient descent at a rate of 1 for two epochs.
    The network is the released one; the objective, with a distance in log-odds in the place of CE, and the way to keep
    decisions are ours. Deviations, each of which guards against a hazard of the released objective: the divergence is
    bounded (at ``weight`` 1 the released difference is linear in the logits and has no least value); the other term
    holds the decision's probability from both sides, with a gradient that does not fade near certainty; the decision
    takes the place of the label, towards which g would move it where the teacher is wrong; decisions are kept row by
    row; Adam at 0.001 (a rate of 1 diverges); rows at a random power from 1/4 to 1, uniform in the logarithm (a
    teacher's answers to its own training images are all but certain, and g would never see a soft one); first weights
    between -1 and 1, since the inputs sum to 1 and so are small where there are many.
    """

    name: ClassVar[str] = "apgp"
    summary: ClassVar[str] = "a learned network moves each answer far while the predicted class stays"
    source: ClassVar[str] = "our reading of Cheng, Cheng, ICASSP 2023 (code: Linfeng-Ye/CMIM)"
    keeps_top1 = True
    idempotent = False

    weight: float = 1.0
    bound: float = 0.5
    hidden: int = 512
    steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value in (("weight", self.weight), ("bound", self.bound)):
            if not 0 < value < math.inf:
                raise InputError(f"the {what} of apgp is {value}, must be finite and above 0")
        check_whole("seed of apgp", self.seed)
        for what, count in (("hidden", self.hidden), ("steps", self.steps)):
            check_whole(f"{what} of apgp", count)
            if count < 1:
                raise InputError(f"{what} of apgp is {count}, must be at least 1")

    def set_up(self, own: OwnData) -> Transform:
        own.check_enough(self.name)
        # In double precision: how single precision rounds depends on the number of threads, and training multiplies it.
        generator = torch.Generator().manual_seed(self.seed)
        classes = own.log_probs.shape[1]
        layers = _layers([classes, *[self.hidden] * LAYERS, classes], generator)
        log_probs, decision = own.log_probs.double(), own.log_probs.argmax(1)
        with torch.enable_grad():
            optimiser = torch.optim.Adam([parameter.requires_grad_() for layer in layers for parameter in layer], RATE)
            for _ in range(self.steps):
                rows = torch.randint(len(log_probs), (BATCH,), generator=generator)
                powers = SOFTEST ** torch.rand(BATCH, 1, generator=generator, dtype=log_probs.dtype)
                optimiser.zero_grad()
                self.loss(torch.log_softmax(powers * log_probs[rows], 1), decision[rows], layers).mean().backward()
                optimiser.step()
        learnt = tuple((weight.detach(), bias.detach()) for weight, bias in layers)
        some = own.log_probs[:: -(-len(own.log_probs) // ROWS)]
        share = changed_share(_logits(probabilities(some), learnt), some.argmax(1))
        return _Perturbed(learnt, share)

    def restore(self, state: Mapping[str, Tensor]) -> Transform:
        layers = tuple((state[f"{layer}.weight"], state[f"{layer}.bias"]) for layer in range(LAYERS + 1))
        return _Perturbed(layers, state["changed"].item())

    def loss(
        self, log_probs: Float[Tensor, "n classes"], decision: Int64[Tensor, "n"], layers: Layers
    ) -> Float[Tensor, "n"]:
        """What g minimises, row by row."""
        probs, column = log_probs.exp(), decision[:, None]
        served = torch.log_softmax(_logits(probs, layers), 1)
        odds = served.gather(1, column)[:, 0] - served.scatter(1, column, -torch.inf).logsumexp(1)
        divergence = (torch.xlogy(probs, probs) - probs * served).sum(1)
        return (odds + math.log(math.expm1(self.bound))).abs() - self.weight * divergence.clamp_max(self.bound)


@dataclass(frozen=True)
class _Perturbed(Transform):
    layers: Layers
    changed: float

    def apply(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        probs, decision = probabilities(log_probs), log_probs.argmax(1)
        # In double precision, rounded at the end: products of matrices add up in an order that depends on the batch.
        moved = torch.softmax(_logits(probs, self.layers), 1)
        return first(logarithms(drawn_back(moved, probs, decision), log_probs), decision)

    def facts(self) -> dict[str, Any]:
        return {"decisions_changed_by_network": self.changed}

    def state(self) -> dict[str, Tensor]:
        parts = {
            f"{layer}.{name}": tensor
            for layer, tensors in enumerate(self.layers)
            for name, tensor in zip(("weight", "bias"), tensors, strict=True)
        }
        return parts | {"changed": torch.tensor(self.changed, dtype=torch.float64)}


def _layers(widths: list[int], generator: torch.Generator) -> Layers:
    """Weights and biases, uniform up to one over the root of the number of inputs, in the first layer up to 1."""
    layers: list[tuple[Tensor, Tensor]] = []
    for inputs, outputs in pairwise(widths):
        largest = 1 / math.sqrt(inputs if layers else 1)
        weight = torch.empty(outputs, inputs, dtype=torch.float64).uniform_(-largest, largest, generator=generator)
        bias = torch.empty(outputs, dtype=torch.float64).uniform_(-largest, largest, generator=generator)
        layers.append((weight, bias))
    return tuple(layers)


def _logits(probs: Float[Tensor, "n classes"], layers: Layers) -> Float[Tensor, "n classes"]:
    hidden = probs
    for weight, bias in layers[:-1]:
        hidden = F.relu(F.linear(hidden, weight, bias))
    return probs + F.linear(hidden, *layers[-1])
