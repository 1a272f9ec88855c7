"""Where the news of a job go: a screen, lines of JSON, the controller over MQTT, or nowhere.

The job's side calls `hear` from the event loop and goes on; a reporter that cannot deliver keeps or drops, and never blocks
and never raises. So a broker that is away or a terminal that is slow costs the job nothing.
"""

from __future__ import annotations

from typing import Protocol

from litho_agent.mover import End, News

Message = News | End


class Reporter(Protocol):
    """One place where news go."""

    def hear(self, message: Message) -> None:
        """News of the job, or how it ended."""

    def say(self, text: str) -> None:
        """A sentence for a person."""


class Silent:
    """A reporter that drops everything."""

    def hear(self, message: Message) -> None:
        """Drop it."""

    def say(self, text: str) -> None:
        """Drop it."""
