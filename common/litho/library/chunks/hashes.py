"""The hashes of an index that is too large to hold: they stay in its file, and are read a window at a time.

Whoever goes through an image does it in order, so a few windows are enough. The file lies on a server that may change it under a
reader's eyes, or lose it, which is why it is not mapped into memory (a page that cannot be read would end the process). Each
window was hashed when the whole file was checked; one that says something else later is damage like any other.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

from blake3 import blake3

from litho.errors import IntegrityError
from litho.library import files
from litho.library.chunks.pack import HASH

WINDOW = 2048 * HASH
"""Bytes read at a time: the hashes of 256 MiB of chunks of 128 KiB."""
CHECK = 16
"""Bytes kept of a window's own hash."""
_KEPT = 24
"""Windows in memory. Each covers 64 units of 4 MiB, and no more than 32 units are on their way, in order but for their start."""


class StoredHashes:
    """A column of hashes in a file. Takes slices as bytes do. Safe to use from several threads."""

    def __init__(self, fd: int, at: int, length: int, checks: bytes, path: Path) -> None:
        """The `length` bytes from `at` of the open file `fd`, which is closed with this; `checks` are of its windows."""
        self._fd, self._at, self._length = fd, at, length
        self._checks = checks
        self._path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        weakref.finalize(self, os.close, fd)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> bytes:
        """Bytes of the column. Raises IntegrityError when the file has changed, LibraryError."""
        low, high, _ = span.indices(self._length)
        first = low // WINDOW
        if high <= (first + 1) * WINDOW:
            return self._window(first)[low - first * WINDOW : high - first * WINDOW]
        pieces = [self._window(number) for number in range(first, (high - 1) // WINDOW + 1)]
        return b"".join(pieces)[low - first * WINDOW : high - first * WINDOW]

    def _window(self, number: int) -> bytes:
        with self._lock:
            found = self._kept.get(number)
            if found is not None:
                self._kept.move_to_end(number)
                return found
        data = self._read(number)
        with self._lock:
            self._kept[number] = data
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return data

    def _read(self, number: int) -> bytes:
        begin = number * WINDOW
        with files.telling(self._path.parent):
            data = os.pread(self._fd, min(WINDOW, self._length - begin), self._at + begin)
        if check(data) != self._checks[number * CHECK : (number + 1) * CHECK]:
            raise IntegrityError(
                f"the index {self._path.name} has changed while it was used",
                hint="look at it with: litho image verify",
                code="corrupt-index",
            )
        return data


def check(window: bytes | memoryview) -> bytes:
    """What is kept of a window to know it again."""
    return blake3(window).digest(CHECK)
