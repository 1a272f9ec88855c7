"""What a restart asks for, whatever the controller was doing when it ended.

The database is the truth. From it are made anew: what is kept in memory, the nodes' boot files, the broker's accounts.

* A task that an agent holds goes on: its lease begins anew, its agent says what it could not say meanwhile.
* An armed task must have its boot file with the token that the database knows, and with the controller's present address. A file
  that is missing or of another task (a crash between file and commit, a restored backup) is written with a new token.
* A boot file without an armed or running task is removed: its node would boot into nothing.
* A wave whose tasks were not all queued yet runs with those that were.
* What dead captures left in the library is swept.
"""

from __future__ import annotations

import logging

import msgspec

from litho.errors import UsageError
from litho.task import State
from litho_controller.boot import cmdline
from litho_controller.boot import facts as facts_of
from litho_controller.boot.plan import Facts
from litho_controller.store import tasks as rows_of
from litho_controller.store import waves as waves_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.tasks")


async def recover(tasks: Tasks) -> None:
    """Bring memory, boot files and accounts in line with the database. Raises LithoError."""
    async with tasks.store.write() as conn:
        active = await rows_of.all_active(conn)
        await waves_of.begin(conn)
        armed = [row.node for row in active if row.state is State.ARMED]
        facts = await facts_of.of_nodes(conn, armed)
        for row in active:
            if row.state is State.ARMED:
                token_hash = _boot_file(tasks, row, facts[row.node])
                if token_hash != row.token_hash:
                    await rows_of.save(conn, msgspec.structs.replace(row, token_hash=token_hash))
    booting = {row.node for row in active if row.state is not State.QUEUED}
    for node in tasks.boot.nodes():
        if node not in booting:
            log.info("%s has no task to boot for: its boot file is removed", node)
            tasks.boot.remove(node)
    for row in active:
        tasks.after(row)
    await tasks.renew_accounts()
    tasks.sweep_wanted.set()
    if active:
        log.info("going on with %s", ", ".join(f"{row.id} ({row.node}, {row.state})" for row in active))


def _boot_file(tasks: Tasks, row: TaskRow, facts: Facts) -> str:
    """Make sure that an armed task's file is as it should be; answers the hash of the token in it."""
    there = tasks.boot.read(row.node)
    found = cmdline.parse(there)
    token = found.get("token", "")
    if found.get("task") != row.id or cmdline.token_hash(token) != row.token_hash:
        log.warning(
            "%s: the boot file of %s was missing or not its own; it is written with a new token", row.id, row.node
        )
        token = cmdline.new_token()
    try:
        line = tasks.boot_line(facts, row, token)
    except UsageError as exc:
        # The cell was changed since; what the node was armed with still holds, and a restart must not fail over it.
        log.error("%s: %s", row.id, exc)
        line = tasks.boot_line(Facts(node=row.node), row, token)
    if line != there:
        tasks.boot.write(row.node, line)
    return cmdline.token_hash(token)
