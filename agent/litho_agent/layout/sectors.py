"""The first and last sectors of a disk, read as bytes: MBR entries, GPT headers, and what is odd about them.

sfdisk reads and writes tables; this module only looks, to tell what sfdisk does not: whether both copies of a GPT are
sound (UEFI specification 2.10, section 5.3: header at LBA 1 and at the last LBA, each with a CRC32 over itself and over
its entries), and whether the MBR in front of a GPT is a hybrid, one that also names partitions for old systems.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

import msgspec

ReadAt = Callable[[int, int], bytes]
"""(offset, length) in bytes -> what stands there; shorter at the end of the disk. Raises OSError."""

BOOT_CODE = 440
"""Bytes of boot code at the start of an MBR; the disk's identifier and the entries follow."""
ENTRIES = 446
_SIGNATURE = 510
_PROTECTIVE = 0xEE
_MAX_ENTRIES_BYTES = 1024 * 1024


class MbrEntry(msgspec.Struct, frozen=True):
    """One of the four entries."""

    number: int
    status: int
    type: int
    start: int
    size: int


class GptCopy(msgspec.Struct, frozen=True):
    """One sound copy of a GPT."""

    lba: int
    other_lba: int
    last_usable: int


class GptState(msgspec.Struct, frozen=True):
    """Which copies of a GPT are sound."""

    primary: GptCopy | None
    backup: GptCopy | None

    def notes(self, last_lba: int) -> tuple[str, ...]:
        """What a person should know; empty for a GPT as it should be."""
        if self.primary is None and self.backup is not None:
            return ("the primary GPT is damaged; the table was read from its backup at the end of the disk",)
        if self.primary is not None and self.backup is None:
            return ("the GPT has no valid backup at the end of the disk; a restore makes a new one",)
        if self.backup is not None and self.backup.lba != last_lba:
            return ("the backup GPT is not at the end of the disk; a restore puts it there",)
        return ()


def mbr_entries(sector: bytes) -> tuple[MbrEntry, ...] | None:
    """The entries in use of the MBR in `sector`; None when it is no MBR at all."""
    if len(sector) < 512 or sector[_SIGNATURE : _SIGNATURE + 2] != b"\x55\xaa":
        return None
    entries = []
    for index in range(4):
        status, kind, start, size = struct.unpack_from("<B3xB3xII", sector, ENTRIES + 16 * index)
        if kind:
            entries.append(MbrEntry(index + 1, status, kind, start, size))
    return tuple(entries)


def is_protective(sector: bytes) -> bool:
    """True when the MBR says that a GPT follows."""
    return any(entry.type == _PROTECTIVE for entry in mbr_entries(sector) or ())


def is_hybrid(sector: bytes) -> bool:
    """True when the MBR in front of a GPT names partitions besides the protective one."""
    return is_protective(sector) and any(entry.type != _PROTECTIVE for entry in mbr_entries(sector) or ())


def hybrid_entries(entries: bytes, sizes: Mapping[int, int], total: int) -> bytes:
    """The four entries (64 bytes) of a hybrid MBR as they must be on a disk of `total` sectors. Pure.

    `sizes` are the partitions of the GPT behind it, first sector -> sectors: an entry for a partition that was grown says its new
    size. The protective entry does not reach beyond the disk's end.
    """
    fitted = bytearray(entries)
    for at in range(0, 64, 16):
        kind, start, size = struct.unpack_from("<B3xII", fitted, at + 4)
        if kind == _PROTECTIVE:
            size = min(size, max(0, total - start))
        elif kind and start in sizes:
            size = min(sizes[start], 2**32 - 1)
        struct.pack_into("<I", fitted, at + 12, size)
    return bytes(fitted)


def is_dos(sector: bytes) -> bool:
    """True when the sector surely is an MBR with partitions, and not the boot sector of a file system."""
    entries = mbr_entries(sector)
    return bool(entries) and all(entry.status in (0, 0x80) and entry.start and entry.size for entry in entries or ())


def is_exfat(sector: bytes) -> bool:
    """True when the sector is the boot sector of an exFAT (exFAT file system specification, 3.1): its name, then 53 zeros."""
    return sector[3:11] == b"EXFAT   " and len(sector) >= 64 and not any(sector[11:64])


def gpt_state(read: ReadAt, *, size: int, sector_size: int) -> GptState:
    """Look at both copies of the GPT of a disk of `size` bytes. Raises OSError."""
    last = size // sector_size - 1
    primary = _copy(read, 1, sector_size, last)
    backup = None
    # The backup is where the primary says, and for a lost primary at the end of the disk.
    for lba in dict.fromkeys((primary.other_lba, last) if primary else (last,)):
        backup = backup or (_copy(read, lba, sector_size, last) if 1 < lba <= last else None)
    return GptState(primary, backup)


def _copy(read: ReadAt, lba: int, sector_size: int, last: int) -> GptCopy | None:
    sector = read(lba * sector_size, sector_size)
    if len(sector) < 92 or sector[:8] != b"EFI PART":
        return None
    length, crc = struct.unpack_from("<II", sector, 12)
    my_lba, other, _, last_usable = struct.unpack_from("<QQQQ", sector, 24)
    entries_lba, count, entry_size, entries_crc = struct.unpack_from("<QIII", sector, 72)
    if not 92 <= length <= len(sector) or my_lba != lba or entry_size < 128 or entries_lba > last:
        return None
    if zlib.crc32(sector[:16] + b"\0\0\0\0" + sector[20:length]) != crc:
        return None
    size = count * entry_size
    if size > _MAX_ENTRIES_BYTES or zlib.crc32(read(entries_lba * sector_size, size)) != entries_crc:
        return None
    return GptCopy(lba, other, last_usable)
