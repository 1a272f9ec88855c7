"""Mounting a file system for a moment, out of everybody's way, for what cannot be done to an unmounted one.

XFS and btrfs grow only while mounted, XFS replays its log by being mounted, and files on file systems that no offline
reader knows are read through the kernel. The mount point is a new directory that only root may enter; programs,
devices and set-uid bits on the file system have no effect.

Trap: a disk that is held exclusively (`disks.hold`) lets nobody mount its partitions. For writing the partition has
to be lent; for reading, a read-only loop device on top of it does, because a loop device does not claim what it
stands on."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from litho import process
from litho.errors import DiskError

_TYPES = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "vfat", "xfs", "exfat", "ntfs3"})
_NO_REPLAY = {"xfs": "norecovery", "ext3": "noload", "ext4": "noload", "btrfs": "rescue=nologreplay"}


@contextlib.contextmanager
def mounted(device: Path, fs: str, *, read_only: bool) -> Iterator[Path]:
    """Mount `device` and yield where. Read-only touches nothing on it: no journal is replayed.

    Raises DiskError for a file system that is not mounted here, EngineError when the kernel cannot mount it.
    """
    if fs not in _TYPES:
        raise DiskError(f"{fs or 'unknown content'} on {device} cannot be mounted here", code="cannot-mount")
    options = ["nosuid", "nodev", "noexec"]
    if read_only:
        options += ["ro", "loop", *([_NO_REPLAY[fs]] if fs in _NO_REPLAY else [])]
    with tempfile.TemporaryDirectory(prefix="litho-mount-", ignore_cleanup_errors=True) as directory:
        process.run(
            ["mount", "-t", fs, "-o", ",".join(options), device, directory],
            timeout_s=300,
            doing=f"mounting {device}",
        )
        try:
            yield Path(directory)
        finally:
            process.run(["umount", directory], timeout_s=300, doing=f"unmounting {device}")


def read_inside(root: Path, path: str, limit: int) -> bytes:
    """At most `limit` bytes of the regular file `path` below `root`; empty when it is not there. No link leads out of `root`.

    Links are followed by hand: an absolute one on a foreign file system means that system's root, and not ours.
    """
    at = root
    left = [word for word in path.split("/") if word]
    hops = 0
    while left:
        word = left.pop(0)
        if word in ("", "."):
            continue
        if word == "..":
            at = at.parent if at != root else root
            continue
        step = at / word
        try:
            target = str(step.readlink())
        except OSError:
            at = step
            continue
        hops += 1
        if hops > 20:
            return b""
        left = [*target.split("/"), *left]
        at = root if target.startswith("/") else at
    try:
        # O_NONBLOCK: a FIFO of that name must not hold us up.
        fd = os.open(at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        # Reads of a regular file are short only at its end; `limit` is small.
        return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
