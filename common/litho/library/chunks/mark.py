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
            found = self.place(index, i)
            if found is None:
                continue
            pack, at = found
            bits = self._bits.setdefault(pack, bytearray(len(self._store.index(pack))))
            if not bits[at]:
                bits[at] = 1
                record = self._store.index(pack).record(at)
                self._needed[pack] = self._needed.get(pack, 0) + record.end - record.offset
                self.total += record.end - record.offset

    def place(self, index: Index, i: int) -> tuple[bytes, int] | None:
        """The pack that serves the index's chunk in place `i`, and the chunk's place in that pack's own index.

        None for a chunk of zeros, and for one that no pack has. Raises LibraryError.
        """
        named = index.pack(i)
        if named is None:
            return None
        digest = index.digest(i)
        found = self._in(named, digest) if named in self._live else None
        if found is None:
            other = self._elsewhere(digest)
            found = self._in(other, digest) if other is not None else None
        return found or self._in(named, digest)

    def _in(self, pack: bytes, digest: bytes) -> tuple[bytes, int] | None:
        try:
            at = self._store.index(pack).position(digest)
        except IntegrityError:
            return None
        return (pack, at) if at >= 0 else None

    def _elsewhere(self, digest: bytes) -> bytes | None:
        if self._known is None:
            self._known = Known.load(self._store)
            # Only what was live when the look began: the judgement is about those.
            self._known.live &= self._live
        return self._known.find(digest)

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
