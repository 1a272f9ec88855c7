"""How a job tells of itself while it runs, and how it learns that it should stop.

`capture` and `restore` know nothing of processes, MQTT or screens: they are handed a `Teller`. In the field that is the
worker's, which writes lines that the agent's `mover` reads; a test hands in a `Recorder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from litho.errors import CancelledError
from litho.messages import Planned, Started
from litho.progress import StageWork


class Teller(Protocol):
    """Where a job's news go. May be called from any thread of the job."""

    def say(self, event: Planned | Started) -> None:
        """Something that moves the task."""

    def expect(self, *, total: int, parts: int) -> None:
        """So many bytes of used data and so many partitions are to be moved."""

    def checked(self, done: int, total: int) -> None:
        """`done` of `total` stored bytes have been read and compared with their hashes."""

    def enter(self, phase: str, *, part: int = 0) -> None:
        """A phase begins; `part` counts partitions from 1."""

    def moved(self, done: int, *, stored: int | None = None) -> None:
        """`done` bytes of used data have been moved since the job began, `stored` of the library's side."""

    def part(self, part: int, done: int, total: int) -> None:
        """Partition `part`, from 1, has moved `done` of its `total` bytes."""

    def working(self, work: Mapping[str, StageWork]) -> None:
        """What each stage of the streams has done since the job began, in the order of a stream."""

    def log(self) -> str:
        """The job's log so far, for people."""

    def note(self, text: str) -> None:
        """Something a person should know although the job goes on."""

    def touching(self) -> None:
        """From now on the target disk is written to: a failure leaves it changed."""

    def cancelled(self) -> bool:
        """True once somebody asked for the job to stop."""


def check_cancelled(teller: Teller) -> None:
    """Raise CancelledError if the job should stop. Called between steps; the pipeline asks by itself within them."""
    if teller.cancelled():
        raise CancelledError("the task was cancelled on request")


def reading(teller: Teller, total: int) -> Callable[[int], None]:
    """For `litho.library.verify`: counts what it reads of `total` bytes and raises CancelledError if the job should stop."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        check_cancelled(teller)
        done += count
        teller.checked(done, total)

    return tick


class Recorder:
    """A Teller that only remembers: the shipped fake."""

    def __init__(self) -> None:
        self.events: list[Planned | Started] = []
        self.phases: list[tuple[str, int]] = []
        self.notes: list[str] = []
        self.done = 0
        self.stored = 0
        self.total = 0
        self.checks = (0, 0)
        self.parts: dict[int, tuple[int, int]] = {}
        self.work: dict[str, StageWork] = {}
        self.touched = False
        self.stop = False

    def say(self, event: Planned | Started) -> None:
        """Remember an event."""
        self.events.append(event)

    def expect(self, *, total: int, parts: int) -> None:
        """Remember the total."""
        self.total = total

    def checked(self, done: int, total: int) -> None:
        """Remember how much was read."""
        self.checks = (done, total)

    def enter(self, phase: str, *, part: int = 0) -> None:
        """Remember a phase."""
        self.phases.append((phase, part))

    def moved(self, done: int, *, stored: int | None = None) -> None:
        """Remember the counts."""
        self.done = max(self.done, done)
        self.stored = max(self.stored, stored or 0)

    def part(self, part: int, done: int, total: int) -> None:
        """Remember how far a partition is."""
        self.parts[part] = (done, total)

    def working(self, work: Mapping[str, StageWork]) -> None:
        """Remember the work."""
        self.work = dict(work)

    def log(self) -> str:
        """What there is to tell: phases and notes."""
        return "".join(f"{phase} {part}\n" for phase, part in self.phases) + "".join(f"{n}\n" for n in self.notes)

    def note(self, text: str) -> None:
        """Remember a note."""
        self.notes.append(text)

    def touching(self) -> None:
        """Remember that the disk was written to."""
        self.touched = True

    def cancelled(self) -> bool:
        """What `stop` was set to."""
        return self.stop
