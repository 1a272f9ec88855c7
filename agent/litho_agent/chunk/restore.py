"""Restoring a partition: fetch chunks, check each, write it; and leave alone what is right already.

    plain   unit ─> fetch from packs ─> unpack ─> check ─> write (direct)
    delta   unit ─> read the target (direct) ─> blank unused blocks ─> hash ─> fetch, check and write what differs

A chunk is written only after its hash was checked. Which way a unit goes is `delta`'s rule. A restore that was broken off is
started again and finds, by looking, what it wrote before.

Memory is a unit and a span of a pack (4 + 8 MiB) a worker. Chunks are written whole: unused blocks inside a chunk become
zeros; chunks in which nothing is used are left as they are, or given back to the device (`free`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from blake3 import blake3

from litho import amounts
from litho.errors import DiskError
from litho.job import Free
from litho.library.chunks.index import Index
from litho.library.chunks.reader import ChunkReader, Locator, Wanted
from litho.library.chunks.store import ChunkStore
from litho.library.chunks.usedmap import UNIT, UsedMap, units
from litho_agent.chunk import crew
from litho_agent.chunk.capture import READ_GAP, blank
from litho_agent.chunk.crew import Cancelled, Count, Tick, Watcher, Works
from litho_agent.chunk.delta import Chooser, Mode, spread
from litho_agent.chunk.device import PAGE, Device, page_buffer
from litho_agent.flow import Stage

WORKS = ("disk compare", "library read", "unpack", "disk write")


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
    threads = threads or crew.default_threads()
    works = Works(WORKS, threads)

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
        crew.run(
            job.plan(begin),
            job.worker,
            threads=threads,
            tell=tell,
            cancelled=cancelled,
            stuck=disk.abandon,
        )
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

    def plan(self, begin: float) -> Iterator[tuple[int, int]]:
        """The units in the order in which they are taken."""
        all_units = list(units(self._index.numbers, self._index.grain, max(UNIT, self._index.grain)))
        order = spread(len(all_units)) if self._mode == "auto" else list(range(len(all_units)))
        turn = int(len(order) * (begin % 1.0))
        return iter([all_units[i] for i in order[turn:] + order[:turn]])

    @contextlib.contextmanager
    def worker(self) -> Iterator[Callable[[tuple[int, int]], None]]:
        """One thread's buffer and reader."""
        view = page_buffer(max(UNIT, self._index.grain))
        stages = self._works.worker()
        with ChunkReader(self.locator) as reader:
            yield lambda unit: self._restore(unit, view, reader, stages)

    def _restore(self, unit: tuple[int, int], view: memoryview, reader: ChunkReader, stages: tuple[Stage, ...]) -> None:
        begin, end = unit
        low, high = self._index.span(begin)[0], self._index.span(end - 1)[1]
        with self._lock:
            look = self._chooser.look()
        wanted = self._differing(begin, end, view, stages[0]) if look else list(range(begin, end))
        if wanted:
            self._write(wanted, low, view, reader, stages[1:])
        self.done.add(sum(extent.size for extent in self._index.used.within(low, high)))

    def _differing(self, begin: int, end: int, view: memoryview, comparing: Stage) -> list[int]:
        since = time.perf_counter()
        low, high = self._index.span(begin)[0], self._index.span(end - 1)[1]
        read_used(self._disk, self._index.used, self._reads, low, view[: high - low])
        wanted: list[int] = []
        count = differing = 0
        for i in range(begin, end):
            start, stop = self._index.span(i)
            count += stop - start
            if blake3(view[start - low : stop - low]).digest() != self._index.digest(i):
                wanted.append(i)
                differing += stop - start
        comparing.worked(since, count)
        with self._lock:
            self._chooser.looked(time.perf_counter() - since, count, differing)
        self.right.add(count - differing)
        return wanted

    def _write(
        self, wanted: list[int], low: int, view: memoryview, reader: ChunkReader, stages: tuple[Stage, ...]
    ) -> None:
        reading, unpacking, writing = stages
        since = time.perf_counter()
        asked: list[Wanted] = []
        before, before_s = reader.fetched, reader.read_s
        for i in wanted:
            start, stop = self._index.span(i)
            into = view[start - low : stop - low]
            pack = self._index.pack(i)
            if pack is None:
                into[:] = bytes(len(into))
            else:
                asked.append(Wanted(self._index.digest(i), pack, into))
        reader.fetch(asked)
        fetched = time.perf_counter()
        fetched_bytes, read_s = reader.fetched - before, reader.read_s - before_s
        reading.add(fetched_bytes, read_s)
        count = 0
        for run in UsedMap(((s, e - s) for s, e in map(self._index.span, wanted)), self._index.size):
            self._disk.write(run.start, view[run.start - low : run.end - low])
            count += run.size
        unpacking.add(count, fetched - since - read_s)
        writing.worked(fetched, count)
        self.written.add(count)
        self.fetched.add(fetched_bytes)
        with self._lock:
            self._chooser.wrote(time.perf_counter() - since, count)


def read_used(disk: Device, used: UsedMap, reads: UsedMap, low: int, view: memoryview) -> int:
    """Fill `view` with the bytes from `low` on as an image would hold them; answers how many were read. Raises DiskError."""
    high = low + len(view)
    count = 0
    for extent in reads.within(low, high):
        disk.read(extent.start, view[extent.start - low : extent.end - low])
        count += extent.size
    blank(used, low, high, view)
    return count
