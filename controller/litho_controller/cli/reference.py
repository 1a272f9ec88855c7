"""The page docs/reference/cli.md, made of the commands' own help, so that the two cannot drift apart.

    python -m litho_controller.cli.reference > docs/reference/cli.md

A test holds the page against `page()`.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from litho_controller.cli import app

WIDTH = 100

INTRODUCTION = """\
# Commands

`litho` speaks with the controller over a unix socket, whose path the [settings](configuration.md) give; `litho serve` is the
controller itself. Whoever may open the socket may do everything.

- Tables are for people. `--json` prints the same as JSON: an object, or a list of objects.
- An error is one sentence on standard error, `litho: <what>: <way out>`, and an [exit code](exit-codes.md).
- Commands that xCAT has, too, print what xCAT prints, because programs read it: `node: text`, one line a node. Their errors
  are `Error: ...` on standard error (of one node: `node: [host]: Error: ...`) and exit code 1. Called by a link of such a name
  (`litho xcat-links` makes them), the program is that command. [xcat.md](xcat.md) says what is the same and what differs.
- `--watch`, `task watch` and `image verify` show bars on a terminal and plain lines elsewhere. Ctrl-C ends the watching, not the
  tasks. While the controller is being started again, they wait for it.
- NODERANGE is xCAT's: names, groups, `n01-n10`, `n[01-10]`, `n01+9`, `-n03` to leave out, `a@b` for both, `/regex`, `^file`,
  `nodetype.os==image`. A file is read by the command, with the rights of whoever calls it. Names that are nothing make the whole
  command fail.

This page is made of the commands' own help.
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """(words that call it, its help) of a command and of all below it."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from commands(below, _context(below, name, context))


def page() -> str:
    """The whole page."""
    sections = [INTRODUCTION]
    for words, text in commands(app.root, _context(app.root, "litho", None)):
        sections.append(f"## {words}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(sections)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, **({} if parent else command.context_settings)
    )


if __name__ == "__main__":
    click.echo(page(), nl=False)
