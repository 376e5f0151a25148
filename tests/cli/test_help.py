import pytest

from undistill.cli.app import app

COMMANDS = ["train", "measure", "audit", "attack", "list", "demo"]


def squeezed(text):
    """Without the spaces, the frame and the marks that differ between source and terminal."""
    return "".join(character for character in text if not character.isspace() and character not in "│`")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option_in_80_columns(run, command):
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    arguments = app[command].assemble_argument_collection(parse_docstring=True)
    assert len(arguments) >= 2
    for argument in arguments:
        if argument.parse and not argument.children:
            assert argument.parameter.help, argument.name
            assert squeezed(argument.parameter.help) in squeezed(out)
            assert argument.name in out or argument.name.lstrip("-").upper() in out


def test_help_of_all_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    assert all(command in out for command in COMMANDS)
    assert "--config" in out
    assert run().out == out


def test_version(run):
    from undistill import __version__

    assert run("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["lits"], 'Unknown command "lits". Did you mean "list"?'),
        (["list"], "--kind"),
        (["list", "nothing"], 'Choose from: "tasks", "models", "attacks", "defences"'),
        (["list", "tasks", "--jsno"], "--jsno"),
        (["train", "--task", "digits"], "--out"),
        (["train", "--task", "digits", "--out", "x", "--epochs", "many"], "'many' is not a whole number"),
        (["train", "--task", "digits", "--out", "x", "--epochs", "1.5"], "'1.5' is not a whole number"),
        (["train", "--task", "digits", "--out", "x", "--learning-rate", "fast"], "fast"),
        (["audit", "ce", "--task", "digits", "--out", "x", "--fail-on", "anything"], "leaks"),
    ],
)
def test_words_that_mean_nothing_are_refused(refused, tmp_path, monkeypatch, tokens, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(*tokens)
    assert list(tmp_path.iterdir()) == []
