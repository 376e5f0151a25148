"""What an attacker has at hand: images, labels, answers, and a way to train."""

import random
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from undistill.attacks import AccessKind, Answers, Attack, Lab
from undistill.blackbox import BlackBox, Page, Queries, SharedAnswers, page_images
from undistill.blackbox.box import QUERY_BATCH
from undistill.errors import InputError
from undistill.models import Classifier
from undistill.tasks import Task
from undistill.training import (
    EpochRecord,
    FromAnswers,
    NonFiniteLossError,
    Progress,
    Recipe,
    Training,
    classifier_for,
    fit_one,
)

Fit = Callable[[Training], list[EpochRecord]]
"""Runs a training: :func:`undistill.training.fit_one`, or something that does it together with others."""


class AuditLab(Lab):
    """The lab of one trial: see :class:`undistill.attacks.Lab`.

    Args:
        task: the attacker's images.
        student: architecture.
        recipe: of every student.
        seed: of weights, order, views.
        queries: how to ask.
        attack: what will be run; decides the number of views.
        box: whom to ask; None for a placebo.
        stand_in: answers (n, classes) of what stands in for a teacher in a placebo.
        cache: where answers are kept.
        progress: shows the trainings.
        fit: runs them.

    Attributes:
        records: what each epoch of the last training measured.
    """

    def __init__(
        self,
        task: Task,
        student: str,
        recipe: Recipe,
        seed: int,
        queries: Queries,
        attack: Attack,
        *,
        cache: SharedAnswers,
        box: BlackBox | None = None,
        stand_in: Float[Tensor, "n classes"] | None = None,
        progress: Callable[[int], Progress] | None = None,
        fit: Fit = fit_one,
    ) -> None:
        if attack.needs_labels and not task.labelled:
            raise InputError(
                f"attack {attack.name} needs labels, but the images of {task.name!r} have none that the teacher's "
                "classes would fit; choose an attack that needs none (see: undistill list attacks)"
            )
        if box is not None:
            attack.check_access(box.access)
        self._plan = queries.plan(
            images=len(task.train), epochs=recipe.epochs, views=attack.views, batch_size=recipe.batch_size
        )
        if self._plan.images < len(task.train) and box is not None:
            task = task.with_fewer_images(self._plan.images, seed)
        self.task, self.student, self.recipe, self.seed = task, student, recipe, seed
        self.labels, self.num_classes = task.train.labels, task.num_classes
        self.access: AccessKind = "full" if box is None else box.access
        self.notes: dict[str, Any] = {}
        self.records: list[EpochRecord] = []
        self._box, self._stand_in, self._cache, self._progress, self._fit = box, stand_in, cache, progress, fit
        self._asked: dict[Page, int] = {}
        self._own_questions = 0
        self._budget = queries.budget

    @property
    def queries(self) -> int:
        """Images that the black box was asked about; an answer that is used again counts once."""
        return sum(self._asked.values()) + self._own_questions

    def answers(self, epoch: int, view: int) -> Float[Tensor, "n classes"]:
        if self._box is None:
            if self._stand_in is None:
                raise InputError("there is neither a black box nor what stands in for one")
            return self._stand_in
        page = self._plan.pages(self.seed, epoch, view)
        self._asked[page] = len(self.task.train)
        return self._cache.get(self._box, self.task, page)

    def limit(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """The rows belong to no image, so the attacker's images are taken in turn: an output defence that reads them,
        such as one with a key, is then known in all but what it does to an image in question."""
        if self._box is None:
            return log_probs
        images = self.task.train.images
        parts = torch.arange(len(log_probs)).split(QUERY_BATCH)
        shown = (images[rows % len(images)].float().div_(255) for rows in parts)
        return torch.cat([self._box.limit(log_probs[rows], some) for rows, some in zip(parts, shown, strict=True)])

    def ask(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        if self._box is None:
            raise InputError("a placebo has no teacher to ask")
        if self._budget is not None and self.queries + len(images) > self._budget:
            raise InputError(
                f"the query budget of {self._budget} images is spent after {self.queries}; give the attack a smaller "
                "budget of its own"
            )
        self._own_questions += len(images)
        return self._box.log_probs(images).to(images.device)

    def fresh_student(self) -> Classifier:
        return classifier_for(self.task, self.student, seed=self.seed)

    def fit(self, attack: Attack, answers: Answers, generation: int = 0) -> Classifier:
        student = classifier_for(self.task, self.student, seed=_initial_seed(self.seed, generation))
        objective = FromAnswers(attack, answers, num_classes=self.num_classes, seed=self.seed, views=self._plan.views)
        network = attack.dress(student, self.seed)
        try:
            self.records = self._fit(Training(network, self.task, objective, self.recipe, self.seed, self._progress))
        except NonFiniteLossError as error:
            # A setting that breaks the student is a bad attack, not a reason to lose an audit.
            self.records = []
            self.notes["diverged"] = str(error)
        self.notes |= objective.loss.facts()
        return student

    def answers_of(self, student: nn.Module) -> Answers:
        @torch.inference_mode()
        def answers(epoch: int, view: int) -> Float[Tensor, "n classes"]:
            batches = page_images(self.task, self._plan.pages(self.seed, epoch, view))
            logits = torch.cat([student(images.float().div_(255)) for images in batches])
            return torch.log_softmax(logits, 1)

        return answers


def _initial_seed(seed: int, generation: int) -> int:
    """The trial's own seed for the first student, so that it pairs with references; others far from all seeds."""
    return seed if generation == 0 else random.Random(f"{seed} {generation}").getrandbits(62)
