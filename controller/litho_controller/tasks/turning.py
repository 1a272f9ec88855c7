"""Turning nodes: the TFTP server's files and the power follow what becomes of tasks.

`Tasks.after` notes the node of every task that moved; this hand takes the notes and makes the world as the database says. It
can do so any number of times, so a note is never lost: what fails is tried again, and at the start every node's files are
looked at, because a crash may have left one that sends its node into the root image for a task that has ended.

* boot.tftpdir: a node with an armed task gets the root image, one that is set to an osimage gets that, every other one its own
  disk.
* power.on_arm: when the files are written (or when there are none to write), a node that was armed is switched. A controller
  that was killed just then switches it once more; a node that waits for its task loses nothing by that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from litho.errors import LithoError
from litho.task import State
from litho_controller.api_schedule import PowerAction
from litho_controller.boot import facts as facts_of
from litho_controller.boot import plan, tftp, words
from litho_controller.boot.plan import Facts
from litho_controller.boot.tftp import File, TftpFiles
from litho_controller.power.command import Power
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes
from litho_controller.tasks import osboot
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.osboot import Known

log = logging.getLogger("litho.boot")

AGAIN_S = 5.0
BATCH = 200


class Turning:
    """The hand."""

    def __init__(
        self, tasks: Tasks, *, power: Power, on_arm: PowerAction | None, files: TftpFiles | None, kcmdline: str = ""
    ) -> None:
        """`on_arm` None leaves the power alone, `files` None writes none. Raises UsageError for a bad boot.kcmdline."""
        self._tasks = tasks
        self._power = power
        self._on_arm = on_arm
        self._files = files
        self._common = words.parse(kcmdline, of="boot.kcmdline")
        self._switched: set[int] = set()

    async def run(self) -> None:
        """Follow for ever."""
        tasks = self._tasks
        if self._files is not None:
            await self._safely(self._all())
        while True:
            await tasks.turned.wait()
            tasks.turned.clear()
            names, tasks.to_turn = sorted(tasks.to_turn), set()
            for start in range(0, len(names), BATCH):
                some = names[start : start + BATCH]
                if not await self._safely(self.turn(some)):
                    tasks.to_turn.update(some)
            if tasks.to_turn:
                await asyncio.sleep(AGAIN_S)
                tasks.turned.set()

    async def _all(self) -> None:
        async with self._tasks.store.read() as conn:
            self._tasks.to_turn.update(await nodes.groups(conn))
        self._tasks.turned.set()

    @staticmethod
    async def _safely(doing: Coroutine[Any, Any, None]) -> bool:
        try:
            await doing
        except LithoError as exc:
            log.error("%s; it is tried again", exc)
            return False
        return True

    async def turn(self, names: Sequence[str]) -> None:
        """Make files and power of these nodes as their tasks want them. Raises LithoError."""
        tasks = self._tasks
        async with tasks.store.read() as conn:
            facts = await facts_of.of_nodes(conn, names)
            states = {node.name: node.state for node in await nodes.get(conn, names)}
            active = {row.node: row for row in await rows_of.find(conn, nodes=names, states=[State.ARMED])}
            wanted = {facts[name].provmethod for name, state in states.items() if osboot.is_set(facts[name], state)}
            known = await osboot.read(conn, wanted) if self._files is not None else None
        if self._files is not None and known is not None:
            await asyncio.to_thread(self._write, self._files, known, facts, active, states)
        if self._on_arm is not None:
            fresh = [row for row in active.values() if row.number not in self._switched]
            self._switched = {row.number for row in active.values()} | {
                number for number in self._switched if number in tasks.leases.booting()
            }
            for line in await self._power.ask([row.node for row in fresh], self._on_arm) if fresh else []:
                if line.error:
                    log.error("%s is armed and could not be switched: %s", line.node, line.error)

    def _write(
        self,
        files: TftpFiles,
        known: Known,
        facts: Mapping[str, Facts],
        active: Mapping[str, TaskRow],
        states: Mapping[str, str],
    ) -> None:
        """Blocks. Raises LithoError."""
        found: list[File] = []
        for name, state in states.items():
            found += self._of(files, known, facts[name], active.get(name), state)
        files.write(found)

    def _of(self, files: TftpFiles, known: Known, facts: Facts, row: TaskRow | None, state: str) -> list[File]:
        line = self._tasks.boot.read(facts.node) if row is not None else ""
        url = self._tasks.installation.url
        try:
            boot = None
            if line:
                boot = plan.boot(facts, title=state, url=url, common=self._common, own=tuple(line.split()))
            elif osboot.is_set(facts, state):
                boot = osboot.boot_of(known, facts, state, url=url)
                if tftp.method(facts) != tftp.XNBA:
                    home = Path(known.locate(facts.provmethod).home)
                    files.share(boot.folder, [home / boot.kernel, home / boot.initrd])
            return tftp.files(facts, boot, state=state)
        except LithoError as exc:
            # One node's tables; the others' files are not held up by them.
            log.error("%s", exc)
            return []
