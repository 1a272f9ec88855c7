"""Saving a partition: read what is used, hash it, store what the library does not have.

    unit of 4 MiB ─> read (direct) ─> blank unused blocks ─> BLAKE3 of each chunk ─> known? ─> zstd ─> pack

Every worker takes the next unit and does all of that with it, so nothing waits for a slowest stage, and memory is two units a
worker: the bytes read and the frames that wait to be appended. Units follow each other on disk, so packs do too, nearly.

A capture that was broken off is started again from the first byte: it reads and hashes everything (the disk may have
changed), and finds what its packs hold already.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import zstandard
from blake3 import blake3

from litho.errors import DiskError
from litho.library.chunks import index as indexes
from litho.library.chunks.index import ZEROS, Index
from litho.library.chunks.pack import HASH
from litho.library.chunks.usedmap import GRAIN, UNIT, UsedMap, units
from litho.library.chunks.writer import ChunkWriter, Frame
from litho.library.manifest import BadRange
from litho_agent.chunk import crew
from litho_agent.chunk.crew import Cancelled, Count, Tick, Watcher, Works
from litho_agent.chunk.device import PAGE, Device, UnreadableError, page_buffer
from litho_agent.flow import Stage, Stopped

READ_GAP = 128 * 1024
"""Unused bytes between used ones that are read along rather than split a read."""
WORKS = ("disk read", "hash", "compress", "library write")
_WORTH = 63 / 64
"""A chunk is stored packed when that makes it smaller than this share of itself."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A partition whose chunks all are in packs; those count once the writer has finished."""

    index: Index
    read: int
    """Bytes read from the device."""
    new: int
    """Bytes of chunks that the library did not have, before packing."""
    stored: int
    """Bytes that these take in packs."""
    zeros: int
    """Bytes of chunks of zeros, which are not stored."""
    bad: tuple[BadRange, ...]
    """What could not be read and stands as zeros."""
    seconds: float


def save_partition(
    device: Path,
    used: UsedMap,
    writer: ChunkWriter,
    *,
    grain: int = GRAIN,
    level: int = 1,
    threads: int = 0,
    on_bad_sector: Literal["stop", "continue"] = "stop",
    tick: Tick = lambda *_: None,
    cancelled: Cancelled = lambda: False,
    watcher: Watcher = lambda _: None,
) -> Saved:
    """Save the used bytes of `device`. `level` is zstd's, 0 stores without packing. `threads` 0: as many as suit the
    machine.

    Raises DiskError, LibraryError, CancelledError. What was stored by then stays, for the next capture.
    """
    begun = time.monotonic()
    threads = threads or crew.default_threads()
    works = Works(WORKS, threads)

    def tell() -> None:
        tick(job.done.value, writer.stored)
        watcher(works.rates())

    with Device(device) as disk:
        if disk.size < used.size:
            raise DiskError(f"{device} has {disk.size} bytes, fewer than the {used.size} to save", code="disk-io")
        job = _Job(disk, used, writer, works, grain, level=level, on_bad=on_bad_sector, cancelled=cancelled)
        crew.run(
            units(job.numbers, grain, max(UNIT, grain)),
            job.worker,
            threads=threads,
            tell=tell,
            cancelled=cancelled,
            stuck=disk.abandon,
        )
    return job.saved(time.monotonic() - begun)


class _Job:
    def __init__(
        self,
        disk: Device,
        used: UsedMap,
        writer: ChunkWriter,
        works: Works,
        grain: int,
        *,
        level: int,
        on_bad: Literal["stop", "continue"],
        cancelled: Cancelled,
    ) -> None:
        self._cancelled = cancelled
        self._disk = disk
        self._used = used
        self._reads = used.merged(READ_GAP, PAGE)
        self._writer = writer
        self._works = works
        self._grain = grain
        self._level = level
        self._on_bad = on_bad
        self.numbers = used.chunks(grain)
        self._digests = bytearray(len(self.numbers) * HASH)
        self._pack_of = array("I", [ZEROS]) * len(self.numbers)
        self._packs: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._bad: list[tuple[int, int]] = []
        self._zeros = {length: blake3(bytes(length)).digest() for length in self._lengths()}
        self.done = Count()
        self._read, self._new, self._stored, self._blank = Count(), Count(), Count(), Count()

    def _lengths(self) -> set[int]:
        return {self._grain, self._used.size % self._grain} - {0}

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[tuple[int, int]], None]]:
        """One thread's buffer and compressor."""
        packer = zstandard.ZstdCompressor(level=self._level) if self._level else None
        view = page_buffer(max(UNIT, self._grain))
        stages = self._works.worker()
        yield lambda unit: self._save(unit, view, packer, stages)

    def _save(
        self,
        unit: tuple[int, int],
        view: memoryview,
        packer: zstandard.ZstdCompressor | None,
        stages: tuple[Stage, ...],
    ) -> None:
        begin, end = unit
        reading, hashing, packing, writing = stages
        since = time.perf_counter()
        low = self.numbers[begin] * self._grain
        high = min(self._used.size, (self.numbers[end - 1] + 1) * self._grain)
        self._fill(low, high, view)
        reading.worked(since, high - low)
        frames: list[Frame] = []
        places: list[int] = []
        for i in range(begin, end):
            start = self.numbers[i] * self._grain
            piece = view[start - low : min(self._used.size, start + self._grain) - low]
            since = time.perf_counter()
            digest = blake3(piece).digest()
            hashing.worked(since, len(piece))
            self._digests[i * HASH : (i + 1) * HASH] = digest
            if digest == self._zeros[len(piece)]:
                self._blank.add(len(piece))
                continue
            pack = self._writer.find(digest)
            if pack is not None:
                self._place(i, pack)
                continue
            if self._cancelled():
                # At a high level a unit takes seconds.
                raise Stopped
            since = time.perf_counter()
            frames.append(_frame(digest, piece, packer))
            packing.worked(since, len(piece))
            places.append(i)
        if frames:
            since = time.perf_counter()
            for i, pack in zip(places, self._writer.add(frames), strict=True):
                self._place(i, pack)
            stored = sum(len(frame.payload) for frame in frames)
            writing.worked(since, stored)
            self._new.add(sum(frame.length for frame in frames))
            self._stored.add(stored)
        self.done.add(sum(extent.size for extent in self._used.within(low, high)))

    def _place(self, i: int, pack: bytes) -> None:
        with self._lock:
            self._pack_of[i] = self._packs.setdefault(pack, len(self._packs))

    def _fill(self, low: int, high: int, view: memoryview) -> None:
        """The bytes from `low` to `high` as they are to be stored: used ones from the disk, the others zeros."""
        for extent in self._reads.within(low, high):
            piece = view[extent.start - low : extent.end - low]
            self._read.add(extent.size)
            try:
                self._disk.read(extent.start, piece)
            except UnreadableError:
                if self._on_bad == "stop":
                    raise
                self._read_around(extent.start, piece)
        blank(self._used, low, high, view)

    def _read_around(self, start: int, piece: memoryview) -> None:
        """Page by page, with zeros for what cannot be read. Only bytes that are used count as bad."""
        for at in range(0, len(piece), PAGE):
            page = piece[at : at + PAGE]
            try:
                self._disk.read(start + at, page)
            except UnreadableError:
                page[:] = bytes(len(page))
                with self._lock:
                    self._bad.extend(self._used.within(start + at, start + at + len(page)))

    def saved(self, seconds: float) -> Saved:
        """The result, when all is done."""
        return Saved(
            index=indexes.make(
                self._grain, self._used, self.numbers, self._digests, pack_of=self._pack_of, packs=tuple(self._packs)
            ),
            read=self._read.value,
            new=self._new.value,
            stored=self._stored.value,
            zeros=self._blank.value,
            bad=tuple(BadRange(start=e.start, size=e.size) for e in UsedMap(self._bad, self._used.size)),
            seconds=seconds,
        )


def blank(used: UsedMap, low: int, high: int, view: memoryview) -> None:
    """Make the bytes of `view`, which begins at `low`, zeros wherever the partition is not used."""
    for hole in used.holes(low, high):
        view[hole.start - low : hole.end - low] = bytes(hole.size)


def _frame(digest: bytes, piece: memoryview, packer: zstandard.ZstdCompressor | None) -> Frame:
    if packer is not None:
        packed = packer.compress(piece)
        if len(packed) < len(piece) * _WORTH:
            return Frame(digest, len(piece), True, packed)
    return Frame(digest, len(piece), False, bytes(piece))
