"""Comparing what lies on a disk with an image, by reading it back.

All used bytes are read with direct I/O, so what is compared is what the disk holds and not what the page cache remembers. The
answer is a root hash, which for an untouched disk is the image's, and the places that differ.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
from blake3 import blake3

from litho.errors import DiskError, IntegrityError
from litho.library.chunks import index as indexes
from litho.library.chunks.hashes import WINDOW
from litho.library.chunks.index import Index
from litho.library.chunks.pack import HASH
from litho.library.chunks.usedmap import UNIT, Extent, UsedMap, units
from litho_agent.chunk.capture import READ_GAP
from litho_agent.chunk.crew import DISK_HANDS, Cancelled, Count, Crew, Tick, hands_here
from litho_agent.chunk.device import PAGE, Device, page_buffer
from litho_agent.chunk.restore import read_used


class ReadBack(msgspec.Struct, frozen=True, kw_only=True):
    """What was found on a disk."""

    root: str
    """Root hash of the used bytes as they are on the disk, in hex."""
    read: int
    """Bytes read."""
    differing: tuple[Extent, ...]
    """Chunks that are not the image's, neighbours joined."""
    seconds: float


class _Filled(NamedTuple):
    """A unit that was read: its chunks by their places in the image, its bytes in a buffer of the pool."""

    begin: int
    end: int
    view: memoryview


def read_back(
    device: Path,
    index: Index,
    *,
    threads: int = 0,
    tick: Tick = lambda *_: None,
    cancelled: Cancelled = lambda: False,
) -> ReadBack:
    """Read the bytes of `device` that `index` says are used. Raises DiskError, CancelledError."""
    begun = time.monotonic()
    found: dict[int, bytearray] = {}
    """Windows of hashes in which something differs, by their number."""
    reads = index.used.merged(READ_GAP, PAGE)
    done, read = Count(), Count()
    lock = threading.Lock()
    wrong: list[tuple[int, int]] = []
    unit_bytes = max(UNIT, index.grain)
    with Device(device) as disk:
        if disk.size < index.size:
            raise DiskError(f"{device} is smaller than the image's partition", code="target-too-small")

        def fill(unit: tuple[int, int]) -> _Filled:
            begin, end = unit
            low, high = index.span(begin)[0], index.span(end - 1)[1]
            view = pool.take()
            read.add(read_used(disk, index.used, reads, low, view[: high - low]))
            return _Filled(begin, end, view)

        def look(unit: _Filled) -> None:
            low, high = index.span(unit.begin)[0], index.span(unit.end - 1)[1]
            for i in range(unit.begin, unit.end):
                start, stop = index.span(i)
                digest = blake3(unit.view[start - low : stop - low]).digest()
                if digest != index.digest(i):
                    window, place = divmod(i * HASH, WINDOW)
                    with lock:
                        if window not in found:
                            found[window] = bytearray(index.digests[window * WINDOW : (window + 1) * WINDOW])
                        found[window][place : place + HASH] = digest
                        wrong.append((start, stop - start))
            done.add(sum(extent.size for extent in index.used.within(low, high)))
            pool.give(unit.view)

        hands, crew = hands_here(threads), Crew()
        pool = crew.pool(hands.buffers_of(unit_bytes), lambda: page_buffer(unit_bytes))
        source = crew.pieces(units(index.numbers, index.grain, unit_bytes))
        filled = crew.step("read", DISK_HANDS, source, lambda: contextlib.nullcontext(fill))
        crew.step("hash", hands.workers, filled, lambda: contextlib.nullcontext(look))
        crew.follow(tell=lambda: tick(done.value, 0), cancelled=cancelled, stuck=disk.abandon)
    return ReadBack(
        root=indexes.root(index.grain, index.used, index.numbers, index.digests, instead=found).hex(),
        read=read.value,
        differing=tuple(UsedMap(wrong, index.size)),
        seconds=time.monotonic() - begun,
    )


def require_same(device: Path, index: Index, found: ReadBack) -> None:
    """Raise IntegrityError unless what was read back is what the image holds."""
    if found.root != index.root.hex():
        count = sum(extent.size for extent in found.differing)
        first = found.differing[0].start if found.differing else 0
        raise IntegrityError(
            f"{device} does not hold what was written to it: {count} bytes differ, the first chunk at byte {first}",
            hint="the disk may be failing; look at its SMART values, and restore again",
            code="target-differs",
        )
