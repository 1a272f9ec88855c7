"""Making the kernel see a partition table, and waiting for the nodes.

First the plain way: BLKRRPART lets the kernel parse the disk itself. Traps, measured on Linux 6.18:

* It must be our ioctl on the held descriptor. `blockdev --rereadpt` is another process; it claims the disk for
  the call and gets EBUSY from our own claim.
* It answers EBUSY while anybody has a partition open, udev's probe for example. That passes, so it is tried again.
* Loop devices without partscan answer EINVAL, and a kernel that was built without a parser for the table
  succeeds and finds nothing.

In the last case the kernel is told each partition by BLKPG (linux/blkpg.h), as `partx` does. Not with `partx` itself: on
a disk with 4096 bytes a sector it gives an extended partition a length of 1 KiB, which the kernel refuses.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path

from litho.errors import DiskError
from litho_agent.disks.hold import Hold
from litho_agent.layout.table import Table, partition_path

_BLKRRPART = 0x125F
_BLKPG = 0x1269
_ADD, _DELETE = 1, 2
_PARTITION = struct.Struct("@qqi64s64s4x")
_ARGUMENT = struct.Struct("@iiiP")
_PATIENCE_S = 10.0
_EXTENDED_SHOWN = 1024
"""Bytes of an extended partition that have a node: enough for a boot sector, too few to write over logical ones."""


def reread(hold: Hold, table: Table, *, patience_s: float = _PATIENCE_S) -> None:
    """Make the kernel see `table`, and wait until every partition has its node.

    Raises DiskError when something keeps a partition open, or a node does not appear, for `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while not _told(hold, table):
        if time.monotonic() >= deadline:
            raise DiskError(
                f"the kernel does not take the new partition table of {hold.path}: something keeps a partition open",
                hint="`lsof` and `fuser` show what",
                code="table-busy",
            )
        time.sleep(0.1)
    while found := differing(hold.path, table):
        if time.monotonic() >= deadline:
            raise DiskError(f"the partitions of {hold.path} do not appear: {found}", code="no-nodes")
        time.sleep(0.05)


def forget(hold: Hold) -> None:
    """Let the kernel forget the disk's partitions. What is busy stays; `reread` deals with it."""
    for number in sorted(_known(hold.path), reverse=True):
        with contextlib.suppress(OSError):
            _blkpg(hold.fd, _DELETE, number)


def differing(disk: Path, table: Table) -> str:
    """What the kernel's partitions of `disk` have other than `table`; empty when they agree and every node is there."""
    known = _known(disk)
    found = _misplaced(known, table)
    if found:
        return found
    for number, (_, _, device) in known.items():
        path = partition_path(disk, number)
        try:
            node = path.stat()
        except OSError:
            return f"{path} is not there"
        if not stat.S_ISBLK(node.st_mode) or f"{os.major(node.st_rdev)}:{os.minor(node.st_rdev)}" != device:
            return f"{path} is not the node of partition {number}"
    return ""


def _told(hold: Hold, table: Table) -> bool:
    """Hand the table to the kernel once; False while a partition is busy."""
    try:
        fcntl.ioctl(hold.fd, _BLKRRPART)
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            return False
        if exc.errno not in (errno.EINVAL, errno.ENOTTY):
            raise DiskError(
                f"the partition table of {hold.path} cannot be read again: {exc.strerror}", code="table-busy"
            ) from exc
    if not _misplaced(_known(hold.path), table):
        return True
    forget(hold)
    if _known(hold.path):
        return False
    for part in table.partitions:
        size = table.size_bytes(part)
        if table.is_extended(part):
            size = min(size, max(_EXTENDED_SHOWN, table.sector_size))
        try:
            _blkpg(hold.fd, _ADD, part.number, table.start_bytes(part), size)
        except OSError as exc:
            raise DiskError(
                f"the kernel refuses partition {part.number} of {hold.path}: {exc.strerror}", code="no-nodes"
            ) from exc
    return True


def _misplaced(known: dict[int, tuple[int, int, str]], table: Table) -> str:
    wanted = {part.number: part for part in table.partitions}
    extra = sorted(set(known) - set(wanted))
    if extra:
        return f"the kernel still has partition {extra[0]}"
    for number, part in wanted.items():
        if number not in known:
            return f"the kernel has no partition {number}"
        start, size, _ = known[number]
        same_size = size == table.size_bytes(part) or table.is_extended(part)
        if start != table.start_bytes(part) or not same_size:
            return f"the kernel has partition {number} at another place"
    return ""


def _known(disk: Path) -> dict[int, tuple[int, int, str]]:
    """Number -> (start, size in bytes, major:minor) of the partitions that the kernel has."""
    found = {}
    for entry in Path("/sys/block", Path(os.path.realpath(disk)).name).glob("*/partition"):
        with contextlib.suppress(OSError, ValueError):
            start, size = (int((entry.parent / word).read_text()) * 512 for word in ("start", "size"))
            found[int(entry.read_text())] = (start, size, (entry.parent / "dev").read_text().strip())
    return found


def _blkpg(fd: int, operation: int, number: int, start: int = 0, size: int = 0) -> None:
    """Tell the kernel of one partition, in bytes. Raises OSError."""
    partition = ctypes.create_string_buffer(_PARTITION.pack(start, size, number, b"", b""), _PARTITION.size)
    fcntl.ioctl(fd, _BLKPG, _ARGUMENT.pack(operation, 0, _PARTITION.size, ctypes.addressof(partition)))
