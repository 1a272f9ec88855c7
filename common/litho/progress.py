"""How far a job is: bytes, rate, time left. Never backwards, never over 100 %.

A `Meter` belongs to the process that moves the bytes. It is told absolute counts; it remembers the highest, caps it at the
total, and answers with a `Progress`, the frozen figure that goes into reports, onto the wire and onto the screen.

The total is an estimate until the job has planned (an engine may know its used bytes only after reading a bitmap), so it may
be raised or lowered; `done` is still monotone (a total below what was already told is raised to it), and the fraction is held
where it was rather than let it fall.
The rate is over a sliding window: long enough that a burst of page-cache writes does not show as a disk's speed, short
enough that a stall shows within seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec

WINDOW_S = 10.0
"""Seconds over which the rate is taken."""
LEAST_SPAN_S = 0.2
"""Seconds that must have been seen before a rate is told: the first write into the page cache says nothing."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of how far a job is. Bytes are of the used data on the disk, before compression."""

    phase: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """What goes on: "layout", "partition", "verify", "publish", "settle"."""
    part: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """Which partition of `parts`, from 1; 0 outside the partitions."""
    parts: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    done: Count = 0
    """Bytes moved so far."""
    total: Count = 0
    """Bytes to move in all; 0 while unknown."""
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """0.0 to 1.0; below 1.0 until the job has been finished."""
    rate: Amount = 0.0
    """Bytes a second over the last `WINDOW_S` seconds."""
    eta_s: Amount | None = None
    """Seconds left at that rate; None while it cannot be told."""
    elapsed_s: Amount = 0.0
    stored: Count = 0
    """Bytes written to (or read from) the library."""

    @property
    def percent(self) -> int:
        """Whole percent, rounded down, so that 100 means finished."""
        if self.fraction >= 1.0:
            return 100
        # 0.29 * 100 is 28.999...: the smallest nudge makes it 29, and no nudge may make it 100.
        return min(99, int(self.fraction * 100 + 1e-9))


class Meter:
    """Turns counts into `Progress`. Pure but for the clock, which is handed in as seconds that never run backwards."""

    # Work after the last byte (sync, verify, publish) still lies ahead while `finish` has not been called.
    _NEARLY = 0.99

    def __init__(self, *, total: int = 0, now: float) -> None:
        self._total = max(0, total)
        self._done = 0
        self._stored = 0
        self._fraction = 0.0
        self._told = 0
        self._phase = ""
        self._part = 0
        self._parts = 0
        self._start = now
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])
        self._finished = False

    def plan(self, *, total: int, parts: int) -> None:
        """Set how many bytes and partitions there are to move; a `total` of 0 means that it is not known (any more)."""
        self._total = max(total, self._told) if total > 0 else 0
        self._parts = max(0, parts)

    def enter(self, phase: str, *, part: int = 0) -> None:
        """A new phase begins; `part` counts partitions from 1."""
        self._phase = phase
        self._part = min(max(0, part), self._parts)

    def at(self, done: int, *, now: float, stored: int | None = None) -> None:
        """`done` bytes have moved in all, `stored` of the library's side. A smaller count than before is ignored."""
        self._done = max(self._done, done)
        if stored is not None and stored > self._stored:
            self._stored = stored
        self._note(now)

    def finish(self, *, now: float) -> None:
        """The job is done and verified: 100 % may be said."""
        self._finished = True
        self._note(now)

    def _note(self, now: float) -> None:
        last = self._seen[-1][0]
        now = max(now, last)
        if now - last < 0.05 and len(self._seen) > 1:
            self._seen[-1] = (last, self._done)
        else:
            self._seen.append((now, self._done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()

    def read(self, *, now: float) -> Progress:
        """The figure of this moment."""
        self._note(now)
        first_t, first_done = self._seen[0]
        last_t, last_done = self._seen[-1]
        span = last_t - first_t
        rate = (last_done - first_done) / span if span >= LEAST_SPAN_S else 0.0
        done = min(self._done, self._total) if self._total else self._done
        if self._finished:
            fraction = 1.0
            done = self._total or self._done
        elif self._total:
            fraction = min(self._NEARLY, done / self._total)
        else:
            fraction = 0.0
        self._fraction = max(self._fraction, fraction)
        done = self._told = max(self._told, done)
        eta: float | None = None
        if self._finished:
            eta = 0.0
        elif self._total and rate > 0:
            eta = (self._total - done) / rate
        return Progress(
            phase=self._phase,
            part=self._part,
            parts=self._parts,
            done=done,
            total=self._total,
            fraction=self._fraction,
            rate=rate,
            eta_s=eta,
            elapsed_s=max(0.0, last_t - self._start),
            stored=self._stored,
        )
