"""The controller's ear: one MQTT session that lives as long as the job, whatever becomes of brokers.

`hear` takes news and returns at once: events go into the outbox, of progress only the newest is kept. `run` connects to one
of the brokers, and to another when that one goes away, for ever, with jittered pauses. Inside a connection run four tasks:

* `commands` reads what the controller says. It is also what notices a lost connection: aiomqtt's `publish` with QoS 1 would
  sleep through one until its time-out (measured: 10.6 s against 2 s).
* `events` says the outbox in order, and again every `RESEND_S` seconds until an `Ack` covers it: a broker's receipt is no
  proof that the controller has it, and a receipt that denies is swallowed by the client library.
* `progress` says the newest figure, at most one in `progress_s` seconds; lost ones are not missed.
* `heartbeat` says the retained status; the broker says it for us (the last will) when we are gone.

The session with the broker is persistent, so that a command given while we were away waits for us. When the job is over
a last, clean connection takes our status back to offline and leaves nothing behind in the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Self

import aiomqtt

from litho import messages, nodestat
from litho.cancelled import heed
from litho.errors import WireError
from litho.messages import (
    Ack,
    Broker,
    Cancel,
    Command,
    Failed,
    Finish,
    Health,
    Order,
    ProgressReport,
    Status,
    Stop,
    Stopped,
    Succeeded,
)
from litho.progress import Progress
from litho_agent import backoff
from litho_agent.mover import Note, Tick
from litho_agent.outbox import FIRST, Outbox
from litho_agent.report import Message

log = logging.getLogger("litho_agent.report.mqtt")

RESEND_S = 5.0
"""Seconds after which an event that nobody acknowledged is said again."""
ANSWER_S = 5.0
"""Seconds that a broker has for each answer; also for connecting."""
_INCOMING = 1000
"""Commands that may wait to be read; more are dropped, and the controller says them again."""

Obeyed = Cancel | Stop | Finish


class MqttReporter:
    """One session with the controller, about one task."""

    def __init__(
        self,
        order: Order,
        session: str,
        *,
        obey: Callable[[Obeyed], None],
        resend_s: float = RESEND_S,
        health: Callable[[], Health | None] = lambda: None,
    ) -> None:
        self._health = health
        self._order = order
        self._session = session
        self._obey = obey
        self._resend_s = resend_s
        self._outbox = Outbox(node=order.node, session=session, task=order.task)
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._acknowledged.set()
        self._closing = asyncio.Event()
        self._progress: Progress | None = None
        self._reports = 0
        self._broker: Broker | None = None
        self.connections = 0
        """How many connections came about so far."""

    # ------------------------------------------------------------ the job's side

    def hear(self, message: Message) -> None:
        """Keep it for the controller."""
        if isinstance(message, Note) or self._closing.is_set():
            return
        if isinstance(message, Tick):
            self._progress = message.progress
            self._moved.set()
            return
        if isinstance(message, Succeeded | Failed | Stopped):
            # A figure of how far it is would come after the word that it is over.
            self._progress = None
        self._outbox.put(message, at=time.time())
        self._acknowledged.clear()
        self._news.set()

    def say(self, text: str) -> None:
        """Sentences for the console are not the controller's business."""

    def fall_silent(self) -> None:
        """Forget what was not said yet; nothing more will be. For a session that does not hold the task."""
        self._outbox.drop()
        self._progress = None
        self._moved.clear()
        self._acknowledged.set()

    async def acknowledged(self) -> None:
        """Return when the controller has every event that was heard so far."""
        await self._acknowledged.wait()

    def close(self) -> None:
        """Let `run` say good-bye and return."""
        self._closing.set()

    # ------------------------------------------------------------ connections

    async def run(self) -> None:
        """Stay connected until `close`. Raises nothing: whatever a broker or the client library does, the job goes on."""
        brokers = self._order.brokers
        # Which one first is drawn, so that a thousand nodes spread over all of them.
        at = random.randrange(len(brokers))  # noqa: S311 - spreads load, guards nothing
        tries = 0
        while not self._closing.is_set():
            before = self.connections
            try:
                await self._connection(brokers[at % len(brokers)])
            except* _ClosingError:
                pass
            except* (aiomqtt.MqttError, OSError) as group:
                self._tell(brokers[at % len(brokers)], group)
            except* Exception:
                log.exception("the MQTT session met an error that nothing expected")
            if self.connections > before:
                tries = 0
            else:
                at += 1
            tries += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), backoff.pause(tries))
        await self._farewell()

    def _tell(self, broker: Broker, group: BaseExceptionGroup[BaseException]) -> None:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        log.warning("no connection to the broker %s:%d (%s)", broker.host, broker.port, first)

    async def _connection(self, broker: Broker) -> None:
        async with self._client(broker, clean=False) as client:
            granted = await client.subscribe(self._topic("command"), qos=1)
            if any(_denied(code) for code in granted):
                raise aiomqtt.MqttError("the broker does not let us listen for commands")
            await self._status(client, online=True)
            self.connections += 1
            self._broker = broker
            log.info("connected to the broker %s:%d", broker.host, broker.port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._commands(client), name="mqtt commands")
                tasks.create_task(self._events(client), name="mqtt events")
                tasks.create_task(self._progress_reports(client), name="mqtt progress")
                tasks.create_task(self._heartbeat(client), name="mqtt heartbeat")
                tasks.create_task(self._until_closed(), name="mqtt until closed")

    @contextlib.asynccontextmanager
    async def _client(self, broker: Broker, *, clean: bool) -> AsyncIterator[aiomqtt.Client]:
        order = self._order
        will = aiomqtt.Will(
            self._topic("status"), messages.encode(self._status_message(online=False)), qos=1, retain=True
        )
        client = _Client(
            broker.host,
            broker.port,
            username=order.username or None,
            password=order.password or None,
            # 22 characters: MQTT 3.1.1 promises no more than 23.
            identifier=f"litho-{self._session[:16]}",
            clean_session=clean,
            will=will,
            timeout=ANSWER_S,
            keepalive=int(min(60, max(5, order.heartbeat_s))),
            max_queued_incoming_messages=_INCOMING,
            # Only whom the order's certificates vouch for is spoken to: the password is for nobody else.
            tls_context=ssl.create_default_context(cadata=broker.ca) if broker.ca else None,
        )
        async with client:
            yield client

    async def _farewell(self) -> None:
        """Say offline, and end the session in the broker. Best effort: the last will or its expiry does it otherwise."""
        if self._broker is None:
            return
        try:
            async with self._client(self._broker, clean=True) as client:
                await self._status(client, online=False)
        except (aiomqtt.MqttError, OSError) as exc:
            log.info("no good-bye to the broker (%s)", exc)

    # ------------------------------------------------------------ inside a connection

    async def _until_closed(self) -> None:
        await self._closing.wait()
        raise _ClosingError

    async def _commands(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload
            if isinstance(payload, bytes | bytearray):
                self.take(payload)

    def take(self, payload: bytes | bytearray) -> None:
        """Obey a command, if it is one, and is meant for this session and task."""
        try:
            command = messages.decode(payload, Command)
        except WireError as exc:
            log.warning("a command was ignored: %s", exc)
            return
        if (command.session, command.task) != (self._session, self._order.task):
            log.info("a command for another session was ignored")
            return
        if isinstance(command.body, Ack):
            if not self._outbox.acknowledge(command.body.seq):
                log.warning("the controller acknowledges event %d, which was never sent", command.body.seq)
            if self._outbox.empty:
                self._acknowledged.set()
            return
        self._obey(command.body)

    async def _events(self, client: aiomqtt.Client) -> None:
        said = FIRST - 1
        while True:
            self._news.clear()
            for report in self._outbox.waiting(after=said):
                await client.publish(self._topic("event"), messages.encode(report), qos=1)
                heed()
                said = report.seq
            # Not wait_for: in Python 3.11 it loses a cancel that comes in the moment in which there is news.
            try:
                async with asyncio.timeout(self._resend_s):
                    await self._news.wait()
            except TimeoutError:
                said = FIRST - 1

    async def _progress_reports(self, client: aiomqtt.Client) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            progress = self._progress
            if progress is None:
                continue
            self._reports += 1
            report = ProgressReport(
                node=self._order.node,
                session=self._session,
                task=self._order.task,
                n=self._reports,
                progress=progress,
                line=nodestat.line(progress),
            )
            await client.publish(self._topic("progress"), messages.encode(report))
            heed()
            await asyncio.sleep(self._order.progress_s)

    async def _heartbeat(self, client: aiomqtt.Client) -> None:
        while True:
            await asyncio.sleep(self._order.heartbeat_s)
            await self._status(client, online=True)
            heed()

    async def _status(self, client: aiomqtt.Client, *, online: bool) -> None:
        payload = messages.encode(self._status_message(online=online))
        await client.publish(self._topic("status"), payload, qos=1, retain=True)

    def _status_message(self, *, online: bool) -> Status:
        return Status(
            node=self._order.node,
            session=self._session,
            online=online,
            task=self._order.task,
            at=time.time(),
            health=self._health() if online else None,
        )

    def _topic(self, kind: messages.Kind) -> str:
        return messages.topic(self._order.site, self._order.node, kind)


class _Client(aiomqtt.Client):
    """aiomqtt's client, which lets go of its socket also when a broker takes the connection and then says nothing.

    Measured with aiomqtt 2.5.1: each such try leaves a socket, its reader and a task behind.
    """

    async def __aenter__(self) -> Self:
        """Connect. Raises MqttError."""
        try:
            return await super().__aenter__()
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                self._client.disconnect()
            raise


class _ClosingError(Exception):
    """Ends the tasks of a connection when the session is closed."""


def _denied(code: object) -> bool:
    """True for a SUBACK's code that says no: 128 and above, as a number or as paho's ReasonCode."""
    value = getattr(code, "value", code)
    return isinstance(value, int) and value >= 128
