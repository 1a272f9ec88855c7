"""Marks of an unclean end, set into file systems byte by byte, and headers of encrypted volumes."""

import struct
import zlib
from pathlib import Path

MIB = 1024 * 1024
_F2FS_MAGIC = 0xF2F52010


def patch(path: Path, offset: int, data: bytes) -> None:
    """Write `data` at `offset`."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def look(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes at `offset`."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def fat_by_linux(path: Path, *, wide: bool) -> None:
    """As Linux marks a FAT while it is mounted: bit 0 of the state byte in the boot sector."""
    patch(path, 0x41 if wide else 0x25, b"\x01")


def fat_by_windows(path: Path, *, wide: bool) -> None:
    """As Windows does: the clean bit of the second entry, in every copy of the FAT."""
    boot = look(path, 0, 512)
    sector, reserved, copies = *struct.unpack_from("<H", boot, 11), *struct.unpack_from("<H", boot, 14), boot[16]
    each = struct.unpack_from("<I", boot, 36)[0] if wide else struct.unpack_from("<H", boot, 22)[0]
    size, bit = (4, 1 << 27) if wide else (2, 1 << 15)
    for number in range(copies):
        at = (reserved + number * each) * sector + size
        value = int.from_bytes(look(path, at, size), "little") & ~bit
        patch(path, at, value.to_bytes(size, "little"))


def exfat(path: Path) -> None:
    """VolumeDirty in the boot sector, which its checksum leaves out."""
    patch(path, 106, b"\x02\x00")


def f2fs(path: Path, *, damaged: bool = False) -> None:
    """Both checkpoints without the flag of an unmount, their checksums right; `damaged`: wrong."""
    for start in (512 * 4096, 1024 * 4096):
        for at in (start, start + (struct.unpack_from("<I", look(path, start, 4096), 136)[0] - 1) * 4096):
            block = bytearray(look(path, at, 4096))
            place = struct.unpack_from("<I", block, 164)[0]
            if not place:
                continue
            struct.pack_into("<I", block, 132, struct.unpack_from("<I", block, 132)[0] & ~1)
            crc = zlib.crc32(block[:place], _F2FS_MAGIC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
            struct.pack_into("<I", block, place, crc ^ damaged)
            patch(path, at, bytes(block))


def luks(path: Path, version: int) -> None:
    """The header of a LUKS volume, as far as it is looked at."""
    header = bytearray(4096)
    header[:8] = b"LUKS\xba\xbe" + struct.pack(">H", version)
    header[8:16] = struct.pack(">Q", 16384) if version == 2 else bytes(8)
    header[168:204] = b"6a0f1f6e-27ab-4ac8-9a8e-c6d1a6c42ad0"
    patch(path, 0, bytes(header))


def bitlocker(path: Path) -> None:
    """The boot sector of a BitLocker volume of Windows 7 and later, and the head of its metadata."""
    boot = bytearray(512)
    boot[:11] = b"\xeb\x58\x90-FVE-FS-"
    boot[11:13] = struct.pack("<H", 512)
    boot[160:184] = bytes.fromhex("3bd667492e29d84a8399f6a339e3d001") + struct.pack("<Q", MIB)
    patch(path, 0, bytes(boot))
    patch(path, MIB, b"-FVE-FS-" + struct.pack("<HH", 64, 2))


def hibernated_swap(path: Path) -> None:
    """Swap in which Linux has stored itself."""
    patch(path, 4086, b"S1SUSPEND\0")
