"""Reading an index from its file, in pieces: what is held of a large one is a few dozen megabytes and not its hashes.

The whole file is read once and checked while it goes by: its own hash, the root hash, the columns against each other, and what
each window of hashes is to be known by later.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from litho.library import files
from litho.library.chunks import index as indexes
from litho.library.chunks.hashes import WINDOW, StoredHashes, check
from litho.library.chunks.index import Index
from litho.library.chunks.pack import HASH
from litho.library.chunks.usedmap import little

LARGE = 32 * 1024 * 1024
"""Bytes from which an index's hashes are left in the file: 100 GB of used data."""


def load(path: Path, *, what: str, expect_root: bytes = b"") -> Index:
    """The index in a file, as `parse` answers it. The hashes of a large one stay there and are read when they are asked for
    (`litho.library.chunks.hashes`). Raises OSError, IntegrityError, LibraryError."""
    if path.stat().st_size < LARGE:
        return indexes.parse(files.read_small(path, indexes.MAX_BYTES), what=what, expect_root=expect_root)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _load(fd, path, what, expect_root)
    finally:
        os.close(fd)


def _load(fd: int, path: Path, what: str, expect_root: bytes) -> Index:
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size > indexes.MAX_BYTES:
        raise indexes.damaged(what, "it is no index")
    start = os.pread(fd, indexes.HEADER, 0)
    head = indexes.read_head(start, what=what, file_bytes=info.st_size)
    whole = blake3(start[:-HASH], max_threads=indexes.THREADS)
    inner = indexes.root_hasher(head)
    at = indexes.HEADER

    def column(length: int, *, inside: bool) -> Iterator[memoryview]:
        """The next `length` bytes of the file, in pieces that are gone when the next one is asked for."""
        nonlocal at
        end = at + length
        while at < end:
            count = os.preadv(fd, [buffer[: min(len(buffer), end - at)]], at)
            if not count:
                raise indexes.damaged(what, "it is cut")
            piece = buffer[:count]
            whole.update(piece)
            if inside:
                inner.update(piece)
            at += count
            yield piece

    # A multiple of the windows, as long as reads are not short; where one is, its window is put together below.
    buffer = memoryview(bytearray(64 * WINDOW))
    lengths = head.lengths
    extents = b"".join(map(bytes, column(lengths[0], inside=True)))
    numbers, pack_of = array("I"), array("I")
    for piece in column(lengths[1], inside=True):
        numbers.frombytes(piece)
    place = at
    checks = b"".join(_checks(column(lengths[2], inside=True)))
    for piece in column(lengths[3], inside=False):
        pack_of.frombytes(piece)
    ids = b"".join(map(bytes, column(lengths[4], inside=False)))
    if whole.digest() != head.hash:
        raise indexes.damaged(what, "its hash is not what it says")
    return indexes.assemble(
        head,
        extents,
        little(numbers),
        StoredHashes(os.dup(fd), place, lengths[2], checks, path),
        pack_of=little(pack_of),
        ids=ids,
        what=what,
        expect_root=expect_root,
        found_root=inner.digest(),
    )


def _checks(pieces: Iterator[memoryview]) -> Iterator[bytes]:
    """The checks of the windows, of pieces of any length."""
    rest = b""
    for piece in pieces:
        data: bytes | memoryview = rest + piece if rest else piece
        full = len(data) - len(data) % WINDOW
        for begin in range(0, full, WINDOW):
            yield check(data[begin : begin + WINDOW])
        rest = bytes(data[full:])
    if rest:
        yield check(rest)
