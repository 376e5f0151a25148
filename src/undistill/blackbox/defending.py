"""Setting output defences around a teacher."""

from collections.abc import Sequence

import torch

from undistill.blackbox.box import QUERY_BATCH, BlackBox
from undistill.blackbox.defended import DefendedBlackBox
from undistill.blackbox.opening import TeacherLike, open_black_box, probe_of
from undistill.defences.output import OutputDefence, OwnData
from undistill.errors import InputError
from undistill.tasks import Split, Task


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
    probe = probe_of(task)

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
