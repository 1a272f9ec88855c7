"""Images in chunks without a disk: plain files of patterned bytes, captured and published by hand for tests of the store."""

import random
from pathlib import Path

from litho.library import Library, Manifest, Owner, Part, Stage
from litho.library.chunks import ChunkStore
from litho.messages import DiskFacts
from litho_agent.chunk import adapter

OWNER = Owner(session="test")


def contents(seed: int, size: int, *, noise: float = 0.7) -> bytearray:
    """Bytes of which each 64 KiB is random, repeating or zero, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  the same bytes each time
    data = bytearray()
    while len(data) < size:
        kind = rng.random()
        block = rng.randbytes(65536) if kind < noise else rng.randbytes(64) * 1024 if kind < 0.95 else bytes(65536)
        data += block
    return data[:size]


def change(data: bytearray, seed: int, share: float) -> None:
    """Write other bytes into a share of the pages."""
    rng = random.Random(seed)  # noqa: S311  the same change each time
    for page in range(0, len(data) - 4096, 4096):
        if rng.random() < share:
            data[page : page + 4096] = rng.randbytes(4096)


def capture(library: Library, name: str, device: Path, *, fs: str = "", pack_bytes: int = 1024 * 1024) -> Manifest:
    """Capture `device` as an image with one partition and publish it."""
    size = (
        device.stat().st_size
        if device.is_file()
        else int(Path(f"/sys/class/block/{device.name}/size").read_text()) * 512
    )
    with Stage.open(library, name, OWNER) as stage, adapter.ChunkCapture(stage, pack_bytes=pack_bytes) as chunks:
        saved = chunks.save(device, fs=fs, size=size, suffix="sda1")
        finished = Manifest(
            image=name,
            version=stage.version,
            created="2026-11-22T16:00:00Z",
            software="test",
            disk=DiskFacts(path="/dev/sda", size=size),
            disk_name="sda",
            table="none",
            parts=(Part(number=1, start=0, size=size, fs=fs, **saved.fields()),),
        )
        chunks.finish()
        stage.publish(finished)
    return finished


def packs(library: Library) -> set[str]:
    """Names of the files in `.chunks` that hold chunks or speak of a pack."""
    listing = ChunkStore(library).listing()
    groups = (listing.pack, listing.unfinished, listing.live, listing.condemned, listing.doomed)
    return {pack.hex() for group in groups for pack in group}
