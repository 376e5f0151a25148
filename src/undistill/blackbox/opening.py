"""From what a user calls a teacher to a black box."""

from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from undistill.blackbox.access import FULL, Access
from undistill.blackbox.box import BlackBox, CallableBlackBox, LimitedBlackBox, LocalBlackBox
from undistill.blackbox.remote import RemoteBlackBox, is_url
from undistill.blackbox.saved import is_defended, load_defended
from undistill.errors import InputError
from undistill.models import Classifier, import_callable, load_checkpoint
from undistill.tasks import Task

TeacherLike = str | Path | Classifier | BlackBox | Callable[[Tensor], Tensor]
PROBE_IMAGES = 256  # of the validation split, by which a callable is looked at


def probe_of(task: Task) -> Float[Tensor, "n *shape"]:
    """The images of a task by which a teacher is looked at when it is opened."""
    return task.validation.images[:PROBE_IMAGES].float().div(255)


def is_import_path(teacher: str) -> bool:
    """Whether a teacher's name is ``package.module:callable``."""
    return ":" in teacher and not is_url(teacher) and not Path(teacher).exists()


def open_folder(
    folder: Path, *, name: str | None = None, trust_import_path: bool = False
) -> tuple[BlackBox, Classifier]:
    """What a folder serves, a checkpoint or one of ``undistill defend``; and the classifier behind it.

    Args:
        folder: which.
        name: of the teacher without its defences; by default that of the folder.
        trust_import_path: let the checkpoint import and run the code that it names.

    Raises:
        InputError: it is neither, or damaged.
    """
    box: BlackBox
    if is_defended(folder):
        box = load_defended(folder, name=name, trust_import_path=trust_import_path)
    else:
        classifier = load_checkpoint(folder, trust_import_path=trust_import_path)
        box = LocalBlackBox(name or folder.resolve().name, classifier)
    own = box.undefended
    assert isinstance(own, LocalBlackBox)
    return box, own.classifier


def open_black_box(
    teacher: TeacherLike,
    *,
    class_names: tuple[str, ...],
    probe: Float[Tensor, "n *shape"],
    access: Access = FULL,
    name: str | None = None,
    trust_import_path: bool = False,
) -> BlackBox:
    """Turn what a user calls a teacher into a black box for a task.

    Args:
        teacher: a checkpoint folder, a folder of ``undistill defend``, the URL of an ``undistill serve``,
            ``package.module:callable``, a classifier, any callable, or a black box.
        class_names: the task's classes.
        probe: a few of the task's images, float in [0, 1].
        access: what the black box lets through, whether the teacher limits its answers so by itself (an API that
            serves rounded probabilities, or the k largest) or gives full ones, which are then limited here.
        name: what reports call it; by default the name of the folder, host and port, the architecture, the function or
            the class.
        trust_import_path: let a checkpoint import and run the code that it names (see :func:`load_checkpoint`).

    Raises:
        InputError: no such folder, server or callable, or a teacher of another class count, class order or input shape
            than the task; an access with more classes than there are, or another one than a black box has already; an
            access on top of output defences that leave out a part of the answer.
    """
    access.check(len(class_names))
    if isinstance(teacher, BlackBox):
        return _limited(teacher, access)
    if isinstance(teacher, str) and is_url(teacher):
        remote = RemoteBlackBox(teacher, class_names, probe, access)
        remote.name = name or remote.name
        return _limited(remote, access)
    if isinstance(teacher, str) and is_import_path(teacher):
        name, teacher = name or teacher, import_callable(teacher)
    if isinstance(teacher, str | Path):
        box, classifier = open_folder(Path(teacher), name=name, trust_import_path=trust_import_path)
        _check_fits(box.undefended.name, classifier, class_names, probe)
        return _limited(box, access)
    if isinstance(teacher, Classifier):
        name = name or teacher.architecture
        _check_fits(name, teacher, class_names, probe)
        return _limited(LocalBlackBox(name, teacher), access)
    name = name or str(getattr(teacher, "__name__", type(teacher).__name__))
    return _limited(CallableBlackBox(name, teacher, len(class_names), probe, access), access)


def _check_fits(
    name: str, classifier: Classifier, class_names: tuple[str, ...], probe: Float[Tensor, "n *shape"]
) -> None:
    if classifier.num_classes != len(class_names):
        raise InputError(
            f"teacher {name!r} has {classifier.num_classes} classes, the task has {len(class_names)}; "
            "choose the task (and its classes) that the teacher was trained for"
        )
    if sorted(classifier.class_names) == sorted(class_names) and tuple(classifier.class_names) != class_names:
        raise InputError(
            f"teacher {name!r} has the task's classes in another order ({', '.join(classifier.class_names[:3])}, ... "
            f"and not {', '.join(class_names[:3])}, ...); choose the task's classes in the teacher's order"
        )
    if classifier.input_shape != tuple(probe.shape[1:]):
        raise InputError(
            f"teacher {name!r} takes inputs of shape {classifier.input_shape}, the task has {tuple(probe.shape[1:])}"
        )


def _limited(box: BlackBox, access: Access) -> BlackBox:
    if isinstance(box, LimitedBlackBox) and box.policy == access:
        return box
    if box.defences and box.policy != FULL and not isinstance(box, LimitedBlackBox):
        if access == FULL:
            return box
        raise InputError(
            f"teacher {box.name!r} serves {box.policy.sentence} by its output defences, so access '{access}' cannot be "
            "set on top; leave it out, or name its output defence as the last one (label-only, top-k, rounding)"
        )
    if isinstance(box, RemoteBlackBox) and access == FULL:
        return box
    if box.policy not in (FULL, access):
        raise InputError(f"teacher {box.name!r} is open to access '{box.policy}', not '{access}'; name that access")
    return box if access == FULL else LimitedBlackBox(box, access)
