"""The world as the task service sees it: a clock, the way to the nodes, and who may speak to the broker.

Three small protocols, each with the real thing elsewhere and a fake here that is shipped, so that a test swaps the world and
not the rule.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from litho.messages import Ack, Cancel, Command, Finish, Stop


class Clock(Protocol):
    """What time it is, twice."""

    def now(self) -> float:
        """Seconds since 1970: for people, and for the database. May jump."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for leases and time-outs."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._elapsed = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return self._now + self._elapsed

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._elapsed += seconds


class Bus(Protocol):
    """The way to the nodes' agents."""

    @property
    def connected(self) -> bool:
        """True while what nodes say can be heard."""

    def send(self, node: str, command: Command) -> None:
        """Say `command` to `node` as soon as may be. May get lost: whatever matters is said again."""


class RecordingBus:
    """A bus to nobody: keeps what was sent."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[tuple[str, Command]] = []

    def send(self, node: str, command: Command) -> None:
        """Keep it."""
        self.sent.append((node, command))

    def bodies(self, node: str) -> list[Ack | Cancel | Stop | Finish]:
        """What was sent to `node`, without the envelopes; forgotten here afterwards."""
        found = [command.body for name, command in self.sent if name == node]
        self.sent = [(name, command) for name, command in self.sent if name != node]
        return found


class Access(Protocol):
    """Who may speak to the broker, besides the controller itself."""

    async def allow(self, accounts: Mapping[str, str]) -> None:
        """From now on exactly these nodes may, each with its password. Returns when that holds. Raises LithoError."""


class OpenAccess:
    """Access to a broker that is not ours to rule: nothing is done. Also the tests' fake, as it keeps what it was told."""

    def __init__(self) -> None:
        self.accounts: dict[str, str] = {}

    async def allow(self, accounts: Mapping[str, str]) -> None:
        """Keep it."""
        self.accounts = dict(accounts)
