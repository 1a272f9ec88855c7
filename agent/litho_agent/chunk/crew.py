"""Workers that take pieces of work from one list until it is empty, and one way to stop.

Each worker is a thread with its own buffers, which reads, computes and writes in turn; all of that releases the interpreter's
lock. There are many more of them than cores, so that some wait for the disk while others use the cores. (Measured on 2 busy
cores: with 4 workers no read was under way in a fifth of a capture's time, and 8 needed 0.89 of the wall of 4, the median of
five pairs; of 12 and 16 nothing could be told.) The first failure stops all and is what the caller sees; the caller's thread
tells progress and asks whether to stop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from litho.errors import CancelledError
from litho_agent.flow import Flow, Stage, StageRate, Stopped
from litho_agent.hostfacts import available_bytes

T = TypeVar("T")

MOST = 16
"""Threads at most: with their buffers and what is packed, all that the agent holds stays under 400 MB."""
LEAST = 2
THREAD_BYTES = 32 * 1024 * 1024
"""Free memory for each thread: its buffers take 12 MiB, what zstd needs at a high level another few."""
POLL_S = 0.1

Tick = Callable[[int, int], None]
"""Told the used bytes that are done, and the bytes of the library's side, so far."""
Cancelled = Callable[[], bool]
Watcher = Callable[[tuple[StageRate, ...]], None]
"""Told what each kind of work has taken so far, in the order of a chunk's way."""


def default_threads() -> int:
    """As many as suit this machine (`threads`)."""
    return threads(len(os.sched_getaffinity(0)), available_bytes())


def threads(cores: int, available: int) -> int:
    """Twice the cores and four more, as far as the memory reaches; `available` bytes of it are free (0: unknown). Pure."""
    wanted = min(MOST, 2 * cores + 4)
    return max(LEAST, min(wanted, available // THREAD_BYTES)) if available else wanted


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
    """What each kind of work has taken, over all workers.

    Every worker does all kinds in turn. The seconds of all are divided by their number: so one kind's seconds a second say how
    much of the crew it keeps busy, and its rate is the crew's and not one worker's.
    """

    def __init__(self, names: Sequence[str], threads: int) -> None:
        self._names = tuple(names)
        self._threads = max(1, threads)
        self._lock = threading.Lock()
        self._workers: list[tuple[Stage, ...]] = []

    def worker(self) -> tuple[Stage, ...]:
        """The counts of one more worker, by name in the order given, for its thread only."""
        made = tuple(Stage(name) for name in self._names)
        with self._lock:
            self._workers.append(made)
        return made

    def rates(self) -> tuple[StageRate, ...]:
        """The sums of this moment."""
        with self._lock:
            columns = list(zip(*self._workers, strict=True))
        return tuple(
            StageRate(one[0].name, sum(s.bytes for s in one), sum(s.busy_s for s in one) / self._threads)
            for one in columns
        )


def run(
    pieces: Iterable[T],
    worker: Callable[[], AbstractContextManager[Callable[[T], None]]],
    *,
    threads: int,
    tell: Callable[[], None],
    cancelled: Cancelled,
    stuck: Callable[[], None],
) -> None:
    """Let `threads` workers do all `pieces`, taken in order. `worker` is entered once in each thread.

    `tell` is called ten times a second and at the end, by the calling thread. `stuck` is called when a thread could not be ended.
    Raises CancelledError, or what the first worker raised.
    """
    source = iter(pieces)
    lock = threading.Lock()
    flow = Flow()

    def work(_: Stage) -> None:
        with worker() as do:
            while True:
                if flow.stopping:
                    raise Stopped
                with lock:
                    piece = next(source, None)
                if piece is None:
                    return
                do(piece)

    try:
        for number in range(max(1, threads)):
            flow.spawn(f"chunk-{number}", work)
        while True:
            ended = flow.idle(POLL_S)
            tell()
            if flow.error is None and cancelled():
                flow.fail(CancelledError("the task was cancelled on request"))
            if flow.error is not None:
                raise flow.error
            if ended:
                return
    finally:
        if not flow.close():
            stuck()
