"""What an attack adds to a student's step."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.cmim_step import percent
from benchmarks.material import TINY_RATE, Trainee, random_task
from benchmarks.timing import Figure, quotients, stopwatch, take_turns
from undistill.attacks import ATTACKS, Attack
from undistill.attacks.recovery import Recovery
from undistill.blackbox import TopK
from undistill.defences.training import CrossEntropy
from undistill.training import FromLabels, Recipe

SERVED = 5  # classes that the black box of a recovery attack serves
BATCHES_PER_VIEW = 50  # a recovery attack makes its answers anew for each view


def attack_step(
    *, student: str = "resnet8", classes: int = 100, batch_size: int = 128, repeats: int = 30
) -> list[Figure]:
    """Cost of each attack's loss, forward and backward to the logits, as a share of the student's own step.

    The own step is forward, backward and optimiser under cross entropy, without data; answers are at hand. An attack
    with two views is measured against a step on as many images. Exits that an attack gives to the student change the
    step itself, and are not counted. A recovery attack's loss is its base's, and its share of recovering a view's
    answers from the five largest is added.
    """
    task = random_task(max(4 * batch_size, 4 * classes), classes)
    ce = FromLabels(CrossEntropy().loss(num_classes=classes, steps=1000))

    def own_step(views: int) -> Callable[[], float]:
        trainee = Trainee(student, task, Recipe(batch_size=views * batch_size, learning_rate=TINY_RATE))
        return lambda: sum(trainee.step(ce)[part] for part in ("forward", "backward", "optimiser"))

    attacks = {name: kind() for name, kind in ATTACKS.items() if not kind.slow}
    turns = {f"{views} views": own_step(views) for views in (1, 2)}
    seconds = take_turns(
        turns | {name: loss_of(attack, classes, batch_size) for name, attack in attacks.items()},
        repeats=repeats,
        warmups=3,
    )
    return [
        Figure(name, "% of a step", percent(quotients(seconds[name], seconds[f"{attack.views} views"])), at_most=5)
        for name, attack in attacks.items()
    ]


def loss_of(attack: Attack, classes: int, batch_size: int) -> Callable[[], float]:
    """What an attack adds to a step."""
    if not isinstance(attack, Recovery):
        return loss_alone(attack, classes, batch_size)
    generator = torch.Generator().manual_seed(0)
    rows = torch.log_softmax(3 * torch.randn(BATCHES_PER_VIEW * batch_size, classes, generator=generator), 1)
    full = attack.draw(rows, seed=0)
    recover = attack.inverse(full, TopK(SERVED).apply(full), seed=0)
    loss, recovery = loss_alone(attack.base, classes, batch_size), stopwatch(partial(recover, TopK(SERVED).apply(rows)))
    return lambda: loss() + recovery() / BATCHES_PER_VIEW


def loss_alone(attack: Attack, classes: int, batch_size: int) -> Callable[[], float]:
    """The attack's loss on random answers, with the step of its own parameters."""
    generator = torch.Generator().manual_seed(0)
    rows = attack.views * batch_size
    log_probs = torch.log_softmax(3 * torch.randn(rows, classes, generator=generator), 1)
    logits = torch.randn(attack.blocks * batch_size, classes, generator=generator).requires_grad_()
    labels = torch.randint(
        classes, (batch_size,), generator=generator
    )  # as in a shuffled batch: some twice, some not at all
    log_probs = attack.prepare(log_probs, labels.repeat(attack.views))
    loss = attack.start(classes, seed=0)
    loss.begin_epoch(9, 10)

    def once() -> None:
        logits.grad = None
        loss(logits, log_probs, labels).mean().backward()
        loss.after_step(TINY_RATE)

    return stopwatch(once)
