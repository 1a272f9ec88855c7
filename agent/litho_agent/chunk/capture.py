"""Saving a partition: read what is used, hash it, store what the library does not have.

    readers   unit of 4 MiB ─> read (direct) ─> blank unused blocks
    workers   ─> BLAKE3 of each chunk ─> known? ─> zstd
    writer    ─> pack

Units follow each other on disk, so packs do too, nearly. Memory is the buffers that the hands share (`crew`), and what is packed
of those that wait to be appended.

A capture that was broken off is started again from the first byte: it reads and hashes everything (the disk may have
changed), and finds what its packs hold already.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

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
from litho_agent.chunk.crew import DISK_HANDS, Cancelled, Count, Crew, Hands, Tick, Watcher, Works
from litho_agent.chunk.device import PAGE, Device, UnreadableError, page_buffer
from litho_agent.flow import Pool, Stage, Stopped

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
    """Save the used bytes of `device`. `level` is zstd's, 0 stores without packing. `threads` is how many hash and pack; 0: as
    many as suit the machine.

    Raises DiskError, LibraryError, CancelledError. What was stored by then stays, for the next capture.
    """
    begun = time.monotonic()
    hands = crew.hands_here(threads)
    works = Works(dict(zip(WORKS, (DISK_HANDS, hands.workers, hands.workers, 1), strict=True)))

    def tell() -> None:
        tick(job.done.value, writer.stored)
        watcher(works.rates())

    with Device(device) as disk:
        if disk.size < used.size:
            raise DiskError(f"{device} has {disk.size} bytes, fewer than the {used.size} to save", code="disk-io")
        job = _Job(disk, used, writer, works, grain, level=level, on_bad=on_bad_sector, cancelled=cancelled)
        job.crew(hands).follow(tell=tell, cancelled=cancelled, stuck=disk.abandon)
    return job.saved(time.monotonic() - begun)


class _Filled(NamedTuple):
    """A unit that was read."""

    begin: int
    end: int
    """Its chunks, by their places in the image."""
    low: int
    """Where `view` begins."""
    view: memoryview
    """Its bytes, in a buffer of the pool."""


class _Packed(NamedTuple):
    """What the library does not have of a unit."""

    unit: _Filled
    places: list[int]
    frames: list[Frame]
    """For each of `places`; some are the bytes in the unit's buffer."""


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

    def crew(self, hands: Hands) -> Crew:
        """Everybody who saves, ready to begin."""
        made, unit = Crew(), max(UNIT, self._grain)
        pool = made.pool(hands.buffers_of(unit), lambda: page_buffer(unit))
        source = made.pieces(units(self.numbers, self._grain, unit))
        filled = made.step("read", DISK_HANDS, source, lambda: self._reader(pool))
        packed = made.step("pack", hands.workers, filled, lambda: self._packer(pool))
        made.step("store", 1, packed, lambda: self._storer(pool))
        return made

    @contextlib.contextmanager
    def _reader(self, pool: Pool[memoryview]) -> Iterator[Callable[[tuple[int, int]], _Filled]]:
        reading = self._works.stage("disk read")

        def read(unit: tuple[int, int]) -> _Filled:
            begin, end = unit
            low = self.numbers[begin] * self._grain
            high = min(self._used.size, (self.numbers[end - 1] + 1) * self._grain)
            view = pool.take()
            since = time.perf_counter()
            self._fill(low, high, view)
            reading.worked(since, high - low)
            return _Filled(begin, end, low, view)

        yield read

    @contextlib.contextmanager
    def _packer(self, pool: Pool[memoryview]) -> Iterator[Callable[[_Filled], _Packed | None]]:
        """One thread's compressor."""
        packer = zstandard.ZstdCompressor(level=self._level) if self._level else None
        hashing, packing = self._works.stage("hash"), self._works.stage("compress")

        def pack(unit: _Filled) -> _Packed | None:
            new = self._pack(unit, packer, hashing, packing)
            if new.frames:
                return new
            self._finish(unit, pool)
            return None

        yield pack

    def _pack(self, unit: _Filled, packer: zstandard.ZstdCompressor | None, hashing: Stage, packing: Stage) -> _Packed:
        """Hash all chunks of a unit, and pack those that the library does not have.

        Each kind of work for all of them before the next: the interpreter is quick while it does one thing.
        """
        since = time.perf_counter()
        pieces = self._pieces(unit)
        digests = [blake3(piece).digest() for piece in pieces]
        self._digests[unit.begin * HASH : unit.end * HASH] = b"".join(digests)
        hashing.worked(since, sum(map(len, pieces)))
        new, wanted = _Packed(unit, [], []), []
        known: list[tuple[int, bytes]] = []
        for i, piece, digest in zip(range(unit.begin, unit.end), pieces, digests, strict=True):
            if digest == self._zeros[len(piece)]:
                self._blank.add(len(piece))
            elif (pack := self._writer.find(digest)) is not None:
                known.append((i, pack))
            else:
                new.places.append(i)
                wanted.append((digest, piece))
        since = time.perf_counter()
        for digest, piece in wanted:
            if self._cancelled():
                # At a high level a unit takes seconds.
                raise Stopped
            new.frames.append(_frame(digest, piece, packer))
        packing.worked(since, sum(len(piece) for _, piece in wanted))
        self._place(known)
        return new

    def _pieces(self, unit: _Filled) -> list[memoryview]:
        """The chunks of a unit, in its buffer."""
        grain, low, size = self._grain, unit.low, self._used.size
        starts = [number * grain for number in self.numbers[unit.begin : unit.end]]
        return [unit.view[start - low : min(size, start + grain) - low] for start in starts]

    @contextlib.contextmanager
    def _storer(self, pool: Pool[memoryview]) -> Iterator[Callable[[_Packed], None]]:
        writing = self._works.stage("library write")

        def store(new: _Packed) -> None:
            since = time.perf_counter()
            # What another worker handed over in the meantime is not stored again, and does not count.
            stored, chunks = self._writer.stored, self._writer.new
            packs = self._writer.add(new.frames)
            stored = self._writer.stored - stored
            writing.worked(since, stored)
            self._place(zip(new.places, packs, strict=True))
            self._new.add(self._writer.new - chunks)
            self._stored.add(stored)
            self._finish(new.unit, pool)

        yield store

    def _place(self, packs: Iterable[tuple[int, bytes]]) -> None:
        """Remember which pack has the chunk in each place."""
        with self._lock:
            for i, pack in packs:
                self._pack_of[i] = self._packs.setdefault(pack, len(self._packs))

    def _finish(self, unit: _Filled, pool: Pool[memoryview]) -> None:
        high = min(self._used.size, (self.numbers[unit.end - 1] + 1) * self._grain)
        self.done.add(sum(extent.size for extent in self._used.within(unit.low, high)))
        pool.give(unit.view)

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
    return Frame(digest, len(piece), False, piece)
