"""Images in chunks for tests: patterned files and filled file systems, captured and published by hand."""

import json
import os
import random
from pathlib import Path

from litho.library import Library, Manifest, Owner, Part, Stage
from litho.library.chunks import ChunkStore
from litho.messages import DiskFacts
from litho_agent.chunk import adapter
from litho_agent.chunk.usage import used_map
from support.loop import sh

MB = 1024 * 1024
SIZE = 320 * MB
MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "ext3": ("mkfs.ext3", "-q", "-F", "-b", "1024"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "vfat": ("mkfs.vfat",),
    "ntfs": ("mkntfs", "-q", "-F", "-Q"),
}
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
        saved = chunks.save(device, used_map(device, fs, size), suffix="sda1")
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
        chunks.check()
        stage.publish(finished)
    return finished


def packs(library: Library) -> set[str]:
    """Names of the files in `.chunks` that hold chunks or speak of a pack."""
    listing = ChunkStore(library).listing()
    groups = (listing.pack, listing.unfinished, listing.live, listing.condemned, listing.doomed)
    return {pack.hex() for group in groups for pack in group}


def make_files(tree: Path) -> Path:
    """About 30 MB: real files, incompressible ones, and a large one of zeros with an end."""
    (tree / "deep" / "er").mkdir(parents=True)
    source = Path(json.__file__).parent.parent
    for n, path in enumerate(sorted(source.glob("*.py"))[:150]):
        (tree / "deep" / f"{n}.py").write_bytes(path.read_bytes())
    rng = random.Random(1)  # noqa: S311  the same bytes each time
    (tree / "deep" / "er" / "random.bin").write_bytes(rng.randbytes(12 * MB))
    (tree / "zeros.bin").write_bytes(bytes(8 * MB) + b"end")
    for n in range(40):
        (tree / f"small{n}").write_bytes(rng.randbytes(rng.randrange(1, 40_000)))
    return tree


def fill(disk: Path, fs: str, files: Path, at: Path) -> None:
    """Make `fs` on `disk` and put `files` into it, with holes left by deleted ones."""
    sh(*MKFS[fs], disk)
    if fs == "vfat":
        sh("mcopy", "-s", "-i", disk, *sorted(files.iterdir()), "::/")
        sh("mdel", "-i", disk, "::/small1", "::/small7")
        return
    at.mkdir(exist_ok=True)
    sh(*(("ntfs-3g", disk, at) if fs == "ntfs" else ("mount", disk, at)))
    try:
        sh("cp", "-r", f"{files}/.", at)
        os.sync()
        for n in range(0, 40, 3):
            (at / f"small{n}").unlink()
    finally:
        sh("umount", at)


def soil(disk: Path, size: int = SIZE) -> None:
    """The target holds something else."""
    with disk.open("r+b", buffering=0) as file:
        for _ in range(0, size, MB):
            file.write(b"\xa5" * MB)
