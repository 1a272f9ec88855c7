"""Reading a partimage 0.6 image from its first byte to its last, and believing none that its checks do not cover.

The format as partimage's sources have it (src/shared/common.h, src/client/imagefile.cpp, fs/fs_base.cpp of 0.6.10),
verified with images that 0.6.9 made. Little endian throughout. A volume is [512 bytes header][a piece of the stream],
possibly compressed as a whole; the stream is the pieces behind each other:

    main header 16384 + sum · MBR records · ten empty extensions · local header 16384 + sum · bitmap
    · file system's own facts 16384 + sum · the used blocks, a check record after every 65536 bytes · tail

Headers carry the sum of their bytes as *signed* numbers, a check record the CRC-32 of the 65536 bytes before it, the
tail the sum of all bytes as unsigned numbers. That last sum is compared modulo 65521, which is what zlib adds up at
full speed.

What partimage checks on restore as well, the number of the last volume in the tail, is made 0 when volumes are joined
to one stream: it is not under the sum.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from litho.errors import IntegrityError
from litho_controller.adopt.stream import ByteSum, Kept, Stream, count_bits

MAGIC = b"PaRtImAgE-VoLuMe"
VOLUME_HEADER = 512

_HEADER = 16384
_SUPPORTED = ("0.6.0", "0.6.1")
_MBR = b"MAGIC-BEGIN-MBRBACKUP"
_LOCAL = b"MAGIC-BEGIN-LOCALHEADER"
_BITMAP = b"MAGIC-BEGIN-BITMAP"
_INFO = b"MAGIC-BEGIN-INFO"
_DATA = b"MAGIC-BEGIN-DATABLOCKS"
_TAIL = b"MAGIC-BEGIN-TAIL"
_MBR_RECORD = 2048
_MOST_MBRS = 256
_CHECK_EVERY = 65536
_CHECK = struct.Struct("<4sIQ")
_MOST_BITMAP = 512 * 1024 * 1024

FILE_SYSTEMS = {
    "ext2fs": ("ext2", "ext3"),
    "ext3fs": ("ext3", "ext2"),
    "fat12": ("vfat",),
    "fat16": ("vfat",),
    "fat32": ("vfat",),
    "ntfs": ("ntfs",),
    "xfs": ("xfs",),
    "jfs": ("jfs",),
    "hfs": ("hfs",),
    "hpfs": ("hpfs",),
    "ufs": ("ufs",),
}
"""What blkid may call the file systems of a main header; ReiserFS has its version in its name."""


class VolumeHeader(msgspec.Struct, frozen=True):
    """The first 512 bytes of a volume."""

    number: int
    identifier: int


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What an image that was read to its end holds."""

    program: str
    """Format version, as the volume says: `0.6.1`."""
    fs: str
    """As partimage names it: `ext3fs`."""
    size: int
    """Bytes of the partition."""
    used: int
    """Bytes of used blocks."""
    device: str
    """Which partition it was: `/dev/hda1`."""
    boot_sector: bytes
    """Sector 0 of its disk, when the image holds that one alone; else empty."""
    kept: dict[int, bytes]
    """Blocks by their place, from which the file system can be told."""


def parse_volume_header(data: bytes) -> VolumeHeader:
    """The header in the first 512 bytes of a volume. Raises IntegrityError."""
    version = _text(data[32:96])
    if data[: len(MAGIC)] != MAGIC or any(data[len(MAGIC) : 32]):
        raise _bad("its first bytes are not those of a partimage volume")
    if version not in _SUPPORTED:
        raise _bad(f"its format is {version[:20]!r}, and {' and '.join(_SUPPORTED)} can be read")
    number, identifier = struct.unpack_from("<IQ", data, 96)
    return VolumeHeader(number, identifier)


def read(stream: Stream, *, volumes: int) -> Image:
    """Read an image that lies in `volumes` volumes; `stream` begins with the header of the first and goes on without the others'.

    Raises IntegrityError that says what is wrong with it, as a clause about "it".
    """
    first = stream.take(VOLUME_HEADER, "the header of its first volume")
    parse_volume_header(first)
    reader = _Reader(stream)
    main = reader.header("main header")
    fs, device = _text(main[0:512]), _text(main[4608:5120])
    size, mbrs, mbr_size, encryption = *struct.unpack_from("<Q", main, 9592), *struct.unpack_from("<III", main, 9792)
    if encryption:
        raise _bad("it is encrypted")
    if mbrs > _MOST_MBRS or (mbrs and mbr_size != _MBR_RECORD):
        raise _bad(f"it says that it holds {mbrs} boot sectors of {mbr_size} bytes")
    reader.magic(_MBR)
    records = [reader.take(mbr_size, "the boot sectors") for _ in range(mbrs)]
    for number in range(10):
        reader.magic(b"MAGIC-BEGIN-EXT%03d" % number)
        length = int.from_bytes(reader.take(4, "an extension"), "little")
        if length > _HEADER:
            raise _bad(f"it has an extension of {length} bytes")
        reader.take(length, "an extension")
    reader.magic(_LOCAL)
    local = reader.header("local header")
    block_size, _, count, bitmap_size = struct.unpack_from("<QQQQ", local, 0)
    _check_shape(size, block_size, count, bitmap_size)
    reader.magic(_BITMAP)
    bitmap = reader.take(bitmap_size, "the bitmap of its used blocks")
    reader.magic(_INFO)
    reader.header("header of its file system")
    used = count_bits(bitmap, count) * block_size
    kept = Kept(block_size, bitmap, count)
    reader.magic(_DATA)
    reader.data(used, kept)
    reader.magic(_TAIL)
    reader.tail(volumes)
    stream.end()
    return Image(
        program=_text(first[32:96]),
        fs=fs,
        size=size,
        used=used,
        device=device[:256],
        boot_sector=_boot_sector(records, device),
        kept=kept.found,
    )


class _Reader:
    """The stream with its sums."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._sum = ByteSum()

    def take(self, count: int, what: str) -> bytes:
        data = self._stream.take(count, what)
        self._sum.add(data)
        return data

    def magic(self, wanted: bytes) -> None:
        name = wanted.removeprefix(b"MAGIC-BEGIN-").decode()
        at = self._stream.at
        if self.take(len(wanted), f"the mark {name}") != wanted:
            raise _bad(f"the mark {name} is not where it should be, at byte {at}")

    def header(self, what: str) -> bytes:
        data = self.take(_HEADER, f"its {what}")
        wanted = int.from_bytes(self.take(4, f"its {what}"), "little")
        # Signed bytes: each from 128 on counts 256 less. An ARM build of partimage adds them unsigned.
        unsigned = sum(data)
        signed = unsigned - 256 * sum(byte > 127 for byte in data)
        if wanted not in (signed % 2**32, unsigned % 2**32):
            raise _bad(f"the sum of its {what} is wrong")
        return data

    def data(self, total: int, kept: Kept) -> None:
        done = 0
        while done < total:
            size = min(_CHECK_EVERY, total - done)
            piece = self.take(size, "its data")
            kept.feed(done, piece)
            done += size
            if size == _CHECK_EVERY:
                mark, crc, _ = _CHECK.unpack(self.take(_CHECK.size, "its data"))
                if mark != b"CHK\0":
                    raise _bad(f"a check is missing behind byte {done} of its data")
                if crc != zlib.crc32(piece):
                    raise _bad(f"its data is damaged between bytes {done - size} and {done} (the CRC-32 differs)")

    def tail(self, volumes: int) -> None:
        tail = self._stream.take(_HEADER, "its tail", emit=False)
        total, last = struct.unpack_from("<QI", tail, 0)
        if not self._sum.matches(total):
            raise _bad("the sum of all its bytes is wrong")
        if last != volumes - 1:
            raise _bad(f"it says that it was written in {last + 1} volumes, and {volumes} were given")
        self._stream.emit(tail[:8] + bytes(4) + tail[12:])


def _boot_sector(records: list[bytes], device: str) -> bytes:
    """Sector 0 of the disk that `device` is on, if that is the only one there and its own sum is right; else empty."""
    if len(records) != 1:
        return b""
    sector, wanted = records[0][:512], int.from_bytes(records[0][512:516], "little")
    disk = _text(records[0][516:1028]).rpartition("/")[2]
    signed = sum(sector) - 256 * sum(byte > 127 for byte in sector)
    rest = device.rpartition("/")[2].removeprefix(disk).removeprefix("p")
    return sector if disk and rest.isdigit() and wanted == signed % 2**32 else b""


def _check_shape(size: int, block_size: int, count: int, bitmap_size: int) -> None:
    if block_size not in {512 << shift for shift in range(8)}:
        raise _bad(f"it counts in blocks of {block_size} bytes")
    if not 0 < size <= 2**50 or not 0 < count <= size // block_size + 1:
        raise _bad(f"it says that {count} blocks of {block_size} bytes are a partition of {size} bytes")
    if not (count + 7) // 8 <= bitmap_size <= min(_MOST_BITMAP, (count + 7) // 8 + 1024 * 1024):
        raise _bad(f"it says that {count} blocks have a bitmap of {bitmap_size} bytes")


def _text(field: bytes) -> str:
    return "".join(char if char.isprintable() else "." for char in field.partition(b"\0")[0].decode("utf-8", "replace"))


def _bad(what: str) -> IntegrityError:
    return IntegrityError(what, hint="nothing was adopted", code="image-damaged")
