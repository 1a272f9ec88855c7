"""Growing what lies on a partition that was made larger (`fit=grow`).

ext is checked and resized unmounted, as resize2fs wants it; NTFS likewise, and Windows checks it once at its next
start; XFS and btrfs grow only while mounted, so they are mounted for a moment; swap is made anew. All of these
programs want the partition for themselves, so it is lent to them (`Hold.lend`)."""

from __future__ import annotations

import os
from pathlib import Path

from litho import process
from litho.errors import DiskError
from litho_agent.disks.hold import Hold
from litho_agent.filesystems import SWAP, make_swap
from litho_agent.mounting import mounted

_EXT = frozenset({"ext2", "ext3", "ext4"})
GROWABLE = _EXT | {"xfs", "btrfs", "ntfs", SWAP}
_PATIENCE_S = 3600.0
_BTRFS_LEAST = 256 * 1024 * 1024
"""Bytes; `btrfs filesystem resize` to less ends with EINVAL (Linux, fs/btrfs/ioctl.c)."""


def can_grow(fs: str) -> bool:
    """True when the file system `fs`, as blkid names it, can be grown here."""
    return fs in GROWABLE


def grow(hold: Hold, device: Path, fs: str, *, uuid: str = "", label: str = "") -> str:
    """Let the file system `fs` on `device` take all of its partition. `uuid` and `label` are for swap.

    Answers why it was left as it was, for a person; empty when it was grown.

    Raises DiskError for one that cannot be grown, EngineError when a program fails.
    """
    doing = f"growing the {fs} on {device}"
    if fs not in GROWABLE:
        raise DiskError(f"the {fs or 'unknown content'} on {device} cannot be grown", code="cannot-grow")
    if fs == "btrfs" and _size(device) < _BTRFS_LEAST:
        return f"the btrfs on {device} was left at its size: the kernel resizes none to less than 256 MiB"
    with hold.lend(device):
        if fs in _EXT:
            # resize2fs insists on a check that is newer than the last mount; 1 means that it corrected something.
            process.run(["e2fsck", "-f", "-p", device], ok=(0, 1), timeout_s=_PATIENCE_S, doing=doing)
            process.run(["resize2fs", device], timeout_s=_PATIENCE_S, doing=doing)
        elif fs == "ntfs":
            process.run(
                ["ntfsresize", "--force", "--no-progress-bar", device], stdin=b"y\n", timeout_s=_PATIENCE_S, doing=doing
            )
        elif fs == SWAP:
            process.run(make_swap(device, uuid=uuid, label=label), doing=doing)
        else:
            with mounted(device, fs, read_only=False) as where:
                if fs == "xfs":
                    process.run(["xfs_growfs", where], timeout_s=_PATIENCE_S, doing=doing)
                else:
                    process.run(["btrfs", "filesystem", "resize", "max", where], timeout_s=_PATIENCE_S, doing=doing)
    return ""


def _size(device: Path) -> int:
    try:
        with device.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as exc:
        raise DiskError(f"{device} cannot be opened: {exc.strerror}", code="disk-missing") from exc
