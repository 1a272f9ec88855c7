"""Whether a chunk that the library says it has is still what was stored: disks forget bits, and a capture must not rely on such.

    <id>.checked    receipt: every byte of this pack was read and right when this file was written

A receipt holds for the pack's file as it was: its length and times stand in it. How old it is says the file server's clock,
by the receipt's own time. A pack whose receipt is younger than a limit is believed. Of any other a capture reads, before it
relies on a chunk, the stretch of the pack around it, and compares the stored bytes with their CRC. A chunk that is not whole
counts as one that the library does not have: the capture, which holds the bytes, stores them anew. A pack of which all was
read that way and right gets a receipt.

Receipts are written by captures (of the packs that they made and read back), by `litho.library.chunks.scrub`, and here.
They may be deleted at any time: that costs reading again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from array import array
from pathlib import Path

from litho.errors import IntegrityError, LibraryError
from litho.library import files
from litho.library.chunks import pack as packs
from litho.library.chunks.pack import PackIndex
from litho.library.chunks.reader import check_stored
from litho.library.chunks.store import ChunkStore

TRUST_S = 240 * 3600.0
"""Seconds for which a receipt counts: a week, after which the controller reads a pack again, and three days in which to do it."""
WINDOW = 1024 * 1024
"""Bytes of the stretches in which packs are looked at: what a capture asks for next lies in the same one nearly always."""
_MAGIC = "lithograph checked 1"
_MOST = 200
_SKEW_S = 3600.0
"""A receipt from further in the future was written by a clock that was wrong."""
_STRIPES = 8


def sign(store: ChunkStore, pack: bytes, seen: os.stat_result) -> None:
    """Write the receipt of a pack; `seen` is what its file was before it was read. A library that cannot take it goes without."""
    with contextlib.suppress(OSError):
        files.replace(store.path(pack, "checked"), f"{_MAGIC} {_state(seen)}\n".encode())


def unsign(store: ChunkStore, pack: bytes) -> None:
    """Take the receipt of a pack away: damage was found in it."""
    with contextlib.suppress(OSError):
        store.path(pack, "checked").unlink(missing_ok=True)


def checked_at(store: ChunkStore, pack: bytes) -> float | None:
    """When the pack as it is now was last read from its first byte to its last and right, by the server's clock.

    None when it was not, or has changed since. Raises LibraryError when the library is gone.
    """
    try:
        path = store.path(pack, "checked")
        said = files.read_small(path, _MOST)
        if said != f"{_MAGIC} {_state(store.path(pack, 'pack').stat())}\n".encode():
            return None
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.EIO):
            # No regular file, or one that its disk lost: as good as none.
            return None
        raise files.library_error(exc, store.root) from exc


def _state(info: os.stat_result) -> str:
    # Whole seconds, because servers and clients keep different fractions of them.
    return f"{info.st_size} {int(info.st_mtime)} {int(info.st_ctime)}"


def fresh(at: float | None, now: float, limit_s: float) -> bool:
    """True when a receipt of the moment `at` counts at `now`. Pure."""
    return at is not None and -_SKEW_S <= now - at < limit_s


class Trust:
    """What one capture may believe of the packs that it did not make. Safe to use from several threads."""

    def __init__(self, store: ChunkStore, *, limit_s: float = TRUST_S) -> None:
        self._store = store
        self._limit = limit_s
        self._lock = threading.Lock()
        self._now: float | None = None
        self._packs: dict[bytes, _Looked | None] = {}
        """Packs that were asked for; None: believed."""
        self._believed: set[bytes] = set()
        """Those, to be asked without the lock."""
        self.read = 0
        """Bytes read to find out."""

    def holds(self, index: PackIndex, place: int) -> bool:
        """True when the chunk in this place of a pack's index is whole. Raises LibraryError when the library is gone."""
        if index.pack in self._believed:
            return True
        with self._lock:
            if index.pack not in self._packs:
                self._packs[index.pack] = self._begin(index)
            looked = self._packs[index.pack]
            if looked is None:
                self._believed.add(index.pack)
            if looked is not None and looked.count != len(index):
                # Another capture made the index forget damaged chunks meanwhile: places have moved, hashes have not.
                again = _Looked(self._store, index)
                again.bad.update(looked.bad)
                self._packs[index.pack] = looked = again
        if looked is None:
            return True
        record = index.record(place)
        count = looked.look(index, record.offset)
        if count:
            with self._lock:
                self.read += count
        return record.digest not in looked.bad and not looked.why

    def _begin(self, index: PackIndex) -> _Looked | None:
        if self._limit:
            if self._now is None:
                self._now = self._store.now()
            if fresh(checked_at(self._store, index.pack), self._now, self._limit):
                return None
        return _Looked(self._store, index)

    def damaged(self) -> dict[bytes, tuple[str, frozenset[bytes]]]:
        """Packs in which damage was met: what is wrong, and the hashes of chunks that are not to be used. Raises LibraryError."""
        found: dict[bytes, tuple[str, frozenset[bytes]]] = {}
        with self._lock:
            looked = [one for one in self._packs.values() if one is not None and (one.bad or one.why)]
        for one in looked:
            digests = frozenset(one.bad)
            if one.why:
                with contextlib.suppress(IntegrityError):
                    digests |= {record.digest for record in self._store.index(one.pack)}
            found[one.pack] = (one.why or next(iter(one.bad.values())), digests)
        return found

    def finish(self) -> None:
        """Write the receipts of packs of which everything was read."""
        with self._lock:
            looked = [one for one in self._packs.values() if one is not None]
        for one in looked:
            if one.bad or one.why:
                unsign(self._store, one.pack)
            elif one.whole and one.seen.st_size == one.size:
                sign(self._store, one.pack, one.seen)


class _Looked:
    """A pack that nobody has vouched for lately, stretch by stretch."""

    def __init__(self, store: ChunkStore, index: PackIndex) -> None:
        self._store = store
        self.pack = index.pack
        self.count = len(index)
        """Chunks in the index that was looked at; an index never grows."""
        self.size = index.size
        self._path: Path = store.path(index.pack, "pack")
        self.bad: dict[bytes, str] = {}
        """Hashes of damaged chunks, and what is wrong with each."""
        self.why = ""
        """What is wrong with the pack as a whole."""
        self._order = array("I", sorted(range(len(index)), key=lambda place: index.record(place).offset))
        self._done = bytearray(index.size // WINDOW + 1)
        self._first = array("I", [len(self._order)]) * (len(self._done) + 1)
        for at in range(len(self._order) - 1, -1, -1):
            self._first[index.record(self._order[at]).offset // WINDOW] = at
        for window in range(len(self._done) - 1, -1, -1):
            self._first[window] = min(self._first[window], self._first[window + 1])
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self.seen: os.stat_result
        try:
            with files.telling(store.root), self._path.open("rb", buffering=0) as file:
                self.seen = os.fstat(file.fileno())
                # What the server has is to be read, not what this machine remembers.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                packs.check_pack_header(file.read(packs.PACK_HEADER), index.pack)
        except LibraryError as exc:
            if not isinstance(exc, IntegrityError) and exc.code != "library-missing":
                raise
            self.why = exc.message

    @property
    def whole(self) -> bool:
        """True when every stretch in which a chunk begins was read."""
        windows = zip(self._done, self._first, self._first[1:], strict=False)
        return all(done or first == following for done, first, following in windows)

    def look(self, index: PackIndex, offset: int) -> int:
        """Read the stretch in which `offset` lies, unless it was read; answers the bytes read. Raises LibraryError."""
        window = offset // WINDOW
        if self._done[window] or self.why:
            return 0
        with self._locks[window % _STRIPES]:
            if self._done[window]:
                return 0
            count = self._read(index, self._order[self._first[window] : self._first[window + 1]])
            self._done[window] = 1
        return count

    def _read(self, index: PackIndex, places: array[int]) -> int:
        begin, end = index.record(places[0]).offset, index.record(places[-1]).end
        try:
            with self._path.open("rb", buffering=0) as file:
                data = memoryview(_pread(file.fileno(), end - begin, begin))
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise files.library_error(exc, self._store.root) from exc
            # The server's disk cannot read it. If the server itself is in trouble, storing anew will tell.
            data = memoryview(b"")
        for place in places:
            record = index.record(place)
            try:
                check_stored(self.pack, record, data[record.offset - begin : record.end - begin])
            except IntegrityError as exc:
                self.bad[record.digest] = exc.message
        return len(data)


def _pread(fd: int, length: int, offset: int) -> bytes:
    """`length` bytes, fewer when the file ends before. Raises OSError."""
    pieces: list[bytes] = []
    while length and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        length, offset = length - len(piece), offset + len(piece)
    return b"".join(pieces)
