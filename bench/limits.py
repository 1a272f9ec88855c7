"""What the machine allows, each part by itself: the longest is the limit that the chunk engine is held against.

For a capture the direct read of the used bytes, and zstd over them on all cores; and, because source and library lie on one disk
here, the same read while as many bytes as the capture stored are written beside it. For a restore the direct write of the same
bytes, unpacking and checking them on all cores, and reading the packs: all in the state in which the restore beside it begins,
with packs that lie in the page cache or on the disk only.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from bench.orders import Order, load, packs, size
from litho import process
from litho.library.chunks import ChunkReader
from litho.library.chunks.reader import Locator, Wanted
from litho.library.chunks.usedmap import UNIT, units
from litho_agent.chunk import crew
from litho_agent.chunk.capture import READ_GAP
from litho_agent.chunk.device import PAGE, Device, page_buffer
from litho_agent.chunk.usage import used_map


def capture(order: Order) -> dict[str, float]:
    """Direct read of the used bytes by itself; zstd over them on all cores by itself (its CPU seconds over the cores)."""
    device = Path(order.device)
    used = used_map(device, order.fs, size(order.device))
    reads = used.merged(READ_GAP, PAGE)
    numbers = used.chunks(order.grain)
    packing, lock = [0.0, 0.0], threading.Lock()

    def pass_over(disk: Device, *, pack: bool) -> float:
        @contextlib.contextmanager
        def worker() -> Iterator[Callable[[tuple[int, int]], None]]:
            zstd = zstandard.ZstdCompressor(level=order.level)

            def look(unit: tuple[int, int]) -> None:
                low = numbers[unit[0]] * order.grain
                high = (numbers[unit[1] - 1] + 1) * order.grain
                got = 0
                for extent in reads.within(low, high):
                    disk.read(extent.start, view[extent.start - low : extent.end - low])
                    got += extent.size
                if pack:
                    since = time.thread_time()
                    packed = sum(
                        len(zstd.compress(view[at : min(got, at + order.grain)])) for at in range(0, got, order.grain)
                    )
                    with lock:
                        packing[0] += time.thread_time() - since
                        packing[1] += packed

            view = page_buffer(UNIT)
            yield look

        since = time.monotonic()
        crew.run(
            units(numbers, order.grain),
            worker,
            threads=crew.default_threads(),
            tell=lambda: None,
            cancelled=lambda: False,
            stuck=disk.abandon,
        )
        return time.monotonic() - since

    with Device(device) as disk:
        read_s = pass_over(disk, pack=False)
        pass_over(disk, pack=True)
    return {"read_s": read_s, "pack_s": packing[0] / cores(), "used": float(used.used)}


def read_and_write(order: Order) -> dict[str, float]:
    """Direct read of the used bytes while `count` bytes are written into the library's directory as packs are, and synced."""
    device = Path(order.device)
    used = used_map(device, order.fs, size(order.device))
    reads = used.merged(READ_GAP, PAGE)
    numbers = used.chunks(order.grain)
    path = Path(order.library) / "written.tmp"
    failed: list[BaseException] = []

    def write() -> None:
        try:
            _write_out(path, order.count)
        except OSError as exc:
            failed.append(exc)

    @contextlib.contextmanager
    def worker() -> Iterator[Callable[[tuple[int, int]], None]]:
        view = page_buffer(UNIT)

        def look(unit: tuple[int, int]) -> None:
            low = numbers[unit[0]] * order.grain
            for extent in reads.within(low, (numbers[unit[1] - 1] + 1) * order.grain):
                disk.read(extent.start, view[extent.start - low : extent.end - low])

        yield look

    writer = threading.Thread(target=write)
    try:
        with Device(device) as disk:
            since = time.monotonic()
            writer.start()
            crew.run(
                units(numbers, order.grain),
                worker,
                threads=crew.default_threads(),
                tell=lambda: None,
                cancelled=lambda: False,
                stuck=disk.abandon,
            )
            writer.join()
            both_s = time.monotonic() - since
    finally:
        path.unlink(missing_ok=True)
    if failed:
        raise failed[0]
    return {"both_s": both_s}


def _write_out(path: Path, count: int) -> None:
    """`count` bytes into a file, past the page cache, which costs the least, and synced."""
    piece = page_buffer(UNIT)
    # Zeros would tell nothing where a disk leaves them out.
    piece[:] = os.urandom(UNIT)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT | os.O_CLOEXEC, 0o644)
    try:
        for _ in range(-(-count // UNIT)):
            os.write(fd, piece)
        os.fsync(fd)
    finally:
        os.close(fd)


def restore(order: Order) -> dict[str, float]:
    """Direct write of as many bytes; unpacking and checking them (its CPU seconds over the cores); reading the packs.

    Each by itself, the last two from the disk or from the page cache, as the order says.
    """
    packs_s = read_packs(order)
    if not order.cached:
        _forget_packs(order)
    store, found = load(order)
    unpacking, lock = [0.0], threading.Lock()
    locator = Locator(store)

    @contextlib.contextmanager
    def unpacker() -> Iterator[Callable[[tuple[int, int]], None]]:
        view = page_buffer(UNIT)
        with ChunkReader(locator) as reader:

            def unpack(unit: tuple[int, int]) -> None:
                low = found.span(unit[0])[0]
                wanted = []
                for i in range(*unit):
                    pack = found.pack(i)
                    if pack is not None:
                        start, end = found.span(i)
                        wanted.append(Wanted(found.digest(i), pack, view[start - low : end - low]))
                since = time.thread_time()
                reader.fetch(wanted)
                with lock:
                    unpacking[0] += time.thread_time() - since

            yield unpack

    with Device(Path(order.device), write=True) as disk:

        @contextlib.contextmanager
        def writer() -> Iterator[Callable[[tuple[int, int]], None]]:
            # Zeros would tell nothing where a disk, or what stands in for one, leaves them out.
            view = page_buffer(UNIT)
            view[:] = os.urandom(UNIT)

            def write(unit: tuple[int, int]) -> None:
                low, high = found.span(unit[0])[0], found.span(unit[1] - 1)[1]
                disk.write(low, view[: high - low])

            yield write

        def go(worker: Callable[[], contextlib.AbstractContextManager[Callable[[tuple[int, int]], None]]]) -> float:
            since = time.monotonic()
            crew.run(
                units(found.numbers, found.grain),
                worker,
                threads=crew.default_threads(),
                tell=lambda: None,
                cancelled=lambda: False,
                stuck=disk.abandon,
            )
            disk.sync()
            return time.monotonic() - since

        write_s = go(writer)
        go(unpacker)
    return {"write_s": write_s, "unpack_s": unpacking[0] / cores(), "packs_s": packs_s}


def read_packs(order: Order) -> float:
    """Read all packs of a version one after the other; the seconds."""
    since = time.monotonic()
    buffer = bytearray(UNIT)
    for path in packs(order):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.monotonic() - since


def _forget_packs(order: Order) -> None:
    """The page cache holds no pack of a version."""
    for path in packs(order):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(order: Order) -> float:
    """Share of the packs' bytes that the page cache holds, 0 to 1."""
    paths = packs(order)
    done = process.run(("fincore", "--bytes", "--noheadings", "--output", "RES", *paths))
    return sum(map(int, done.out.split())) / max(1, sum(path.stat().st_size for path in paths))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
