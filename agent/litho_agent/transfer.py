"""What a save and a restore have in common: blocks that go round, and the watch over stages and engine.

The thread that called owns the watch: it tells progress, asks whether to stop, and raises whatever failed first. So the
callbacks need no locks, and whoever waits on a stalled pipe is never the one who must answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from litho.errors import CancelledError
from litho_agent.child import Child
from litho_agent.flow import Channel, Flow, StageRate

BLOCK = 256 * 1024
"""Bytes of the stream in one block. Measured on 2 cores: larger ones fall out of the cache between the stages and start and
end the transfer with a stutter (partimage restored 7 % slower with 1 MiB), smaller ones cost more hand-overs."""

DEPTH = 4
"""Blocks that may lie in one channel."""

POLL_S = 0.1
"""How often progress is told and cancelling asked for, in seconds."""

Tick = Callable[[int, int], None]
"""Told the bytes of the stream and of the stored file so far, by the thread that called."""

Cancelled = Callable[[], bool]
"""True when the transfer shall stop."""


class Watch(msgspec.Struct, frozen=True):
    """What else can be said about a transfer while it runs."""

    stages: tuple[StageRate, ...]
    fraction: float | None
    """How far the engine says that it is, 0.0 to 1.0; None when it says nothing."""
    engine_cpu_s: float = 0.0
    """Seconds of processor time that the engine has taken."""


Watcher = Callable[[Watch], None]


class Block:
    """A buffer that goes round between the stages."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BLOCK))
        self.used = 0

    @property
    def data(self) -> memoryview:
        """The part that holds something."""
        return self.view[: self.used]


class Transfer:
    """What save and restore share: the flow, the engine's process, and the watch over both."""

    def __init__(self, tick: Tick, cancelled: Cancelled, watcher: Watcher | None) -> None:
        self.flow = Flow()
        self._tick = tick
        self._cancelled = cancelled
        self._watcher = watcher
        self.stream_bytes = 0
        self.file_bytes = 0
        self.begun = time.monotonic()

    def pool(self, count: int) -> Channel[Block]:
        """A channel with `count` empty blocks, for the stage that fills them."""
        pool: Channel[Block] = self.flow.channel(count)
        for _ in range(count):
            pool.put(Block())
        return pool

    def follow(self, child: Child, done: Callable[[float], bool]) -> None:
        """Tell progress until `done(seconds)`, which waits at most so long, says so. Raises what went wrong first."""
        while True:
            ended = done(POLL_S)
            self._tick(self.stream_bytes, self.file_bytes)
            if self._watcher is not None:
                self._watcher(Watch(self.flow.rates(), child.fraction, child.cpu_s))
            if self.flow.error is None and self._cancelled():
                self.flow.fail(CancelledError("the transfer was cancelled"))
            if self.flow.error is not None:
                raise self.flow.error
            if ended:
                return
