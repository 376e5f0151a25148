"""Output defences around a black box."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from undistill.attacks import AccessKind
from undistill.blackbox.access import FULL, Access
from undistill.blackbox.box import QUERY_BATCH, BlackBox
from undistill.blackbox.opening import PROBE_IMAGES, TeacherLike, open_black_box
from undistill.blackbox.validate import check_log_probs
from undistill.defences.output import OutputDefence, OwnData, Transform
from undistill.errors import InputError
from undistill.files import content_hash
from undistill.tasks import Split, Task


@dataclass(frozen=True)
class Served(Access):
    """What comes through of answers behind output defences; made by :class:`DefendedBlackBox`.

    Args:
        kind: of the answers. A defence that only leaves out leaves a label alone as it is.
        last: the last defence.
    """

    kind: AccessKind  # type: ignore[misc]  # of the value, not of the class
    last: OutputDefence

    def apply(self, log_probs: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        raise NotImplementedError("what output defences serve depends on the image, too; ask the box's `limit`")

    @property
    def sentence(self) -> str:
        return {
            "full": "the probabilities of all classes",
            "decimals": "rounded probabilities",
            "top-k": "the largest probabilities, renormalised",
            "top-k-raw": "the largest probabilities, as they are",
            "label": "the predicted class alone",
        }[self.kind]

    def sums(self, num_classes: int) -> tuple[float, float]:
        return self.last.sums(num_classes)

    def __str__(self) -> str:
        return self.kind


@dataclass
class DefendedBlackBox(BlackBox):
    """Another black box, behind an output defence; :func:`defend` makes it. A stack of defences is one box in another.

    Args:
        box: the other one. What it answers is renormalised where it does not sum to 1 (rounded, or cut off).
        defence: the defence.
        transform: the same, set up for this box.
        learnt_from: what else determines the transform (training images, surrogate), as JSON; None if nothing does.

    Attributes:
        name: that of the box, ``+``, and that of the defence.
        fingerprint: follows from the box's, the settings, and ``learnt_from``. Defences are set up without chance, so
            it stands for what was learnt, too; being a name on every machine, it must not depend on the last bits.
    """

    box: BlackBox
    defence: OutputDefence
    transform: Transform
    learnt_from: Any = None
    name: str = field(init=False)
    fingerprint: str = field(init=False)
    policy: Access = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.box.name}+{self.defence.name}"
        self.fingerprint = content_hash(
            ["defended", self.box.fingerprint, self.defence.description(), self.learnt_from]
        )
        after_label = self.box.access == "label" and self.defence.serves != "full"
        kind: AccessKind = "label" if after_label else self.defence.serves
        self.policy = FULL if kind == "full" and self.defence.normalised else Served(kind, self.defence)

    @property
    def undefended(self) -> BlackBox:
        return self.box.undefended

    @property
    def defences(self) -> tuple[dict[str, Any], ...]:
        own = self.defence.description() | {"words": str(self.defence), "learnt": self.transform.facts()}
        return *self.box.defences, own

    def log_probs(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        return self.serve(self.box.log_probs(images), images)

    def limit(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        return self.serve(self.box.limit(log_probs, images), images)

    def serve(
        self, log_probs: Float[Tensor, "n classes"], images: Float[Tensor, "n *shape"]
    ) -> Float[Tensor, "n classes"]:
        """What is served to ``images`` where the other box answers ``log_probs``.

        Raises:
            InputError: the defence gives NaN, or rows that do not sum to what it says.
        """
        classes = log_probs.shape[1]
        whole = self.box.policy.sums(classes) == (1.0, 1.0)
        served = self.transform.apply(log_probs if whole else torch.log_softmax(log_probs, 1), images)
        check_log_probs(served, self.name, self.policy.sums(classes))
        return served


def defend(
    teacher: TeacherLike,
    defences: Sequence[OutputDefence],
    task: Task,
    *,
    surrogate: TeacherLike | None = None,
    name: str | None = None,
    trust_import_path: bool = False,
) -> BlackBox:
    """Set output defences around a teacher.

    Defences that learn are set up on the teacher's answers to the clean training images, as the defences before them
    serve these. What comes of it is a black box like any other: it can be measured, attacked, audited and defended
    again.

    Args:
        teacher: as of :func:`open_black_box`.
        defences: in the order in which they are applied; at least one.
        task: the teacher's task, of which the owner has the training images.
        surrogate: stands for the attacker's student, in defences that make use of one.
        name: of the teacher without its defences; by default as of :func:`open_black_box`.
        trust_import_path: let checkpoints import and run the code that they name.

    Raises:
        InputError: no defence, settings that do not fit the task's classes, a target that cannot be reached, a
            surrogate of another task or one that no defence takes, or a teacher that cannot be opened.

    Example:
        >>> from undistill.defences.output import KeepTopK, ReverseSigmoid
        >>> from undistill.tasks import load_task
        >>> task = load_task("digits", classes=3)
        >>> def api(images):  # a teacher that looks at three pixels
        ...     return images.flatten(1)[:, 20:23].softmax(1)
        >>> box = defend(api, [ReverseSigmoid(l1=0.1), KeepTopK(2)], task)
        >>> box.name, box.access
        ('api+reverse-sigmoid+top-k', 'top-k')
    """
    if not defences:
        raise InputError("no output defence is named; name at least one, or take the teacher as it is")
    if surrogate is not None and not any(defence.takes_surrogate for defence in defences):
        names = ", ".join(defence.name for defence in defences)
        raise InputError(f"a surrogate is given, but {names} cannot make use of one; leave it out")
    problems = []
    for defence in defences:
        try:
            defence.check(task.num_classes)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))
    probe = task.validation.images[:PROBE_IMAGES].float().div(255)

    def opened(model: TeacherLike, name: str | None) -> BlackBox:
        if isinstance(model, BlackBox):
            return model
        return open_black_box(
            model, class_names=task.class_names, probe=probe, name=name, trust_import_path=trust_import_path
        )

    box = opened(teacher, name)
    stand_in = None if surrogate is None else opened(surrogate, None)
    learning = sum(defence.learns for defence in defences)
    train = task.train if learning else Split(task.train.images[:0], task.train.labels[:0])
    answers = box.answers(train) if learning else torch.empty(0, task.num_classes)
    for defence in defences:
        own = OwnData(train.images, answers, train.labels, None if stand_in is None else stand_in.log_probs)
        sources = {
            "task": task.fingerprint if defence.learns else None,
            "surrogate": stand_in.fingerprint if stand_in is not None and defence.takes_surrogate else None,
        }
        box = DefendedBlackBox(box, defence, defence.set_up(own), sources)
        learning -= defence.learns
        if learning:
            parts = zip(answers.split(QUERY_BATCH), train.images.split(QUERY_BATCH), strict=True)
            answers = torch.cat([box.serve(rows, images.float().div(255)) for rows, images in parts])
    return box
