"""What every command shares: the settings, the daemon, where output goes.

Settings are read when a command first needs them, so that `--help` and `config check` work beside a broken file. A `Session` is
click's context object; tests make one of their own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from litho_controller import config

if TYPE_CHECKING:
    from rich.console import Console

    from litho_controller.client import Client

F = TypeVar("F", bound=Callable[..., Any])

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
        """Standard output, for tables and bars."""
        from rich.console import Console  # noqa: PLC0415 - the xCAT names and `--json` do without it

        # What goes into a file or a pipe is not cut to the width of a terminal that is not there.
        return Console(width=None if sys.stdout.isatty() else 1000, highlight=False, markup=False, emoji=False)


pass_session = click.make_pass_decorator(Session)


def noderange(text: str) -> str:
    """A noderange as it is sent: with the files that it names read here, as this user. Raises UsageError."""
    from litho_controller.noderange import LocalFiles, inline_files  # noqa: PLC0415 - only when there is one to read

    return inline_files(text, LocalFiles()) if "^" in text else text


def print_json(answer: Any) -> None:
    """A struct of the API, or a list of them, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
