"""Compressors, in the agent's own process and on all cores.

* **zstd**: one frame with a checksum, packed by zstd's own worker threads. The output is what `zstd -T0` writes, byte
  for byte the same whatever the number of threads.
* **gzip**: independent members of `MEMBER` plain bytes after each other, each packed by a thread of a pool. `zcat`,
  `pigz -d` and partimage read such a file as one stream (RFC 1952, chapter 2.2). A single member could use one core
  only.
* **none**: the blocks as they are.

A compressor is fed by one thread and answers with what is ready; how much it holds back is bounded. Decompression is in
`litho.library.unpack`.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import zstandard

from litho.job import Compression

MEMBER = 1024 * 1024
"""Plain bytes of one gzip member at most."""


class Compressor(Protocol):
    """Takes a stream in blocks. A block may be reused once all that `feed` answers has been taken."""

    def feed(self, block: memoryview) -> Iterable[bytes | memoryview]:
        """Take a block; answers the packed bytes that are ready, perhaps none."""

    def finish(self) -> Iterable[bytes | memoryview]:
        """The stream has ended: the rest."""

    def close(self) -> None:
        """Let go of threads, also in the middle of a stream."""


def compressor(compression: Compression, level: int, threads: int | None = None) -> Compressor:
    """A new compressor. `threads` is the number of cores when None; `level` as in `Job.level`, at most 9 counts for gzip."""
    count = threads or os.cpu_count() or 1
    if compression == "zstd":
        return _Zstd(level, count)
    return _Gzip(min(level, 9), count) if compression == "gzip" else _Plain()


class _Plain:
    def feed(self, block: memoryview) -> Iterable[bytes | memoryview]:
        return (bytes(block),)

    def finish(self) -> Iterable[bytes | memoryview]:
        return ()

    def close(self) -> None:
        pass


class _Zstd:
    def __init__(self, level: int, threads: int) -> None:
        packer = zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True, write_content_size=False)
        self._frame = packer.compressobj()

    def feed(self, block: memoryview) -> Iterable[bytes | memoryview]:
        packed = self._frame.compress(block)
        return (packed,) if packed else ()

    def finish(self) -> Iterable[bytes | memoryview]:
        return (self._frame.flush(),)

    def close(self) -> None:
        pass


class _Gzip:
    def __init__(self, level: int, threads: int) -> None:
        self._level = level
        self._ahead = threads * 2
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gzip")
        self._members: deque[Future[bytes]] = deque()
        self._begun = False
        self._plain = bytearray()

    def feed(self, block: memoryview) -> Iterable[bytes | memoryview]:
        self._plain += block
        while len(self._plain) >= MEMBER:
            self._submit(bytes(self._plain[:MEMBER]))
            del self._plain[:MEMBER]
            while len(self._members) > self._ahead:
                yield self._members.popleft().result()
        while self._members and self._members[0].done():
            yield self._members.popleft().result()

    def finish(self) -> Iterable[bytes | memoryview]:
        # An empty stream is still a gzip file.
        if self._plain or not self._begun:
            self._submit(bytes(self._plain))
        while self._members:
            yield self._members.popleft().result()
        self._pool.shutdown()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, plain: bytes) -> None:
        self._begun = True
        self._members.append(self._pool.submit(_member, plain, self._level))


def _member(plain: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(plain) + packer.flush()
