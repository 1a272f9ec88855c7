"""What every command shares: the settings, the daemon, where output goes.

Settings are read when a command first needs them, so that `--help` and `config check` work beside a broken file. A `Session` is
click's context object; tests make one of their own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from litho.errors import LithoError, UnreachableError
from litho_controller import config
from litho_controller.cli import render

if TYPE_CHECKING:
    from rich.console import Console

    from litho_controller.client import Client

T = TypeVar("T")

LONG_TABLE = 1000
"""Rows; drawing ten thousand takes seconds."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the answer as JSON: an object, or a list of them."
)


class Session:
    """One call of the program."""

    def __init__(self, file: Path | None, *, debug: bool) -> None:
        """`file` is the settings file that was named, or None."""
        self.file = file
        self.debug = debug

    @functools.cached_property
    def config(self) -> config.Config:
        """The settings. Raises ConfigError."""
        return config.load(self.file)

    @functools.cached_property
    def client(self) -> Client:
        """The daemon."""
        from litho_controller.client import Client  # noqa: PLC0415 - `--help` and `config` do without HTTP

        return Client(self.config.socket)

    @functools.cached_property
    def console(self) -> Console:
        """The terminal, for tables and bars."""
        from rich.console import Console  # noqa: PLC0415 - only on a terminal

        return Console(highlight=False, markup=False, emoji=False)

    def print_table(self, grid: render.Grid) -> None:
        """A table on standard output: drawn on a terminal, plain elsewhere (and when it is too long to be looked at)."""
        if sys.stdout.isatty() and len(grid.rows) <= LONG_TABLE:
            self.console.print(render.drawn(grid))
        else:
            click.echo(render.plain(grid), nl=False)


pass_session = click.make_pass_decorator(Session)


def noderange(text: str) -> str:
    """A noderange as it is sent: with the files that it names read here, as this user. Raises UsageError."""
    from litho_controller.noderange import LocalFiles, inline_files  # noqa: PLC0415 - only when there is one to read

    return inline_files(text, LocalFiles()) if "^" in text else text


def each(names: Sequence[str], ask: Callable[[str], T]) -> tuple[list[T], list[LithoError]]:
    """Ask for one after the other: the answers, and the errors of the rest. Who cannot be reached is not asked again."""
    answers: list[T] = []
    errors: list[LithoError] = []
    for name in names:
        try:
            answers.append(ask(name))
        except LithoError as exc:
            errors.append(exc)
            if isinstance(exc, UnreachableError):
                break
    return answers, errors


def fail(errors: Sequence[LithoError]) -> None:
    """Tell what went wrong, after what was done has been printed. Raises the last of `errors`, if there is one."""
    for error in errors[:-1]:
        click.echo(f"litho: {render.clean(str(error))}", err=True)
    if errors:
        raise errors[-1]


def print_json(answer: Any) -> None:
    """A struct of the API, or a list of them, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
