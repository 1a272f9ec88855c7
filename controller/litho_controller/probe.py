"""Looking at nodes over the network: who answers, which services are there, and what an agent says on port 3001.

xCAT's nodestat does this with nmap. Here it is a few TCP connections a node, all at once for many nodes, under three limits: how
long one connection may take, how many nodes are looked at at the same time, and how long all of it may take. What is not
known when the time is up is simply not known.

What port 3001 says is a conversation of one line: `stat \\n` (with the blank) is asked, a text is answered and the connection
closed. A stranger may sit there, so the answer is cut, cleaned, and waited for no longer than anything else.

A refused connection is an answer, too: the machine is there, the service is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
from collections.abc import Mapping
from typing import Protocol

import msgspec

from litho import nodestat

AGENT_PORT = 3001
SERVICES = {22: "sshd", 443: "https", 15002: "pbs", 8002: "xend", 3389: "rdp", 135: "msrpc"}
"""xCAT's own list: port -> what nodestat calls it."""

CONNECT_S = 0.7
ANSWER_S = 1.5
DEADLINE_S = 4.0
AT_ONCE = 100
"""Nodes; each takes at most seven descriptors, of the 1024 that a process has."""
_MOST_BYTES = 4096
_AWAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one node."""

    alive: bool
    """Something answered, if only with a refusal."""
    agent: str = ""
    """What port 3001 said."""
    services: tuple[str, ...] = ()
    """Names of `SERVICES`, sorted."""


class Prober(Protocol):
    """Who looks."""

    async def look(self, addresses: Mapping[str, str]) -> dict[str, Seen]:
        """Look at nodes by their IP addresses; answers those about which something is known in time."""


class FakeProber:
    """Sees what it was told to see."""

    def __init__(self, seen: Mapping[str, Seen] | None = None) -> None:
        self.seen = dict(seen or {})
        self.asked: dict[str, str] = {}

    async def look(self, addresses: Mapping[str, str]) -> dict[str, Seen]:
        """Keep what was asked, and answer what is known."""
        self.asked = dict(addresses)
        return {node: self.seen[node] for node in addresses if node in self.seen}


class TcpProber:
    """Looks by TCP connections."""

    def __init__(
        self,
        *,
        agent_port: int = AGENT_PORT,
        services: Mapping[int, str] = SERVICES,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
        deadline_s: float = DEADLINE_S,
        at_once: int = AT_ONCE,
    ) -> None:
        self._agent_port = agent_port
        self._services = services
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._deadline_s = deadline_s
        self._at_once = at_once

    async def look(self, addresses: Mapping[str, str]) -> dict[str, Seen]:
        """Look at nodes by their IP addresses; a text that is no address is left out."""
        found: dict[str, Seen] = {}
        waiting = iter([(node, ip) for node, ip in addresses.items() if is_address(ip)])

        async def worker() -> None:
            # All workers share one iterator: each takes the next node when it is done with one.
            for node, ip in waiting:
                found[node] = await self._one(ip)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadline_s), asyncio.TaskGroup() as group:
                for _ in range(min(self._at_once, len(addresses))):
                    group.create_task(worker())
        return found

    async def _one(self, ip: str) -> Seen:
        agent = asyncio.create_task(self._ask(ip))
        try:
            states = await asyncio.gather(*(self._open(ip, port) for port in self._services))
            there, text = await agent
        finally:
            agent.cancel()
        names = [name for name, state in zip(self._services.values(), states, strict=True) if state]
        alive = there or any(state is not None for state in states)
        return Seen(alive=alive, agent=text, services=tuple(sorted(set(names))))

    async def _open(self, ip: str, port: int) -> bool | None:
        """True: open; False: refused, so the machine is there; None: silence."""
        try:
            async with asyncio.timeout(self._connect_s):
                _, writer = await asyncio.open_connection(ip, port)
        except OSError as exc:
            return None if _silent(exc) else False
        writer.transport.abort()
        return True

    async def _ask(self, ip: str) -> tuple[bool, str]:
        """Whether anything answers on the agent's port, and what it says."""
        try:
            async with asyncio.timeout(self._connect_s):
                reader, writer = await asyncio.open_connection(ip, self._agent_port, limit=_MOST_BYTES)
        except OSError as exc:
            return not _silent(exc), ""
        data = b""
        try:
            writer.write(b"stat \n")
            async with asyncio.timeout(self._answer_s):
                while len(data) < _MOST_BYTES and (piece := await reader.read(_MOST_BYTES)):
                    data += piece
        except OSError:
            # Whoever does not answer whole has still answered the connection; what came before counts.
            data = data.partition(b"\n")[0] if b"\n" in data else b""
        finally:
            writer.transport.abort()
        first = data[:_MOST_BYTES].partition(b"\n")[0]
        return True, nodestat.clean(first.decode("ascii", errors="replace").replace("\ufffd", " "))


def _silent(error: OSError) -> bool:
    """True when nothing at all answered."""
    return isinstance(error, TimeoutError) or error.errno in _AWAY


def is_address(text: str) -> bool:
    """True for an IPv4 or IPv6 address that a node can have."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified)
