"""``python -m benchmarks.protocols``: write the documentation's page of every frozen protocol version."""

from inspect import getdoc
from pathlib import Path

from undistill.audit import VERSIONS, Protocol
from undistill.settings import settings_in_words, settings_of
from undistill.training import Recipe

PAGES = Path(__file__).parents[1] / "docs" / "protocols"
SHAPES = {
    "signals, such as (1, 40)": (1, 40),
    "images under 16 pixels, such as (1, 8, 8)": (1, 8, 8),
    "images, such as (3, 32, 32)": (3, 32, 32),
}
TEACHERS = 2  # one to audit, and the undefended one


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
        f"- **Seeds**: cells are judged after {looks} and {protocol.seeds} seeds; only inconclusive ones go on.",
        f"- **Margin** {protocol.margin:g} points; **alpha** {protocol.alpha:g} for each one-sided decision.",
        "",
        "## Students",
        "",
        "By the shape of the task's inputs. Every student is trained by the same recipe, to its last epoch.",
        "",
        "| inputs | students | recipe | SHA-256 of the content |",
        "|---|---|---|---|",
    ]
    for words, shape in SHAPES.items():
        version = VERSIONS[name](shape)
        lines.append(
            f"| {words} | {', '.join(version.students)} | {recipe_in_words(version.recipe)} | `{version.hash[:16]}…` |"
        )
    lines += ["", "## What it costs", "", "Students to train for one teacher and an undefended one:", ""]
    lines += ["| | to choose settings | to judge, at least | to judge, at most |", "|---|---|---|---|"]
    for regimes, words in ((2, "both kinds of images"), (1, "training images alone")):
        chosen, least = trials(protocol, protocol.all_looks[0], regimes)
        lines.append(f"| {words} | {chosen:,} | {least:,} | {trials(protocol, protocol.seeds, regimes)[1]:,} |")
    lines += [
        "",
        "Each further teacher adds knockoffs only; references and placebos are shared. A knockoff asks about every "
        "training image once an epoch (twice where the attack learns from two views); what attacks ask alike is "
        "asked once.",
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


def recipe_in_words(recipe: Recipe) -> str:
    """What differs from :class:`Recipe`'s defaults, and the epochs."""
    plain = settings_of(Recipe())
    changed = {name: value for name, value in settings_of(recipe).items() if value != plain[name] and name != "epochs"}
    return ", ".join(
        [f"{recipe.epochs} epochs", *(f"{name.replace('_', ' ')} {value:g}" for name, value in changed.items())]
    )


if __name__ == "__main__":
    for name in VERSIONS:
        (PAGES / f"{name}.md").write_text(page(name))
