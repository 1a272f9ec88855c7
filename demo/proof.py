"""The proof that two disks are the same where it counts: table, boot code, every used block, file systems, every file.

Unused blocks are not compared: no engine copies them, and the target holds whatever was there before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from demo.disk import mounted
from litho.errors import IntegrityError
from litho_agent import filesystems
from litho_agent.engines.used import Extent, used_extents
from litho_agent.layout import Table, partition_path, read_layout

_BLOCK = 4 * 1024 * 1024
_MOUNTABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared on one partition and found equal."""

    partition: int
    fs: str
    used: int
    """Bytes of used blocks, each equal; 0 for swap."""
    files: int
    """Files read and equal; 0 where the file system is not mounted."""
    clean: bool
    """The file system's own checker found nothing to complain about."""


def prove(source: Path, target: Path, work: Path) -> tuple[Proven, ...]:
    """Compare the disks. Raises IntegrityError that says what differs."""
    one, other = read_layout(source), read_layout(target)
    if not one.table.same(other.table):
        raise IntegrityError(f"the partition tables of {source} and {target} differ")
    if _without_ends(one.head, one.table) != _without_ends(other.head, other.table):
        raise IntegrityError(f"the boot code of {source} and {target} differs")
    numbers = [part.number for part in one.table.partitions if not one.table.is_extended(part)]
    return tuple(_partition(number, source, target, work) for number in numbers)


def _without_ends(head: bytes, table: Table) -> bytes:
    """Boot code and gap; the table itself is compared as a table."""
    return head[:440] + head[table.reserved * table.sector_size :]


def _partition(number: int, source: Path, target: Path, work: Path) -> Proven:
    one, other = partition_path(source, number), partition_path(target, number)
    before, after = filesystems.probe(one), filesystems.probe(other)
    if (before.type, before.uuid, before.label) != (after.type, after.uuid, after.label):
        raise IntegrityError(f"{other} is not what {one} was: {after} instead of {before}")
    extents = used_extents(one, before.type) or ()
    if before.type != filesystems.SWAP:
        _same_blocks(one, other, extents)
    files = 0
    if before.type in _MOUNTABLE:
        with (
            mounted(one, work / "source", read_only=True) as left,
            mounted(other, work / "target", read_only=True) as right,
        ):
            files = _same_files(left, right)
    return Proven(
        partition=number,
        fs=before.type,
        used=sum(extent.size for extent in extents),
        files=files,
        clean=filesystems.prove(other, before.type),
    )


def _same_blocks(one: Path, other: Path, extents: tuple[Extent, ...]) -> None:
    if not extents:
        raise IntegrityError(f"nothing is used on {one}, so nothing would be compared")
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        for extent in extents:
            for at in range(extent.start, extent.end, _BLOCK):
                length = min(_BLOCK, extent.end - at)
                if os.pread(left.fileno(), length, at) != os.pread(right.fileno(), length, at):
                    raise IntegrityError(f"{one} and {other} differ between bytes {at} and {at + length}")


def _same_files(left: Path, right: Path) -> int:
    """Compare every file of both trees; answers how many there are."""
    mine, theirs = list(_tree(left)), list(_tree(right))
    if mine != theirs:
        raise IntegrityError(f"the trees differ: {sorted(set(mine) ^ set(theirs))[:3]}")
    for name in mine:
        if (left / name).read_bytes() != (right / name).read_bytes():
            raise IntegrityError(f"the file {name} differs")
    return len(mine)


def _tree(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(root))
