"""One run of the chunk engine in a process of its own, so that its seconds and its memory can be told: JSON in, JSON out.

`python -m bench.chunk_run '{"do": "capture", ...}'`; used by `bench.chunk` and `bench.chunk_growth`. The clock starts when the
modules are loaded, as they are in an agent's worker that has chosen its disk.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from array import array
from pathlib import Path

import msgspec

from bench import limits, limits_restore
from bench.orders import Answer, Order, index_file, load, machine_cpu, size
from litho.library import Library
from litho.library.chunks import ChunkStore, ChunkWriter, catalog, index
from litho.library.chunks.known import Known
from litho.library.chunks.usedmap import UsedMap
from litho_agent.chunk.adapter import check_packs
from litho_agent.chunk.capture import save_partition
from litho_agent.chunk.delta import Mode
from litho_agent.chunk.readback import read_back
from litho_agent.chunk.restore import restore_partition
from litho_agent.chunk.usage import used_map

CHUNKS_A_PACK = 2048
"""As many as 256 MiB hold."""
LOOKS = 10_000


def _capture(order: Order) -> dict[str, float]:
    store = ChunkStore(Library.create(Path(order.library)))
    since = time.monotonic()
    used = used_map(Path(order.device), order.fs, size(order.device))
    map_s = time.monotonic() - since
    with ChunkWriter(store) as writer:
        saved = save_partition(
            Path(order.device), used, writer, grain=order.grain, level=order.level, threads=order.threads
        )
        index_file(order).write_bytes(index.dump(saved.index))
        writer.finish(saved.index.packs)
    facts = {"used": used.used, "stored": saved.stored, "new": saved.new, "read": saved.read, "zeros": saved.zeros}
    return {"map_s": map_s, **{key: float(value) for key, value in facts.items()}}


def _check(order: Order) -> dict[str, float]:
    """What a capture does before it says success: read back what it stored, and sign that it is right."""
    store = ChunkStore(Library.open(Path(order.library)))
    return {"checked": float(check_packs(store, sorted(store.listing().live)))}


def _restore(order: Order) -> dict[str, float]:
    store, found = load(order)
    done = restore_partition(
        Path(order.device), found, store, mode=msgspec.convert(order.mode, type=Mode), threads=order.threads
    )
    return {"written": done.written, "right": done.right, "fetched": done.fetched}


def _verify(order: Order) -> dict[str, float]:
    _, found = load(order)
    done = read_back(Path(order.device), found, threads=order.threads)
    return {"same": float(done.root == found.root.hex()), "differing": float(sum(e.size for e in done.differing))}


def _make_known(order: Order) -> dict[str, float]:
    """A library of as many packs as `count` chunks fill, in name only, and the catalog of those chunks."""
    store = ChunkStore(Library.create(Path(order.library)))
    store.make()
    packs = [n.to_bytes(16, "big") for n in range(1, -(-order.count // CHUNKS_A_PACK) + 1)]
    for pack in packs:
        for kind in ("idx", "pack"):
            store.path(pack, kind).touch()
    step = 2**64 // order.count >> catalog.PACK_BITS << catalog.PACK_BITS
    entries = array("Q", (step * n | n % len(packs) for n in range(order.count)))
    store.path(os.urandom(16), "catalog").write_bytes(catalog.dump(catalog.Catalog(packs, entries)))
    return {}


def _load_known(order: Order) -> dict[str, float]:
    """What a capture does before it reads its first byte."""
    since = time.monotonic()
    known = Known.load(ChunkStore(Library.open(Path(order.library))))
    load_s = time.monotonic() - since
    strange = [os.urandom(32) for _ in range(LOOKS)]
    since = time.monotonic()
    hits = sum(known.find(digest) is not None for digest in strange)
    return {"load_s": load_s, "chunks": float(len(known)), "miss_s": (time.monotonic() - since) / LOOKS, "hits": hits}


def _make_index(order: Order) -> dict[str, float]:
    """The index of a partition of `count` chunks, all of them used."""
    total = order.count * order.grain
    used = UsedMap([(0, total)], total)
    packs = [n.to_bytes(16, "big") for n in range(-(-order.count // CHUNKS_A_PACK))]
    made = index.make(
        order.grain,
        used,
        used.chunks(order.grain),
        os.urandom(32 * order.count),
        pack_of=array("I", (n // CHUNKS_A_PACK for n in range(order.count))),
        packs=packs,
    )
    Library.create(Path(order.library))
    data = index.dump(made)
    index_file(order).write_bytes(data)
    return {"bytes": len(data)}


def _load_index(order: Order) -> dict[str, float]:
    """What a restore does before it reads its first pack."""
    since = time.monotonic()
    _, found = load(order)
    return {"load_s": time.monotonic() - since, "chunks": float(len(found.numbers))}


WORK = {
    "capture": _capture,
    "check": _check,
    "restore": _restore,
    "verify": _verify,
    "limits": limits.parts,
    "bare": limits.bare,
    "write_limits": limits_restore.parts,
    "bare restore": limits_restore.bare,
    "make known": _make_known,
    "load known": _load_known,
    "make index": _make_index,
    "load index": _load_index,
}


def most_resident() -> int:
    """Bytes resident at most, of this program alone: `ru_maxrss` begins with what the parent had when it forked."""
    words = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split(maxsplit=1)
    return int(words[0]) * 1024


def main() -> None:
    """Run the order in the first argument."""
    order = msgspec.json.decode(sys.argv[1].encode(), type=Order)
    wall, (busy, stolen) = time.monotonic(), machine_cpu()
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    facts = WORK[order.do](order)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages) - sum(
        usage.ru_utime + usage.ru_stime for usage in before
    )
    answer = Answer(
        wall_s=time.monotonic() - wall,
        cpu_s=cpu,
        others_s=max(0.0, machine_cpu()[0] - busy - cpu),
        stolen_s=machine_cpu()[1] - stolen,
        memory=most_resident(),
        facts=facts,
    )
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
