"""Numbers, times and rows as text for people. Pure, but for the tables that rich draws.

Whatever came from a node or a disk (labels, reasons, names of models) is shown without control characters, so that it cannot
move the cursor or colour the screen.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from litho.task import State
from litho_controller.api import TaskView

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

COLOURS = {
    State.QUEUED: "dim",
    State.ARMED: "yellow",
    State.CLAIMED: "cyan",
    State.PLANNED: "cyan",
    State.RUNNING: "cyan",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
    State.LOST: "red",
}


def clean(text: str) -> str:
    """`text` on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def size(count: float) -> str:
    """Bytes: `0 B`, `812 KiB`, `1.4 GiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in _UNITS:
        count /= 1024
        if count < 1024 or unit == _UNITS[-1]:
            break
    return f"{count:.1f} {unit}" if count < 100 else f"{count:.0f} {unit}"


def rate(bytes_a_second: float) -> str:
    """`85 MiB/s`, or nothing while there is none."""
    return f"{size(bytes_a_second)}/s" if bytes_a_second > 0 else ""


def duration(seconds: float) -> str:
    """`7s`, `3m 05s`, `2h 10m`, `3d 4h`."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def moment(seconds: float | None) -> str:
    """A time in this machine's zone, `2026-11-22 16:05:09`; empty for none."""
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds_of(task: TaskView, now: float) -> float | None:
    """How long a task has moved, or moved: from the start of its bytes (or else its claim) to its end or `now`."""
    begun = task.started if task.started is not None else task.claimed
    if begun is None:
        return None
    return max(0.0, (task.ended if task.ended is not None else now) - begun)


def rate_of(task: TaskView, now: float) -> float:
    """Bytes a second: of the moment while it runs, over the whole when it has ended."""
    if not task.state.ended:
        return task.rate
    seconds = seconds_of(task, now)
    return task.done / seconds if seconds else 0.0


def outcome(task: TaskView) -> str:
    """A task's state with the reason behind it."""
    if task.state.ended and task.reason:
        return f"{task.state}: {clean(task.reason)}"
    if task.cancel_requested and not task.state.ended:
        return f"{task.state}, cancelling"
    if task.phase and task.state is State.RUNNING:
        return f"{task.state}: {clean(task.phase)}"
    return str(task.state)


def image_of(task: TaskView) -> str:
    """`golden:2`, or `golden` while the version is not known."""
    return f"{task.image}:{task.version}" if task.version else task.image


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A table without lines; the columns named in `right` hold numbers."""
    from rich.table import Table  # noqa: PLC0415 - only when a table is drawn
    from rich.text import Text  # noqa: PLC0415 - the same

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        drawn.add_column(
            header, justify="right" if header in right else "left", overflow="fold", no_wrap=header in right
        )
    for row in rows:
        drawn.add_row(*(Text(clean(cell)) for cell in row))
    return drawn


def tasks_table(tasks: Iterable[TaskView], now: float) -> Table:
    """Tasks with their bytes, rate and time."""
    from rich.text import Text  # noqa: PLC0415 - only when a table is drawn

    numbers = ("%", "MOVED", "STORED", "RATE", "TIME")
    drawn = table(("TASK", "NODE", "ACTION", "IMAGE", *numbers, "STATE"), (), right=numbers)
    for task in tasks:
        seconds = seconds_of(task, now)
        cells = (
            task.id,
            task.node,
            task.action,
            image_of(task),
            str(100 if task.state is State.SUCCEEDED else task.percent),
            size(task.done) if task.done else "",
            size(task.stored) if task.stored else "",
            rate(rate_of(task, now)),
            duration(seconds) if seconds is not None else "",
        )
        drawn.add_row(*(Text(clean(cell)) for cell in cells), Text(outcome(task), style=COLOURS[task.state]))
    return drawn


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values below each other, without those that have none."""
    kept = [(name, clean(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in kept)
