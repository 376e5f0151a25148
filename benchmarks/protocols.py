"""``python -m benchmarks.protocols``: write the documentation's page of every frozen protocol version."""

from collections.abc import Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

from undistill.audit import VERSIONS, Protocol
from undistill.settings import settings_in_words, settings_of
from undistill.training import Recipe, defaults_for

PAGES = Path(__file__).parents[1] / "docs" / "protocols"
SHAPES = {
    "signals, such as (1, 40)": (1, 40),
    "images under 16 pixels, such as (1, 8, 8)": (1, 8, 8),
    "images, such as (3, 32, 32)": (3, 32, 32),
}
TEACHERS = 2  # one to audit, and the undefended one
OF_SCHEDULE = {"warmup": "one-cycle", "milestones": "step", "decay": "step"}


def trials(protocol: Protocol, seeds: int, regimes: int) -> tuple[int, int]:
    """Students trained to choose settings, and to judge on so many seeds, for one teacher and the undefended one."""
    places, attacks = regimes * len(protocol.students), len(protocol.attacks)
    tries = places * (len(protocol.smoothings) + attacks * len(protocol.smoothings) * (1 + TEACHERS))
    return tries * protocol.tuning_seeds, places * (1 + attacks * (1 + TEACHERS)) * seeds


def page(name: str) -> str:
    """What a version does and costs."""
    protocol = VERSIONS[name]((3, 32, 32))
    looks = ", ".join(map(str, protocol.all_looks[:-1]))
    lines = [
        f"# {protocol.version}",
        "",
        (getdoc(VERSIONS[name]) or "").partition("\n")[0].replace("``", "`"),
        "",
        f"- **Attacks**: {len(protocol.attacks)}, each with {protocol.tries} settings (below).",
        f"- **Tries**: {protocol.tries} for each knockoff, for each placebo and for the references, on "
        f"{protocol.tuning_seeds} tuning {'seed' if protocol.tuning_seeds == 1 else 'seeds'}. References: label "
        f"smoothing {', '.join(map(str, protocol.smoothings))}. Placebos: each setting of the attack once, on labels "
        f"smoothed by {' and '.join(map(str, protocol.placebo_smoothings))} in turn.",
        f"- **Data**: {'; and apart from it '.join(data.sentence for data in protocol.data)}. A kind of images that "
        "the task lacks is left out, and the result says so.",
        f"- **Access and queries**: {protocol.access.sentence}; a new view of every image in every epoch, "
        "without a limit.",
        f"- **Seeds**: cells are judged after {looks} and {protocol.seeds} seeds; only inconclusive ones go on. "
        f"The judged ones are {_span(protocol.judged_seeds)}; settings are chosen on "
        f"{'seed' if protocol.tuning_seeds == 1 else 'seeds'} {_span(protocol.chosen_seeds)}.",
        f"- **Margin** {protocol.margin:g} {'point' if protocol.margin == 1 else 'points'}; **alpha** "
        f"{protocol.alpha:g} for each one-sided decision.",
        "",
        "## Students",
        "",
        "By the shape of the task's inputs. Every student is trained by the same recipe, to its last epoch. Queries "
        "are what one knockoff asks the teacher about: images x epochs x views that its attack learns from.",
        "",
        "| inputs | students | queries for n images | SHA-256 of the content |",
        "|---|---|---|---|",
    ]
    versions = {words: VERSIONS[name](shape) for words, shape in SHAPES.items()}
    for words, version in versions.items():
        lines.append(
            f"| {words} | {', '.join(version.students)} | {queries_in_words(version)} | `{version.hash[:16]}…` |"
        )
    lines += [
        "",
        "The recipe is SGD with Nesterov momentum; {class}`undistill.training.Recipe` says what its fields mean. A "
        "dash: this schedule makes no use of the field.",
        "",
        f"| field | {' | '.join(versions)} |",
        f"|---|{'---|' * len(versions)}",
        *recipe_rows([version.recipe for version in versions.values()]),
        "",
        "## The undefended teacher",
        "",
        "Where none is given, and no audited teacher says that it was trained on this task with cross entropy, one is "
        "trained: with cross entropy and seed 0, on the teacher's training images. It has the architecture of the "
        "first audited teacher that is a checkpoint or a classifier, and the recipe that this says of itself (for a "
        "fine-tuned one, the recipe of the teacher that it started from). What is not known is taken from the "
        f"defaults: {'; '.join(undefended_in_words(versions))}.",
    ]
    lines += ["", "## What it costs", "", "Students to train for one teacher and an undefended one:", ""]
    lines += ["| | to choose settings | to judge, at least | to judge, at most |", "|---|---|---|---|"]
    for regimes, words in ((2, "both kinds of images"), (1, "training images alone")):
        chosen, least = trials(protocol, protocol.all_looks[0], regimes)
        lines.append(f"| {words} | {chosen:,} | {least:,} | {trials(protocol, protocol.seeds, regimes)[1]:,} |")
    lines += [
        "",
        "Each further teacher adds knockoffs only; references and placebos are shared. What knockoffs of one seed ask "
        "alike, the teacher is asked once.",
        "",
        "## Attacks",
        "",
        "| attack | settings |",
        "|---|---|",
    ]
    for grid in protocol.attacks:
        settings = "<br>".join(settings_in_words(attack) for attack in grid)
        lines.append(f"| [`{grid[0].name}`](../attacks/{grid[0].name}.md) | {settings} |")
    return "\n".join([*lines, ""])


def recipe_rows(recipes: Sequence[Recipe]) -> list[str]:
    """A row for every field, with its value in each recipe, or a dash where the schedule does not use it."""
    settings = [settings_of(recipe) for recipe in recipes]
    rows = []
    for name in settings[0]:
        values = [
            "-" if OF_SCHEDULE.get(name, recipe.schedule) != recipe.schedule else _value(held[name])
            for recipe, held in zip(recipes, settings, strict=True)
        ]
        rows.append(f"| `{name}` | {' | '.join(values)} |")
    return rows


def queries_in_words(protocol: Protocol) -> str:
    """What a knockoff asks the teacher, by the number of views that its attack learns from."""
    names: dict[int, list[str]] = {}
    for grid in protocol.attacks:
        names.setdefault(grid[0].views, []).append(f"`{grid[0].name}`")
    epochs = protocol.recipe.epochs
    usual, *others = sorted(names)
    extra = [f"{epochs * views} n for {', '.join(names[views])}" for views in others]
    return ", ".join([f"{epochs * usual} n", *extra])


def undefended_in_words(versions: Mapping[str, Protocol]) -> list[str]:
    """The architecture by default for each kind of inputs, and its recipe."""
    found = []
    for words, shape in SHAPES.items():
        defaults = defaults_for(shape)
        same = defaults.recipe == versions[words].recipe
        recipe = "the recipe above" if same else settings_in_words(defaults.recipe)
        found.append(f"{defaults.teacher} by {recipe} for {words}")
    return found


def _span(seeds: Sequence[int]) -> str:
    first, last = f"{seeds[0]:,}", f"{seeds[-1]:,}"
    return first if len(seeds) == 1 else f"{first} to {last}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for name in VERSIONS:
        (PAGES / f"{name}.md").write_text(page(name))
