"""Writing tarballs that are the same bytes whenever they are written from the same files.

Nothing of the moment or the machine goes in: owners are root, times are 0, modes are 644 or 755, the order is the caller's.
The packer's settings are fixed as well. gzip is packed in blocks by as many threads as there are cores, and the result does
not depend on how many: every block of 1 MiB is a deflate stream of its own that begins with the 32 KiB before it as its
dictionary and ends at a byte's edge, so that all of them together are one ordinary gzip member (this is what pigz does).
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import zstandard

from litho.errors import UsageError
from litho_controller.bundle.faults import shown

BLOCK = 1024 * 1024
_WINDOW = 32 * 1024
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""No name, no time, no system."""

ENDINGS = {
    ".tgz": "gzip",
    ".tar.gz": "gzip",
    ".tar.zst": "zstd",
    ".tzst": "zstd",
    ".tar.xz": "xz",
    ".txz": "xz",
    ".tar": "none",
}
"""Which ending of a tarball's name means which packing."""


def packing_of(name: str) -> str:
    """How a tarball of this name is packed. Pure. Raises UsageError for an ending that says nothing."""
    for ending, packing in ENDINGS.items():
        if name.endswith(ending) and name != ending:
            return packing
    raise UsageError(
        f"the tarball's name {shown(name)} does not say how to pack it",
        hint=f"let it end in one of: {', '.join(ENDINGS)}",
        code="bad-tarball-name",
    )


class Sink(Protocol):
    """Where packed bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take some of the bytes; answers how many."""


class Packer(Protocol):
    """Takes plain bytes and writes packed ones to a file."""

    def write(self, data: bytes) -> None:
        """The next plain bytes."""

    def close(self) -> None:
        """No more of them."""


def packer(file: Sink, packing: str) -> Packer:
    """A packer that writes to `file`."""
    kinds: dict[str, Callable[[Sink], Packer]] = {"gzip": _Gzip, "zstd": _Zstd, "xz": _Xz, "none": _Plain}
    return kinds[packing](file)


class TarWriter:
    """A tarball in the making. Use as a context manager; `close` ends the archive."""

    def __init__(self, file: Sink, packing: str) -> None:
        self._packer = packer(file, packing)
        self._left = 0
        self._written = 0

    def begin(self, name: str, size: int, *, executable: bool = False) -> None:
        """The next member is called `name` and has `size` bytes, which `write` brings."""
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o755 if executable else 0o644
        info.uname = info.gname = "root"
        self._put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        self._left = size

    def write(self, data: bytes) -> None:
        """Bytes of the member that has begun."""
        self._left -= len(data)
        self._put(data)
        if not self._left:
            self._put(b"\0" * (-self._written % tarfile.BLOCKSIZE))

    def add(self, name: str, data: bytes, *, executable: bool = False) -> None:
        """A small member, whole."""
        self.begin(name, len(data), executable=executable)
        self.write(data)

    def close(self) -> None:
        """End the archive and the packing."""
        self._put(b"\0" * (2 * tarfile.BLOCKSIZE))
        self._put(b"\0" * (-self._written % tarfile.RECORDSIZE))
        self._packer.close()

    def _put(self, data: bytes) -> None:
        if data:
            self._written += len(data)
            self._packer.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif isinstance(self._packer, _Gzip):
            self._packer.stop()


class _Plain:
    def __init__(self, file: Sink) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        written = self._file.write(data)
        while written < len(data):
            data = data[written:]
            written = self._file.write(data)

    def close(self) -> None:
        pass


class _Zstd:
    def __init__(self, file: Sink) -> None:
        # One thread: images are packed already, and what cannot be packed further is passed on as fast as memory is copied.
        self._stream = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
        self._out = _Plain(file)

    def write(self, data: bytes) -> None:
        self._out.write(self._stream.compress(data))

    def close(self) -> None:
        self._out.write(self._stream.flush())


class _Xz:
    def __init__(self, file: Sink) -> None:
        self._stream = lzma.LZMACompressor(lzma.FORMAT_XZ, preset=6)
        self._out = _Plain(file)

    def write(self, data: bytes) -> None:
        self._out.write(self._stream.compress(data))

    def close(self) -> None:
        self._out.write(self._stream.flush())


class _Gzip:
    """One gzip member, packed by several threads."""

    def __init__(self, file: Sink) -> None:
        self._out = _Plain(file)
        self._out.write(_GZIP_HEAD)
        self._workers = max(1, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="gzip")
        self._busy: deque[Future[bytes]] = deque()
        self._block = bytearray()
        self._dictionary = b""
        self._crc = 0
        self._size = 0

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._block += data
        while len(self._block) >= BLOCK:
            self._submit(bytes(self._block[:BLOCK]))
            del self._block[:BLOCK]

    def close(self) -> None:
        self._submit(bytes(self._block))
        while self._busy:
            self._out.write(self._busy.popleft().result())
        # An empty last block that says so, then the member's trailer (RFC 1952).
        self._out.write(b"\x03\x00" + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        self.stop()

    def stop(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, block: bytes) -> None:
        self._busy.append(self._pool.submit(_deflate, block, self._dictionary))
        self._dictionary = block[-_WINDOW:]
        while len(self._busy) > 2 * self._workers:
            self._out.write(self._busy.popleft().result())


def _deflate(block: bytes, dictionary: bytes) -> bytes:
    if not block:
        return b""
    args = (6, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY)
    stream = zlib.compressobj(*args, dictionary) if dictionary else zlib.compressobj(*args)
    return stream.compress(block) + stream.flush(zlib.Z_SYNC_FLUSH)
