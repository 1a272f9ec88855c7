"""A partition as it was, to be read at any place: what a file system is mounted from without restoring it.

Bytes that were unused are zeros. The chunks read last are kept, unpacked, because file systems are read in small steps.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict

from litho.library.chunks.reader import ChunkReader, Locator, Wanted
from litho.library.chunks.scrub import read_index
from litho.library.chunks.store import ChunkStore
from litho.library.manifest import Part
from litho.library.shelf import Library

_KEPT = 32 * 1024 * 1024
"""Bytes of unpacked chunks in memory."""


class Window:
    """One captured partition, read-only. Safe to use from several threads; `close` it."""

    def __init__(self, library: Library, part: Part) -> None:
        """Raises IntegrityError, LibraryError (code not-chunks for a partition that was not captured in chunks)."""
        self._index = read_index(library, part)
        self._reader = ChunkReader(Locator(ChunkStore(library)))
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of the partition."""
        return self._index.size

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end. Raises IntegrityError, LibraryError."""
        end = min(offset + length, self.size)
        grain = self._index.grain
        pieces: list[bytes] = []
        at = offset
        while at < end:
            number, inside = divmod(at, grain)
            count = min(end - at, grain - inside)
            chunk = self._chunk(number)
            pieces.append(chunk[inside : inside + count] if chunk is not None else bytes(count))
            at += count
        return b"".join(pieces)

    def _chunk(self, number: int) -> bytes | None:
        """A chunk's content; None where nothing but zeros is."""
        i = bisect_left(self._index.numbers, number)
        if i == len(self._index.numbers) or self._index.numbers[i] != number:
            return None
        named = self._index.pack(i)
        if named is None:
            return None
        with self._lock:
            found = self._kept.get(i)
            if found is None:
                low, high = self._index.span(i)
                buffer = bytearray(high - low)
                self._reader.fetch([Wanted(self._index.digest(i), named, memoryview(buffer))])
                found = self._kept[i] = bytes(buffer)
                if len(self._kept) * self._index.grain > _KEPT:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(i)
            return found

    def close(self) -> None:
        """Close the packs."""
        self._reader.close()
