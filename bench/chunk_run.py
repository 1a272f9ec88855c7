"""One run of the chunk engine in a process of its own, so that its seconds and its memory can be told: JSON in, JSON out.

`python -m bench.chunk_run '{"do": "capture", ...}'`; used by `bench.chunk`. The clock starts when the modules are loaded, as
they are in an agent's worker that has chosen its disk.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import zstandard

from litho.library import Library
from litho.library.chunks import ChunkReader, ChunkStore, ChunkWriter, index
from litho.library.chunks.reader import Locator, Wanted
from litho.library.chunks.usedmap import GRAIN, UNIT, units
from litho_agent.chunk import crew
from litho_agent.chunk.capture import READ_GAP, save_partition
from litho_agent.chunk.delta import Mode
from litho_agent.chunk.device import PAGE, Device, page_buffer
from litho_agent.chunk.readback import read_back
from litho_agent.chunk.restore import restore_partition
from litho_agent.chunk.usage import used_map


class Order(msgspec.Struct, kw_only=True):
    """What to run."""

    do: str
    device: str = ""
    fs: str = "ext4"
    library: str = ""
    name: str = "v1"
    grain: int = GRAIN
    level: int = 1
    threads: int = 0
    mode: str = "plain"


class Answer(msgspec.Struct, kw_only=True):
    """What it took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory: int = 0
    """Bytes resident at most."""
    facts: dict[str, float] = {}


def _capture(order: Order) -> dict[str, float]:
    size = _size(order.device)
    store = ChunkStore(Library.create(Path(order.library)))
    used = used_map(Path(order.device), order.fs, size)
    with ChunkWriter(store) as writer:
        saved = save_partition(
            Path(order.device), used, writer, grain=order.grain, level=order.level, threads=order.threads
        )
        (store.library.root / f"{order.name}.v1-sda1.chunks").write_bytes(index.dump(saved.index))
        writer.finish(saved.index.packs)
    facts = {"used": used.used, "stored": saved.stored, "new": saved.new, "read": saved.read, "zeros": saved.zeros}
    return {key: float(value) for key, value in facts.items()}


def _load(order: Order) -> tuple[ChunkStore, index.Index]:
    library = Library.open(Path(order.library))
    data = (library.root / f"{order.name}.v1-sda1.chunks").read_bytes()
    return ChunkStore(library), index.parse(data, what=order.name)


def _restore(order: Order) -> dict[str, float]:
    store, found = _load(order)
    done = restore_partition(
        Path(order.device), found, store, mode=msgspec.convert(order.mode, type=Mode), threads=order.threads
    )
    return {"written": done.written, "right": done.right, "fetched": done.fetched}


def _verify(order: Order) -> dict[str, float]:
    _, found = _load(order)
    done = read_back(Path(order.device), found, threads=order.threads)
    return {"same": float(done.root == found.root.hex()), "differing": float(sum(e.size for e in done.differing))}


def _limits(order: Order) -> dict[str, float]:
    """Direct read of the used bytes by itself; zstd over them on all cores by itself (its CPU seconds over the cores)."""
    device = Path(order.device)
    used = used_map(device, order.fs, _size(order.device))
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
                    size = sum(
                        len(zstd.compress(view[at : min(got, at + order.grain)])) for at in range(0, got, order.grain)
                    )
                    with lock:
                        packing[0] += time.thread_time() - since
                        packing[1] += size

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
    return {"read_s": read_s, "pack_s": packing[0] / _cores(), "used": float(used.used)}


def _write_limits(order: Order) -> dict[str, float]:
    """Direct write of as many bytes by itself; unpacking and checking them on all cores by itself."""
    store, found = _load(order)
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
            view = page_buffer(UNIT)

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
    return {"write_s": write_s, "unpack_s": unpacking[0] / _cores()}


def _cores() -> int:
    return crew.default_threads() - 2


def _size(device: str) -> int:
    with Device(Path(device)) as disk:
        return disk.size


WORK = {
    "capture": _capture,
    "restore": _restore,
    "verify": _verify,
    "limits": _limits,
    "write_limits": _write_limits,
}


def most_resident() -> int:
    """Bytes resident at most, of this program alone: `ru_maxrss` begins with what the parent had when it forked."""
    words = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split(maxsplit=1)
    return int(words[0]) * 1024


def main() -> None:
    """Run the order in the first argument."""
    order = msgspec.json.decode(sys.argv[1].encode(), type=Order)
    wall = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF)
    facts = WORK[order.do](order)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages) - before.ru_utime - before.ru_stime
    answer = Answer(wall_s=time.monotonic() - wall, cpu_s=cpu, memory=most_resident(), facts=facts)
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
