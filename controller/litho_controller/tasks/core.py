"""What all of the task service shares: the one way a task moves, and what is kept in memory of tasks under way.

A task moves only through `litho.task.advance`, inside a transaction, and the effects of a move stand in the same transaction
as the move: the rows of osimage and linuximage with a capture's SUCCEEDED, the node's boot state with any end. So each happens
exactly once: after a crash either all of it has happened or nothing, and the agent, which was not acknowledged, says it again.

What cannot be part of a transaction (a file, a message, a deletion in the library) follows in `after`, or precedes it, and can be
done any number of times.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError
from litho.library import Library
from litho.messages import Ack, Cancel, Command, EventReport, Finish, Stop, Succeeded
from litho.task import Event, Outcome, State, Transition, advance
from litho_controller.boot import cmdline, plan, words
from litho_controller.boot.cmdline import BootFiles
from litho_controller.boot.plan import Facts
from litho_controller.ports import Access, Bus, Clock
from litho_controller.store import Store
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import Figure, TaskRow
from litho_controller.tables import nodes, osimages
from litho_controller.tasks import accounts, queue, rules
from litho_controller.tasks.healths import Healths
from litho_controller.tasks.leases import Leases
from litho_controller.tasks.orders import Installation

log = logging.getLogger("litho.tasks")

LINGER_S = 180.0
"""Seconds that an agent's broker account outlives its task, for the last acknowledgment and `Finish`."""


class Live(msgspec.Struct):
    """What is kept in memory of a task that an agent holds."""

    node: str
    session: str
    n: int = 0
    """Number of the newest progress report."""
    figure: Figure | None = None
    """What is not yet in the database."""


class Tasks:
    """All tasks of this controller, and the world around them."""

    def __init__(
        self,
        store: Store,
        library: Library,
        boot: BootFiles,
        installation: Installation,
        *,
        bus: Bus,
        access: Access,
        clock: Clock,
    ) -> None:
        self.store = store
        self.library = library
        self.boot = boot
        self.installation = installation
        self.bus = bus
        self.access = access
        self.clock = clock
        self.leases = Leases()
        self.live: dict[int, Live] = {}
        self.online: dict[str, str] = {}
        """Nodes whose agent is connected, with its session."""
        self.healths = Healths()
        self.gone: set[str] = set()
        """Nodes whose agent's last will was the last that was heard of it."""
        self.windows: tuple[queue.Window, ...] = ()
        """When tasks without a time of their own may start."""
        self.steps: dict[int, int] = {}
        """Running waves, each with the step that it has reached."""
        self.woken = asyncio.Event()
        """Set when a slot may be given."""
        self.to_turn: set[str] = set()
        """Nodes whose boot files and power are to follow their tasks (`litho_controller.tasks.turning`)."""
        self.turned = asyncio.Event()
        """Set when there are some."""
        self.sweep_wanted = asyncio.Event()
        """Set when a dead capture may have left something in the library."""
        self.images = asyncio.Lock()
        """Held while an image is looked up for a task, or removed: the two must not cross."""
        self._renewing = asyncio.Lock()

    # ------------------------------------------------------------ moving

    async def move(
        self, conn: AsyncConnection, row: TaskRow, event: Event, *, report: EventReport | None = None
    ) -> tuple[TaskRow, Transition]:
        """Move a task by `event` and write it, with everything that follows from it in the database."""
        now = self.clock.now()
        step = advance(row.task, event)
        if step.outcome is Outcome.MOVED:
            changed = rules.moved(self._with_figure(row), step.task, now=now)
            changed = changed if report is None else rules.told(changed, report)
        else:
            changed = msgspec.structs.replace(row, task=step.task)
        if changed != row:
            await rows_of.save(conn, changed)
        if changed.state.ended and not row.state.ended:
            await nodes.set_state(conn, {row.node: nodes.BOOT})
        if changed.state is State.SUCCEEDED and row.state is not State.SUCCEEDED and row.action == "capture":
            body = report.body if report is not None else None
            if isinstance(body, Succeeded):
                await osimages.captured(conn, row.image, body.os)
        return changed, step

    def _with_figure(self, row: TaskRow) -> TaskRow:
        """`row` with the newest figure, so that writing the row does not turn its progress back."""
        live = self.live.get(row.number)
        figure = live.figure if live is not None else None
        if figure is None or not row.state.on_node:
            return row
        row = msgspec.structs.replace(row, heard=figure.heard)
        return (
            row if figure.progress is None else msgspec.structs.replace(row, progress=figure.progress, line=figure.line)
        )

    def after(self, row: TaskRow) -> None:
        """What follows from a row that is committed, outside the database. Can be done any number of times."""
        now = self.clock.monotonic()
        self.to_turn.add(row.node)
        self.turned.set()
        if row.state is State.ARMED:
            self.leases.boot(row.number, now=now)
        elif row.state.on_node:
            if row.number not in self.live:
                self.live[row.number] = Live(node=row.node, session=row.task.session)
                self.leases.hold(row.number, now=now)
            if row.task.cancel_requested:
                self.say(row, Cancel())
        elif row.state.ended:
            self.live.pop(row.number, None)
            self.leases.drop(row.number)
            self.forget_boot_file(row)
            self.woken.set()
            if row.action == "capture" and row.state is not State.SUCCEEDED and row.task.session:
                self.sweep_wanted.set()

    def forget_boot_file(self, row: TaskRow) -> None:
        """The node has nothing of this task to boot into any more. A failure is logged; a restart tries again."""
        try:
            self.boot.remove(row.node, task=row.id)
        except LithoError as exc:
            log.error("%s: %s", row.id, exc)

    def boot_line(self, facts: Facts, row: TaskRow, token: str) -> str:
        """The agent's words for a task, and the node's own of the tables. Raises UsageError for a bad cell."""
        own = words.parse(facts.addkcmdline, of=f"bootparams.addkcmdline of {row.node}")
        url = plan.for_host(self.installation.url, facts.xcatmaster)
        return cmdline.words(controller=url, node=row.node, task=row.id, token=token, extra=" ".join(own))

    def due(self, row: TaskRow) -> bool:
        """True when a queued task lacks nothing but a slot."""
        waiting = queue.Waiting(
            number=row.number, node=row.node, not_before=row.not_before, wave=row.wave, step=row.step
        )
        now = self.clock.now()
        return queue.due(waiting, now=now, opened=queue.is_open(self.windows, now), steps=self.steps)

    # ------------------------------------------------------------ speaking

    def say(self, row: TaskRow, body: Ack | Cancel | Finish) -> None:
        """Say something to the session that holds, or held, the task."""
        self.bus.send(row.node, Command(session=row.task.session, task=row.id, body=body))

    def finish(self, row: TaskRow) -> None:
        """Let the agent of a task that is over for good go on to its end."""
        if row.state.ended and row.state is not State.LOST:
            self.say(row, Finish())

    def stop(self, node: str, session: str, task: str, reason: str) -> None:
        """Tell a session that does not hold the task to leave it alone."""
        log.info("%s is told to stop working on task %s: %s", node, task or "(none)", reason)
        self.bus.send(node, Command(session=session, task=task, body=Stop(reason=reason)))

    async def renew_accounts(self) -> None:
        """Let the broker know who may speak to it now. Raises LithoError."""
        async with self._renewing:
            async with self.store.read() as conn:
                claimed = await rows_of.claimed_latest(conn)
            await self.access.allow(
                accounts.wanted(self.installation.secret, claimed, now=self.clock.now(), linger_s=LINGER_S)
            )
