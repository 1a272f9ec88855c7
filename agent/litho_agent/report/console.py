"""News for the person at the console: a live line on a terminal, plain lines elsewhere, JSON lines for programs.

The live line is drawn over itself (`partition 1 of 3  [####-----]  42%  1.2 GB of 2.9 GB  110 MB/s  0:15 left`);
whatever else is said first wipes it and lets it reappear below. Where the output is no terminal (a serial console's log, a
pipe) a line appears every `PLAIN_S` seconds and at every change of phase.

What is printed may hold words of programs and names from the network: `plain` takes control characters out of it, so nothing
can move the cursor or colour the screen. A terminal that goes away does not stop the job: output that fails is dropped.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable
from typing import IO

import msgspec

from litho import amounts
from litho.messages import Failed, Planned, Started, Stopped, Succeeded
from litho.progress import Progress
from litho_agent.mover import Note, Tick
from litho_agent.report import Message

PLAIN_S = 5.0
"""Seconds between two lines of progress where there is no terminal."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")


def plain(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey."""
    return _UNPRINTABLE.sub(" ", text).strip()


def span(seconds: float) -> str:
    """Seconds for a person: `0:07`, `1:02:03`."""
    whole = int(max(0.0, min(seconds, 359_999)))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def where(progress: Progress) -> str:
    """What goes on: `partition 1 of 3`, `partitions 1 (40%) and 2 (7%) of 3`, `verify`."""
    if progress.parts and len(progress.moving) > 1:
        each = [f"{one.part} ({100 * one.done // max(1, one.total)}%)" for one in progress.moving]
        return f"partitions {', '.join(each[:-1])} and {each[-1]} of {progress.parts}"
    if progress.part and progress.parts:
        return f"partition {progress.part} of {progress.parts}"
    return plain(progress.phase) or "starting"


def figures(progress: Progress) -> str:
    """Bytes, rate, time left, and what limits the rate."""
    moved = amounts.size(progress.done) + (f" of {amounts.size(progress.total)}" if progress.total else "")
    rate = f"{amounts.rate(progress.rate)}"
    left = f"{span(progress.eta_s)} left" if progress.eta_s is not None else f"{span(progress.elapsed_s)} so far"
    limited = f"  {plain(progress.limit)}" if progress.limit else ""
    return f"{moved}  {rate}  {left}{limited}"


def bar_line(progress: Progress, width: int) -> str:
    """The live line, at most `width` characters; the bar takes what room there is, and goes when there is too little."""
    head, tail = where(progress), f"{progress.percent:3}%  {figures(progress)}"
    room = min(40, width - len(head) - len(tail) - 6)
    if room >= 8:
        full = int(progress.fraction * room)
        return f"{head}  [{'#' * full}{'-' * (room - full)}]  {tail}"
    return f"{head}  {tail}"[: max(0, width)]


def sentence(message: Message) -> list[str]:
    """What a person reads of a message; empty for progress."""
    match message:
        case Planned():
            disk = message.disk
            known = "  ".join(
                f"{name} {value}"
                for name, value in (("serial", disk.serial), ("wwn", disk.wwn), ("model", disk.model))
                if value
            )
            first = f"plan: disk {disk.path}  {amounts.size(disk.size)}{'  ' + known if known else ''}"
            return [
                first,
                *(f"  - {step}" for step in message.steps),
                f"  in all {amounts.size(message.total)} of used data",
            ]
        case Started():
            return ["started"]
        case Note():
            return [f"note: {message.text}"]
        case Succeeded():
            rate = f", {amounts.rate(message.used / message.seconds)}" if message.seconds > 0 else ""
            done = (
                f"done: {message.image}:{message.version}  {amounts.size(message.used)} used, "
                f"{amounts.size(message.stored)} in the library, "
                f"{span(message.seconds)}{rate}{_lost(message.lost)}"
            )
            return [done, *(f"note: {note}" for note in message.notes)]
        case Failed():
            touched = "; the disk was written to and is not usable as it is" if message.touched else ""
            return [f"failed: {message.reason}{touched}"]
        case Stopped():
            touched = "; the disk was written to and is not usable as it is" if message.touched else ""
            return [f"stopped: {message.reason}{touched}"]
        case Tick():
            return []


def _lost(count: int) -> str:
    return f"; {amounts.size(count)} of the source could not be read" if count else ""


class Console:
    """News for a person. `live` draws over one line; the stream is usually standard output."""

    def __init__(self, stream: IO[str], *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._live = live
        self._clock = clock
        self._line = ""
        self._said_at: float | None = None
        self._said_where = ""

    def hear(self, message: Message) -> None:
        """Show it."""
        if isinstance(message, Tick):
            self._tick(message.progress)
            return
        for line in sentence(message):
            self.say(line)

    def say(self, text: str) -> None:
        """Show a sentence."""
        line = plain(text) if not text.startswith("  ") else "  " + plain(text)
        self._write(f"{self._wipe()}{line}\n{self._line}")

    def close(self) -> None:
        """Leave the cursor on a fresh line."""
        if self._line:
            self._write("\n")
            self._line = ""

    def _tick(self, progress: Progress) -> None:
        if self._live:
            # One column stays free: a terminal wraps when the last one is filled.
            self._line = bar_line(progress, shutil.get_terminal_size().columns - 1)
            self._write(f"\r{self._line}\x1b[K")
            return
        now, here = self._clock(), where(progress)
        phase = f"{progress.phase} {progress.part}"
        if self._said_at is None or phase != self._said_where or now - self._said_at >= PLAIN_S:
            self._said_at, self._said_where = now, phase
            self._write(f"{here}: {progress.percent}%  {figures(progress)}\n")

    def _wipe(self) -> str:
        return "\r\x1b[K" if self._line else ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


class JsonLines:
    """News for a program: one JSON object a line, told apart by `type`; the wire's own fields."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def hear(self, message: Message) -> None:
        """Write it."""
        self._write(msgspec.json.encode(message))

    def say(self, text: str) -> None:
        """Write it as a note."""
        self._write(msgspec.json.encode(Note(text=text)))

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(data.decode() + "\n")
            self._stream.flush()
