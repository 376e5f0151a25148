"""What is refused before anything is trained."""

from collections.abc import Iterable, Sequence

from torch import nn

from undistill.attacks import Attack
from undistill.blackbox import Access, BlackBox, LocalBlackBox, Queries
from undistill.errors import InputError
from undistill.tasks import QueryData, Task
from undistill.training import Recipe, classifier_for


def refusals(attacks: Iterable[Attack], access: Access, data: QueryData, queries: Queries) -> list[str]:
    """Which attacks an attacker cannot run: one phrase for each reason, with all of their names; empty if none."""
    attacks = list(attacks)
    rules = [
        (
            [attack for attack in attacks if not _can_use(attack, access)],
            f"access '{access}' leaves nothing to {{}} (see: undistill list attacks --json)",
        ),
        (
            [attack for attack in attacks if attack.needs_labels and not data.labelled],
            f"with data '{data}' the attacker has no labels, but they are needed by {{}}",
        ),
        (
            [attack for attack in attacks if attack.needs_images and not data.has_images],
            f"with data '{data}' the attacker has no images, but they are needed by {{}}",
        ),
        (
            [attack for attack in attacks if queries.budget is not None and attack.own_queries > queries.budget],
            f"the query budget is {queries.budget} images, but {{}} would spend more; lower its own budget",
        ),
    ]
    return [
        words.format(", ".join(dict.fromkeys(attack.name for attack in refused))) for refused, words in rules if refused
    ]


def check_answers(box: BlackBox, attacks: Sequence[Attack]) -> None:
    """Refuse attacks to which a teacher's output defences leave nothing.

    Raises:
        InputError: the teacher, the form of its answers, and the attacks.
    """
    refused = dict.fromkeys(attack.name for attack in attacks if not _can_use(attack, box.policy))
    if refused:
        raise InputError(
            f"teacher {box.name!r} serves {box.policy.sentence}, which leaves nothing to {', '.join(refused)}; leave "
            "these attacks out"
        )


def _can_use(attack: Attack, access: Access) -> bool:
    try:
        attack.check_access(access.kind)
    except InputError:
        return False
    return True


def misfit(attack: Attack, student: nn.Module) -> str | None:
    """Why an attack cannot use a student; None if it can."""
    while isinstance(base := getattr(attack, "base", None), Attack):  # an attack on recovered answers
        attack = base
    try:
        attack.dress(student, 0)
    except InputError as error:
        return str(error)
    return None


def check_trainings(
    task: Task, students: Sequence[str], recipe: Recipe, attacks: Sequence[Attack], queries: Queries
) -> None:
    """Refuse students that cannot be built, or that an attack cannot use, and budgets that are too small.

    Args:
        task: the attacker's.
        students: architectures.
        recipe: of all of them.
        attacks: every setting.
        queries: how to ask.

    Raises:
        InputError: every problem.
    """
    problems: list[str] = []
    for student in students:
        try:
            network = classifier_for(task, student, seed=0)
        except InputError as error:
            problems.append(str(error))
            continue
        problems += [words for attack in attacks if (words := misfit(attack, network)) is not None]
    for attack in attacks:
        try:
            plan = queries.plan(
                images=len(task.train), epochs=recipe.epochs, views=attack.views, batch_size=recipe.batch_size
            )
        except InputError as error:
            problems.append(str(error))
            continue
        try:
            task.with_fewer_images(plan.images, seed=0)
        except InputError as error:
            problems.append(
                f"the query budget is {queries.budget} images, which leaves {plan.images} of {len(task.train)}: {error}"
            )
    if problems:
        raise InputError("; ".join(dict.fromkeys(problems)))


def check_split(box: BlackBox, task: Task) -> None:
    """Refuse a teacher that says it was trained on another split of the task.

    Its training images would be among those on which students are chosen and judged, or among the fresh ones. Other
    classes, or another fraction of the training images, leave each image in its part.

    Raises:
        InputError: the split that it names is another one.
    """
    whole = box.undefended
    made = whole.classifier.provenance if isinstance(whole, LocalBlackBox) else {}
    trained = made.get("task")  # any JSON: a provenance may be the user's own
    if (
        not isinstance(trained, dict)
        or trained.get("name") != task.source.get("name")
        or made.get("task_fingerprint") == task.fingerprint
    ):
        return
    pairs = [
        (words, trained.get(name, default), task.source.get(name, default))
        for name, words, default in (
            ("seed", "split seed", 0),
            ("validation", "validation share", None),
            ("fresh", "fresh share", 0.0),
        )
    ]
    other = [f"{words} {theirs}, not {ours}" for words, theirs, ours in pairs if theirs != ours]
    if other:
        raise InputError(
            f"teacher {box.name!r} was trained on another split of {task.name!r} ({'; '.join(other)}), so it may have "
            "seen images that it is judged on; choose the split that it was trained on, or train it on this one"
        )
