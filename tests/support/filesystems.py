"""File systems for tests: made, filled and checked with the real tools, also those that the kernel has no driver for."""

import hashlib
import subprocess
from pathlib import Path

from litho.job import EngineName
from support.loop import sh

MIB = 1024 * 1024

MAKE = {
    "ext2": ("mkfs.ext2", "-q"),
    "ext3": ("mkfs.ext3", "-q"),
    "ext3-1k": ("mkfs.ext3", "-q", "-b", "1024"),
    "ext4": ("mkfs.ext4", "-q"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "xfs-v4": ("mkfs.xfs", "-q", "-f", "-m", "crc=0"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "fat12": ("mkfs.fat", "-F", "12"),
    "fat16": ("mkfs.fat", "-F", "16"),
    "fat32": ("mkfs.fat", "-F", "32"),
    "ntfs": ("mkntfs", "-q", "-F", "-f"),
    "exfat": ("mkfs.exfat",),
    "f2fs": ("mkfs.f2fs", "-q", "-f"),
    "reiserfs": ("mkreiserfs", "-q", "-f", "-f"),
    "jfs": ("mkfs.jfs", "-q"),
    "swap": ("mkswap",),
}
"""What makes each; the variants of one file system have names of their own."""

CHECK = {
    "ext2": ("e2fsck", "-fn"),
    "ext3": ("e2fsck", "-fn"),
    "ext4": ("e2fsck", "-fn"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly"),
    "vfat": ("fsck.fat", "-n"),
    "ntfs": ("ntfsfix", "-n"),
    "exfat": ("fsck.exfat", "-n"),
    "f2fs": ("fsck.f2fs", "--dry-run"),
    "reiserfs": ("reiserfsck", "--check", "-q", "-y"),
    "jfs": ("fsck.jfs", "-n", "-f"),
}
"""What checks each without writing, by blkid's name."""

CASES: list[tuple[str, EngineName, str, int]] = [
    ("ext2", "", "partclone", 48),
    ("ext3", "", "partclone", 48),
    ("ext3-1k", "", "partclone", 48),
    ("ext4", "", "partclone", 48),
    ("xfs", "", "partclone", 320),
    ("xfs-v4", "", "partclone", 320),
    ("btrfs", "", "partclone", 128),
    ("fat12", "", "raw", 14),
    ("fat16", "", "partclone", 48),
    ("fat32", "", "partclone", 64),
    ("ntfs", "", "partclone", 48),
    ("exfat", "", "partclone", 48),
    ("f2fs", "", "partclone", 128),
    ("ext2", "partimage", "partimage", 48),
    ("ext3", "partimage", "partimage", 48),
    ("ext3-1k", "partimage", "partimage", 48),
    ("xfs-v4", "partimage", "partimage", 320),
    ("fat16", "partimage", "partimage", 48),
    ("fat32", "partimage", "partimage", 64),
    ("ntfs", "partimage", "partimage", 48),
    ("reiserfs", "", "partimage", 48),
    ("jfs", "", "raw", 48),
    ("ext4", "raw", "raw", 48),
    ("swap", "raw", "raw", 16),
]
"""What is proven: the variant, the engine that is asked for, the one that has to be taken, MiB. See docs/reference/engines.md."""


def blkid_name(variant: str) -> str:
    """The name that blkid gives a variant."""
    if variant.startswith("fat"):
        return "vfat"
    return variant.partition("-")[0]


def make(variant: str, device: Path) -> None:
    more = ("-w", sh("blockdev", "--getss", device).strip()) if variant == "f2fs" else ()
    sh(*MAKE[variant], *more, device)


def files(folder: Path) -> Path:
    """A tree with some megabytes: large and small files, a hole, zeros, a link, deep folders."""
    tree = folder / "tree"
    if tree.exists():
        return tree
    deep = tree / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for number in range(60):
        (deep / f"small{number}").write_bytes(hashlib.sha256(bytes([number])).digest() * (number * 7 + 1))
    (tree / "large").write_bytes(b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(120_000)))
    (tree / "zeros").write_bytes(bytes(2 * MIB))
    return tree


def fill(variant: str, device: Path, folder: Path) -> bool:
    """Put `files` onto the file system, if anything here can; False when it stays empty."""
    tree = files(folder)
    fs = blkid_name(variant)
    if fs == "vfat":
        for path in sorted(tree.iterdir()):
            sh("mcopy", "-s", "-i", device, path, "::")
        return True
    if fs == "f2fs":
        # Few kernels have its driver; its tools can copy files in.
        sh("sload.f2fs", "-f", tree, device)
        return True
    if variant == "xfs-v4":
        # Not every kernel mounts it any more; mkfs can copy files in.
        proto = folder / "proto"
        proto.write_text("/\n0 0\nd--755 0 0\n" + _prototype(tree) + "$\n")
        sh(*MAKE[variant], "-p", proto, device)
        return True
    mount = {"ntfs": ("ntfs-3g",)}.get(fs, ("mount", "-t", fs))
    if fs not in {"ntfs", "ext2", "ext3", "ext4", "xfs", "btrfs"}:
        return False
    place = folder / "mnt"
    place.mkdir(exist_ok=True)
    sh(*mount, device, place)
    try:
        sh("cp", "-r", "--sparse=never", tree, place)
        # Something deleted: free blocks that are full of bytes.
        (place / "gone").write_bytes(b"gone" * MIB)
        sh("sync", "-f", place)
        (place / "gone").unlink()
    finally:
        sh("umount", place)
    return True


def _prototype(folder: Path) -> str:
    """The entries of `folder` in the language of mkfs.xfs -p."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            lines.append(f"{path.name} d--755 0 0\n{_prototype(path)}$\n")
        else:
            lines.append(f"{path.name} ---644 0 0 {path}\n")
    return "".join(lines)


def check(fs: str, device: Path) -> str:
    """What the checker says; fails the test when the file system is not clean."""
    done = subprocess.run([*CHECK[fs], str(device)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{CHECK[fs]} {device}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def blank(device: Path) -> None:
    """Fill a device with bytes that are no zeros, so that every block a restore leaves out shows."""
    size = int(sh("blockdev", "--getsize64", device))
    with device.open("r+b", buffering=0) as file:
        left = size
        while left > 0:
            left -= file.write(b"\xa5" * min(left, MIB))
