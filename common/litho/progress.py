"""How far a job is: bytes, rate, time left. Never backwards, never over 100 %.

A `Meter` belongs to the process that moves the bytes. It is told absolute counts; it remembers the highest, caps it at the
total, and answers with a `Progress`, the frozen figure that goes into reports, onto the wire and onto the screen.

The total is an estimate until the job has planned (an engine may know its used bytes only after reading a bitmap), so it may
be raised or lowered; `done` is still monotone (a total below what was already told is raised to it), and the fraction is held
where it was rather than let it fall.
The rate is over a sliding window: long enough that a burst of page-cache writes does not show as a disk's speed, short
enough that a stall shows within seconds.

One rate does not say what to buy: network, disk or processor. So each stage of a transfer counts its bytes and the seconds in
which it worked (not those in which it waited for its neighbours). Over the same window that gives what the stage can do alone,
and the busiest one is the limit: "limited by library write 112 MB/s".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated

import msgspec

from litho import amounts

WINDOW_S = 10.0
"""Seconds over which the rate is taken."""
LEAST_SPAN_S = 0.2
"""Seconds that must have been seen before a rate is told: the first write into the page cache says nothing."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


BUSY = 0.3
"""A stage that works less than this share of the time limits nothing: something that has no stage does."""
_SAMPLE_S = 0.5


class StageWork(msgspec.Struct, frozen=True):
    """What one stage has done since the job began."""

    bytes: int
    busy_s: float
    """Seconds that it worked, without the time it waited for the stages beside it."""


class StageRate(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage does at the moment."""

    name: Annotated[str, msgspec.Meta(max_length=32)]
    """disk read, engine, hash, compress, library write; on restore library read, unpack, hash, engine, disk write."""
    rate: Amount
    """Bytes a second that it moves while it works, in its own bytes: compressed ones in the library."""
    busy: Amount
    """Seconds of work a second; more than 1 when several partitions move at once."""


class PartProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far one of the partitions is that move now."""

    part: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    """From 1."""
    done: Count
    """Bytes of its used data."""
    total: Count


def limit(stages: tuple[StageRate, ...]) -> str:
    """Which stage the others wait for: `limited by library write 112 MB/s`; empty when none is busy. Pure."""
    busiest = max(stages, key=lambda stage: stage.busy, default=None)
    if busiest is None or busiest.busy < BUSY or busiest.rate <= 0:
        return ""
    return f"limited by {busiest.name} {amounts.rate(busiest.rate)}"


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
    stages: Annotated[tuple[StageRate, ...], msgspec.Meta(max_length=16)] = ()
    """What each stage does, in the order of the stream; empty while no stream moves."""

    moving: Annotated[tuple[PartProgress, ...], msgspec.Meta(max_length=8)] = ()
    """The partitions that move now, each with its own count."""

    @property
    def limit(self) -> str:
        """`limited by library write 112 MB/s`; empty while nothing does."""
        return limit(self.stages)

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
    # Reading the stored files, before a restore or after a capture, may take long: it has its part of the way, so that the
    # figure moves while it lasts. The share is a guess: how long it takes beside the copy is not known before.
    _CHECK_SHARE = 0.15

    def __init__(self, *, total: int = 0, now: float) -> None:
        self._total = max(0, total)
        self._done = 0
        self._stored = 0
        self._fraction = 0.0
        self._told = 0
        self._checks = False
        self._checked = 0.0
        self._phase = ""
        self._part = 0
        self._parts = 0
        self._start = now
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])
        self._worked: deque[tuple[float, dict[str, StageWork]]] = deque()
        self._moving: dict[int, PartProgress] = {}
        self._finished = False

    def plan(self, *, total: int, parts: int, checks: bool = False) -> None:
        """Set how many bytes and partitions there are to move; a `total` of 0 means that it is not known (any more).

        `checks` says that the stored files are read as well; `checked` then tells how much of that is done.
        """
        self._checks = checks
        self._total = max(total, self._told) if total > 0 else 0
        self._parts = max(0, parts)

    def enter(self, phase: str, *, part: int = 0) -> None:
        """A new phase begins; `part` counts partitions from 1."""
        self._phase = phase
        self._part = min(max(0, part), self._parts)
        if not part:
            # Between streams no stage works, and none is to blame.
            self._worked.clear()
            self._moving.clear()

    def at(self, done: int, *, now: float, stored: int | None = None) -> None:
        """`done` bytes have moved in all, `stored` of the library's side. A smaller count than before is ignored."""
        self._done = max(self._done, done)
        if stored is not None and stored > self._stored:
            self._stored = stored
        self._note(now)

    def checked(self, done: int, total: int) -> None:
        """`done` of `total` stored bytes have been read and compared. Smaller than before is ignored."""
        if total > 0:
            self._checked = max(self._checked, min(1.0, done / total))

    def part(self, part: int, done: int, total: int) -> None:
        """Partition `part`, from 1, has moved `done` of its `total` bytes; it moves no more when that is all of them."""
        if done >= total:
            self._moving.pop(part, None)
        elif part <= self._parts:
            before = self._moving.get(part)
            self._moving[part] = PartProgress(part=part, done=max(done, before.done if before else 0), total=total)

    def working(self, work: Mapping[str, StageWork], *, now: float) -> None:
        """What each stage has done since the job began, in the order of the stream."""
        if self._worked and now - self._worked[-1][0] < _SAMPLE_S:
            return
        self._worked.append((now, dict(work)))
        while len(self._worked) > 2 and self._worked[1][0] <= now - WINDOW_S:
            self._worked.popleft()

    def _stages(self) -> tuple[StageRate, ...]:
        if len(self._worked) < 2:
            return ()
        (since, before), (until, after) = self._worked[0], self._worked[-1]
        nothing = StageWork(0, 0.0)
        found = []
        for name, work in after.items():
            old = before.get(name, nothing)
            count, busy_s = max(0, work.bytes - old.bytes), max(0.0, work.busy_s - old.busy_s)
            rate = count / busy_s if busy_s > 0 else 0.0
            found.append(StageRate(name=name, rate=rate, busy=busy_s / (until - since)))
        return tuple(found)

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
            share = self._CHECK_SHARE if self._checks else 0.0
            fraction = min(self._NEARLY, (1 - share) * (done / self._total) + share * self._checked)
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
            stages=() if self._finished else self._stages(),
            moving=tuple(self._moving[part] for part in sorted(self._moving)[:8]),
        )
