"""Port 3001 of the node: one line that says what it does, for xCAT's `nodestat`, for Apache VCL, for a person with netcat.

    client                                   agent
    connects, sends "stat \\n"       ->
                                     <-      "partimage-ng: partition 1 of 3, 42% complete\\n", and closes

That is the whole dialogue as xCAT 2.19 and VCL lead it: both read to the end of the connection without any time-out, so the
answer comes at once and the close with it. Exactly one newline: a second one, or a carriage return, breaks nodestat's
parser. Other words (xcatd sends `processing` after a discovery) are taken and not answered; nmap's open-and-reset before
each real query is nothing to talk about.

Anybody who can reach the node can connect, so nothing here can be made to wait or to grow: a connection has `DEADLINE_S` seconds
in all and `LONGEST` bytes to say its word, and of more than `MOST` connections at once the oldest is dropped for the newest. A
real query is over in a millisecond, so it gets its answer in the middle of a flood, and a thousand that connect before the
first of them says its word are all answered. For that the process's soft limit of descriptors, usually 1024, is raised (not
the hard one); `_OTHERS` of them are left to the job, which notices nothing. There is no task, no stream and no buffer for a
connection, only a few hundred bytes of state.

A port that is taken or may not be bound is a note at the console, not the end of the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator
from typing import cast

from litho import nodestat
from litho.messages import Failed, Stopped, Succeeded
from litho.progress import Progress
from litho_agent.mover import Tick
from litho_agent.report import Message, Reporter

log = logging.getLogger("litho_agent.report.port")

PORT = 3001
DEADLINE_S = 5.0
"""Seconds that a connection may take from its first packet to its last."""
LONGEST = 256
"""Bytes that a peer may send before its word ends."""
MOST = 1500
"""Connections at the same time, where the process may have that many descriptors."""
_OTHERS = 1000
"""Descriptors that are left to the job."""
_BACKLOG = 2048
"""Connections that the kernel keeps for us until we take them."""


class StatusPort:
    """The line, and the server that tells it."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, most: int = MOST) -> None:
        self.line = nodestat.line(Progress())
        self.deadline_s = deadline_s
        self.most = most
        self._peers: dict[_Peer, None] = {}
        self._server: asyncio.Server | None = None

    def hear(self, message: Message) -> None:
        """Keep what the news mean for the line. The last line stays until the agent ends."""
        match message:
            case Tick():
                self.line = nodestat.line(message.progress)
            case Succeeded():
                self.line = nodestat.COMPLETE
            case Failed():
                self.line = nodestat.failed(message.reason)
            case Stopped():
                self.line = nodestat.failed(message.reason)
            case _:
                pass

    def say(self, text: str) -> None:
        """Sentences for the console are not for this line."""

    @property
    def open_connections(self) -> int:
        """How many peers are connected now."""
        return len(self._peers)

    @property
    def ports(self) -> list[int]:
        """Where it listens; empty while it does not."""
        return [sock.getsockname()[1] for sock in self._server.sockets] if self._server else []

    async def open(self, port: int = PORT, host: str | None = None) -> str:
        """Listen on `port` of every address (or of `host`). Answers why it cannot be, or an empty string. Never raises."""
        loop = asyncio.get_running_loop()
        self.most = min(self.most, _room(self.most))
        try:
            self._server = await loop.create_server(lambda: _Peer(self), host, port, backlog=_BACKLOG)
        except (OSError, OverflowError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            return f"nothing answers on port {port} of this node ({reason}); the job goes on without it"
        return ""

    async def close(self) -> None:
        """Stop listening and drop who is still there."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for peer in list(self._peers):
            peer.drop()
        if server is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 1.0)

    def arrived(self, peer: _Peer) -> None:
        """Remember a connection, and let the oldest go when there are too many."""
        self._peers[peer] = None
        if len(self._peers) > self.most:
            next(iter(self._peers)).drop()

    def left(self, peer: _Peer) -> None:
        """Forget a connection."""
        self._peers.pop(peer, None)


def _room(wanted: int) -> int:
    """How many of `wanted` descriptors there is room for, after the soft limit was raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted + _OTHERS
    if soft < enough:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(enough, hard), hard))
            soft = min(enough, hard)
    return max(soft - _OTHERS, soft // 4)


class _Peer(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_answered", "_port", "_said", "_timer", "_transport")

    def __init__(self, port: StatusPort) -> None:
        self._port = port
        self._said = b""
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer came."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._port.deadline_s, self.drop)
        self._port.arrived(self)

    def data_received(self, data: bytes) -> None:
        """Some bytes of its word."""
        if self._answered:
            return
        self._said += data[: LONGEST - len(self._said)]
        if b"\n" in self._said or len(self._said) >= LONGEST:
            self._answer()

    def eof_received(self) -> bool:
        """It says no more; a word without a newline counts too."""
        if not self._answered:
            self._answer()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, or was let go."""
        if self._timer is not None:
            self._timer.cancel()
        self._port.left(self)

    def drop(self) -> None:
        """Let it go at once, whatever it still wanted."""
        self._port.left(self)
        if self._transport is not None:
            self._transport.abort()

    def _answer(self) -> None:
        """Tell the line if that was asked for, and close; the timer stays until the last byte is taken."""
        self._answered = True
        assert self._transport is not None  # noqa: S101 - it came with the connection
        if self._said.partition(b"\n")[0].split()[:1] == [b"stat"]:
            # At most 400 bytes: they go into the socket at once, whether or not the peer ever reads.
            self._transport.write(nodestat.clean(self._port.line).encode("ascii") + b"\n")
        self._transport.close()


@contextlib.asynccontextmanager
async def answering(port: StatusPort, number: int, say: Reporter) -> AsyncIterator[None]:
    """While the block runs, `port` answers on `number`; 0 is off. Why it does not is said."""
    problem = await port.open(number) if number else ""
    if problem:
        say.say(problem)
    try:
        yield
    finally:
        await port.close()
