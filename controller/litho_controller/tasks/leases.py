"""Who has been silent for how long. Pure: the time is handed in, as seconds that never run backwards.

Two kinds of waiting: an ARMED task waits for its node to boot and claim, a task on a node waits for the next sign of life.
The deadlines live in memory only, on purpose. After a restart of the controller every wait begins anew, because what was
not heard meanwhile says nothing about the node; the same holds for signs of life after the broker has been away.
"""

from __future__ import annotations

import msgspec


class Waiting(msgspec.Struct):
    """One task that something is awaited of."""

    number: int
    booting: bool
    """True: for the claim; false: for a sign of life."""
    since: float


class Leases:
    """All waits."""

    def __init__(self) -> None:
        self._waits: dict[int, Waiting] = {}

    def boot(self, number: int, *, now: float) -> None:
        """The task is armed: its node is awaited."""
        self._waits[number] = Waiting(number, True, now)

    def hold(self, number: int, *, now: float) -> None:
        """An agent holds the task: signs of life are awaited."""
        self._waits[number] = Waiting(number, False, now)

    def heard(self, number: int, *, now: float) -> None:
        """A sign of life; counts only for a task that an agent holds."""
        wait = self._waits.get(number)
        if wait is not None and not wait.booting:
            wait.since = now

    def drop(self, number: int) -> None:
        """Nothing is awaited any more."""
        self._waits.pop(number, None)

    def begin_anew(self, *, now: float) -> None:
        """Nobody could be heard until now: every wait for a sign of life starts again."""
        for wait in self._waits.values():
            if not wait.booting:
                wait.since = now

    def booting(self) -> set[int]:
        """Tasks whose nodes are awaited."""
        return {wait.number for wait in self._waits.values() if wait.booting}

    def silent_for(self, number: int, *, now: float) -> float:
        """Seconds since the last sign of life of a task that an agent holds; 0 for any other."""
        wait = self._waits.get(number)
        return 0.0 if wait is None or wait.booting else max(0.0, now - wait.since)

    def over(self, *, now: float, boot_s: float, lease_s: float, listening: bool) -> list[Waiting]:
        """Waits that have lasted too long. Signs of life are only missed while somebody listens."""
        return [
            wait
            for wait in self._waits.values()
            if (now - wait.since >= boot_s if wait.booting else listening and now - wait.since >= lease_s)
        ]
