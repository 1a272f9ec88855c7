"""Events on their way to the controller: numbered, and kept until they are known to have arrived. Pure.

The claim was number 1 of the session, so the first event is number 2. The broker's own receipt (PUBACK) says only that the
broker took a message, and with some brokers not even that; an event is done when the controller's `Ack` covers its number. Until
then it is said again, in order, after every reconnect and every few seconds. The controller drops what it has seen.
"""

from __future__ import annotations

import msgspec

from litho import messages
from litho.errors import WireError
from litho.messages import EventBody, EventReport, Planned, Succeeded

FIRST = 2
_WORDS = 40
"""How many steps or notes are kept of a message that is too large for the wire."""


class Outbox:
    """The events of one session."""

    def __init__(self, *, node: str, session: str, task: str) -> None:
        self._node = node
        self._session = session
        self._task = task
        self._following = FIRST
        self._kept: list[EventReport] = []

    def put(self, body: EventBody, *, at: float) -> EventReport:
        """Number an event and keep it; `at` is seconds since 1970 by the node's clock.

        An event that no receiver would take would be repeated for ever: a long list of steps or notes is shortened first.
        """
        report = EventReport(
            node=self._node, session=self._session, task=self._task, seq=self._following, at=at, body=body
        )
        try:
            messages.encode(report)
        except WireError:
            report = msgspec.structs.replace(report, body=shortened(body))
        self._following += 1
        self._kept.append(report)
        return report

    def acknowledge(self, seq: int) -> bool:
        """Forget every event up to and including `seq`. False, and nothing forgotten, for a number that was never sent."""
        if seq >= self._following:
            return False
        self._kept = [report for report in self._kept if report.seq > seq]
        return True

    def waiting(self, *, after: int = 0) -> tuple[EventReport, ...]:
        """The events that nobody acknowledged, oldest first; only those numbered above `after`."""
        return tuple(report for report in self._kept if report.seq > after)

    @property
    def empty(self) -> bool:
        """True when everything said so far is acknowledged."""
        return not self._kept

    def drop(self) -> None:
        """Forget everything: the session does not hold the task any more."""
        self._kept = []


def shortened(body: EventBody) -> EventBody:
    """`body` with its free words cut so that it surely fits onto the wire."""
    if isinstance(body, Planned):
        return msgspec.structs.replace(body, steps=_few(body.steps))
    if isinstance(body, Succeeded):
        return msgspec.structs.replace(body, notes=_few(body.notes))
    return msgspec.structs.replace(body, reason=messages.clip(body.reason)) if hasattr(body, "reason") else body


def _few(words: tuple[str, ...]) -> tuple[str, ...]:
    kept = tuple(messages.clip(word, 400) for word in words[:_WORDS])
    return kept if len(words) <= _WORDS else (*kept, f"... and {len(words) - _WORDS} more")
