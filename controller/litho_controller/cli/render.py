"""Numbers, times and rows as text for people. Pure.

Whatever came from a node or a disk (labels, reasons, names of models) is shown without control characters, so that it cannot
move the cursor or colour the screen.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from litho import amounts
from litho.task import State
from litho_controller.api import TaskView
from litho_controller.api_health import HealthView

if TYPE_CHECKING:
    from rich.table import Table

size = amounts.size

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


def rate(bytes_a_second: float) -> str:
    """`85.0 MB/s`, or nothing while there is none."""
    return amounts.rate(bytes_a_second) if bytes_a_second > 0 else ""


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


def moving(task: TaskView) -> str:
    """The partitions that move at this moment: `1 (40%), 2 (7%)`."""
    return ", ".join(f"{one.part} ({100 * one.done // max(1, one.total)}%)" for one in task.moving)


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


def health(view: HealthView | None) -> list[tuple[str, str]]:
    """How a node was, as names and values; a warning is the first of them."""
    if view is None:
        return []
    now = view.health
    figures = [
        f"processors {now.cpu:.0f}%, load {now.load:.1f}",
        f"{size(now.available)} of {size(now.memory)} memory free" if now.memory else "",
        f"agent {size(now.agent)}" if now.agent else "",
    ]
    note = f" ({now.disk_note})" if now.disk_note else ""
    return [
        ("warning", view.warning),
        ("health", f"{', '.join(word for word in figures if word)}, at {moment(view.at)}"),
        ("disk", f"SMART {now.disk}{note}" if now.disk else ""),
    ]


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A table: what stands where, before it is drawn."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[str, ...] = ()
    """Columns that hold numbers."""
    styles: tuple[str, ...] = ()
    """Colour of each row's last cell, on a terminal."""


def plain(grid: Grid) -> str:
    """The table as lines of aligned columns, however wide they become: for files, pipes, and thousands of rows."""
    rows = [grid.headers, *(tuple(clean(cell) for cell in row) for row in grid.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(grid.headers))]
    right = [header in grid.right for header in grid.headers]
    lines = []
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        lines.append("  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells))
    return "".join(line.rstrip() + "\n" for line in lines)


def drawn(grid: Grid) -> Table:
    """The table for a terminal: long cells are folded, the last column may be coloured."""
    from rich.table import Table  # noqa: PLC0415 - only on a terminal
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in grid.headers:
        to_right = header in grid.right
        table.add_column(header, justify="right" if to_right else "left", overflow="fold", no_wrap=to_right)
    for row, style in zip(grid.rows, grid.styles or [""] * len(grid.rows), strict=True):
        *cells, last = (clean(cell) for cell in row)
        table.add_row(*(Text(cell) for cell in cells), Text(last, style=style))
    return table


def tasks_grid(tasks: Iterable[TaskView], now: float) -> Grid:
    """Tasks with their bytes, rate and time."""
    rows, styles = [], []
    for task in tasks:
        seconds = seconds_of(task, now)
        styles.append(COLOURS[task.state])
        rows.append(
            (
                task.id,
                task.node,
                task.action,
                image_of(task),
                str(100 if task.state is State.SUCCEEDED else task.percent),
                size(task.done) if task.done else "",
                size(task.stored) if task.stored else "",
                rate(rate_of(task, now)),
                duration(seconds) if seconds is not None else "",
                outcome(task),
            )
        )
    numbers = ("%", "MOVED", "STORED", "RATE", "TIME")
    headers = ("TASK", "NODE", "ACTION", "IMAGE", *numbers, "STATE")
    return Grid(headers=headers, rows=rows, right=numbers, styles=tuple(styles))


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values below each other, without those that have none."""
    kept = [(name, clean(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in kept)
