"""Which chunks images need, as a bit for each chunk of each pack.

An index says in which pack a chunk lay when it was written. The mark goes there if that pack is live and has it; if not (it was
condemned, or rewritten), to a live pack that has it; if there is none, to the pack that the index names, whatever its state.
"""

from __future__ import annotations

from collections.abc import Iterator

from litho.errors import IntegrityError
from litho.library.chunks.index import Index
from litho.library.chunks.known import Known
from litho.library.chunks.pack import Record
from litho.library.chunks.store import ChunkStore


class Marks:
    """Marks of one look at a library."""

    def __init__(self, store: ChunkStore, live: frozenset[bytes]) -> None:
        self._store = store
        self._live = live
        self._bits: dict[bytes, bytearray] = {}
        self._known: Known | None = None
        self.total = 0
        """Stored bytes that are marked."""
        self._needed: dict[bytes, int] = {}

    def add(self, index: Index) -> None:
        """Mark what an index needs. Raises LibraryError."""
        for i in range(len(index.numbers)):
            named = index.pack(i)
            if named is None:
                continue
            digest = index.digest(i)
            if named in self._live and self._mark(named, digest):
                continue
            other = self._elsewhere(digest)
            if other is None or not self._mark(other, digest):
                self._mark(named, digest)

    def _elsewhere(self, digest: bytes) -> bytes | None:
        if self._known is None:
            self._known = Known.load(self._store)
            # Only what was live when the look began: the judgement is about those.
            self._known.live &= self._live
        return self._known.find(digest)

    def _mark(self, pack: bytes, digest: bytes) -> bool:
        try:
            index = self._store.index(pack)
        except IntegrityError:
            return False
        at = index.position(digest)
        if at < 0:
            return False
        bits = self._bits.setdefault(pack, bytearray(len(index)))
        if not bits[at]:
            bits[at] = 1
            record = index.record(at)
            self._needed[pack] = self._needed.get(pack, 0) + record.end - record.offset
            self.total += record.end - record.offset
        return True

    def needed(self, pack: bytes) -> int:
        """Bytes of the pack that are marked."""
        return self._needed.get(pack, 0)

    def records(self, pack: bytes) -> Iterator[Record]:
        """The marked chunks of a pack, in the order in which they lie in it."""
        bits = self._bits.get(pack)
        if bits is None:
            return iter(())
        index = self._store.index(pack)
        return iter(sorted((r for i, r in enumerate(index) if bits[i]), key=lambda record: record.offset))
