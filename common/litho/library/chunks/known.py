"""What the library has, so that it is not compressed and sent again.

Loaded once a capture: the catalogs, each one read, and the indexes of the packs that no catalog covers yet. A library of ten
million chunks is 80 MB here. Packs that come from elsewhere meanwhile are not seen; then a chunk is stored twice, which costs
space and nothing else.

Catalogs are written by whoever finds many packs without one (`consolidate`), and joined so that a new one is at least twice
as large as the next smaller: few catalogs, and each chunk is rewritten seldom. Two nodes that do it at once both succeed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from litho.errors import IntegrityError
from litho.library import files
from litho.library.chunks import catalog
from litho.library.chunks.catalog import Catalog
from litho.library.chunks.pack import PackIndex
from litho.library.chunks.store import MAX_CATALOG, ChunkStore, fresh_id

FRESH_PACKS = 32
"""Packs without a catalog from which one is written."""
_JOIN_AT_ONCE = 2_000_000
"""Entries that a node joins at most: 80 MB of memory for a moment. The collector joins all."""


class Known:
    """The chunks that live packs hold. Safe to use from several threads."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.live: set[bytes] = set()
        self._all: tuple[Catalog, ...] = ()
        """All catalogs, for who looks a chunk up: replaced when they change, so that looking takes no lock."""
        self._files: list[tuple[bytes, Catalog]] = []
        """Catalogs that lie in the library, by the name of their file."""
        self._fresh: list[Catalog] = []
        """Catalogs of packs that no file covers, in memory only; joined as they become many."""

    @classmethod
    def load(cls, store: ChunkStore) -> Known:
        """Read it. A damaged catalog or pack index is left out: what it knew is stored again. Raises LibraryError."""
        known = cls(store)
        # Catalogs first: one that is joined away after this look is covered by reading its packs' indexes.
        listing = store.listing()
        for name in listing.catalogs:
            try:
                data = files.read_small(store.path(name, "catalog"), MAX_CATALOG)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise files.library_error(exc, store.root) from exc
            with contextlib.suppress(IntegrityError):
                known._files.append((name, catalog.parse(data)))
        known.live = set(listing.live & listing.pack)
        covered = {pack for _, one in known._files for pack in one.packs}
        found: list[PackIndex] = []
        for pack in sorted(known.live - covered):
            with contextlib.suppress(IntegrityError):
                found.append(store.index(pack))
        if found:
            known._fresh.append(catalog.of_packs(found))
        known._changed()
        return known

    def __len__(self) -> int:
        return sum(len(one) for one in self._all)

    def _changed(self) -> None:
        self._all = (*(one for _, one in self._files), *self._fresh)

    def find(self, digest: bytes, believe: Callable[[PackIndex, int], bool] | None = None) -> bytes | None:
        """A live pack that holds the chunk with this hash, None when there is none. Raises LibraryError.

        With `believe` only one in which the chunk is whole, by what that says of the pack's index and the place in it.
        """
        for one in self._all:
            for pack in one.candidates(digest):
                if pack not in self.live:
                    continue
                try:
                    index = self._store.index(pack)
                except IntegrityError:
                    self.live.discard(pack)
                    continue
                place = index.position(digest)
                if place >= 0 and (believe is None or believe(index, place)):
                    return pack
        return None

    def add(self, index: PackIndex) -> None:
        """A pack was finished here."""
        with self._lock:
            self.live.add(index.pack)
            self._fresh.append(catalog.of_packs([index]))
            # Doubling: few catalogs to search, each entry joined a handful of times.
            while len(self._fresh) > 1 and len(self._fresh[-2]) < 2 * len(self._fresh[-1]):
                last, before = self._fresh.pop(), self._fresh.pop()
                self._fresh.append(catalog.join([before, last], self.live))
            self._changed()

    def consolidate(self, *, limit: int = _JOIN_AT_ONCE, at_least: int = FRESH_PACKS) -> None:
        """Write a catalog when `at_least` packs have none, joining smaller ones of up to `limit` entries. Raises LibraryError."""
        with self._lock:
            fresh = [pack for one in self._fresh for pack in one.packs if pack in self.live]
            if len(fresh) < max(1, at_least):
                return
            parts, replaced = list(self._fresh), []
            total = sum(map(len, parts))
            for name, one in sorted(self._files, key=lambda item: len(item[1])):
                if total + len(one) > limit or len(one) > 2 * total:
                    break
                parts.append(one)
                replaced.append(name)
                total += len(one)
            self._write(catalog.join(parts, self.live), replaced)

    def rewrite(self) -> None:
        """Join everything into one catalog. For the collector: it takes a second per million chunks. Raises LibraryError."""
        with self._lock:
            names = [name for name, _ in self._files]
            stale = any(pack not in self.live for _, one in self._files for pack in one.packs)
            if self._fresh or stale or len(names) > 1:
                self._write(catalog.join(self._all, self.live), names)

    def _write(self, joined: Catalog, replaced: list[bytes]) -> None:
        with files.telling(self._store.root):
            name = fresh_id()
            if len(joined):
                files.replace(self._store.path(name, "catalog"), catalog.dump(joined))
            for old in replaced:
                self._store.path(old, "catalog").unlink(missing_ok=True)
        self._files = [item for item in self._files if item[0] not in replaced]
        if len(joined):
            self._files.append((name, joined))
        self._fresh.clear()
        self._changed()
