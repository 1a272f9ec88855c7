"""A machine that no node is shows itself and asks what to do; as soon as somebody has made it a node, it is told.

Such a machine runs the root image already, so a task need not wait for another boot of it: it is given the words that its boot
script would have, token and all, and claims. Who asks is known by the MAC address of the card that booted alone, as at boot
(`booting` and docs/reference/boot.md say what follows from that), and a question changes nothing but the note about the machine.
The addresses of its other cards are for people: a machine that was known by one of them would boot as unknown again.

| the machine | what it is told |
|---|---|
| no node has the address of the card that booted, or more than one node has | wait |
| its node has an armed task | the words of its command line; with power.on_arm: reboot, because it is being switched just now |
| its node has another task (queued, or another agent holds it) | wait |
| its node was set to boot something (`nodeset NODE boot`), or its task has ended | reboot |
| its node was set to nothing yet, or to `offline` | wait |
"""

from __future__ import annotations

import logging
from typing import Literal

from litho.discovery import Discovered, Discovery
from litho.errors import UsageError
from litho.task import State
from litho_controller.boot import facts, macs, words
from litho_controller.store import discovered
from litho_controller.store import tasks as rows_of
from litho_controller.tables import rows
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.boot")

Deed = Literal["wait", "reboot", "claim"]


def deed(task: State | None, currstate: str | None, *, switched: bool) -> Deed:
    """What a machine does whose node has a task in that state (None: no task that has not ended), and `currstate` in the table
    chain (None: nobody has set it to anything). `switched`: arming a node switches its power. Pure."""
    if task is State.ARMED:
        return "reboot" if switched else "claim"
    # `install ...` without a task is left of one that ended badly: it boots nothing.
    word = ((currstate or "").split() or ["offline"])[0]
    return "reboot" if task is None and word not in ("offline", "image", "install") else "wait"


class Discovering:
    """Answers such machines."""

    def __init__(self, tasks: Tasks, *, kcmdline: str = "", switched: bool = False) -> None:
        """Raises UsageError when boot.kcmdline cannot be written into a boot file."""
        self._tasks = tasks
        self._common = words.parse(kcmdline, of="boot.kcmdline")
        self._switched = switched

    async def shown(self, machine: Discovery, *, peer: str) -> Discovered:
        """What a machine is told that shows itself. `peer` is its address on the network. Raises UsageError, LithoError."""
        own = [mac for mac in map(macs.normal, machine.macs) if mac]
        if not own:
            raise UsageError("a machine without a MAC address cannot be noted", code="bad-mac")
        tasks = self._tasks
        async with tasks.store.read() as conn:
            names = await facts.nodes_of(conn, own[0])
            if len(names) == 1:
                row = await rows_of.active(conn, names[0])
                chain = await rows.get(conn, "chain", names[0])
        if len(names) > 1:
            log.warning("%s at %s shows itself, and %s claim its address", own[0], peer, " and ".join(names))
            return Discovered()
        if not names:
            await self._note(own, machine, peer)
            return Discovered()
        found = deed(row.state if row is not None else None, chain.get("currstate"), switched=self._switched)
        # The file may be gone a moment after the task was looked at: then there is nothing to claim.
        line = tasks.boot.read(names[0]) if found == "claim" else ""
        if line:
            log.info("%s: %s at %s, which showed itself, is given its task", row.id if row else "", names[0], peer)
            return Discovered(node=names[0], cmdline=" ".join((*self._common, line)))
        return Discovered(node=names[0], reboot=found == "reboot")

    async def _note(self, own: list[str], machine: Discovery, peer: str) -> None:
        tasks, now = self._tasks, self._tasks.clock.now()
        note = discovered.Note.of(own, peer=peer, inventory=machine.inventory)
        async with tasks.store.read() as conn:
            if await discovered.is_fresh(conn, note, now=now):
                return
        async with tasks.store.write() as conn:
            if await discovered.put(conn, note, now=now):
                log.info("%s at %s, which no node is, shows itself", own[0], peer)
