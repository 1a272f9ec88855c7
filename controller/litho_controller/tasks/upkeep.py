"""What time asks for. `tick` runs about twice a second, and at once when a slot may be free.

* `turn_waves`, `arm`: free slots go to the tasks whose turn it is.
* `expire`: silent agents and nodes that never booted; their tasks are LOST with a reason, and their slots free.
* `repeat`: a cancel is said again until the task ends, as a message may get lost.
* `flush`: what heartbeats and progress reports changed is written once a second, for all tasks together.
* `accounts`: broker accounts of tasks that ended some time ago are taken away.

`sweep` runs beside it, because the library may be slow: it deletes what dead captures left there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping

import msgspec

from litho.errors import LithoError
from litho.library import ImageRef, Library, Owner, care
from litho.library.stage import read_owner
from litho.messages import Cancel
from litho.task import Arm, CancelRequest, Expire, Outcome, State
from litho_controller.boot import cmdline
from litho_controller.boot import facts as facts_of
from litho_controller.store import tasks as rows_of
from litho_controller.store import waves as waves_of
from litho_controller.tasks import queue, rules, safety, waving
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.tasks")

TICK_S = 0.5
FLUSH_S = 1.0
STALL_S = 10.0
REPEAT_S = 5.0
ACCOUNTS_S = 30.0
SWEEP_AGAIN_S = 60.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many, and how long."""

    slots: int
    boot_s: float
    lease_s: float
    groups: Mapping[str, int] = {}
    """Slots of groups that have a limit of their own."""
    windows: tuple[queue.Window, ...] = ()
    require_mac: bool = False


class Upkeep:
    """The hand that winds the clock."""

    def __init__(self, tasks: Tasks, limits: Limits) -> None:
        self._tasks = tasks
        self._limits = limits
        self._rules = queue.Rules(slots=limits.slots, groups=limits.groups, windows=limits.windows)
        tasks.windows = limits.windows
        self._due: dict[str, float] = {}
        self._ticked = tasks.clock.monotonic()

    async def run(self) -> None:
        """Tick for ever. A failure is logged, and the tick after it tries again."""
        tasks = self._tasks
        while True:
            await self.tick()
            # Not wait_for: in Python 3.11 it loses a cancel that comes in the moment in which something wakes us.
            try:
                async with asyncio.timeout(TICK_S):
                    await tasks.woken.wait()
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """Do what is due."""
        tasks, now = self._tasks, self._tasks.clock.monotonic()
        if now - self._ticked > STALL_S:
            # This process itself stood still (stopped, or on a machine that was suspended), so it is it that heard nothing.
            log.warning("the controller stood still for %.0f s; leases begin anew", now - self._ticked)
            tasks.leases.begin_anew(now=now)
        self._ticked = now
        tasks.woken.clear()
        await self._safely(self.turn_waves)
        await self._safely(self.arm)
        await self._safely(self.expire)
        await self._now_and_then("repeat", REPEAT_S, self.repeat)
        await self._now_and_then("flush", FLUSH_S, self.flush)
        await self._now_and_then("accounts", ACCOUNTS_S, self._tasks.renew_accounts)

    async def _now_and_then(self, name: str, every_s: float, do: Callable[[], Coroutine[None, None, None]]) -> None:
        now = self._tasks.clock.monotonic()
        if now - self._due.get(name, -every_s) >= every_s:
            self._due[name] = now
            await self._safely(do)

    async def _safely(self, do: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await do()
        except LithoError as exc:
            log.error("%s; it is tried again", exc)

    # ------------------------------------------------------------ slots

    async def arm(self) -> None:
        """Give free slots to the tasks whose turn it is. Raises LithoError."""
        tasks = self._tasks
        # The queue may be thousands long and this is asked twice a second: without a free slot nobody looks at it.
        async with tasks.store.read() as conn:
            holding = await waves_of.holding(conn)
            queued = await waves_of.waiting(conn) if len(holding) < self._limits.slots else []
        for number in queue.choose(queued, holding, self._rules, now=tasks.clock.now(), steps=tasks.steps):
            await self._arm(number)

    async def turn_waves(self) -> None:
        """Lead waves on. Raises LithoError."""
        await waving.turn(self._tasks)

    async def _arm(self, number: int) -> None:
        tasks = self._tasks
        async with tasks.store.write() as conn:
            row = await rows_of.get(conn, number)
            if row is None or row.state is not State.QUEUED:
                return
            refused = await safety.refusals(
                conn, [row.node], url=tasks.installation.url, require_mac=self._limits.require_mac
            )
            if refused:
                # Its tables have changed since it was queued.
                row, _ = await tasks.move(conn, row, CancelRequest(reason=f"it cannot be armed: {refused[row.node]}"))
            else:
                facts = (await facts_of.of_nodes(conn, [row.node]))[row.node]
                token = cmdline.new_token()
                line = tasks.boot_line(facts, row, token)
                # The file first: an armed task without one could never be claimed.
                tasks.boot.write(row.node, line)
                armed = msgspec.structs.replace(row, token_hash=cmdline.token_hash(token))
                row, _ = await tasks.move(conn, armed, Arm())
        tasks.after(row)
        if row.state is State.ARMED:
            log.info("%s: armed, %s may boot", row.id, row.node)
        else:
            log.error("%s: %s", row.id, row.task.reason)

    # ------------------------------------------------------------ silence

    async def expire(self) -> None:
        """Tasks that nothing was heard of for too long are lost. Raises LithoError."""
        tasks, limits = self._tasks, self._limits
        for wait in tasks.leases.over(
            now=tasks.clock.monotonic(),
            boot_s=limits.boot_s,
            lease_s=limits.lease_s,
            listening=tasks.bus.connected,
        ):
            async with tasks.store.write() as conn:
                row = await rows_of.get(conn, wait.number)
                if row is None or (row.state is State.ARMED) is not wait.booting or row.state.ended:
                    tasks.leases.drop(wait.number)
                    continue
                reason = (
                    rules.never_claimed_reason(row.node, limits.boot_s)
                    if wait.booting
                    else rules.silent_reason(limits.lease_s)
                )
                row, step = await tasks.move(conn, row, Expire(reason=reason))
            tasks.after(row)
            if step.outcome is Outcome.MOVED:
                log.warning("%s: lost: %s", row.id, reason)

    async def repeat(self) -> None:
        """Say every cancel again that its agent has not followed yet. Raises LithoError."""
        tasks = self._tasks
        if not tasks.live:
            return
        async with tasks.store.read() as conn:
            waiting = await rows_of.find(conn, states=[state for state in State if state.on_node])
        for row in waiting:
            if row.task.cancel_requested:
                tasks.say(row, Cancel())

    # ------------------------------------------------------------ figures

    async def flush(self) -> None:
        """Write what heartbeats and progress reports changed. Raises LithoError; then it is written the next time."""
        tasks = self._tasks
        taken = {number: live.figure for number, live in tasks.live.items() if live.figure is not None}
        if not taken:
            return
        async with tasks.store.write() as conn:
            await rows_of.write_figures(conn, list(taken.values()))
        for number, figure in taken.items():
            live = tasks.live.get(number)
            if live is not None and live.figure is figure:
                live.figure = None

    # ------------------------------------------------------------ remains

    async def sweep_when_wanted(self) -> None:
        """Sweep the library each time a dead capture may have left something there; again later when it failed."""
        tasks = self._tasks
        while True:
            await tasks.sweep_wanted.wait()
            tasks.sweep_wanted.clear()
            try:
                await self.sweep()
            except LithoError as exc:
                log.error("the library was not swept: %s; it is tried again", exc)
                await asyncio.sleep(SWEEP_AGAIN_S)
                tasks.sweep_wanted.set()

    async def sweep(self) -> None:
        """Delete what captures of ours left that have ended. Raises LithoError."""
        tasks = self._tasks
        async with tasks.store.read() as conn:
            ended = await rows_of.ended_sessions(conn)
        for ref in await asyncio.to_thread(_sweep, tasks.library, ended):
            log.info("swept the remains of %s", ref)


def _sweep(library: Library, ended: set[tuple[str, str]]) -> list[ImageRef]:
    """Blocks. A reservation is dead when the very session that made it has ended: numbers of tasks alone are not unique, because
    two controllers may share a library. One whose owner cannot be told is what an interrupted removal left, once it is old."""
    forgotten = _unowned_are_old(library)

    def dead(owner: Owner | None) -> bool:
        return forgotten if owner is None else (owner.task, owner.session) in ended

    return care.sweep(library, dead=dead)


def _unowned_are_old(library: Library) -> bool:
    """True when no reservation without an owner is so young that its owner may be about to write into it."""
    for name, parsed in library.entries():
        if parsed.part and not parsed.suffix:
            path = library.root / name
            try:
                if read_owner(path) is None and time.time() - path.stat().st_mtime < care.STRAY_AGE_S:
                    return False
            except OSError:
                continue
    return True
