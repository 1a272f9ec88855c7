"""Threads joined by bounded queues: the plumbing of the pipeline, with one way to stop and one error that counts.

A `Flow` holds *stages*, each a thread that takes blocks from the channel before it and puts them into the channel
behind it. A channel holds few items, or they lie in buffers of a pool: so a slow stage slows all before it down to its own
speed, and memory stays constant. The work inside a stage (read, write, hash, compress) releases the interpreter's lock, so
stages run at the same time; at a megabyte a block the hand-over costs nothing that can be measured.

The first stage that fails decides what is reported: its error is kept, every other stage is woken and leaves quietly,
and what they meet on their way out (a broken pipe because the reader is gone) is a consequence and is dropped. A thread
that hangs in the kernel (a dead file server) cannot be ended from outside: it is left behind with file descriptors of
its own, and the caller is told in time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
UNBOUNDED = 1 << 62
"""Size of a channel whose items are bounded by something else, such as the buffers of a pool that they lie in."""


class Stopped(Exception):  # noqa: N818  not an error: how a stage is told to leave
    """The flow stops; raised out of `put` and `get`."""


class Ended(Stopped):
    """Nothing more comes through a channel: all stages that gave to it have left."""


class StageRate(msgspec.Struct, frozen=True):
    """What one stage has done."""

    name: str
    bytes: int
    """Bytes that it took in, or gave out if it is the first."""
    busy_s: float
    """Seconds that it worked or waited for the world outside, without the time it waited for its neighbours."""

    @property
    def rate(self) -> float:
        """Bytes a second that the stage could do alone; 0.0 while it has done nothing."""
        return self.bytes / self.busy_s if self.busy_s > 0 else 0.0


def limit(stages: tuple[StageRate, ...]) -> StageRate | None:
    """The stage that the others wait for: the busiest. None before anything moved. Pure."""
    working = [stage for stage in stages if stage.busy_s > 0]
    return max(working, key=lambda stage: stage.busy_s) if working else None


class Stage:
    """A stage's own count of its work. Written by its thread only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes = 0
        self.busy_s = 0.0

    def worked(self, since: float, count: int) -> None:
        """`count` bytes took the time from `since` (`time.perf_counter()`) to now."""
        self.add(count, time.perf_counter() - since)

    def add(self, count: int, seconds: float) -> None:
        """`count` bytes took so long."""
        self.busy_s += seconds
        self.bytes += count

    def rate(self) -> StageRate:
        """The count of this moment."""
        return StageRate(self.name, self.bytes, self.busy_s)


class Channel(Generic[T]):
    """A bounded queue between two stages; an unbounded one may be shared by many threads on either side."""

    def __init__(self, flow: Flow, size: int, givers: int = 0) -> None:
        """`givers` is how many `leave` it before `get` says that it has ended; 0: it never does."""
        self._flow = flow
        self._size = size
        self._givers = givers
        self._ended = False
        self._items: deque[T] = deque()
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Append, waiting for room. Raises Stopped."""
        with self._changed:
            while len(self._items) >= self._size and not self._flow.stopping:
                self._changed.wait()
            if self._flow.stopping:
                raise Stopped
            self._items.append(item)
            self._changed.notify()

    def get(self) -> T:
        """Take the oldest, waiting for one. Raises Stopped, Ended."""
        with self._changed:
            while not self._items and not self._flow.stopping and not self._ended:
                self._changed.wait()
            if self._flow.stopping:
                raise Stopped
            if not self._items:
                raise Ended
            item = self._items.popleft()
            self._changed.notify()
            return item

    def leave(self) -> None:
        """One of those that give to it gives nothing more."""
        with self._changed:
            self._givers -= 1
            if self._givers == 0:
                self._ended = True
                self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting stages see that the flow stops."""
        with self._changed:
            self._changed.notify_all()


class Pool(Generic[T]):
    """Things that are used again and again, made when they are first needed.

    What was given back last is taken first: it is what the processor's cache still knows, and what was never needed
    is never made.
    """

    def __init__(self, flow: Flow, count: int, make: Callable[[], T]) -> None:
        self._flow = flow
        self._left = count
        self._make = make
        self._free: list[T] = []
        self._changed = threading.Condition()

    def take(self) -> T:
        """One of them, waiting until there is one. Raises Stopped."""
        with self._changed:
            while not self._free and not self._left and not self._flow.stopping:
                self._changed.wait()
            if self._flow.stopping:
                raise Stopped
            if self._free:
                return self._free.pop()
            self._left -= 1
        return self._make()

    def give(self, thing: T) -> None:
        """Give one back."""
        with self._changed:
            self._free.append(thing)
            self._changed.notify()

    def wake(self) -> None:
        """Let who waits see that the flow stops."""
        with self._changed:
            self._changed.notify_all()


class Flow:
    """The stages of one transfer. Use as a context manager: leaving it stops and joins them."""

    JOIN_S = 0.5
    """How long a stage may take to leave before it is left behind, in seconds."""

    def __init__(self) -> None:
        self.stopping = False
        self.error: BaseException | None = None
        self.stages: list[Stage] = []
        self._wakes: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._changed = threading.Condition()

    def channel(self, size: int, givers: int = 0) -> Channel[T]:
        """A new channel of at most `size` items."""
        made: Channel[T] = Channel(self, size, givers)
        self._wakes.append(made.wake)
        return made

    def pool(self, count: int, make: Callable[[], T]) -> Pool[T]:
        """A new pool of at most `count` things."""
        made = Pool(self, count, make)
        self._wakes.append(made.wake)
        return made

    def spawn(self, name: str, work: Callable[[Stage], None]) -> Stage:
        """Start a stage. It ends when `work` returns, raises, or meets Stopped."""
        stage = Stage(name)
        self.stages.append(stage)
        with self._changed:
            self._running += 1

        def body() -> None:
            try:
                work(stage)
            except Stopped:
                pass
            except BaseException as exc:  # it travels to the caller, which raises it
                self.fail(exc)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

        thread = threading.Thread(target=body, name=f"flow-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system has no thread left.
            with self._changed:
                self._running -= 1
            raise
        self._threads.append(thread)
        return stage

    def fail(self, error: BaseException) -> None:
        """Keep `error` if it is the first, and stop."""
        with self._changed:
            if self.error is None and not self.stopping:
                self.error = error
        self.stop()

    def stop(self) -> None:
        """Let every stage leave."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()
        for wake in self._wakes:
            wake()

    def idle(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds; True when every stage has ended or the flow stops."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0 or self.stopping, timeout_s)

    def rates(self) -> tuple[StageRate, ...]:
        """What each stage has done, in the order of the flow."""
        return tuple(stage.rate() for stage in self.stages)

    def close(self) -> bool:
        """Stop, and wait a moment for the threads; False when one had to be left behind."""
        self.stop()
        until = time.monotonic() + self.JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        # Channels and pools know the flow, too: without this what they hold would wait for the collector of cycles.
        self._wakes.clear()
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
