"""The one decompressor of the project: from a stored file to the plain stream, cut and damaged files told from whole ones.

Both formats may be several frames (zstd) or members (gzip) after each other; other tools write such files and read them. A file
that ends inside a frame is an error, never a short stream. Memory is bounded whatever the file says: output comes
in pieces of the caller's size however well it was packed, and a zstd window over 128 MiB is refused.

zstandard's stream reader fills a buffer at full speed but does not tell a cut file from a whole one, so `_Frames` walks along the
packed bytes, from block header to block header, and knows where a frame ends (RFC 8878, chapter 3).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Protocol, cast

import zstandard

from litho.errors import IntegrityError

BLOCK = 1024 * 1024
"""Bytes read at a time."""

MAX_WINDOW = 128 * 1024 * 1024
"""The largest zstd window that is unpacked, in bytes: `zstd --long=27`."""


class Readable(Protocol):
    """What packed bytes come from: an open file, or something that reads like one."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


class Unpacker(Protocol):
    """A plain stream that is read piece by piece."""

    def read_into(self, view: memoryview) -> int:
        """Fill the front of `view`; the number of bytes, 0 at the end. Raises IntegrityError, and OSError of the file."""


def unpacker(file: Readable, compression: str) -> Unpacker:
    """The plain stream in `file`. `compression` is zstd, gzip or none."""
    if compression == "none":
        return _Plain(file)
    return _Zstd(file) if compression == "zstd" else _Gzip(file)


def unpacked(file: Readable, compression: str) -> Iterator[bytes]:
    """The plain stream in blocks. Raises IntegrityError when it is cut or damaged."""
    source = unpacker(file, compression)
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    while count := source.read_into(view):
        yield bytes(view[:count])


class _Plain:
    def __init__(self, file: Readable) -> None:
        self._file = file
        self._rest = memoryview(b"")

    def read_into(self, view: memoryview) -> int:
        if not self._rest:
            self._rest = memoryview(self._file.read(len(view)))
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Gzip:
    def __init__(self, file: Readable) -> None:
        self._file = file
        self._member = zlib.decompressobj(wbits=31)
        self._packed = b""
        self._begun = False

    def read_into(self, view: memoryview) -> int:
        try:
            while True:
                if self._begun and not self._member.eof:
                    # Also with no input left: output may be waiting inside.
                    plain = self._member.decompress(self._packed, len(view))
                    self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                    if plain:
                        view[: len(plain)] = plain
                        return len(plain)
                if not self._packed:
                    self._packed = self._file.read(BLOCK)
                    if not self._packed:
                        break
                if not self._begun or self._member.eof:
                    self._member = zlib.decompressobj(wbits=31)
                    self._begun = True
        except zlib.error as exc:
            raise IntegrityError(f"not a whole gzip stream ({exc})") from exc
        if not self._member.eof:
            raise IntegrityError("the gzip stream ends early")
        return 0


class _Zstd:
    def __init__(self, file: Readable) -> None:
        self._frames = _Frames()
        self._file = file
        unzstd = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._reader = unzstd.stream_reader(cast(IO[bytes], self), read_size=BLOCK, read_across_frames=True)

    def read(self, size: int) -> bytes:
        """What the stream reader calls for packed bytes."""
        packed = self._file.read(size)
        self._frames.walk(packed)
        return packed

    def read_into(self, view: memoryview) -> int:
        try:
            count = self._reader.readinto(view)
        except zstandard.ZstdError as exc:
            raise IntegrityError(f"not a whole zstd stream ({exc})") from exc
        if count == 0 and not self._frames.whole:
            raise IntegrityError("the zstd stream ends early")
        return count


_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_DICTIONARY_BYTES = (0, 1, 2, 4)
_RLE_BLOCK = 1


class _Frames:
    """Follows the frames of a zstd file. Pure: it is given the packed bytes piece by piece and keeps a few of them."""

    def __init__(self) -> None:
        self.whole = False
        """True when the bytes so far are one frame or more, and the last has ended."""
        self._skip = 0
        self._head = b""
        self._next = self._magic
        self._wanted = 4
        self._checksum = 0

    def walk(self, packed: bytes) -> None:
        """The next bytes of the file. Raises IntegrityError where no frame can be."""
        at, size = 0, len(packed)
        while at < size:
            self.whole = False
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
            else:
                step = min(self._wanted - len(self._head), size - at)
                self._head += packed[at : at + step]
                at += step
                if len(self._head) == self._wanted:
                    head, self._head = self._head, b""
                    self._next(head)
            if not self._skip and not self._head and self._next == self._magic:
                self.whole = True

    def _magic(self, head: bytes) -> None:
        number = int.from_bytes(head, "little")
        if number == _MAGIC:
            self._next, self._wanted = self._descriptor, 1
        elif number & 0xFFFFFFF0 == _SKIPPABLE:
            self._next, self._wanted = self._skippable, 4
        else:
            raise IntegrityError("not a whole zstd stream (bytes that are no frame)")

    def _skippable(self, head: bytes) -> None:
        self._skip = int.from_bytes(head, "little")
        self._next, self._wanted = self._magic, 4

    def _descriptor(self, head: bytes) -> None:
        flags = head[0]
        single = bool(flags & 0x20)
        self._checksum = 4 if flags & 0x04 else 0
        content_size = (1 if single else 0, 2, 4, 8)[flags >> 6]
        self._skip = (0 if single else 1) + _DICTIONARY_BYTES[flags & 0x03] + content_size
        self._next, self._wanted = self._block, 3

    def _block(self, head: bytes) -> None:
        header = int.from_bytes(head, "little")
        self._skip = 1 if (header >> 1) & 0x03 == _RLE_BLOCK else header >> 3
        if header & 0x01:
            self._skip += self._checksum
            self._next, self._wanted = self._magic, 4
