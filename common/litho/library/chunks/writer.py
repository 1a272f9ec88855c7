"""The way in: new chunks are appended to one open pack; a pack that is full is synced and starts to count.

Frames are handed over a unit of I/O at a time; a lock puts them one after the other, so neighbours on disk stay neighbours in
the pack. Only the appending is done under that lock: the CRCs are made before. A thread of the writer's own, the *keeper*, does
all that waits for the server's disk: each time that a pack has grown by a watermark it has that much written and synced, so that
no sync is long, and it syncs a pack that is full, writes its index and renames both, while the next pack grows already. When it
has two full packs to seal, and a third is full, writing waits too.

A capture that dies loses the open pack and those being synced. Everything before is found by the next capture like
any other chunk: that is how it goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from litho.errors import LibraryError, LithoError
from litho.library import files
from litho.library.chunks import pack as packs
from litho.library.chunks.known import Known
from litho.library.chunks.lock import Lock
from litho.library.chunks.mend import take_out
from litho.library.chunks.pack import PackIndex, Record
from litho.library.chunks.store import ChunkStore, fresh_id, missing
from litho.library.chunks.trust import TRUST_S, Trust

PACK_BYTES = 256 * 1024 * 1024
FLUSH_BYTES = 32 * 1024 * 1024
"""The watermark. Measured on a virtual disk, which a sync keeps from reading, too: a pack at a time stood in the way for 0.3 s,
32 MB at a time for 0.06 s, and reading ahead bridges that."""
_FULL = 2
_IOV_MAX = 1000


class Frame(msgspec.Struct, frozen=True):
    """A chunk ready to be stored."""

    digest: bytes
    length: int
    """Bytes of the chunk."""
    packed: bool
    payload: bytes | memoryview
    """Read until the chunk was stored, not after."""


class _Open:
    """A pack that grows."""

    def __init__(self, store: ChunkStore) -> None:
        self.pack = fresh_id()
        path = store.path(self.pack, "pack.part")
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.size = 0
        self.records: list[Record] = []
        self._asked = 0
        self.write([packs.pack_header(self.pack)])

    def write(self, pieces: list[bytes | memoryview]) -> None:
        """Append. Raises OSError."""
        for at in range(0, len(pieces), _IOV_MAX):
            left = pieces[at : at + _IOV_MAX]
            total = sum(map(len, left))
            while left:
                count = os.writev(self.fd, left)
                self.size += count
                if count == total:
                    break
                total -= count
                while left and count >= len(left[0]):
                    count -= len(left.pop(0))
                if count:
                    left[0] = left[0][count:]

    def cut(self, size: int, count: int) -> None:
        """Back to `size` bytes and `count` records: what came behind was not written whole, the pack is to count without it."""
        del self.records[count:]
        try:
            os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)
            self.size = size
        except OSError:
            # Then it cannot count: a pack without records is deleted.
            self.records.clear()

    def due(self) -> bool:
        """Whether it has grown by a watermark since this was last True."""
        if self.size - self._asked < FLUSH_BYTES:
            return False
        self._asked = self.size
        return True

    def flush(self) -> None:
        """What was written lies on the server's disk, and this machine's cache is left to others. Raises OSError."""
        os.fdatasync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


class ChunkWriter:
    """Stores chunks for one capture. Use as a context manager: whatever happens, whole packs are kept."""

    def __init__(
        self,
        store: ChunkStore,
        *,
        pack_bytes: int = PACK_BYTES,
        known: Known | None = None,
        trust_s: float = TRUST_S,
    ) -> None:
        """Makes the directory and reads what the library has. `trust_s` is how long a pack that was read whole is believed
        without another look (`litho.library.chunks.trust`). Raises LibraryError."""
        store.make()
        self.store = store
        self.known = known if known is not None else Known.load(store)
        self.trust = Trust(store, limit_s=trust_s)
        self.stored = 0
        """Bytes written into packs."""
        self.new = 0
        """Bytes of the chunks in them, before packing."""
        self.sealed: list[bytes] = []
        """The packs that this capture made and that count."""
        self._made: set[bytes] = set()
        self.damaged: list[str] = []
        """After `finish`: what was found damaged in other packs, one sentence each."""
        self._pack_bytes = min(pack_bytes, packs.MAX_PACK - 2 * packs.MAX_CHUNK)
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._growing: dict[bytes, bytes] = {}
        """Hash of each chunk in packs that do not count yet, and its pack."""
        self._due: queue.SimpleQueue[tuple[_Open, bool] | None] = queue.SimpleQueue()
        """For the keeper: packs, and whether each is full and to be sealed; None when there will be no more."""
        self._room = threading.Semaphore(_FULL)
        """Who filled a pack takes one, the keeper gives one back with each that it has sealed: two may be left to seal."""
        self._error: BaseException | None = None
        self._closed = False
        self._keeper = threading.Thread(target=self._keep, name="chunk-keeper", daemon=True)
        self._keeper.start()

    def find(self, digest: bytes) -> bytes | None:
        """The pack that holds, or will hold, the chunk with this hash; None when it must be added. Raises LibraryError."""
        return self._growing.get(digest) or self.known.find(digest, self._believe)

    def _believe(self, index: PackIndex, place: int) -> bool:
        # What is made here is read back at the end.
        return index.pack in self._made or self.trust.holds(index, place)

    def add(self, frames: Sequence[Frame]) -> list[bytes]:
        """Store chunks; answers the pack of each. One that another thread stored meanwhile is not stored twice.

        Raises LibraryError.
        """
        pieces: list[bytes | memoryview] = []
        where: list[bytes] = []
        crcs = [packs.crc32(frame.payload) for frame in frames]
        with self._lock, files.telling(self.store.root):
            self._check()
            if self._open is None:
                self._open = _Open(self.store)
            growing = self._open
            before, count = growing.size, len(growing.records)
            at = before
            for frame, crc in zip(frames, crcs, strict=True):
                there = self._growing.get(frame.digest)
                if there is None:
                    record = Record(frame.digest, at, len(frame.payload), frame.length, frame.packed, crc)
                    pieces += (packs.frame_header(record), frame.payload)
                    growing.records.append(record)
                    self._growing[frame.digest] = there = growing.pack
                    at = record.end
                where.append(there)
            try:
                growing.write(pieces)
            except OSError:
                for record in growing.records[count:]:
                    del self._growing[record.digest]
                growing.cut(before, count)
                raise
            self.stored += growing.size - before
            self.new += sum(record.length for record in growing.records[count:])
            full = growing.size >= self._pack_bytes
            if full:
                # Under the lock, so that `close` does not come before it.
                self._open = None
                self._due.put((growing, True))
            elif growing.due():
                self._due.put((growing, False))
        if full:
            # Not under the lock, which the keeper takes too.
            self._room.acquire()
        return where

    def finish(self, wanted: Sequence[bytes]) -> None:
        """Seal what is open, and make sure that all packs in `wanted` will stay. Call when the image's indexes are written.

        The order matters: a collector that starts after the indexes were written sees them, and one that started before
        cannot delete what is held here. Raises LibraryError (code chunks-gone).
        """
        self.close()
        self._check(finishing=True)
        gone = self.store.hold(set(wanted))
        if gone:
            raise missing(gone)
        self._mend()
        with contextlib.suppress(LithoError):
            # Only a cache: the next one writes it.
            self.known.consolidate()

    def _mend(self) -> None:
        """Of damaged chunks that were met: make their packs forget those which are stored anew, for the images that have them.

        The capture does not depend on it. Where a collector runs, or the library fails, whoever scrubs will say it again.
        """
        self.trust.finish()
        damaged = self.trust.damaged()
        if not damaged:
            return
        anew = {record.digest for pack in self.sealed for record in self.store.index(pack)}
        for why, chunks in damaged.values():
            self.damaged.append(f"{why}; {len(chunks & anew)} chunks of it were stored anew")
        with contextlib.suppress(LithoError), Lock(self.store):
            for pack, (_, chunks) in damaged.items():
                if chunks & anew:
                    take_out(self.store, pack, chunks & anew)

    def close(self) -> None:
        """Seal what is open. Never raises: `finish` does."""
        with self._lock:
            growing, self._open = self._open, None
            first, self._closed = not self._closed, True
            if first:
                if growing is not None:
                    self._due.put((growing, True))
                self._due.put(None)
        if first:
            self._keeper.join()

    def _check(self, *, finishing: bool = False) -> None:
        if self._error is not None:
            if isinstance(self._error, OSError):
                raise files.library_error(self._error, self.store.root) from self._error
            raise self._error
        if self._closed and not finishing:
            raise LibraryError("the packs of this capture are closed already", code="stage-lost")

    def _keep(self) -> None:
        while (due := self._due.get()) is not None:
            growing, full = due
            try:
                if full:
                    self._seal(growing)
                elif self._error is None:
                    growing.flush()
            except BaseException as exc:  # it travels to the capture, which raises it
                self._error = self._error or exc
            finally:
                if full:
                    self._room.release()

    def _seal(self, growing: _Open) -> None:
        path = self.store.path(growing.pack, "pack.part")
        try:
            if self._error is not None or not growing.records:
                path.unlink(missing_ok=True)
                return
            os.fsync(growing.fd)
        finally:
            growing.close()
        index = self.store.publish(growing.pack, growing.size, growing.records)
        self._made.add(growing.pack)
        self.known.add(index)
        self.sealed.append(growing.pack)
        with self._lock:
            for record in growing.records:
                if self._growing.get(record.digest) == growing.pack:
                    del self._growing[record.digest]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
