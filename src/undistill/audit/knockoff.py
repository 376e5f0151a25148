"""One knockoff: train it, save it."""

import shutil
from contextlib import suppress
from pathlib import Path

from undistill.attacks import Attack
from undistill.audit.beforehand import check_answers, check_split, check_trainings, refusals
from undistill.audit.trial import FRESH_VIEWS, Trial, describe_attack, train_student
from undistill.audit.watching import SilentWatcher, Watcher
from undistill.blackbox import (
    CHECKED_IMAGES,
    FULL,
    Access,
    AnswerCache,
    Queries,
    TeacherLike,
    check_black_box,
    open_black_box,
    probe_of,
)
from undistill.errors import InputError
from undistill.models import Classifier, load_checkpoint, save_checkpoint
from undistill.settings import settings_of
from undistill.tasks import TRAINING_IMAGES, QueryData, Task, load_task
from undistill.training import Recipe, defaults_for, holds_training


def train_knockoff(
    teacher: TeacherLike,
    task: str | Task,
    attack: Attack,
    *,
    out: str | Path,
    name: str | None = None,
    student: str | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    access: Access = FULL,
    data: QueryData = TRAINING_IMAGES,
    queries: Queries = FRESH_VIEWS,
    trust_import_path: bool = False,
    watcher: Watcher | None = None,
) -> Classifier:
    """Train a student on a teacher's answers and save it as a checkpoint, which is a model like any other.

    It is the same trial as an audit's with these settings and this seed. Answers are kept in ``out`` with the
    suffix ``.training`` until the end, so that the same call after a kill asks nothing twice; a finished knockoff is
    not trained again.

    Args:
        teacher: as of :func:`undistill.audit.audit`.
        task: the teacher's task, or its name. Its labels are the attacker's, as far as ``data`` leaves him some.
        attack: how to learn from the answers.
        out: folder of the checkpoint.
        name: of the teacher, in provenance and messages; by default as of :func:`undistill.audit.audit`.
        student: architecture; by default that of students of the task's inputs, as the recipe.
        recipe: of the training.
        seed: of initial weights, order and augmentation.
        access: what the teacher lets through of its answers.
        data: which images the attacker may ask about.
        queries: how he asks.
        trust_import_path: let checkpoints import and run the code that they name.
        watcher: shows the training.

    Returns:
        The knockoff, in evaluation mode. Its ``provenance`` holds attack, teacher, access, data, queries (``asked``:
        how many images), recipe, seed, accuracies and the agreement with the teacher in percent, and what the attack
        notes about the training.

    Raises:
        InputError: bad input; a teacher that answers differently to the same image, or was trained on another
            split; or ``out`` holds something else.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from undistill.attacks import KD
        >>> def api(images):  # a teacher that looks at three pixels
        ...     return images.flatten(1)[:, 20:23].softmax(1)
        >>> with TemporaryDirectory() as folder:
        ...     knockoff = train_knockoff(
        ...         api,
        ...         load_task("digits", classes=3),
        ...         KD(),
        ...         out=f"{folder}/knockoff",
        ...         student="mlp-4",
        ...         recipe=Recipe(epochs=2, batch_size=50),
        ...     )
        >>> knockoff.provenance["queries"]["asked"], knockoff.provenance["attack"]["name"]
        (300, 'kd')
    """
    out, task = Path(out), load_task(task) if isinstance(task, str) else task
    defaults = defaults_for(task.input_shape)
    student, recipe = student or defaults.student, recipe or defaults.recipe
    problems = refusals([attack], access, data, queries)
    if problems:
        raise InputError("; ".join(problems))
    attackers = data.attackers_task(task)
    check_trainings(attackers, [student], recipe, [attack], queries)
    probe = probe_of(task)
    box = open_black_box(
        teacher,
        class_names=task.class_names,
        probe=probe,
        access=access,
        name=name,
        trust_import_path=trust_import_path,
    )
    check_answers(box, [attack])
    trial = Trial(attackers.fingerprint, student, recipe, seed, attack, teacher=box.fingerprint, queries=queries)
    scratch = out.with_name(f"{out.name}.training")
    if out.exists():
        if not holds_training(out, student, trial.key):
            raise InputError(f"{out} exists and holds something else than this knockoff; choose another folder")
        _clear(scratch)
        return load_checkpoint(out, trust_import_path=True)  # the code, if any, is what the caller named
    check_split(box, task)
    check_black_box(box, probe[:CHECKED_IMAGES])
    plan = queries.plan(
        images=len(attackers.train), epochs=recipe.epochs, views=attack.views, batch_size=recipe.batch_size
    )
    title = f"{attack.name} on {box.name} with {student}"
    progress = (watcher or SilentWatcher()).training(title, recipe, plan.images)
    cache = AnswerCache(scratch / "answers")
    knockoff, outcome = train_student(
        trial, {attackers.fingerprint: attackers}, {box.fingerprint: box}, cache, progress
    )
    knockoff.provenance = {
        "attack": describe_attack(attack),
        "teacher": {
            "name": box.name,
            "fingerprint": box.fingerprint,
            "output_defences": list(box.defences),
        },
        "task": task.source,
        "task_fingerprint": task.fingerprint,
        "access": str(access),
        "data": data.description(),
        "queries": {**settings_of(queries), "asked": outcome["queries"]},
        "recipe": settings_of(recipe),
        "seed": seed,
        "identity": trial.key,
        "validation_accuracy": outcome["validation_accuracy"],
        "test_accuracy": outcome["accuracy"],
        "agreement": outcome["agreement"],
        "seconds": outcome["seconds"],
        "notes": outcome["notes"],
    }
    save_checkpoint(knockoff, out)
    _clear(scratch)
    return knockoff


def _clear(scratch: Path) -> None:
    """Delete the answers; the folder too, if nothing else is in it."""
    shutil.rmtree(scratch / "answers", ignore_errors=True)
    with suppress(OSError):
        scratch.rmdir()
