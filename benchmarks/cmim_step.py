"""What CMIM adds to a training step."""

import torch
from torch import nn

from benchmarks.material import TEN_POWERS, TINY_RATE, Trainee, random_task
from benchmarks.timing import Figure, differences, milliseconds, quotients, stopwatch, take_turns
from undistill.defences.training import CMIM, CrossEntropy, Defence
from undistill.training import FromLabels, Objective, Recipe


def cmim_step(
    *, architecture: str = "resnet20", classes: int = 100, batch_size: int = 128, repeats: int = 60
) -> list[Figure]:
    """Cost of a CMIM step over a cross-entropy step, at ten powers.

    Both losses take turns on one network. Since the noise of a step is larger than what is measured, the losses are
    also timed alone, forward and backward to the logits, and their difference taken as a share of a step.
    """
    task = random_task(max(2 * batch_size, 2 * classes), classes)
    trainee = Trainee(architecture, task, Recipe(batch_size=batch_size, learning_rate=TINY_RATE))
    ce, cmim = (objective(defence, classes) for defence in (CrossEntropy(), CMIM(powers=TEN_POWERS)))
    logits = torch.randn(batch_size, classes, generator=torch.Generator().manual_seed(0)).requires_grad_()
    indices = torch.arange(batch_size)
    labels = indices % classes

    def loss_alone(objective: Objective) -> None:
        logits.grad = None
        objective(logits, labels, indices).mean().backward()

    seconds = take_turns(
        {
            "CE step": lambda: sum(trainee.step(ce).values()),
            "CMIM step": lambda: sum(trainee.step(cmim).values()),
            "CE loss": stopwatch(lambda: loss_alone(ce)),
            "CMIM loss": stopwatch(lambda: loss_alone(cmim)),
        },
        repeats=repeats,
        warmups=3,
    )
    of_steps = quotients(differences(seconds["CMIM step"], seconds["CE step"]), seconds["CE step"])
    of_losses = quotients(differences(seconds["CMIM loss"], seconds["CE loss"]), seconds["CE step"])
    return [
        *(Figure(name, "ms", milliseconds(values)) for name, values in seconds.items()),
        Figure("extra, by whole steps", "% of a CE step", percent(of_steps)),
        Figure("extra, by losses alone", "% of a CE step", percent(of_losses), at_most=1.5),
    ]


def objective(defence: Defence, classes: int) -> Objective:
    loss: nn.Module = defence.loss(num_classes=classes, steps=1000)
    return FromLabels(loss)


def percent(shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(100 * share for share in shares)
