"""One flipped bit anywhere in a library is found by a verification and by a restore, and never restored as good.

`LITHO_FLIPS` says how many bits are flipped, one after the other, each put back; 60 when it is not set (`make flips`: 1,000).
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from litho.errors import LibraryError
from litho.library import FileRef, ImageRef, Library, Manifest, Part, Stage, verify, whole
from litho.library.chunks import ChunkStore, scrub
from litho.library.chunks.store import DIRECTORY
from litho.messages import DiskFacts
from litho_agent import restore as restoring
from litho_agent.chunk import adapter
from litho_agent.chunk.usage import used_map
from support.chunked import MB, OWNER, contents
from support.memory import in_memory

FLIPS = int(os.environ.get("LITHO_FLIPS", "60"))
GRAIN = 128 * 1024
SIZE = MB
TABLE = b"""label: dos
label-id: 0x12345678
device: /dev/sda
unit: sectors
sector-size: 512

/dev/sda1 : start=        2048, size=        2048, type=83, bootable
"""
REF = ImageRef("golden", 1)
KINDS = {
    ".json": "manifest",
    ".sfdisk": "table",
    ".head": "head",
    ".chunks": "index",
    ".pack": "pack",
    ".idx": "pack index",
}


@pytest.fixture
def memory() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.fixture
def disk() -> bytes:
    return bytes(contents(5, SIZE, noise=0.5))


@pytest.fixture
def library(memory: Path, disk: bytes) -> Library:
    """An image with everything that one has: a manifest, a table, boot code, an index, two packs with theirs."""
    library = Library.create(memory / "library")
    source = memory / "source"
    source.write_bytes(disk)
    with Stage.open(library, "golden", OWNER) as stage, adapter.ChunkCapture(stage, pack_bytes=MB // 4) as chunks:
        saved = chunks.save(source, used_map(source, "", SIZE), suffix="sda1")
        chunks.finish()
        chunks.check()
        part = Part(number=1, start=2048 * 512, size=SIZE, fs="", **saved.fields())
        stage.publish(
            Manifest(
                image="golden",
                version=1,
                created="2026-11-22T16:00:00Z",
                software="test",
                disk=DiskFacts(path="/dev/sda", size=4 * MB),
                disk_name="sda",
                table="dos",
                table_dump=put(stage, "sda.sfdisk", TABLE),
                head=put(stage, "sda.head", bytes(range(256)) * 8),
                parts=(part,),
            )
        )
    return library


def put(stage: Stage, name: str, data: bytes) -> FileRef:
    with stage.create(name) as file:
        file.write(data)
    return FileRef(file=stage.file_name(name), bytes=len(data), sha256=sha256(data).hexdigest())


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        old = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([old ^ 1 << bit % 8]))


def verified(library: Library) -> bool:
    """What `litho image verify` says."""
    try:
        return not whole.check(library, library.manifest(REF), lambda _: None)
    except LibraryError:
        return False


def chunks_restored(library: Library, target: Path) -> bool:
    """Whether the chunk engine says success, by its own checks alone."""
    try:
        adapter.restore_part(library, library.manifest(REF).parts[0], target, mode="plain")
    except LibraryError:
        return False
    return True


def readied(library: Library) -> bool:
    """Whether a restore gets as far as its first write: the table, the boot code, all files of the version's own, its packs."""
    try:
        manifest = library.manifest(library.resolve(REF))
        restoring._table(library, manifest)
        verify.require(verify.check_files(library, manifest))
        adapter.ready(library, manifest.parts[0])
    except LibraryError:
        return False
    return True


def test_each_flipped_bit_is_found_by_verify_and_by_restore_and_none_is_restored_as_good(library, disk, memory):
    root = library.root
    own = [path for path in root.glob("golden.v1*") if path.suffix in KINDS]
    packs = [path for path in (root / DIRECTORY).iterdir() if path.suffix in {".pack", ".idx"}]
    paths = sorted(own) + sorted(packs)
    assert {KINDS[path.suffix] for path in paths} == set(KINDS.values())
    target = memory / "target"
    nothing = b"\x5a" * SIZE
    rng = random.Random(FLIPS)  # noqa: S311  the same bits each time
    # Half of them in proportion to size, half spread evenly over the files, so that the small ones are hit too.
    sizes = [path.stat().st_size for path in paths]
    chosen = rng.choices(paths, sizes, k=FLIPS // 2) + rng.choices(paths, k=FLIPS - FLIPS // 2)
    hit: Counter[str] = Counter()
    early: Counter[str] = Counter()
    for path in chosen:
        bit = rng.randrange(path.stat().st_size * 8)
        where = f"{path.name} bit {bit}"
        kind = KINDS[path.suffix]
        flip(path, bit)
        assert not verified(library), where
        target.write_bytes(nothing)
        ready = readied(library)
        early[kind] += not ready
        if kind in {"table", "head"}:
            # The chunks are whole: a restore has to stop before them.
            assert not ready, where
        else:
            assert not chunks_restored(library, target), where
            out = target.read_bytes()
            for at in range(0, SIZE, GRAIN):
                assert out[at : at + GRAIN] in (disk[at : at + GRAIN], nothing[:GRAIN]), f"{where}: byte {at} is wrong"
        hit[kind] += 1
        flip(path, bit)
    for kind, count in sorted(hit.items()):
        print(f"{kind}: {count} bits, all found by verify and by restore, {early[kind]} before the first write")  # noqa: T201 - the result
    assert sum(hit.values()) == FLIPS
    assert verified(library) and readied(library)
    assert scrub.scrub(ChunkStore(library)) == []
    target.write_bytes(nothing)
    assert chunks_restored(library, target) and target.read_bytes() == disk
