"""rpower: nodes on and off, by whatever the controller switches them with; rinv: what the machines are. As xCAT's print and end.

n01: on                                       what is so now, the last word of the line
n01: [host]: Error: the command failed        on standard error, and exit code 1
"""

from __future__ import annotations

import socket
import sys

import click

from litho.errors import UsageError
from litho_controller import api
from litho_controller.cli import render
from litho_controller.cli.session import Session, json_option, noderange, pass_session, print_json

WORDS: dict[str, api.PowerAction] = {
    "on": "on",
    "off": "off",
    "reset": "reset",
    "boot": "boot",
    "stat": "stat",
    "state": "stat",
    "status": "stat",
}
"""What may be said, and what is meant: xCAT has three words for asking."""


@click.command()
@click.argument("range_", metavar="NODERANGE")
@click.argument("word", metavar="on|off|reset|boot|stat")
@json_option
@pass_session
def rpower(session: Session, range_: str, word: str, as_json: bool) -> int:
    """Switch nodes on and off, or say whether they are on.

    \b
    Example:
      litho rpower n01-n10 stat
      litho rpower n01 boot
    """
    if word not in WORDS:
        raise UsageError(f"Unsupported command: rpower {word[:40]}", hint=f"there are: {', '.join(WORDS)}")
    answer = session.client.power(api.PowerRequest(range=noderange(range_), action=WORDS[word]))
    if as_json:
        print_json(answer.nodes)
    else:
        host = socket.gethostname()
        for line in answer.nodes:
            if line.error:
                sys.stdout.flush()
                click.echo(f"{line.node}: [{host}]: Error: {render.clean(line.error)}", err=True)
            else:
                click.echo(f"{line.node}: {render.clean(line.text)}")
    return int(any(line.error for line in answer.nodes))


def stat_of(session: Session, range_: str) -> dict[str, str]:
    """`on` or `off` of each node of which it is known."""
    answer = session.client.power(api.PowerRequest(range=range_, action="stat"))
    return {line.node: line.text for line in answer.nodes if line.text}


@click.command()
@click.argument("range_", metavar="NODERANGE")
@click.argument("words", metavar="[all]", nargs=-1)
@json_option
@pass_session
def rinv(session: Session, range_: str, words: tuple[str, ...], as_json: bool) -> int:
    """Say what machines are made of: what each said of itself when it last ran a task.

    \b
    Example:
      litho rinv n01
    """
    answer = session.client.inventory(noderange(range_))
    if as_json:
        print_json(answer.nodes)
        return 0
    host = socket.gethostname()
    for line in answer.nodes:
        if not line.facts:
            sys.stdout.flush()
            click.echo(f"{line.node}: [{host}]: Error: nothing is known of the machine before its first task", err=True)
        for name, value in line.facts:
            click.echo(f"{line.node}: {name}: {render.clean(value)}")
    return int(any(not line.facts for line in answer.nodes))
