"""A stream that is read once, from front to back, and passed on as it is read.

The readers of the formats ask for exactly so many bytes; what is missing is an error that says where. Each byte that
was asked for goes to `emit` as well, so reading, checking and storing are one pass over files that may be as large as
a disk.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator

from litho.errors import IntegrityError

PIECE = 1024 * 1024
"""Bytes that are passed on at a time."""
HEAD_BYTES = 4 * 1024 * 1024
"""Bytes at a partition's beginning in which every file system that is known here says what it is."""
MFT_BYTES = 64 * 1024


class Stream:
    """The plain bytes of an image."""

    def __init__(self, blocks: Iterator[bytes], emit: Callable[[bytes], None]) -> None:
        self._blocks = blocks
        self._emit = emit
        self._rest: memoryview = memoryview(b"")
        self.at = 0
        """Bytes read so far."""

    def take(self, count: int, what: str, *, emit: bool = True) -> bytes:
        """The following `count` bytes, which are part of `what`. Raises IntegrityError when the stream ends before.

        Without `emit` they are not passed on; the caller does, or passes on others in their place.
        """
        pieces: list[memoryview] = []
        left = count
        while left:
            if not self._rest:
                block: bytes = next(self._blocks, b"")
                self._rest = memoryview(block)
                if not self._rest:
                    raise IntegrityError(
                        f"it ends early, after {self.at + count - left} bytes, in {what}",
                        hint="a volume is missing, or the last one is cut; nothing was adopted",
                        code="image-cut",
                    )
            piece = self._rest[:left]
            pieces.append(piece)
            self._rest = self._rest[len(piece) :]
            left -= len(piece)
        self.at += count
        data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        if emit:
            self._emit(data)
        return data

    def emit(self, data: bytes) -> None:
        """Pass on bytes that stand for some that were taken without."""
        self._emit(data)

    def end(self) -> None:
        """Raise IntegrityError when bytes follow."""
        following: bytes = bytes(self._rest) or next(self._blocks, b"")
        if following:
            raise IntegrityError(
                f"it goes on after its end at {self.at} bytes", hint="nothing was adopted", code="image-damaged"
            )


class Kept:
    """The blocks of the partition from which blkid tells its file system, picked out of the data as it passes.

    They are the first `HEAD_BYTES`, and for NTFS its master file table, whose place the first block says.
    """

    def __init__(self, block_size: int, bitmap: bytes, count: int) -> None:
        """`bitmap` has one bit for each of `count` blocks, the lowest bit first."""
        self.found: dict[int, bytes] = {}
        """What was found, by its place on the partition in bytes."""
        self._block_size = block_size
        self._bitmap = bitmap
        self._count = count
        self._places: deque[tuple[int, int]] = deque()
        self._held = b""
        self._rank = 0
        self._rank_at = 0
        self._want(0, HEAD_BYTES)

    def feed(self, at: int, data: bytes) -> None:
        """`data` stands at byte `at` of all used blocks, one behind the other; called without gaps."""
        size = self._block_size
        while self._places:
            place, target = self._places[0]
            if place >= at + len(data):
                return
            piece = (self._held if place < at else b"") + data[max(0, place - at) : place + size - at]
            if len(piece) < size:
                self._held = piece
                return
            self._held = b""
            self.found[target] = piece
            self._places.popleft()
            if target == 0 and piece[3:11] == b"NTFS    " and size >= 512:
                # Sectors a cluster at 13; in blocks of one cluster the table's place at 48 is a block's number.
                (cluster,) = struct.unpack_from("<Q", piece, 48)
                self._want(cluster * size, MFT_BYTES)

    def _want(self, start: int, size: int) -> None:
        """Also pick out the used blocks there; they must be behind all that was asked for before."""
        width = self._block_size
        first, last = max(start // width, self._rank_at + bool(self.found or self._places)), -(-(start + size) // width)
        for block in range(first, min(last, self._count)):
            if self._bitmap[block >> 3] >> (block & 7) & 1:
                self._rank += bits(self._bitmap, self._rank_at, block)
                self._rank_at = block
                self._places.append((self._rank * width, block * width))


def bits(bitmap: bytes, first: int, last: int) -> int:
    """How many of the bits from `first` up to, and without, `last` are set."""
    if first >= last:
        return 0
    low, high = first >> 3, (last + 7) >> 3
    number = int.from_bytes(bitmap[low:high], "little") >> (first & 7)
    return (number & ((1 << (last - first)) - 1)).bit_count()


def count_bits(bitmap: bytes, count: int) -> int:
    """How many of the first `count` bits are set. In pieces, so that no number of a gigabyte is made."""
    step = 8 * PIECE
    return sum(bits(bitmap, first, min(first + step, count)) for first in range(0, count, step))


class ByteSum:
    """The sum of all bytes, modulo 65521: the half of Adler-32 that is one (RFC 1950), at the speed of zlib."""

    def __init__(self) -> None:
        self._adler = 1

    def add(self, data: bytes) -> None:
        """The following bytes."""
        self._adler = zlib.adler32(data, self._adler)

    def matches(self, total: int) -> bool:
        """True when `total` can be the sum of the bytes so far."""
        return (self._adler & 0xFFFF) == (total + 1) % 65521
