"""What the machine allows a restore, as `limits` tells for a capture.

Each part by itself: the direct write of the same bytes, unpacking and checking them on all cores, and reading the packs, past
the page cache as a restore does. And all of it at once, without any check (`bare`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from bench.clock import blank
from bench.limits import batch, cores, timed
from bench.orders import Order, load, packs
from litho.library.chunks import ChunkReader, ChunkStore, Index
from litho.library.chunks.pack import FRAME_HEADER
from litho.library.chunks.reader import Ahead, Fetched, Locator, Wanted
from litho.library.chunks.usedmap import UNIT, UsedMap, units
from litho_agent.chunk.crew import DISK_HANDS, LIBRARY_HANDS, Crew, hands_here
from litho_agent.chunk.device import PUSH_BYTES, page_buffer
from litho_agent.chunk.restore import PACKED, packed_buffers
from litho_agent.flow import Pool


def parts(order: Order) -> dict[str, float]:
    """Direct write of as many bytes; unpacking and checking them on all cores, from memory to memory; reading the packs."""
    packs_s = _read_packs(order)
    store, found = load(order)
    return {"write_s": _write(order, found), "unpack_s": _unpack(store, found), "packs_s": packs_s}


def _write(order: Order, found: Index) -> float:
    """Write as many bytes as the image has, to the same places: synced once, or by and by, whichever takes less."""
    # Zeros would tell nothing where a disk, or what stands in for one, leaves them out.
    view = page_buffer(UNIT)
    view[:] = os.urandom(UNIT)

    def once(watermark: int) -> float:
        blank(Path(order.device))
        with _target(order, watermark) as put:
            crew = Crew()
            source = crew.pieces(units(found.numbers, found.grain))
            crew.step(
                "write", DISK_HANDS, source, lambda: contextlib.nullcontext(lambda unit: put.unit(found, unit, view))
            )
            return timed(crew, put.sync)

    return min(once(PUSH_BYTES), once(found.size))


def _unpack(store: ChunkStore, found: Index) -> float:
    """Unpack and check all chunks by as many threads as there are cores; what packs hold of them is in memory."""
    locator = Locator(store)
    room = [(page_buffer(UNIT), page_buffer(PACKED)) for _ in range(batch())]
    for view, _ in room:
        # That the memory is there is not unpacking.
        view[:] = bytes(UNIT)
    todo = list(units(found.numbers, found.grain))
    seconds = 0.0

    @contextlib.contextmanager
    def unpacker() -> Iterator[Callable[[Fetched], None]]:
        with ChunkReader(locator) as reader:
            yield reader.take

    with Ahead(locator) as ahead:
        for at in range(0, len(todo), len(room)):
            pairs = zip(todo[at : at + len(room)], room, strict=False)
            fetched = [ahead.read(_wanted(found, unit, view), packed) for unit, (view, packed) in pairs]
            assert not any(one.left for one in fetched), "not all of a unit was read"
            crew = Crew()
            crew.step("unpack", cores(), crew.pieces(fetched), unpacker)
            seconds += timed(crew)
    return seconds


def bare(order: Order) -> dict[str, float]:
    """Reading packs, unpacking without any check, and direct write, at once."""
    store, found = load(order)
    locator = Locator(store)
    hands, crew = hands_here(), Crew()
    views = crew.pool(hands.buffers, lambda: page_buffer(UNIT))
    rooms = crew.pool(packed_buffers(hands), lambda: page_buffer(PACKED))
    with _target(order, PUSH_BYTES) as put:

        @contextlib.contextmanager
        def fetcher() -> Iterator[Callable[[tuple[int, int]], _Load]]:
            with Ahead(locator) as ahead:

                def fetch(unit: tuple[int, int]) -> _Load:
                    view, room = views.take(), rooms.take()
                    return unit, view, room, ahead.read(_wanted(found, unit, view), room)

                yield fetch

        def write(load: _Load) -> None:
            unit, view, _, _ = load
            put.unit(found, unit, view)
            views.give(view)

        fetched = crew.step("fetch", LIBRARY_HANDS, crew.pieces(units(found.numbers, found.grain)), fetcher)
        unpacked = crew.step("unpack", hands.workers, fetched, lambda: _bare_unpacker(rooms))
        crew.step("write", DISK_HANDS, unpacked, lambda: contextlib.nullcontext(write))
        return {"bare_s": timed(crew, put.sync)}


_Load = tuple[tuple[int, int], memoryview, memoryview, Fetched]


@contextlib.contextmanager
def _bare_unpacker(rooms: Pool[memoryview]) -> Iterator[Callable[[_Load], _Load]]:
    unzstd = zstandard.ZstdDecompressor()

    def unpack(load: _Load) -> _Load:
        _, _, room, fetched = load
        assert not fetched.left, "not all of a unit was read"
        for stretch, data, _ in fetched.stretches:
            for one, record in stretch.chunks:
                payload = data[record.offset - stretch.start + FRAME_HEADER : record.end - stretch.start]
                if record.packed:
                    with unzstd.stream_reader(payload, read_size=len(payload)) as source:
                        source.readinto(one.into)
                else:
                    one.into[:] = payload
        rooms.give(room)
        return load

    yield unpack


def _wanted(found: Index, unit: tuple[int, int], view: memoryview) -> list[Wanted]:
    low = found.span(unit[0])[0]
    wanted = []
    for i in range(*unit):
        pack, (start, end) = found.pack(i), found.span(i)
        if pack is not None:
            wanted.append(Wanted(found.digest(i), pack, view[start - low : end - low]))
    return wanted


class _Target:
    """The order's device, written past the page cache, and synced at a watermark and when it is said."""

    def __init__(self, fd: int, watermark: int) -> None:
        self._fd = fd
        self._watermark = watermark
        self._unsynced = 0
        self._syncing = threading.Lock()

    def unit(self, found: Index, unit: tuple[int, int], view: memoryview) -> None:
        """Write the chunks of a unit, whose bytes are in `view`."""
        low = found.span(unit[0])[0]
        spans = ((start, stop - start) for start, stop in map(found.span, range(*unit)))
        for run in UsedMap(spans, found.size):
            count = os.pwrite(self._fd, view[run.start - low : run.end - low], run.start)
            assert count == run.size, f"{count} of {run.size} bytes were written"
            self._unsynced += count
        if self._unsynced >= self._watermark and self._syncing.acquire(blocking=False):
            self._unsynced = 0
            os.fdatasync(self._fd)
            self._syncing.release()

    def sync(self) -> None:
        """All lies on the disk."""
        os.fsync(self._fd)


@contextlib.contextmanager
def _target(order: Order, watermark: int) -> Iterator[_Target]:
    fd = os.open(order.device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        yield _Target(fd, watermark)
    finally:
        os.close(fd)


def _read_packs(order: Order) -> float:
    """Read all packs of a version, as many pieces at once as a restore does; the seconds."""
    todo = [(path, at) for path in packs(order) for at in range(0, path.stat().st_size, UNIT)]

    @contextlib.contextmanager
    def reader() -> Iterator[Callable[[tuple[Path, int]], None]]:
        buffer = page_buffer(UNIT)

        def read(piece: tuple[Path, int]) -> None:
            path, at = piece
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            os.preadv(fd, [buffer], at)
            os.close(fd)

        yield read

    crew = Crew()
    crew.step("fetch", LIBRARY_HANDS, crew.pieces(todo), reader)
    return timed(crew)
