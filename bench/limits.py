"""What the machine allows a capture: what the chunk engine is held against. A restore's limits are in `limits_restore`.

First each part of the work by itself: the direct read of the used bytes, and zstd over them on all cores.

Then all that cannot be left out, at once, by the same hands and buffers and without anything else (`bare`): reading costs the
cores something too, on a virtual machine as much as the host needs to hand the bytes over, and source and library lie on one
disk here. All are walls, because where others use the machine too, two busy cores do not give twice what one gives.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard
from blake3 import blake3

from bench.orders import Order, named_index, size
from litho.library.chunks import Index, indexfile
from litho.library.chunks.pack import HASH
from litho.library.chunks.usedmap import UNIT, units
from litho.library.chunks.writer import FLUSH_BYTES
from litho_agent.chunk import capture as saving
from litho_agent.chunk.capture import READ_GAP
from litho_agent.chunk.crew import DISK_HANDS, Crew, hands_here
from litho_agent.chunk.device import PAGE, Device, page_buffer
from litho_agent.chunk.usage import used_map

WRITERS = 2
"""Of a bare pipe's frames: so that one gathers while the other's piece is on its way."""


def batch() -> int:
    """Units that are in memory at once while work on them is timed: many, so that the end, where some cores wait, is short."""
    return 32 * cores()


def parts(order: Order) -> dict[str, float]:
    """Direct read of the used bytes by itself; zstd over them on all cores by itself, from memory to nowhere."""
    used = _Used(order)
    with Device(used.device) as disk:
        view = page_buffer(UNIT * DISK_HANDS)
        free = [view[i * UNIT : (i + 1) * UNIT] for i in range(DISK_HANDS)]
        crew = Crew()

        def read(unit: tuple[int, int]) -> None:
            mine = free.pop()
            used.fill(disk, unit, mine)
            free.append(mine)

        crew.step("read", DISK_HANDS, crew.pieces(used.units), lambda: contextlib.nullcontext(read))
        read_s = timed(crew)
        pack_s = 0.0
        room = [page_buffer(UNIT) for _ in range(batch())]
        for at in range(0, len(used.units), len(room)):
            todo = used.units[at : at + len(room)]
            filled = [used.fill(disk, unit, view) for unit, view in zip(todo, room, strict=False)]
            crew = Crew()
            crew.step("pack", cores(), crew.pieces(filled), lambda: _packer(order))
            pack_s += timed(crew)
    return {"read_s": read_s, "pack_s": pack_s, "used": float(used.bytes)}


@contextlib.contextmanager
def _packer(order: Order) -> Iterator[Callable[[memoryview], None]]:
    zstd = zstandard.ZstdCompressor(level=order.level)

    def pack(view: memoryview) -> None:
        for at in range(0, len(view), order.grain):
            zstd.compress(view[at : at + order.grain])

    yield pack


def bare(order: Order) -> dict[str, float]:
    """Direct read, zstd, and direct write of what comes out of it, at once; no hash, no look, no index, no way back.

    Where the order names a version that is there (`after`): direct read, BLAKE3, zstd of what that version does not have, and its
    write.
    """
    used = _Used(order)
    known = _digests(indexfile.load(named_index(order, order.after), what=order.after)) if order.after else None
    hands, crew = hands_here(), Crew()
    pool = crew.pool(hands.buffers, lambda: page_buffer(UNIT))
    path = Path(order.library) / "bare.tmp"
    with Device(used.device) as disk, _Out(path) as out:

        def read(unit: tuple[int, int]) -> tuple[memoryview, memoryview]:
            view = pool.take()
            return view, used.fill(disk, unit, view)

        @contextlib.contextmanager
        def packer() -> Iterator[Callable[[tuple[memoryview, memoryview]], list[bytes]]]:
            zstd = zstandard.ZstdCompressor(level=order.level)

            def pack(unit: tuple[memoryview, memoryview]) -> list[bytes]:
                view, filled = unit
                chunks = (filled[at : at + order.grain] for at in range(0, len(filled), order.grain))
                packed = [zstd.compress(one) for one in chunks if known is None or blake3(one).digest() not in known]
                pool.give(view)
                return packed

            yield pack

        filled = crew.step("read", DISK_HANDS, crew.pieces(used.units), lambda: contextlib.nullcontext(read))
        packed = crew.step("pack", hands.workers, filled, packer)
        crew.step("write", WRITERS, packed, out.hand)
        bare_s = timed(crew, out.sync)
    return {"bare_s": bare_s, "stored": float(out.count)}


class _Used:
    """The used bytes of the order's device, to be read as a capture reads them."""

    def __init__(self, order: Order) -> None:
        self.device = Path(order.device)
        used = used_map(self.device, order.fs, size(order.device))
        self._used, self.bytes = used, used.used
        self._numbers = used.chunks(order.grain)
        self.units = list(units(self._numbers, order.grain))
        self._grain = order.grain
        self._reads = used.merged(READ_GAP, PAGE)

    def fill(self, disk: Device, unit: tuple[int, int], view: memoryview) -> memoryview:
        """Read a unit, each chunk to its place, zeros for what is not used."""
        low, high = self._numbers[unit[0]] * self._grain, (self._numbers[unit[1] - 1] + 1) * self._grain
        for extent in self._reads.within(low, high):
            disk.read(extent.start, view[extent.start - low : extent.end - low])
        saving.blank(self._used, low, high, view)
        return view[: high - low]


class _Out:
    """A file that is written past the page cache in large pieces by a few hands, and synced by and by."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._synced = 0
        self.count = 0

    @contextlib.contextmanager
    def hand(self) -> Iterator[Callable[[list[bytes]], None]]:
        """One that gathers frames and writes them; what is left at its end is less than a unit, and not worth its time."""
        buffer, full = page_buffer(UNIT), 0

        def write(frames: list[bytes]) -> None:
            nonlocal full
            for frame in frames:
                left = memoryview(frame)
                while left:
                    piece = left[: UNIT - full]
                    buffer[full : full + len(piece)] = piece
                    full, left = full + len(piece), left[len(piece) :]
                    if full == UNIT:
                        self._put(buffer)
                        full = 0

        yield write

    def _put(self, buffer: memoryview) -> None:
        with self._lock:
            at, self.count = self.count, self.count + len(buffer)
        count = os.pwrite(self._fd, buffer, at)
        assert count == len(buffer), f"{count} of {len(buffer)} bytes were written"
        if self.count - self._synced >= FLUSH_BYTES and self._syncing.acquire(blocking=False):
            self._synced = self.count
            os.fdatasync(self._fd)
            self._syncing.release()

    def sync(self) -> None:
        """All lies on the disk."""
        os.fsync(self._fd)

    def __enter__(self) -> _Out:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        self._path.unlink()


def _digests(index: Index) -> frozenset[bytes]:
    return frozenset(index.digest(i) for i in range(len(index.digests) // HASH))


def timed(crew: Crew, last: Callable[[], None] = lambda: None) -> float:
    since = time.monotonic()
    crew.follow(tell=lambda: None, cancelled=lambda: False, stuck=lambda: None)
    last()
    return time.monotonic() - since


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
