"""The inbox: one MQTT session over which the controller hears all nodes, and answers them.

`run` connects, again and again with jittered pauses, for as long as the daemon lives. The session with the broker is persistent
(fixed client identity, not clean), so events that come while we are away wait there. Inside a connection run two tasks in one
group: a reader that takes in one message after the other, and a writer that sends what `send` queued. The reader is
also what notices a lost connection; aiomqtt's `publish` alone would sleep through it (measured: 10.6 s against 2 s).

Everything that arrives is hostile until it has come through here: the topic is one of ours, the payload is exactly what such a
topic carries, the node in it is the node of the topic (which is whom the broker let write there). What is not, is dropped,
counted by kind, and told in the log at a limited rate; nothing that a node can send ends the inbox.

Sending may lose: what is sent while nobody is connected is dropped. Whatever matters is said again when it is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import Protocol

import aiomqtt
import msgspec

from litho import messages, nodestat
from litho.cancelled import asked, heed
from litho.errors import LithoError, WireError
from litho.messages import Command, EventReport, Kind, ProgressReport, Status
from litho_controller import broker_other

log = logging.getLogger("litho.inbox")

ANSWER_S = 5.0
"""Seconds that the broker has for each answer."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
INCOMING = 20_000
"""Messages that may wait to be taken in; more are dropped by the client library. Events are said again."""
OUTGOING = 10_000
KEEPALIVE_S = 10
LOG_EVERY_S = 10.0
_HEARD: tuple[tuple[Kind, int], ...] = (("status", 1), ("event", 1), ("progress", 0))
_SENDERS = 16
"""Commands that may wait for the broker's receipt at the same time."""


class Ear(Protocol):
    """Who wants to know."""

    async def event(self, report: EventReport) -> None:
        """A well-formed event."""

    async def status(self, status: Status) -> None:
        """A well-formed status."""

    def progress(self, report: ProgressReport) -> bool:
        """A well-formed progress report; false when it was of no use."""

    def connected(self) -> None:
        """From now on nodes can be heard."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The broker, as the controller connects to it."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    client: str
    ca: str = ""
    """Certificates (PEM) that vouch for the broker, or empty for a way without TLS."""

    def __repr__(self) -> str:
        """Without the password, so that it can be logged."""
        return f"Endpoint({self.host!r}, {self.port})"


class Inbox:
    """Hears and answers. It is the task service's `Bus`."""

    def __init__(self, site: str, endpoint: Endpoint) -> None:
        self._site = site
        self._endpoint = endpoint
        self._outgoing: asyncio.Queue[tuple[str, Command]] = asyncio.Queue(OUTGOING)
        self._connected = False
        self._logged: dict[str, float] = {}
        self.dropped: Counter[str] = Counter()
        """How many messages were dropped, by why: topic, payload, node, stale, unstored, unsent."""
        self.taken = 0
        """How many messages were taken in."""

    @property
    def connected(self) -> bool:
        """True while what nodes say can be heard."""
        return self._connected

    def send(self, node: str, command: Command) -> None:
        """Queue a command; it is dropped when nobody is connected or too many wait."""
        try:
            if not self._connected:
                raise asyncio.QueueFull
            self._outgoing.put_nowait((node, command))
        except asyncio.QueueFull:
            self._drop("unsent", f"a command for {node}")

    async def run(self, ear: Ear) -> None:
        """Stay connected for ever. Raises nothing but the cancellation of the task."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._session(ear)
            except* (aiomqtt.MqttError, OSError) as group:
                if self._connected:
                    pause = FIRST_PAUSE_S
                self._say("connection", logging.WARNING, f"no connection to the broker ({_first(group)}); trying again")
            except* Exception:
                log.exception("the inbox met an error that nothing expected; it connects anew")
            finally:
                self._connected = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, guards nothing
            pause = min(LONGEST_PAUSE_S, pause * 2)

    async def _session(self, ear: Ear) -> None:
        place = self._endpoint
        client = aiomqtt.Client(
            place.host,
            place.port,
            username=place.username or None,
            password=place.password or None,
            identifier=place.client,
            clean_session=False,
            timeout=ANSWER_S,
            keepalive=KEEPALIVE_S,
            max_queued_incoming_messages=INCOMING,
            max_inflight_messages=1000,
            tls_context=broker_other.context(place.ca),
        )
        client.pending_calls_threshold = _SENDERS + 4
        before = asked()
        async with client:
            heed(before)
            for kind, qos in _HEARD:
                granted = await client.subscribe(messages.topic(self._site, "+", kind), qos=qos)
                if any(_number(code) >= 128 for code in granted):
                    raise aiomqtt.MqttError(f"the broker does not let us listen to {kind}")
            heed(before)
            self._connected = True
            ear.connected()
            log.info("connected to the broker at %s port %d", place.host, place.port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(client, ear), name="inbox reader")
                for number in range(_SENDERS):
                    tasks.create_task(self._write(client), name=f"inbox writer {number}")

    async def _read(self, client: aiomqtt.Client, ear: Ear) -> None:
        async for message in client.messages:
            payload = message.payload
            await self.take(message.topic.value, payload if isinstance(payload, bytes) else b"", ear)
            # Taking in from memory alone never waits, and the rest of the daemon wants to live as well.
            await asyncio.sleep(0)

    async def _write(self, client: aiomqtt.Client) -> None:
        while True:
            node, command = await self._outgoing.get()
            try:
                topic, payload = messages.topic(self._site, node, "command"), messages.encode(command)
            except (ValueError, WireError) as exc:
                self._drop("unsent", f"a command for {node!r}: {exc}")
                continue
            await client.publish(topic, payload, qos=1)
            heed()

    # ------------------------------------------------------------ one message

    async def take(self, topic: str, payload: bytes, ear: Ear) -> None:
        """Take in one message, whatever it is. Raises nothing."""
        self.taken += 1
        try:
            site, node, kind = messages.parse_topic(topic)
            if site != self._site:
                raise WireError(f"the site is {site!r}")
        except WireError as exc:
            self._drop("topic", exc.message)
            return
        if not payload:
            return  # a retained status that somebody has cleared
        try:
            await self._take(node, kind, payload, ear)
        except WireError as exc:
            self._drop("payload", f"{kind} of {node}: {exc.message}")
        except LithoError as exc:
            self._drop("unstored", f"{kind} of {node}: {exc}")
        except Exception:
            # A mistake of ours that a node can trigger must not make us deaf to the others.
            log.exception("taking in a %s of %s failed", kind, node)
            self._drop("unstored", f"{kind} of {node}")

    async def _take(self, node: str, kind: Kind, payload: bytes, ear: Ear) -> None:
        if kind == "status":
            status = messages.decode(payload, Status)
            if self._own(node, status.node):
                await ear.status(status)
        elif kind == "event":
            event = messages.decode(payload, EventReport)
            if self._own(node, event.node):
                await ear.event(event)
        elif kind == "progress":
            report = messages.decode(payload, ProgressReport)
            if self._own(node, report.node) and not ear.progress(report):
                self.dropped["stale"] += 1
        else:
            self._drop("topic", f"a {kind} that came from {node}")

    def _own(self, node: str, said: str) -> bool:
        if node != said:
            self._drop("node", f"{node} speaks in the name of {said}")
        return node == said

    # ------------------------------------------------------------ telling

    def _drop(self, why: str, what: str) -> None:
        self.dropped[why] += 1
        self._say(why, logging.WARNING, f"dropped ({why}, {self.dropped[why]} so far): {nodestat.clean(what)}")

    def _say(self, key: str, level: int, text: str) -> None:
        """Log, but not the same kind of thing more often than once in `LOG_EVERY_S` seconds."""
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(key, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[key] = now
            log.log(level, "%s", text)


def _number(code: object) -> int:
    """A SUBACK's code: a number, or paho's ReasonCode."""
    value = getattr(code, "value", code)
    return value if isinstance(value, int) else 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
