"""Restoring a partition: fetch chunks, check each, write it; and leave alone what is right already.

    readers    unit ─> read the target (direct) ─> blank unused blocks      } where looking first pays: `delta`'s rule
    workers    ─> hash ─> which chunks differ?                              }
    fetchers   ─> read their stretches of packs
    workers    ─> unpack ─> check
    writers    ─> write (direct)

A chunk is written only after its hash was checked. A restore that was broken off is started again and finds, by looking, what
it wrote before.

Memory is the buffers that the hands share (`crew`): a unit and what packs hold of it. Chunks are written whole: unused blocks
inside a chunk become zeros; chunks in which nothing is used are left as they are, or given back to the device (`free`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from blake3 import blake3

from litho import amounts
from litho.errors import DiskError
from litho.job import Free
from litho.library.chunks.index import Index
from litho.library.chunks.reader import Ahead, ChunkReader, Fetched, Locator, Wanted
from litho.library.chunks.store import ChunkStore
from litho.library.chunks.usedmap import UNIT, UsedMap, units
from litho_agent.chunk.capture import READ_GAP, blank
from litho_agent.chunk.crew import (
    DISK_HANDS,
    LEAST_BUFFERS,
    LIBRARY_HANDS,
    MOST_PACKED,
    Cancelled,
    Count,
    Crew,
    Hands,
    Tick,
    Watcher,
    Works,
    hands_here,
)
from litho_agent.chunk.delta import Chooser, Mode, Seconds, spread
from litho_agent.chunk.device import PAGE, Device, page_buffer
from litho_agent.flow import Pool, Stage

WORKS = ("disk compare", "hash", "library read", "unpack", "disk write")
PACKED = UNIT + 1024 * 1024
"""Bytes of a buffer for stretches of packs: a unit that did not pack at all, and what is read along."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that is on the device, every chunk of it checked, and synced."""

    root: str
    """Root hash of what lies there now, in hex: the index's."""
    total: int
    """Bytes of all chunks."""
    written: int
    right: int
    """Bytes that were on the target already."""
    fetched: int
    """Bytes read from packs."""
    freed: bool
    """What is unused was left or given back, as it was asked for; False: the device cannot."""
    seconds: float

    def sentence(self) -> str:
        """What a person is told."""
        return f"{amounts.of(self.right, self.total)} were already right, {amounts.size(self.written)} written"


def restore_partition(
    device: Path,
    index: Index,
    store: ChunkStore,
    *,
    mode: Mode = "auto",
    free: Free = "keep",
    begin: float = 0.0,
    threads: int = 0,
    tick: Tick = lambda *_: None,
    cancelled: Cancelled = lambda: False,
    watcher: Watcher = lambda _: None,
) -> Restored:
    """Write what `index` says to `device`, which is at least as large.

    `begin`, from 0 up to 1, is where on the disk to start: nodes that restore the same image at once take different ones.
    Raises IntegrityError when the library holds other bytes than it should (nothing wrong is written), LibraryError, DiskError,
    CancelledError. After any error the content of `device` is undefined, but what was written need not be written again.
    """
    begun = time.monotonic()
    hands = hands_here(threads)
    counts = (DISK_HANDS, hands.workers, LIBRARY_HANDS, hands.workers, DISK_HANDS)
    works = Works(dict(zip(WORKS, counts, strict=True)))

    def tell() -> None:
        tick(job.done.value, job.fetched.value)
        watcher(works.rates())

    with Device(device, write=True) as disk:
        if disk.size < index.size:
            raise DiskError(
                f"{device} has {disk.size} bytes, and the image needs {index.size}",
                hint="use a disk that is at least as large",
                code="target-too-small",
            )
        job = _Job(disk, index, store, works, mode)
        job.locator.require(index)
        freed = free == "keep" or give_back(disk, index, zero=free == "zero")
        job.crew(hands, begin).follow(tell=tell, cancelled=cancelled, stuck=disk.abandon)
        disk.sync()
    total = job.written.value + job.right.value
    return Restored(
        root=index.root.hex(),
        total=total,
        written=job.written.value,
        right=job.right.value,
        fetched=job.fetched.value,
        freed=freed,
        seconds=time.monotonic() - begun,
    )


def give_back(disk: Device, index: Index, *, zero: bool) -> bool:
    """Discard (or zero) every chunk of the partition in which nothing is used; False when the device cannot. Raises
    DiskError.
    """
    chunks = UsedMap(((number * index.grain, index.grain) for number in index.numbers), index.size)
    return all(disk.give_back(hole.start, hole.size, zero=zero) for hole in chunks.holes(0, index.size))


def packed_buffers(hands: Hands, size: int = PACKED) -> int:
    """How many buffers there are for what packs hold: for those who fetch, and two for each who unpacks. Pure."""
    wanted = min(LIBRARY_HANDS + 2 * hands.workers, MOST_PACKED, hands.buffers)
    return max(LEAST_BUFFERS, wanted * PACKED // max(PACKED, size))


class _Pools(NamedTuple):
    """Buffers."""

    views: Pool[memoryview]
    """For units as they are to lie on the disk."""
    packed: Pool[memoryview]
    """For what packs hold of them, from its fetching to its unpacking."""


class _Unit(NamedTuple):
    """A unit on its way."""

    begin: int
    end: int
    """Its chunks, by their places in the image."""
    low: int
    """The first byte of the view."""
    view: memoryview
    wanted: Sequence[int]
    """The chunks that are to be written."""
    took: Seconds = Seconds()
    """What was done to it so far, without the look."""


class _Fetched(NamedTuple):
    """A unit, and what packs hold of it."""

    unit: _Unit
    fetched: Fetched
    packed: memoryview
    """The buffer in which that lies."""


class _Looked(NamedTuple):
    """A unit that was read from the target, if it was."""

    unit: _Unit
    read_s: float | None
    """What reading it took, in seconds of all that do it; None: it is to be written without a look."""


class _Job:
    def __init__(self, disk: Device, index: Index, store: ChunkStore, works: Works, mode: Mode) -> None:
        self._disk = disk
        self._index = index
        self._reads = index.used.merged(READ_GAP, PAGE)
        self._works = works
        self.locator = Locator(store)
        self._mode = mode
        self._chooser = Chooser(mode)
        self._lock = threading.Lock()
        self.done, self.written, self.right, self.fetched = Count(), Count(), Count(), Count()

    def crew(self, hands: Hands, begin: float) -> Crew:
        """Everybody who restores, ready to begin."""
        made, unit = Crew(), max(UNIT, self._index.grain)
        packed = max(PACKED, 2 * self._index.grain)
        pools = _Pools(
            made.pool(hands.buffers_of(unit), lambda: page_buffer(unit)),
            made.pool(packed_buffers(hands, packed), lambda: page_buffer(packed)),
        )
        chosen = made.step("look", DISK_HANDS, made.pieces(self.plan(begin)), lambda: self._looker(pools))
        differing = made.step("compare", hands.workers, chosen, lambda: self._comparer(pools))
        fetched = made.step("fetch", LIBRARY_HANDS, differing, lambda: self._fetcher(pools))
        unpacked = made.step("unpack", hands.workers, fetched, lambda: self._unpacker(pools))
        made.step("write", DISK_HANDS, unpacked, lambda: self._writer(pools))
        return made

    def plan(self, begin: float) -> Iterator[tuple[int, int]]:
        """The units in the order in which they are taken."""
        all_units = list(units(self._index.numbers, self._index.grain, max(UNIT, self._index.grain)))
        order = spread(len(all_units)) if self._mode == "auto" else list(range(len(all_units)))
        turn = int(len(order) * (begin % 1.0))
        return iter([all_units[i] for i in order[turn:] + order[:turn]])

    @contextlib.contextmanager
    def _looker(self, pools: _Pools) -> Iterator[Callable[[tuple[int, int]], _Looked]]:
        comparing = self._works.stage("disk compare")

        def look(unit: tuple[int, int]) -> _Looked:
            begin, end = unit
            low, high = self._index.span(begin)[0], self._index.span(end - 1)[1]
            view = pools.views.take()
            plain = _Unit(begin, end, low, view, range(begin, end))
            with self._lock:
                looks = self._chooser.look()
            if not looks:
                return _Looked(plain, None)
            since = time.perf_counter()
            read_used(self._disk, self._index.used, self._reads, low, view[: high - low])
            comparing.worked(since, high - low)
            return _Looked(plain, self._works.seconds("disk compare", time.perf_counter() - since))

        yield look

    @contextlib.contextmanager
    def _comparer(self, pools: _Pools) -> Iterator[Callable[[_Looked], _Unit | None]]:
        hashing = self._works.stage("hash")

        def compare(looked: _Looked) -> _Unit | None:
            unit, read_s = looked
            if read_s is None:
                return unit
            since = time.perf_counter()
            wanted: list[int] = []
            count = differing = 0
            for i in range(unit.begin, unit.end):
                start, stop = self._index.span(i)
                count += stop - start
                if blake3(unit.view[start - unit.low : stop - unit.low]).digest() != self._index.digest(i):
                    wanted.append(i)
                    differing += stop - start
            hashing.worked(since, count)
            hash_s = self._works.seconds("hash", time.perf_counter() - since)
            with self._lock:
                self._chooser.looked(Seconds(disk=read_s, cores=hash_s), count, differing)
            self.right.add(count - differing)
            if wanted:
                return unit._replace(wanted=wanted)
            self._finish(unit, pools)
            return None

        yield compare

    @contextlib.contextmanager
    def _fetcher(self, pools: _Pools) -> Iterator[Callable[[_Unit], _Fetched]]:
        reading = self._works.stage("library read")
        with Ahead(self.locator) as ahead:

            def fetch(unit: _Unit) -> _Fetched:
                packed = pools.packed.take()
                since, before = time.perf_counter(), ahead.fetched
                asked: list[Wanted] = []
                for i in unit.wanted:
                    start, stop = self._index.span(i)
                    into = unit.view[start - unit.low : stop - unit.low]
                    pack = self._index.pack(i)
                    if pack is None:
                        into[:] = bytes(len(into))
                    else:
                        asked.append(Wanted(self._index.digest(i), pack, into))
                fetched = ahead.read(asked, packed)
                self._count_fetched(reading, ahead.fetched - before, time.perf_counter() - since)
                took = Seconds(library=self._works.seconds("library read", time.perf_counter() - since))
                return _Fetched(unit._replace(took=took), fetched, packed)

            yield fetch

    @contextlib.contextmanager
    def _unpacker(self, pools: _Pools) -> Iterator[Callable[[_Fetched], _Unit]]:
        reading, unpacking = self._works.stage("library read"), self._works.stage("unpack")
        with ChunkReader(self.locator) as reader:

            def unpack(fetched: _Fetched) -> _Unit:
                unit = fetched.unit
                since, before, before_s = time.perf_counter(), reader.fetched, reader.read_s
                reader.take(fetched.fetched)
                pools.packed.give(fetched.packed)
                read_s = reader.read_s - before_s
                self._count_fetched(reading, reader.fetched - before, read_s)
                spans = map(self._index.span, unit.wanted)
                unpacking.add(sum(stop - start for start, stop in spans), time.perf_counter() - since - read_s)
                cores_s = self._works.seconds("unpack", time.perf_counter() - since)
                return unit._replace(took=unit.took._replace(cores=cores_s))

            yield unpack

    def _count_fetched(self, reading: Stage, count: int, seconds: float) -> None:
        reading.add(count, seconds)
        self.fetched.add(count)

    @contextlib.contextmanager
    def _writer(self, pools: _Pools) -> Iterator[Callable[[_Unit], None]]:
        writing = self._works.stage("disk write")

        def write(unit: _Unit) -> None:
            since, count = time.perf_counter(), 0
            spans = ((start, stop - start) for start, stop in map(self._index.span, unit.wanted))
            for run in UsedMap(spans, self._index.size):
                self._disk.write(run.start, unit.view[run.start - unit.low : run.end - unit.low])
                count += run.size
            writing.worked(since, count)
            self.written.add(count)
            took = unit.took._replace(disk=self._works.seconds("disk write", time.perf_counter() - since))
            with self._lock:
                self._chooser.wrote(took, count)
            self._finish(unit, pools)

        yield write

    def _finish(self, unit: _Unit, pools: _Pools) -> None:
        high = self._index.span(unit.end - 1)[1]
        self.done.add(sum(extent.size for extent in self._index.used.within(unit.low, high)))
        pools.views.give(unit.view)


def read_used(disk: Device, used: UsedMap, reads: UsedMap, low: int, view: memoryview) -> int:
    """Fill `view` with the bytes from `low` on as an image would hold them; answers how many were read. Raises DiskError."""
    high = low + len(view)
    count = 0
    for extent in reads.within(low, high):
        disk.read(extent.start, view[extent.start - low : extent.end - low])
        count += extent.size
    blank(used, low, high, view)
    return count
