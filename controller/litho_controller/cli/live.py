"""Tasks that move, followed to their end: bars on a terminal, plain lines elsewhere.

`follow` is the rule: ask, show what changed, stop when every task has ended. What it asks and where it shows are handed in, so a
test can play a task's life to it. A controller that is being started again does not end the watching: the tasks go on, so it
waits for `PATIENCE_S` and says so.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import click

from litho.errors import UnreachableError
from litho.task import State
from litho_controller.api import TaskView
from litho_controller.cli import render
from litho_controller.cli.session import Session
from litho_controller.client import Client

PATIENCE_S = 120.0
"""Seconds that the controller may be away."""
EVERY_S = 0.5
_FEW = 8
_MANY = 100_000


class Screen(Protocol):
    """Where the state of tasks is shown."""

    def show(self, task: TaskView) -> None:
        """What is known of a task now. Called again and again; the last time when it has ended."""

    def note(self, text: str) -> None:
        """A sentence about the watching itself."""


Look = Callable[[Sequence[str]], list[TaskView]]


def follow(
    ids: Sequence[str],
    look: Look,
    screen: Screen,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[TaskView]:
    """Show the tasks `ids` until all have ended; answers how they ended, in the same order.

    Raises UnreachableError when the controller stays away, and whatever else `look` raises.
    """
    ended: dict[str, TaskView] = {}
    away: float | None = None
    while waiting := [task for task in ids if task not in ended]:
        try:
            found = look(waiting)
        except UnreachableError as exc:
            if away is None:
                away = clock()
                screen.note(f"{exc.message}; the tasks go on, waiting for it")
            elif clock() - away > PATIENCE_S:
                raise
            sleep(EVERY_S)
            continue
        if away is not None:
            away = None
            screen.note("the controller answers again")
        for task in found:
            screen.show(task)
            if task.state.ended:
                ended[task.id] = task
        if len(ended) < len(ids):
            sleep(EVERY_S)
    return [ended[task] for task in ids]


def looker(client: Client) -> Look:
    """Asks the daemon: one by one for a few tasks, by the list of active ones for many."""

    def look(ids: Sequence[str]) -> list[TaskView]:
        if len(ids) <= _FEW:
            return [client.task(task) for task in ids]
        active = {task.id: task for task in client.tasks(active=True, limit=_MANY).tasks}
        return [active.get(task) or client.task(task) for task in ids]

    return look


def watch(session: Session, ids: Sequence[str], *, quiet: bool = False) -> list[TaskView]:
    """Follow tasks on this process's terminal. `quiet` shows nothing. Raises LithoError; click.Abort on Ctrl-C."""
    try:
        with _screen(session, quiet=quiet) as screen:
            return follow(list(dict.fromkeys(ids)), looker(session.client), screen)
    except KeyboardInterrupt:
        click.echo("litho: no longer watching; the tasks go on: see them with litho task ls", err=True)
        raise click.Abort from None


def exit_code(tasks: Sequence[TaskView]) -> int:
    """0 when all succeeded, the error's code when all that did not failed alike, else 1."""
    codes = {code for code in map(_code, tasks) if code}
    return codes.pop() if len(codes) == 1 else int(bool(codes))


def _code(task: TaskView) -> int:
    if task.state is State.FAILED:
        told = (task.result or {}).get("exit_code", 1)
        return told if isinstance(told, int) and 1 <= told <= 255 else 1
    return {State.SUCCEEDED: 0, State.CANCELLED: 10, State.LOST: 9}.get(task.state, 1)


def end_lines(task: TaskView) -> list[str]:
    """How a task ended, and what a person should know although it went well."""
    what = f"{task.node}: {task.action} {render.image_of(task)}"
    if task.state is not State.SUCCEEDED:
        return [f"{what} {render.outcome(task)}"]
    now = time.time()
    seconds = render.seconds_of(task, now) or 0.0
    pace = render.rate(render.rate_of(task, now))
    paced = f" ({pace})" if pace else ""
    way = "stored in" if task.action == "capture" else "read from"
    lines = [
        f"{what} succeeded: {render.size(task.done)} in {render.duration(seconds)}{paced}, "
        f"{render.size(task.stored)} {way} the library{_lost(task)}"
    ]
    notes = (task.result or {}).get("notes") or ()
    lines.extend(f"{task.node}: note: {render.clean(str(note))}" for note in notes)
    return lines


def _lost(task: TaskView) -> str:
    lost = (task.result or {}).get("lost")
    return f", with {render.size(lost)} that could not be read" if isinstance(lost, int) and lost > 0 else ""


# ---------------------------------------------------------------- screens


class Lines:
    """Plain lines: one when a task's state or phase changes, and one for each tenth of its way."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[object, ...]] = {}
        self._printed: dict[str, str] = {}

    def show(self, task: TaskView) -> None:
        """Print what changed."""
        if task.state.ended:
            for line in end_lines(task):
                click.echo(line)
            return
        now = (render.outcome(task), task.percent // 10)
        if self._said.get(task.id) == now:
            return
        self._said[task.id] = now
        details = [render.outcome(task)]
        if task.state is State.RUNNING:
            details.append(f"{task.percent}%")
            details.extend(text for text in (render.rate(task.rate), _left(task), render.clean(task.limit)) if text)
        line = f"{task.node}: {task.action} {render.image_of(task)} {', '.join(details)}"
        # A step that no person can tell from the one before it, such as the first phase of a task that is not running yet.
        if self._printed.get(task.id) != line:
            self._printed[task.id] = line
            click.echo(line)

    def note(self, text: str) -> None:
        """A sentence on standard error."""
        click.echo(f"litho: {text}", err=True)


class Bars:
    """A bar for each task that has not ended; how it ended is printed above them and stays."""

    def __init__(self, progress: Any) -> None:
        """`progress` is a running `rich.progress.Progress`."""
        self._progress = progress
        self._bars: dict[str, Any] = {}

    def show(self, task: TaskView) -> None:
        """Move the task's bar, or replace it by how the task ended."""
        bar = self._bars.get(task.id)
        if task.state.ended:
            if bar is not None:
                self._progress.remove_task(bar)
            style = render.COLOURS[task.state]
            for line in end_lines(task):
                self._progress.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
            return
        fields = {
            "state": render.outcome(task),
            "moved": f"{render.size(task.done)} of {render.size(task.total)}" if task.total else "",
            "pace": render.rate(task.rate),
            "left": ", ".join(text for text in (_left(task), render.clean(task.limit)) if text),
        }
        if bar is None:
            name = f"{task.node} {task.action} {render.image_of(task)}"
            self._bars[task.id] = self._progress.add_task(name, total=100, completed=task.percent, **fields)
        else:
            self._progress.update(bar, completed=task.percent, **fields)

    def note(self, text: str) -> None:
        """A sentence above the bars."""
        self._progress.console.print(f"litho: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


class Silent:
    """Shows nothing: for `--json`."""

    def show(self, task: TaskView) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def _left(task: TaskView) -> str:
    return f"{render.duration(task.eta_s)} left" if task.eta_s is not None and task.state is State.RUNNING else ""


@contextlib.contextmanager
def _screen(session: Session, *, quiet: bool) -> Iterator[Screen]:
    if quiet:
        yield Silent()
    elif not sys.stdout.isatty():
        yield Lines()
    else:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - only on a terminal

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[moved]}", markup=False),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[state]}", markup=False, style="dim"),
        )
        with Progress(*columns, console=session.console, refresh_per_second=5) as progress:
            yield Bars(progress)
