"""`nodestat --watch`: what nodes do, again and again, until Ctrl-C.

On a terminal the lines stand still and change in place, as many as fit; elsewhere a line is printed whenever a node's text
changes, so that the output can be kept and searched. A controller that is being started again does not end the watching.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

import click

from litho.errors import UnreachableError
from litho_controller.api import NodestatLine
from litho_controller.cli import render
from litho_controller.cli.session import Session

EVERY_S = 2.0

Ask = Callable[[], Sequence[NodestatLine]]


def changes(before: dict[str, str], lines: Iterable[NodestatLine]) -> list[str]:
    """The lines that are not what they were; `before` is brought up to date. Nodes that are gone are forgotten."""
    now = {line.node: line.text for line in lines}
    new = [f"{node}: {render.clean(text)}" for node, text in now.items() if before.get(node) != text]
    before.clear()
    before.update(now)
    return new


def watch(session: Session, ask: Ask, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Follow until Ctrl-C (click.Abort). Raises LithoError when the first question fails."""
    lines = ask()
    try:
        if sys.stdout.isatty():
            _board(session, lines, ask, sleep)
        else:
            _print(lines, ask, sleep)
    except KeyboardInterrupt:
        raise click.Abort from None


def _print(lines: Sequence[NodestatLine], ask: Ask, sleep: Callable[[float], None]) -> None:
    before: dict[str, str] = {}
    while True:
        for line in changes(before, lines):
            click.echo(line)
        sys.stdout.flush()
        lines = _again(lines, ask, sleep)


def _board(session: Session, lines: Sequence[NodestatLine], ask: Ask, sleep: Callable[[float], None]) -> None:
    from rich.live import Live  # noqa: PLC0415 - only on a terminal
    from rich.text import Text  # noqa: PLC0415 - the same

    with Live(console=session.console, auto_refresh=False) as live:
        while True:
            room = max(1, session.console.height - 2)
            shown = [f"{line.node}: {render.clean(line.text)}" for line in lines[:room]]
            if len(lines) > room:
                shown.append(f"... and {len(lines) - room} more")
            live.update(Text("\n".join(shown), no_wrap=True, overflow="ellipsis"), refresh=True)
            lines = _again(lines, ask, sleep)


def _again(lines: Sequence[NodestatLine], ask: Ask, sleep: Callable[[float], None]) -> Sequence[NodestatLine]:
    sleep(EVERY_S)
    try:
        return ask()
    except UnreachableError:
        return lines
