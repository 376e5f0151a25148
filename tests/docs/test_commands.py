"""Every command that the documentation shows is one that the command line understands."""

import re
import shlex
from pathlib import Path

import pytest

from undistill.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def commands(page):
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if (found := re.match(r"\S*\$ undistill (.*)", line)) and "..." not in line:
                yield found[1]


SHOWN = [pytest.param(page, line, id=f"{page.stem}: {line}") for page in PAGES for line in commands(page)]


def test_there_are_commands():
    assert len(SHOWN) > 30


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_a_command_is_understood(page, line):
    tokens = shlex.split(line.split("#")[0])
    if tokens[0].startswith("--"):
        return  # help, version, or options that stand in a file
    # An option or an argument that is not known, missing, or of another type raises.
    app.parse_args(tokens, exit_on_error=False, print_error=False)
