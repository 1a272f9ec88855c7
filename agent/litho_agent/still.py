"""Whether a worker still gets anywhere, told by what it does and not by what it says.

A worker's ticker speaks whatever its other threads wait for, so a file server, a disk or an engine that never answers again
leaves a worker that talks and does nothing. Three things show that it does something:

* its figures change: bytes, partition, phase, what it has checked;
* it, or a program that it runs, reads or writes at a disk (`/proc/PID/io`), or one of those programs begins or ends: a checker
  and ddrescue tell no figures;
* its programs compute, at least `CPU_S` in all. Less is no sign: partclone's clock ticks on while its disk hangs. What the
  worker itself computes does not count, because that may be its ticker.

Trap: when the kernel writes back what is dirty, at the end of a restore, none of them changes. So the time that is given must be
longer than a node's memory takes to reach a slow disk.
"""

from __future__ import annotations

import contextlib
import time

import msgspec
import psutil

from litho.progress import Progress

CPU_S = 1.0


class Deeds(msgspec.Struct, frozen=True):
    """What a worker and its programs have done, as the kernel counts it."""

    disk: frozenset[tuple[int, int]] = frozenset()
    """Of each process its number and the bytes that it read and wrote."""
    cpu_s: float = 0.0
    """What the programs computed, in seconds, without the worker itself."""


def moved(before: Deeds, now: Deeds) -> bool:
    """True when something was done between them. Pure."""
    return before.disk != now.disk or abs(now.cpu_s - before.cpu_s) >= CPU_S


def figures(told: Progress) -> tuple[object, ...]:
    """What of `told` changes only when the job moves. Pure. Rates and times change by themselves."""
    return (told.phase, told.part, told.parts, told.done, told.total, told.fraction, told.stored, told.moving)


def read(pid: int) -> Deeds:
    """What the worker `pid` and all that it started have done so far. A process that is gone counts as nothing."""
    disk: set[tuple[int, int]] = set()
    cpu_s = 0.0
    with contextlib.suppress(psutil.Error, OSError):
        worker = psutil.Process(pid)
        for one in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                counted = one.io_counters()
                disk.add((one.pid, counted.read_bytes + counted.write_bytes))
                if one.pid != pid:
                    times = one.cpu_times()
                    cpu_s += times.user + times.system
    return Deeds(frozenset(disk), cpu_s)


class Stillness:
    """For how long one worker has done nothing."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._since = time.monotonic()
        self._figures: tuple[object, ...] = ()
        self._deeds = Deeds()
        self.phase = ""
        """What it was at when it last told."""

    def told(self, progress: Progress) -> None:
        """It said how far it is."""
        self.phase = progress.phase
        if (now := figures(progress)) != self._figures:
            self._figures = now
            self.stirred()

    def stirred(self) -> None:
        """It did something."""
        self._since = time.monotonic()

    def look(self) -> float:
        """For how many seconds nothing was done, by figures and by the kernel's counts of now. Ask every few seconds."""
        now = read(self._pid)
        if moved(self._deeds, now):
            self._deeds = now
            self.stirred()
        return time.monotonic() - self._since
