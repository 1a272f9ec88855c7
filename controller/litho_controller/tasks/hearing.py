"""What nodes say, after the inbox has made sure that it is well formed: events, signs of life, progress.

An event is answered when it is in the store: `Ack`, also for one that was there already; `Stop` to a session that does not
hold the task; silence to a number that skips one, because the agent says the missing one again. `Ack` covers every number up to
the task's last, so one that got lost is made up for by the next.
"""

from __future__ import annotations

import logging

from litho.errors import WireError
from litho.messages import Ack, EventReport, ProgressReport, Status, Succeeded
from litho.progress import Progress
from litho.task import Outcome, State
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import Figure
from litho_controller.tasks import rules
from litho_controller.tasks.core import Live, Tasks

log = logging.getLogger("litho.tasks")


class Hearing:
    """The ear of the task service."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    def connected(self) -> None:
        """Nodes can be heard again: what they did not say meanwhile is not held against them."""
        self._tasks.leases.begin_anew(now=self._tasks.clock.monotonic())

    async def event(self, report: EventReport) -> None:
        """Take in an event and answer it. Raises WireError for one that cannot be true, LithoError when it cannot be stored."""
        tasks = self._tasks
        number = rows_of.parse_id(report.task)
        async with tasks.store.write() as conn:
            row = await rows_of.get(conn, number) if number is not None else None
            if row is None or row.node != report.node:
                step = None
            else:
                body = report.body
                if isinstance(body, Succeeded) and row.action == "capture" and body.image != row.image:
                    raise WireError(f"{row.id} captures {row.image!r}, and its agent speaks of {body.image!r}")
                before = row.state
                row, step = await tasks.move(conn, row, rules.event_of(report), report=report)
        if row is None or step is None or step.outcome is Outcome.FOREIGN:
            tasks.stop(report.node, report.session, report.task, "the session does not hold the task")
            return
        tasks.after(row)
        if row.state is not before:
            log.info("%s: %s -> %s%s", row.id, before, row.state, f" ({row.task.reason})" if row.task.reason else "")
        tasks.leases.heard(row.number, now=tasks.clock.monotonic())
        if step.acknowledge:
            tasks.say(row, Ack(seq=row.task.last_seq))
            tasks.finish(row)

    async def status(self, status: Status) -> None:
        """Take in a status: a sign of life, or the last will. Raises LithoError when the store cannot be asked."""
        number, live = self._live(status.task)
        if live is not None and (live.node, live.session) == (status.node, status.session):
            self._present(status)
            if status.online:
                self._alive(number, live)
                if status.health is not None:
                    now = self._tasks.clock.now()
                    self._tasks.healths.hear(status.node, status.task, status.health, now=now)
        elif status.online and status.task:
            await self._straggler(status, number)
        elif not status.online:
            self._present(status)

    def progress(self, report: ProgressReport) -> bool:
        """Take in a progress report; false when it is an old one, or of a task that its session does not hold."""
        number, live = self._live(report.task)
        if live is None or (live.node, live.session) != (report.node, report.session) or report.n <= live.n:
            return False
        live.n = report.n
        self._alive(number, live, report.progress, report.line)
        return True

    def _live(self, task: str) -> tuple[int, Live | None]:
        number = rows_of.parse_id(task) or 0
        return number, self._tasks.live.get(number)

    def _present(self, status: Status) -> None:
        online = self._tasks.online
        if status.online:
            online[status.node] = status.session
            self._tasks.gone.discard(status.node)
        elif online.get(status.node, status.session) == status.session:
            online.pop(status.node, None)
            self._tasks.gone.add(status.node)

    def _alive(self, number: int, live: Live, progress: Progress | None = None, line: str = "") -> None:
        tasks = self._tasks
        tasks.leases.heard(number, now=tasks.clock.monotonic())
        if progress is None and live.figure is not None:
            progress, line = live.figure.progress, live.figure.line
        live.figure = Figure(number=number, heard=tasks.clock.now(), progress=progress, line=line)

    async def _straggler(self, status: Status, number: int) -> None:
        """Somebody is online for a task that no agent holds, or another one: tell them what they do not know yet."""
        tasks = self._tasks
        async with tasks.store.read() as conn:
            row = await rows_of.get(conn, number) if number else None
            other = await rows_of.active(conn, status.node)
        if row is None or row.node != status.node or row.task.session != status.session:
            tasks.stop(status.node, status.session, status.task, "the session does not hold the task")
            return
        self._present(status)
        if row.state is not State.LOST:
            tasks.finish(row)
        elif other is not None:
            # Without another task on the node a lost session may still say how it ended.
            tasks.stop(status.node, status.session, status.task, f"the task was lost, and the node has {other.id} now")
