"""A task that is tried again: a new row that says which one it repeats.

Who asks for it:

* A person, `litho task retry`: any task that has ended without success.
* A node that boots again while its task is under way (a power cut, a crash, a hung agent's watchdog). What ran is gone, and
  its half of a disk or of an image helps nobody. The task is LOST, and a new attempt of it is queued, until `tasks.attempts`
  were made in all. Then the node boots its own disk, and a person looks.

A task that FAILED is never tried again by itself: its agent has said why it cannot be done, and a node that boots into the same
failure for ever tells nobody. So there is no loop: each way into a new attempt counts it.
"""

from __future__ import annotations

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.progress import Progress
from litho.task import Task
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes

REBOOTED = "the node booted again while its task was under way: its power was cut, it crashed, or its agent hung"


def next_attempt(row: TaskRow, *, now: float, counted: bool) -> TaskRow:
    """A new task like `row`, not yet in the database. `counted` is false when a person asks: then the count begins anew. Pure."""
    return TaskRow(
        node=row.node,
        action=row.action,
        image=row.image,
        version=row.version if row.action != "capture" else 0,
        job=row.job,
        task=Task(),
        progress=Progress(),
        created=now,
        priority=row.priority,
        attempt=row.attempt + 1 if counted else 1,
        retry_of=row.number,
        # A wave goes on with the new attempt: its step has not ended before that has.
        wave=row.wave if counted else 0,
        step=row.step if counted else 0,
    )


def may_try(row: TaskRow, *, attempts: int) -> bool:
    """True when a task whose node booted again is tried once more by itself. Pure."""
    return row.attempt < attempts and not row.task.cancel_requested


async def queue(conn: AsyncConnection, row: TaskRow) -> TaskRow:
    """Put a new attempt into the queue, in the caller's transaction: the node has a task ahead again."""
    made = await rows_of.insert(conn, row)
    node = await nodes.require(conn, row.node)
    await nodes.set_state(conn, {row.node: nodes.state_text(row.action, arch=node.arch, image=row.image)})
    return msgspec.structs.replace(made)
