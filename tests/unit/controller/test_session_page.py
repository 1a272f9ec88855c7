"""docs/reference/session.md is made by running commands (demo/session.py); here it is held against the commands there are."""

import re
import shlex
from pathlib import Path

import click
import pytest

from litho_controller.cli import app

PAGE = (Path(__file__).parents[3] / "docs/reference/session.md").read_text()
LINES = [line.removeprefix("$ litho ") for line in PAGE.splitlines() if line.startswith("$ litho ")]
AGAIN = "add it to demo/session.py, and write the page anew with: python -m demo.session > docs/reference/session.md"
NOT_RUN = {"rootimg build", "rootimg install"}
"""They take minutes and Debian's archive; tests/e2e runs them. The page names them in a sentence."""


def leaves(command, words=()):
    if not isinstance(command, click.Group):
        return {" ".join(words): command}
    found = {}
    for name in command.list_commands(click.Context(command)):
        below = command.get_command(click.Context(command), name)
        found |= leaves(below, (*words, name))
    return found


COMMANDS = leaves(app.root)


def command_of(line):
    """(name, command, its arguments) of a line."""
    words = shlex.split(line)
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, COMMANDS[name], words[count:]
    raise AssertionError(line)


def test_every_command_is_in_the_session():
    shown = {command_of(line)[0] for line in LINES}
    assert shown | NOT_RUN == set(COMMANDS), AGAIN
    assert not shown & NOT_RUN
    for name in NOT_RUN:
        assert f"`litho {name}`" in PAGE


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_session_is_one_that_its_command_takes(line):
    name, command, words = command_of(line)
    # A path that is asked for must not be there to be parsed.
    words = [re.sub(r"^/srv/site/\S+", "/etc/hostname", re.sub(r"^/srv/site(/mnt)?$", "/etc", word)) for word in words]
    command.make_context(name, words, resilient_parsing=False)


def test_nothing_of_the_machine_on_which_it_was_made_is_on_the_page():
    assert not re.search(r"/(work|tmp|root|home)/|pytest", PAGE)
    assert set(re.findall(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", PAGE)) == {"2026-11-22 16:00:00", "2026-11-22T16:00:00"}
