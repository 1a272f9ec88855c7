"""A disk with real content: an MBR table with FAT32, ext3, ext4 on a logical partition, and swap.

The content is taken from this machine's own /usr, because compressors and file systems behave on real files as they never do on
random or empty ones. FAT is filled with mtools and the others by mounting, so no kernel driver but ext4's is needed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from litho import process

MIB = 1024 * 1024
SWAP_UUID = "5a17c0de-0000-4000-8000-00000000d15c"
SWAP_LABEL = "demo-swap"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in MiB of the partitions, and of the content that goes onto each."""

    disk: int = 2400
    fat: int = 200
    fat_content: int = 60
    ext3: int = 900
    ext3_content: int = 440
    ext4: int = 1000
    ext4_content: int = 500
    swap: int = 64


SMALL = Shape(disk=400, fat=64, fat_content=8, ext3=96, ext3_content=24, ext4=96, ext4_content=24, swap=16)
"""The same disk for tests, in seconds."""


@contextlib.contextmanager
def attached(image: Path, *, size: int | None = None) -> Iterator[Path]:
    """A loop device over `image` (made sparse with `size` bytes when given)."""
    if size is not None:
        with image.open("ab") as file:
            file.truncate(size)
    disk = Path(process.run(["losetup", "--find", "--show", image], doing=f"attaching {image.name}").out.strip())
    try:
        yield disk
    finally:
        process.run(["partx", "--delete", disk], ok=(0, 1))
        process.run(["losetup", "--detach", disk], ok=(0, 1))


def show_partitions(disk: Path) -> None:
    """Make the nodes of `disk`'s partitions appear."""
    process.run(["partx", "--delete", disk], ok=(0, 1))
    process.run(["partx", "--add", disk])


def partition(disk: Path, number: int) -> Path:
    """The device of a partition of a loop disk."""
    return Path(f"{disk}p{number}")


@contextlib.contextmanager
def mounted(device: Path, where: Path, *, read_only: bool = False) -> Iterator[Path]:
    """`device` mounted at `where`, which is made and removed again."""
    where.mkdir(parents=True, exist_ok=True)
    options = ["-o", "ro,noload"] if read_only else []
    process.run(["mount", *options, device, where])
    try:
        yield where
    finally:
        process.run(["umount", where])
        where.rmdir()


def make(image: Path, work: Path, shape: Shape) -> None:
    """Make the source disk in the file `image`; `work` is a directory for mount points."""
    table = (
        "label: dos\n"
        f"start=2048, size={shape.fat}MiB, type=c, bootable\n"
        f"size={shape.ext3}MiB, type=83\n"
        "type=5\n"
        f"size={shape.ext4}MiB, type=83\n"
        f"size={shape.swap}MiB, type=82\n"
    )
    with attached(image, size=shape.disk * MIB) as disk:
        process.run(["sfdisk", "--no-reread", "--no-tell-kernel", disk], stdin=table.encode(), doing="making the table")
        # Boot code before the first partition, so that its way through an image can be seen.
        with disk.open("r+b") as raw:
            raw.write(b"LITHOGRAPH DEMO BOOT CODE".ljust(440, b"\x90"))
            raw.seek(512)
            raw.write(b"LITHOGRAPH DEMO CORE IMAGE " * 1000)
        show_partitions(disk)
        content = Content(Path("/usr"))
        fat, ext3, ext4, swap = (partition(disk, number) for number in (1, 2, 5, 6))
        process.run(["mkfs.vfat", "-F", "32", "-n", "DEMO-FAT", fat])
        process.run(["mmd", "-i", fat, "::docs"])
        for number, file in enumerate(content.files(shape.fat_content * MIB, least=256 * 1024)):
            # FAT knows neither long paths nor half the letters: numbered names keep it simple.
            process.run(["mcopy", "-i", fat, file, f"::docs/{number:05d}.bin"])
        process.run(["mkfs.ext3", "-q", "-F", "-L", "demo-ext3", ext3])
        process.run(["mkfs.ext4", "-q", "-F", "-L", "demo-ext4", ext4])
        for device, mib in ((ext3, shape.ext3_content), (ext4, shape.ext4_content)):
            with mounted(device, work / "mnt") as root:
                for file in content.files(mib * MIB):
                    target = root / file.relative_to("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, target, follow_symlinks=False)
                (root / "etc").mkdir(exist_ok=True)
                shutil.copy("/usr/lib/os-release", root / "etc/os-release")
        process.run(["mkswap", "-U", SWAP_UUID, "-L", SWAP_LABEL, swap])
        process.run(["sync", "--file-system", image])


class Content:
    """Regular files of a tree in a stable order: each call goes on where the last one stopped, and round again at the end."""

    def __init__(self, root: Path) -> None:
        self._found = [(path, path.stat().st_size) for path in self._files(root)]
        self._next = 0

    @staticmethod
    def _files(root: Path) -> Iterator[Path]:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path

    def files(self, limit: int, *, least: int = 1) -> Iterator[Path]:
        """The following files of at least `least` bytes, `limit` bytes in all; each file at most once."""
        taken = 0
        for _ in range(len(self._found)):
            path, size = self._found[self._next]
            self._next = (self._next + 1) % len(self._found)
            if least <= size <= limit // 4:
                taken += size
                if taken > limit:
                    return
                yield path
