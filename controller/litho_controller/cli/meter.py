"""Showing how far something is that counts bytes: a bar on a terminal, a line for each tenth elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from litho_controller.cli import render
from litho_controller.cli.session import Session


@contextlib.contextmanager
def meter(session: Session, name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A function that is told how many bytes of how many are done, and shows it as `name`; with `quiet` it does not."""
    if quiet:
        yield lambda done, total: None
    elif sys.stdout.isatty():
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(True),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=session.console, transient=True) as progress:
            bar = progress.add_task(name, total=None)
            yield lambda done, total: progress.update(bar, completed=done, total=total) if total else None
    else:
        said = -1

        def moved(done: int, total: int) -> None:
            nonlocal said
            tenth = done * 10 // total if total else -1
            if tenth > said:
                said = tenth
                click.echo(f"{name}: {tenth * 10}% of {render.size(total)}")

        yield moved
