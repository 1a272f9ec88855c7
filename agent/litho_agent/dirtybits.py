"""The marks by which FAT, exFAT and F2FS say that they were not cleanly unmounted, read from their own bytes. Pure: a reader in.

No program tells them without also repairing or reading all of the file system, and a node may lack it (F2FS), so they are
read here.

* FAT (Microsoft's "FAT: General Overview of On-Disk Format", and Linux's fs/fat): Windows clears bit 15 (FAT16) or 27 (FAT32)
  of the second entry of the FAT while it has the volume; Linux sets bit 0 of a reserved byte of the boot sector. FAT12 has
  only the latter. fsck.fat 4.2 knows both.
* exFAT (Microsoft's specification, 3.1.13): bit 1 of VolumeFlags in the boot sector.
* F2FS (linux/f2fs_fs.h): of two checkpoint packs the valid one with the higher version counts; flag 1 of it is set by an
  unmount. Without it, what was synced since waits to be rolled forward at the next mount.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Literal

ReadAt = Callable[[int, int], bytes]
"""(offset, length) in bytes of the partition -> what lies there; shorter at its end."""
Mark = Literal["clean", "dirty", "unreadable"]

_BOOT = 512
_FAT12_CLUSTERS, _FAT16_CLUSTERS = 4085, 65525
_F2FS_MAGIC = 0xF2F52010
_F2FS_SUPER = 1024
_F2FS_BLOCK = 4096
_CP_UMOUNT = 0x1


def fat(read_at: ReadAt) -> Mark:
    """Was a FAT12, FAT16 or FAT32 cleanly unmounted?"""
    boot = read_at(0, _BOOT)
    if len(boot) < _BOOT:
        return "unreadable"
    sector, per_cluster, reserved, copies, roots = struct.unpack_from("<HBHBH", boot, 11)
    sectors = struct.unpack_from("<H", boot, 19)[0] or struct.unpack_from("<I", boot, 32)[0]
    each = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or not reserved or not copies or not each:
        return "unreadable"
    clusters = (sectors - reserved - copies * each - -(-roots * 32 // sector)) // per_cluster
    wide = struct.unpack_from("<H", boot, 22)[0] == 0
    # Behind the byte with the bit stands the mark of an extended boot sector, without which there is no such byte.
    state, mark = (boot[0x41], boot[0x42]) if wide else (boot[0x25], boot[0x26])
    if mark in (0x28, 0x29) and state & 1:
        return "dirty"
    if not wide and clusters < _FAT12_CLUSTERS:
        return "clean"
    size, bit = (4, 1 << 27) if wide or clusters >= _FAT16_CLUSTERS else (2, 1 << 15)
    entry = read_at(reserved * sector + size, size)
    if len(entry) < size:
        return "unreadable"
    return "clean" if int.from_bytes(entry, "little") & bit else "dirty"


def exfat(read_at: ReadAt) -> Mark:
    """Was an exFAT cleanly unmounted?"""
    boot = read_at(0, _BOOT)
    if len(boot) < _BOOT or boot[3:11] != b"EXFAT   ":
        return "unreadable"
    return "dirty" if struct.unpack_from("<H", boot, 106)[0] & 0x2 else "clean"


def f2fs(read_at: ReadAt) -> Mark:
    """Was an F2FS cleanly unmounted? "unreadable" when neither of its checkpoints is whole."""
    for start in (_F2FS_SUPER, _F2FS_BLOCK + _F2FS_SUPER):
        block = read_at(start, 512)
        if len(block) == 512 and struct.unpack_from("<I", block)[0] == _F2FS_MAGIC:
            break
    else:
        return "unreadable"
    block_bits, segment_bits = struct.unpack_from("<II", block, 16)
    (first,) = struct.unpack_from("<I", block, 76)
    if block_bits not in range(12, 17) or segment_bits > 16:
        return "unreadable"
    size = 1 << block_bits
    packs = (_checkpoint(read_at, at << block_bits, size) for at in (first, first + (1 << segment_bits)))
    found = [pack for pack in packs if pack is not None]
    if not found:
        return "unreadable"
    _, flags = max(found)
    return "clean" if flags & _CP_UMOUNT else "dirty"


def _checkpoint(read_at: ReadAt, start: int, size: int) -> tuple[int, int] | None:
    """(version, flags) of the checkpoint pack at byte `start`; None unless its first and last block belong together."""
    first = _checkpoint_block(read_at, start, size)
    if first is None:
        return None
    version, flags, blocks = first
    last = _checkpoint_block(read_at, start + (blocks - 1) * size, size) if 1 < blocks <= 1 << 16 else None
    return (version, flags) if last is not None and last[0] == version else None


def _checkpoint_block(read_at: ReadAt, start: int, size: int) -> tuple[int, int, int] | None:
    """(version, flags, blocks of the pack) in one block with a right checksum."""
    block = read_at(start, size)
    if len(block) < size:
        return None
    (version,) = struct.unpack_from("<Q", block)
    flags, blocks = struct.unpack_from("<II", block, 132)
    (at,) = struct.unpack_from("<I", block, 164)
    if not 192 <= at <= size - 4:
        return None
    # A CRC-32 that starts with the magic and is not inverted at either end.
    found = zlib.crc32(block[:at], _F2FS_MAGIC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return (version, flags, blocks) if found == struct.unpack_from("<I", block, at)[0] else None


def btrfs_devices(read: ReadAt) -> int:
    """How many devices the btrfs lies on, from its first superblock (btrfs on-disk format: magic at 0x40, num_devices at 0x88);
    0 when that is none. Raises OSError."""
    block = read(0x10000, 0x90)
    if len(block) < 0x90 or block[0x40:0x48] != b"_BHRfS_M":
        return 0
    return int.from_bytes(block[0x88:0x90], "little")
