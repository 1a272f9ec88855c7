"""Hands that pass work on, buffer by buffer, and one way to stop.

    units ─> readers (a few: they wait for a disk or a server) ─> workers (as many as cores) ─> writers (a few)

Each kind of hands is a thread or several, and hands over what it has done to the next kind. What lies between them lies in
buffers that come out of a pool, so memory is bounded, and a disk that does not answer for a moment stops nobody: the workers
go on with what was read ahead, and what they have done waits for the writers. (A flush of a virtual disk keeps every read and
write waiting for 1.7 ms a MB: workers that also read and wrote stood still for a sixth of a capture.)

The first failure stops all and is what the caller sees; the caller's thread tells progress and asks whether to stop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Generic, NamedTuple, Protocol, TypeVar

from litho.errors import CancelledError
from litho.library.chunks.usedmap import UNIT
from litho_agent.flow import UNBOUNDED, Channel, Ended, Flow, Pool, Stage, StageRate, Stopped
from litho_agent.hostfacts import available_bytes

A = TypeVar("A")
B = TypeVar("B")
T_co = TypeVar("T_co", covariant=True)

DISK_HANDS = 4
"""Reads or writes of a disk under way at once: as many as an NVMe needs, few enough for a disk that turns."""
LIBRARY_HANDS = 6
"""Reads of packs under way at once: a server answers each after a while."""
MOST_WORKERS = 16
MOST_BUFFERS = 32
"""Buffers at most: with what is packed, all that the agent holds stays under 400 MB."""
LEAST_BUFFERS = 4
MOST_PACKED = 20
"""Buffers at most for what packs hold of units."""
BUFFER_ROOM = 16 * 1024 * 1024
"""Free memory for each buffer: the bytes of a disk, those of packs, and what zstd needs at a high level."""
POLL_S = 0.1

Tick = Callable[[int, int], None]
"""Told the used bytes that are done, and the bytes of the library's side, so far."""
Cancelled = Callable[[], bool]
Watcher = Callable[[tuple[StageRate, ...]], None]
"""Told what each kind of work has taken so far, in the order of a chunk's way."""


class Hands(NamedTuple):
    """How many there are."""

    workers: int
    buffers: int
    """Of a unit each."""

    def buffers_of(self, size: int) -> int:
        """How many buffers of `size` bytes take the room of these."""
        return max(LEAST_BUFFERS, self.buffers * UNIT // max(UNIT, size))


def hands(cores: int, available: int) -> Hands:
    """What suits a machine of which `available` bytes of memory are free (0: unknown).

    A worker for each core (more of them only take each other's cache: measured on two cores, 2 took 13.9 CPU seconds where 3
    took 14.2 and 4 took 14.7); four buffers for each and sixteen that are read ahead, as far as the memory reaches. Pure.
    """
    workers = min(MOST_WORKERS, cores)
    buffers = min(MOST_BUFFERS, 4 * workers + 16)
    if available:
        buffers = max(LEAST_BUFFERS, min(buffers, available // BUFFER_ROOM))
    return Hands(min(workers, max(1, buffers // 2)), buffers)


def hands_here(workers: int = 0) -> Hands:
    """What suits this machine; `workers` says how many are to compute, 0 that it is not said."""
    found = hands(len(os.sched_getaffinity(0)), available_bytes())
    return found._replace(workers=workers) if workers else found


class Count:
    """A number that many threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def add(self, amount: int) -> None:
        """Add to it."""
        with self._lock:
            self.value += amount


class Works:
    """What each kind of work has taken, over all hands that do it.

    The seconds of all are divided by their number: so one kind's seconds a second say how much of its hands' time it takes, and
    its rate is theirs together.
    """

    def __init__(self, hands: Mapping[str, int]) -> None:
        """`hands` are the kinds of work in the order of a chunk's way, and how many do each."""
        self._hands = dict(hands)
        self._lock = threading.Lock()
        self._stages: list[Stage] = []

    def stage(self, name: str) -> Stage:
        """The count of one thread that does this kind of work."""
        made = Stage(name)
        with self._lock:
            self._stages.append(made)
        return made

    def seconds(self, name: str, busy_s: float) -> float:
        """What `busy_s` seconds of one thread are of the seconds of all that do this kind of work."""
        return busy_s / self._hands[name]

    def rates(self) -> tuple[StageRate, ...]:
        """The sums of this moment."""
        with self._lock:
            stages = list(self._stages)
        found = []
        for name in self._hands:
            mine = [stage for stage in stages if stage.name == name]
            busy_s = self.seconds(name, sum(stage.busy_s for stage in mine))
            found.append(StageRate(name, sum(stage.bytes for stage in mine), busy_s))
        return tuple(found)


class Source(Protocol[T_co]):
    """Where hands take their next piece from."""

    def get(self) -> T_co:
        """The next piece. Raises Stopped, Ended."""


class _Pieces(Generic[A]):
    """What there is to do, taken in order."""

    def __init__(self, flow: Flow, pieces: Iterable[A]) -> None:
        self._flow = flow
        self._pieces = iter(pieces)
        self._lock = threading.Lock()

    def get(self) -> A:
        """The next one. Raises Stopped, Ended."""
        with self._lock:
            if self._flow.stopping:
                raise Stopped
            for piece in self._pieces:
                return piece
        raise Ended


class Crew:
    """All hands of one job. Say who there is with `step`, then `follow`."""

    def __init__(self) -> None:
        self._flow = Flow()
        self._hands: list[tuple[str, Callable[[Stage], None]]] = []

    def pool(self, count: int, make: Callable[[], A]) -> Pool[A]:
        """`count` buffers that the hands share."""
        return self._flow.pool(count, make)

    def pieces(self, of: Iterable[A]) -> Source[A]:
        """What the first hands take."""
        return _Pieces(self._flow, of)

    @property
    def stopping(self) -> bool:
        """True when hands should leave in the middle of a long piece."""
        return self._flow.stopping

    def step(
        self,
        name: str,
        count: int,
        source: Source[A],
        worker: Callable[[], AbstractContextManager[Callable[[A], B | None]]],
    ) -> Source[B]:
        """`count` threads that do what `worker` says to each piece of `source`; answers where the results are taken from.

        `worker` is entered once in each thread. A piece for which it answers None is done.
        """
        out: Channel[B] = self._flow.channel(UNBOUNDED, max(1, count))

        def work(_: Stage) -> None:
            try:
                with worker() as do:
                    while True:
                        done = do(source.get())
                        if done is not None:
                            out.put(done)
                        # Or what was done would be held until there is more to do.
                        done = None
            finally:
                out.leave()

        self._hands += [(f"{name}-{number}", work) for number in range(max(1, count))]
        return out

    def follow(self, *, tell: Callable[[], None], cancelled: Cancelled, stuck: Callable[[], None]) -> None:
        """Let them work until all is done.

        `tell` is called ten times a second and at the end, by the calling thread. `stuck` is called when a thread could not
        be ended. Raises CancelledError, or what the first of them raised.
        """
        try:
            for name, work in self._hands:
                self._flow.spawn(name, work)
            while True:
                ended = self._flow.idle(POLL_S)
                tell()
                if self._flow.error is None and cancelled():
                    self._flow.fail(CancelledError("the task was cancelled on request"))
                if self._flow.error is not None:
                    raise self._flow.error
                if ended:
                    return
        finally:
            if not self._flow.close():
                stuck()
            # What the hands were told holds the buffers, and those should not wait for the collector of cycles.
            self._hands.clear()
