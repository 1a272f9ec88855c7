"""One order being carried out: the work, the news of it, and the wait until the controller knows how it ended.

`node` claims the order and does what comes after it. Between the two an `Errand` runs four things beside each other: the
MQTT session, the worker in its mounted library with the site's hooks around it, the look at the node's health, and the
ear for SIGTERM. The worker's end is the errand's turning point: from then on it only tells of it, until `Ack` and
`Finish` have come, or their time is over (`Limits`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from litho.errors import CancelledError, LithoError, RefusedError, UnreachableError
from litho.job import Job
from litho.library import Owner
from litho.messages import (
    MAX_LOG,
    Cancel,
    Failed,
    Finish,
    Order,
    Planned,
    Started,
    Stop,
    Stopped,
    Succeeded,
    clip,
)
from litho_agent import claim, finish, hooks, mount
from litho_agent.health import Watcher
from litho_agent.hooks import Hooks
from litho_agent.joblog import JobLog
from litho_agent.mover import End, News, WorkOrder
from litho_agent.remote.chosen import Chosen, chosen
from litho_agent.report import Reporter
from litho_agent.report.mqtt import RESEND_S, MqttReporter, Obeyed

log = logging.getLogger("litho_agent.node")

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long the agent waits for others, in seconds."""

    claim_s: float = claim.GIVE_UP_S
    acknowledge_s: float = 3600.0
    """For the controller to acknowledge how the job ended. Longer than any restart of it."""
    finish_s: float = 60.0
    """For `Finish`, once the end is acknowledged."""
    term_s: float = 10.0
    """After SIGTERM, for the end to be acknowledged."""
    resend_s: float = RESEND_S


class Move(Protocol):
    """What moves the bytes; in the field `mover.run`."""

    async def __call__(self, order: WorkOrder, hear: Callable[[News], None], cancel: asyncio.Event) -> End:
        """Do `order`, tell `hear` of it, and answer how it ended, within 2 s after `cancel` is set."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to do when the errand is over."""

    exit_code: int
    may_switch: bool
    """True when the node may go on to its end state."""
    note: str = ""


class Errand:
    """One order being carried out."""

    def __init__(
        self,
        order: Order,
        job: Job,
        library: str,
        session: str,
        *,
        ears: tuple[Reporter, ...],
        job_log: JobLog,
        move: Move,
        limits: Limits,
        hooks: Hooks,
        controller: str = "",
    ) -> None:
        """`ears` hear the news; the first of them also hears the sentences for the console. `controller` is its address."""
        self._controller = controller
        self._ears = ears
        self._log = job_log
        self._hooks = hooks
        self._health = Watcher()
        self._disk = ""
        self._order = order
        self._job = job
        self._library = library
        self._session = session
        self._show = ears[0]
        self._move = move
        self._limits = limits
        self._cancel = asyncio.Event()
        self._cancel_reason = ""
        self._stopped = asyncio.Event()
        self._stop_reason = ""
        self._finish = asyncio.Event()
        self._wire = MqttReporter(order, session, obey=self.obey, resend_s=limits.resend_s, health=self._health.read)

    async def run(self, terminate: asyncio.Event) -> Outcome:
        """Work and tell of it, until nothing is left to do or to say."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._wire.run(), name="mqtt session")
            term = tasks.create_task(self._terminated(terminate), name="terminator")
            health = tasks.create_task(self._health.watch(), name="health")
            end = self._warned(await tasks.create_task(self._work(), name="worker"))
            self._hear(end)
            outcome = await self._told(end, terminate)
            health.cancel()
            term.cancel()
            self._wire.close()
        return outcome

    def obey(self, command: Obeyed) -> None:
        """Do what the controller says; each command may come twice."""
        match command:
            case Cancel():
                self._ask_to_stop(command.reason)
            case Stop():
                self._stop_reason = command.reason
                self._stopped.set()
                self._wire.fall_silent()
                self._ask_to_stop(command.reason)
            case Finish():
                self._finish.set()

    def _ask_to_stop(self, reason: str) -> None:
        if not self._cancel.is_set():
            self._cancel_reason = reason
            self._cancel.set()
            self._show.say(f"stopping: {reason}")

    async def _terminated(self, terminate: asyncio.Event) -> None:
        await terminate.wait()
        self._ask_to_stop("the agent was asked to end (SIGTERM)")

    def _hear(self, message: News | End) -> None:
        if isinstance(message, Planned):
            self._disk = message.disk.path
            self._health.disk(self._disk)
        if isinstance(message, Planned | Started | Succeeded | Failed | Stopped):
            self._log.hear(message)
        for ear in self._ears:
            ear.hear(message)
        if isinstance(message, Failed) or (isinstance(message, Succeeded) and self._job.action != "capture"):
            # For the controller alone: the console has shown what matters of it. A capture's lies beside its image.
            message = msgspec.structs.replace(message, log=self._log.tail(MAX_LOG))
        if not self._stopped.is_set():
            self._wire.hear(message)

    def _say(self, text: str) -> None:
        self._log.add(text)
        self._show.say(text)

    def _warned(self, end: End) -> End:
        """`end`, with a word on a disk that says of itself that it is failing: whoever reads the task later should know."""
        warning = self._health.warning()
        if not warning:
            return end
        self._say(warning)
        if isinstance(end, Succeeded):
            return msgspec.structs.replace(end, notes=(*end.notes, clip(warning))[:256])
        return end

    async def _work(self) -> End:
        """Mount the library and do the job in it; every way that it can end is an answer."""
        owner = Owner(
            session=self._session,
            node=self._order.node,
            task=self._order.task,
            host=platform.node()[:256],
            pid=os.getpid(),
        )
        try:
            reads = chosen(
                self._job,
                self._order.sources or (),
                library=self._library,
                controller=self._controller,
                token=self._order.library_token or "",
            )
            async with contextlib.AsyncExitStack() as held:
                path = await self._mounted(reads, held)
                if self._cancel.is_set():
                    return Stopped(reason=clip(self._cancel_reason))
                order = WorkOrder(
                    job=self._job,
                    library=str(path or ""),
                    owner=owner,
                    node=self._order.node,
                    sources=reads.webs,
                )
                end = await self._hooked(order, path)
        except LithoError as exc:
            return Failed(code=exc.code, reason=clip(str(exc)), exit_code=exc.exit_code)
        except Exception as exc:
            # A defect of ours: the controller and the person get a sentence, the log gets the trace.
            log.exception("the agent met an error that nothing expected")
            return Failed(code="internal", reason=clip(f"an unexpected error stopped the agent ({exc!r})"))
        if isinstance(end, Stopped) and self._cancel_reason:
            return msgspec.structs.replace(end, reason=clip(self._cancel_reason))
        return end

    async def _mounted(self, reads: Chosen, held: contextlib.AsyncExitStack) -> Path | None:
        """The library's directory, if the job reads from it; None also after a cancel. A library that cannot be mounted is one
        source that is left, when there are others. Raises LithoError."""
        if not reads.library:
            return None
        mounted = mount.library(reads.library, read_only=self._job.action != "capture")
        try:
            return await unless(self._cancel, held.enter_async_context(mounted))
        except LithoError as exc:
            if not reads.webs:
                raise
            self._say(f"the source nfs is left: {exc.message}")
            return None

    async def _hooked(self, order: WorkOrder, library: Path | None) -> End:
        """The hooks, the worker between them. What hooks after the job do changes nothing of how it ended.

        A job that was cancelled has none: whoever cancels waits for two seconds, and not for a hook.
        """
        told = partial(hooks.environment, job=order.job, node=order.node, task=self._order.task, library=order.library)
        end: End
        try:
            await self._hooks.before(told("before"), library, cancel=self._cancel, say=self._say)
            end = await self._move(order, self._hear, self._cancel)
        except CancelledError as exc:
            end = Stopped(reason=clip(str(exc)))
        except LithoError as exc:
            end = Failed(code=exc.code, reason=clip(str(exc)), exit_code=exc.exit_code)
        if isinstance(end, Stopped):
            return end
        env = told("after", disk=self._disk, end=end)
        notes = await self._hooks.after(env, library, cancel=self._cancel, say=self._say)
        if isinstance(end, Succeeded):
            return msgspec.structs.replace(end, notes=(*end.notes, *map(clip, notes))[:256])
        for note in notes:
            self._say(note)
        return end

    async def _told(self, end: End, terminate: asyncio.Event) -> Outcome:
        """Wait until the controller knows the end and has prepared what comes after it."""
        limits = self._limits
        told = asyncio.create_task(self._wire.acknowledged(), name="acknowledged")
        stopped = asyncio.create_task(self._stopped.wait(), name="stopped")
        ready = asyncio.create_task(self._finish.wait(), name="finish")
        term = asyncio.create_task(terminate.wait(), name="term")
        waits = (told, stopped, ready, term)
        try:
            await asyncio.wait({told, stopped, term}, timeout=limits.acknowledge_s, return_when=_FIRST)
            if terminate.is_set():
                await asyncio.wait({told, stopped}, timeout=limits.term_s, return_when=_FIRST)
            if self._stopped.is_set():
                refused = RefusedError(f"the controller stopped this session: {self._stop_reason}")
                return Outcome(exit_code=refused.exit_code, may_switch=False, note=str(refused))
            if not told.done():
                lost = UnreachableError(
                    "the job has ended, but the controller never acknowledged it", hint="the node stays as it is"
                )
                return Outcome(exit_code=lost.exit_code, may_switch=False, note=str(lost))
            await asyncio.wait({ready, stopped, term}, timeout=limits.finish_s, return_when=_FIRST)
            note = "" if ready.done() or term.done() else f"no word to go on came within {limits.finish_s:.0f} s"
            return Outcome(exit_code=finish.exit_code(end), may_switch=not terminate.is_set(), note=note)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


_FIRST = asyncio.FIRST_COMPLETED


async def unless(event: asyncio.Event, doing: Awaitable[T] | Coroutine[Any, Any, T]) -> T | None:
    """What `doing` answers; None, and `doing` is cancelled, when `event` is set first. Raises what it raises."""
    work = asyncio.ensure_future(doing)
    called = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({work, called}, return_when=_FIRST)
        if work.done():
            return work.result()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await work
        return None
    finally:
        called.cancel()
        work.cancel()
