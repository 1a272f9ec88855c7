"""The table of tasks: rows in, rows out. No rules live here; `litho.task.advance` moves a task, and `save` keeps what it says.

Every function takes a connection, so that the caller decides what is one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError
from litho.job import Job
from litho.progress import Progress
from litho.task import Action, State, Task
from litho_controller.store.schema import ACTIVE
from litho_controller.store.schema import task as table

_ID = re.compile(r"t-([0-9]{1,15})", re.ASCII)


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task with all that is known of it. Times are seconds since 1970 by the controller's clock."""

    number: int = 0
    """Given by the database when the row is new."""
    node: str
    action: Action
    image: str
    version: int
    job: Job
    task: Task = Task()
    token_hash: str = ""
    inventory: str | None = None
    plan: str | None = None
    """JSON of the agent's `Planned`."""
    result: str | None = None
    """JSON of the agent's `Succeeded`, `Failed` or `Stopped`."""
    progress: Progress = Progress()
    line: str = ""
    settled: bool = False
    created: float
    armed: float | None = None
    claimed: float | None = None
    started: float | None = None
    ended: float | None = None
    heard: float | None = None
    priority: int = 0
    """The higher one gets a slot first."""
    not_before: float | None = None
    """It waits in the queue until then."""
    attempt: int = 1
    retry_of: int = 0
    """Number of the task that this one repeats; 0 for none."""
    wave: int = 0
    """Number of its wave; 0 for none."""
    step: int = 0
    """In which step of the wave it starts, from 1."""

    @property
    def id(self) -> str:
        """`t-000123`: what people, topics and manifests call it."""
        return f"t-{self.number:06d}"

    @property
    def state(self) -> State:
        """Short for `task.state`."""
        return self.task.state


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What heartbeats and progress reports change, collected in memory and written together."""

    number: int
    heard: float
    progress: Progress | None = None
    line: str = ""


_FIELDS = tuple(field.name for field in msgspec.structs.fields(TaskRow))
_MOVED = tuple(field.name for field in msgspec.structs.fields(Task))
_HELD = sa.text("state IN ({})".format(", ".join(f"'{state.value}'" for state in State if state.on_node)))
_MOST_NAMES = 1000
"""Names that are put into one query; SQLite takes 32,766 parameters."""


def parse_id(text: str) -> int | None:
    """The number in `t-000123`; None for anything else."""
    match = _ID.fullmatch(text)
    return int(match[1]) if match else None


async def insert(conn: AsyncConnection, row: TaskRow) -> TaskRow:
    """Add a new task; answers it with its number. Raises sqlalchemy's IntegrityError when the node has an active one."""
    values = _values(row)
    del values["number"]
    done = await conn.execute(sa.insert(table).values(values))
    (number,) = done.inserted_primary_key or (0,)
    return msgspec.structs.replace(row, number=number)


async def get(conn: AsyncConnection, number: int) -> TaskRow | None:
    """One task."""
    found = (await conn.execute(sa.select(table).where(table.c.number == number))).one_or_none()
    return None if found is None else _row(found)


async def save(conn: AsyncConnection, row: TaskRow) -> None:
    """Write all of a task."""
    values = _values(row)
    number = values.pop("number")
    done = await conn.execute(sa.update(table).where(table.c.number == number).values(values))
    if done.rowcount != 1:
        raise LithoError(f"the task {row.id} has gone from the database", code="database")


async def find(
    conn: AsyncConnection,
    *,
    nodes: Sequence[str] | None = None,
    states: Iterable[State] | None = None,
    limit: int | None = None,
) -> list[TaskRow]:
    """Tasks, newest first."""
    query = sa.select(table).order_by(table.c.number.desc())
    if nodes is not None and len(nodes) <= _MOST_NAMES:
        query = query.where(table.c.node.in_(nodes))
        nodes = None
    if states is not None:
        query = query.where(table.c.state.in_([state.value for state in states]))
    if limit is not None and nodes is None:
        query = query.limit(limit)
    found = [_row(one) for one in (await conn.execute(query)).all()]
    if nodes is not None:
        wanted = set(nodes)
        found = [row for row in found if row.node in wanted][:limit]
    return found


async def active(conn: AsyncConnection, node: str) -> TaskRow | None:
    """The task that the node has or is queued for."""
    query = sa.select(table).where(table.c.node == node, table.c.state.in_(ACTIVE))
    found = (await conn.execute(query)).one_or_none()
    return None if found is None else _row(found)


async def all_active(conn: AsyncConnection) -> list[TaskRow]:
    """Every task that has not ended, oldest first."""
    query = sa.select(table).where(table.c.state.in_(ACTIVE)).order_by(table.c.number)
    return [_row(found) for found in (await conn.execute(query)).all()]


async def latest(conn: AsyncConnection) -> dict[str, TaskRow]:
    """The newest task of each node."""
    newest = sa.select(sa.func.max(table.c.number)).group_by(table.c.node)
    query = sa.select(table).where(table.c.number.in_(newest))
    return {row.node: row for row in map(_row, (await conn.execute(query)).all())}


async def claimed_latest(conn: AsyncConnection) -> list[TaskRow]:
    """The newest task of each node that some session has claimed."""
    newest = sa.select(sa.func.max(table.c.number)).where(table.c.session != "").group_by(table.c.node)
    return [_row(found) for found in (await conn.execute(sa.select(table).where(table.c.number.in_(newest)))).all()]


async def ended_sessions(conn: AsyncConnection) -> set[tuple[str, str]]:
    """(id, session) of every capture that was claimed and has ended."""
    query = sa.select(table.c.number, table.c.session).where(
        table.c.action == "capture", table.c.session != "", table.c.state.not_in(ACTIVE)
    )
    return {(f"t-{number:06d}", session) for number, session in (await conn.execute(query)).all()}


async def settle(conn: AsyncConnection, nodes: Sequence[str]) -> None:
    """Note that the nodes' tasks so far need not be told of any more."""
    query = sa.update(table).where(table.c.node == sa.bindparam("b_node"), ~table.c.settled)
    if nodes:
        await conn.execute(query, [{"b_node": node, "settled": True} for node in nodes])


async def write_figures(conn: AsyncConnection, figures: Sequence[Figure]) -> None:
    """Write what heartbeats and progress reports have changed."""
    heard = [{"b_number": figure.number, "heard": figure.heard} for figure in figures if figure.progress is None]
    moved = [
        {
            "b_number": figure.number,
            "heard": figure.heard,
            "progress": msgspec.json.encode(figure.progress).decode(),
            "line": figure.line,
        }
        for figure in figures
        if figure.progress is not None
    ]
    for values in (heard, moved):
        if values:
            # Only while the agent holds the task: a figure that comes after the end must not undo what the end says.
            query = sa.update(table).where(table.c.number == sa.bindparam("b_number"), _HELD)
            await conn.execute(query, values)


def _values(row: TaskRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _FIELDS if name != "task"}
    values.update({name: getattr(row.task, name) for name in _MOVED})
    values["state"] = row.task.state.value
    values["job"] = msgspec.json.encode(row.job).decode()
    values["progress"] = msgspec.json.encode(row.progress).decode()
    return values


def _row(found: sa.Row[Any]) -> TaskRow:
    values = dict(found._mapping)
    moved = {name: values.pop(name) for name in _MOVED}
    moved["state"] = State(moved["state"])
    values["job"] = msgspec.json.decode(values["job"], type=Job)
    values["progress"] = msgspec.json.decode(values["progress"] or "{}", type=Progress)
    return TaskRow(task=Task(**moved), **values)
