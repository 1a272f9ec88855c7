"""Reading a partclone image of format 0002 from its first byte to its last.

As partclone's sources have it (src/partclone.h, src/checksum.c of 0.3), verified with images that 0.3.23 made. Little
endian:

    "partclone-image\\0" · version of the program 14 · format 4 · 0xC0DE
    file system 16 · partition bytes 8 · blocks 8 · used blocks 8 · used by the bitmap 8 · block size 4
    size of the following 4 · format 2 · bits of the processor 2 · checksum 2 · its size 2 · blocks a checksum 4
    reseed 1 · bitmap 1 · CRC 4 · bitmap · CRC 4 · used blocks, with a checksum after every so many and behind the last

Its CRC-32 is zlib's without the final inversion. Images of format 0001 (partclone before 0.3, 2015) are refused:
their checksums depend on the processor that made them.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from litho.errors import IntegrityError, RefusedError
from litho_controller.adopt.stream import Kept, Stream, count_bits

_HEAD = struct.Struct("<16s14s4sH16sQQQQIIHHHHIBBI")
_MAGIC = b"partclone-image\0"
_LITTLE = 0xC0DE
_NO_CHECKSUM, _CRC32 = 0x00, 0x20
_BITS = 1
_OPTIONS = 18
_MOST_BITMAP = 512 * 1024 * 1024
_MOST_GROUP = 256 * 1024 * 1024


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What an image that was read to its end holds."""

    program: str
    """Version of the partclone that made it: `0.3.23`."""
    fs: str
    """As partclone names it: `EXTFS`."""
    size: int
    """Bytes of the partition."""
    used: int
    """Bytes of used blocks."""
    checked: bool
    """True when its data carries checksums."""
    kept: dict[int, bytes]
    """Blocks by their place, from which the file system can be told."""


def read(stream: Stream) -> Image:
    """Read an image. Raises IntegrityError that says what is wrong with it, as a clause about "it"; RefusedError."""
    head = stream.take(_HEAD.size, "its header")
    (magic, program, form, endian, fs, size, count, _, _, block_size, options, *rest) = _HEAD.unpack(head)
    _, _, mode, width, group, reseed, bitmap_mode, crc = rest
    if form == b"0001":
        raise RefusedError(
            "it is a partclone image of format 0001, which is not read here",
            hint="restore it with partclone and capture the disk again",
            code="unknown-format",
        )
    if magic != _MAGIC or form != b"0002" or endian != _LITTLE or options != _OPTIONS:
        raise _bad("its header is not that of a partclone image of format 0002")
    if crc != _crc(head[:-4]):
        raise _bad("the CRC-32 of its header is wrong")
    if (mode, width) not in ((_NO_CHECKSUM, 0), (_CRC32, 4)) or bitmap_mode != _BITS:
        raise _bad(f"its checksums are of kind {mode:#x} and its bitmap of kind {bitmap_mode}, which are not read here")
    _check_shape(size, block_size, count, group if mode else 1)
    bitmap = stream.take((count + 7) // 8, "the bitmap of its used blocks")
    if int.from_bytes(stream.take(4, "the bitmap of its used blocks"), "little") != _crc(bitmap):
        raise _bad("the CRC-32 of its bitmap is wrong")
    used = count_bits(bitmap, count)
    kept = Kept(block_size, bitmap, count)
    _data(stream, used, block_size, group if mode else 0, kept, reseed=bool(reseed))
    stream.end()
    return Image(
        program=_text(program),
        fs=_text(fs),
        size=size,
        used=used * block_size,
        checked=mode == _CRC32,
        kept=kept.found,
    )


def _data(stream: Stream, used: int, block_size: int, group: int, kept: Kept, *, reseed: bool) -> None:
    """All used blocks. `group` is how many of them share a checksum; 0 for none."""
    done, state = 0, 0xFFFFFFFF
    step = group or max(1, 1024 * 1024 // block_size)
    while done < used:
        here = min(step, used - done)
        data = stream.take(here * block_size, "its data")
        kept.feed(done * block_size, data)
        if group:
            state = _crc(data, 0xFFFFFFFF if reseed else state)
            if int.from_bytes(stream.take(4, "its data"), "little") != state:
                first, last = done * block_size, (done + here) * block_size
                raise _bad(f"its data is damaged between bytes {first} and {last} (the CRC-32 differs)")
        done += here


def _check_shape(size: int, block_size: int, count: int, group: int) -> None:
    if not (512 <= block_size <= 64 * 1024 * 1024 and block_size & (block_size - 1) == 0):
        raise _bad(f"it counts in blocks of {block_size} bytes")
    if not 0 < size <= 2**50 or not 0 < count <= size // block_size + 1 or (count + 7) // 8 > _MOST_BITMAP:
        raise _bad(f"it says that {count} blocks of {block_size} bytes are a partition of {size} bytes")
    if group == 0 or group * block_size > _MOST_GROUP:
        raise _bad(f"it says that {group} blocks share a checksum")


def _crc(data: bytes, state: int = 0xFFFFFFFF) -> int:
    return zlib.crc32(data, state ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _text(field: bytes) -> str:
    return "".join(char if char.isprintable() else "." for char in field.partition(b"\0")[0].decode("utf-8", "replace"))


def _bad(what: str) -> IntegrityError:
    return IntegrityError(what, hint="nothing was adopted", code="image-damaged")
