"""Rows of waves, and what the queue and the waves ask of the table of tasks: few columns of many rows.

Every function takes a connection, so that the caller decides what is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.task import State
from litho_controller.store.schema import task, wave, xcat
from litho_controller.tasks.queue import Waiting
from litho_controller.tasks.waves import MAKING, RUNNING, Member

_HELD = tuple(state.value for state in State if state is State.ARMED or state.on_node)


class WaveRow(msgspec.Struct, frozen=True, kw_only=True):
    """One wave. Times are seconds since 1970."""

    number: int = 0
    sizes: str
    stop_after: int
    state: str = RUNNING
    step: int = 1
    steps: int
    reason: str = ""
    created: float
    ended: float | None = None

    @property
    def id(self) -> str:
        """`w-000012`."""
        return f"w-{self.number:06d}"


async def insert(conn: AsyncConnection, row: WaveRow) -> WaveRow:
    """Add a wave; answers it with its number."""
    values = msgspec.structs.asdict(row)
    del values["number"]
    done = await conn.execute(sa.insert(wave).values(values))
    (number,) = done.inserted_primary_key or (0,)
    return msgspec.structs.replace(row, number=number)


async def save(conn: AsyncConnection, row: WaveRow) -> None:
    """Write all of a wave."""
    await conn.execute(sa.update(wave).where(wave.c.number == row.number).values(msgspec.structs.asdict(row)))


async def find(conn: AsyncConnection, *, running: bool = False, limit: int = 1000) -> list[WaveRow]:
    """Waves, newest first."""
    query = sa.select(wave).order_by(wave.c.number.desc()).limit(limit)
    if running:
        query = query.where(wave.c.state == RUNNING)
    return [WaveRow(**found._mapping) for found in (await conn.execute(query)).all()]


async def get(conn: AsyncConnection, number: int) -> WaveRow | None:
    """One wave."""
    found = (await conn.execute(sa.select(wave).where(wave.c.number == number))).one_or_none()
    return None if found is None else WaveRow(**found._mapping)


async def begin(conn: AsyncConnection, number: int | None = None) -> None:
    """Let a wave that was made run; without a number every one whose making a crash has cut off."""
    query = sa.update(wave).where(wave.c.state == MAKING).values(state=RUNNING)
    await conn.execute(query if number is None else query.where(wave.c.number == number))


async def members(conn: AsyncConnection, number: int) -> list[tuple[str, Member]]:
    """(node, member) of a wave: of each node its newest attempt, in the order of steps and names."""
    newest = sa.select(sa.func.max(task.c.number)).where(task.c.wave == number).group_by(task.c.node)
    query = (
        sa.select(task.c.node, task.c.step, task.c.state)
        .where(task.c.number.in_(newest))
        .order_by(task.c.step, task.c.node)
    )
    return [(row[0], Member(step=row[1], state=State(row[2]))) for row in (await conn.execute(query)).all()]


async def not_begun(conn: AsyncConnection, number: int) -> list[int]:
    """The tasks of a wave that no agent has taken."""
    states = (State.QUEUED.value, State.ARMED.value)
    query = sa.select(task.c.number).where(task.c.wave == number, task.c.state.in_(states))
    return [row[0] for row in (await conn.execute(query)).all()]


async def waiting(conn: AsyncConnection) -> list[Waiting]:
    """Every queued task, as the queue looks at it."""
    nodelist = xcat["nodelist"]
    query = (
        sa.select(
            task.c.number, task.c.node, nodelist.c.groups, task.c.priority, task.c.not_before, task.c.wave, task.c.step
        )
        .outerjoin(nodelist, nodelist.c.node == task.c.node)
        .where(task.c.state == State.QUEUED.value)
        .order_by(task.c.number)
    )
    return [
        Waiting(
            number=row.number,
            node=row.node,
            groups=_words(row.groups),
            priority=row.priority,
            not_before=row.not_before,
            wave=row.wave,
            step=row.step,
        )
        for row in (await conn.execute(query)).all()
    ]


async def holding(conn: AsyncConnection) -> list[tuple[str, ...]]:
    """The groups of each node whose task has a slot."""
    nodelist = xcat["nodelist"]
    query = (
        sa.select(nodelist.c.groups)
        .select_from(task.outerjoin(nodelist, nodelist.c.node == task.c.node))
        .where(task.c.state.in_(_HELD))
    )
    return [_words(row[0]) for row in (await conn.execute(query)).all()]


def _words(text: Any) -> tuple[str, ...]:
    words: Iterable[str] = (text or "").split(",")
    return tuple(word.strip() for word in words if word.strip())
