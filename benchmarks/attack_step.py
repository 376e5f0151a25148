"""What an attack adds to a student's step."""

from collections.abc import Callable

import torch

from benchmarks.cmim_step import percent
from benchmarks.material import TINY_RATE, Trainee, random_task
from benchmarks.timing import Figure, quotients, stopwatch, take_turns
from undistill.attacks import ATTACKS, Attack
from undistill.defences.training import CrossEntropy
from undistill.training import FromLabels, Recipe


def attack_step(
    *, student: str = "resnet8", classes: int = 100, batch_size: int = 128, repeats: int = 30
) -> list[Figure]:
    """Cost of each attack's loss, forward and backward to the logits, as a share of the student's own step.

    The own step is forward, backward and optimiser under cross entropy, without data; answers are at hand. An attack
    that shows the student two views, or gives it exits, changes the step itself: its loss is counted here, its images
    and exits are not.
    """
    task = random_task(max(2 * batch_size, 2 * classes), classes)
    trainee = Trainee(student, task, Recipe(batch_size=batch_size, learning_rate=TINY_RATE))
    ce = FromLabels(CrossEntropy().loss(num_classes=classes, steps=1000))

    def own_step() -> float:
        parts = trainee.step(ce)
        return sum(parts[part] for part in ("forward", "backward", "optimiser"))

    attacks = {name: kind() for name, kind in ATTACKS.items() if not kind.slow and not hasattr(kind, "base")}
    seconds = take_turns(
        {"own step": own_step, **{name: loss_alone(attack, classes, batch_size) for name, attack in attacks.items()}},
        repeats=repeats,
        warmups=3,
    )
    own = seconds.pop("own step")
    return [Figure(name, "% of a step", percent(quotients(values, own)), at_most=5) for name, values in seconds.items()]


def loss_alone(attack: Attack, classes: int, batch_size: int) -> Callable[[], float]:
    """The attack's loss on random answers, with the step of its own parameters."""
    generator = torch.Generator().manual_seed(0)
    rows = attack.views * batch_size
    log_probs = torch.log_softmax(3 * torch.randn(rows, classes, generator=generator), 1)
    logits = torch.randn(attack.blocks * batch_size, classes, generator=generator).requires_grad_()
    labels = torch.arange(batch_size) % classes
    log_probs = attack.prepare(log_probs, labels.repeat(attack.views))
    loss = attack.start(classes, seed=0)
    loss.begin_epoch(9, 10)

    def once() -> None:
        logits.grad = None
        loss(logits, log_probs, labels).mean().backward()
        loss.after_step(TINY_RATE)

    return stopwatch(once)
