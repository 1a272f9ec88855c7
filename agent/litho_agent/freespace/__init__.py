"""Which bytes a file system uses, by its own record of what is free, read here: XFS, NTFS, FAT and exFAT.

`partclone -D` says the same of all of them, and takes up to two seconds whatever the size, because its progress thread sleeps in
whole seconds. These four keep what is free in one place and a form that a page of code reads: XFS in trees of free extents, NTFS
and exFAT in one bitmap, FAT in its table. btrfs has no such record (free is what its extent tree does not name) and stays with
partclone.

A reader answers only when everything adds up: sums, second copies, and that what the file system stands on is itself not free.
Whatever it does not know, or finds otherwise, is a `DoubtError`, and partclone is asked instead, unless it is
known to be wrong there (`WholeError`: all is taken). What may be free and may be not
(an XFS's blocks in reserve, a FAT's entry with odd top bits) counts as used.

Readers are pure: they read through a function and answer `(start, bytes)` of used runs from the start of the partition.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from litho_agent.freespace import exfat, fat, ntfs, xfs
from litho_agent.freespace.base import DoubtError, ReadAt, Runs, WholeError

__all__ = ["READERS", "DoubtError", "ReadAt", "Runs", "WholeError", "used_runs"]

READERS: dict[str, Callable[[ReadAt, int], Runs]] = {
    "xfs": xfs.used,
    "ntfs": ntfs.used,
    "vfat": fat.used,
    "exfat": exfat.used,
}
"""By blkid's names: (what reads the partition, bytes of the partition) -> its used runs."""


def used_runs(device: Path, fs: str, size: int) -> Runs:
    """The used runs of the file system `fs` on `device`, which has `size` bytes: ascending, apart from each other.

    Raises DoubtError when there is no reader for it, the device cannot be read, or the answer does not add up.
    """
    reader = READERS.get(fs)
    if reader is None:
        raise DoubtError(f"nothing here reads what is free in {fs or 'an unknown file system'}")
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # XFS writes past the device's page cache: what was read there before a mount may be old.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return reader(lambda offset, length: os.pread(fd, length, offset), size)
        finally:
            os.close(fd)
    except OSError as exc:
        raise DoubtError(f"{device} cannot be read: {exc.strerror}") from exc
