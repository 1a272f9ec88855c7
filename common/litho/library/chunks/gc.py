"""Takes away the packs that no image needs: mark, condemn, and only later sweep. Safe beside captures, and when killed anywhere.

A run does this:

1. Finish what a dead run began to delete; delete leftovers of captures (unfinished packs, packs without an index) that are older
   than the grace time.
2. Mark: read every index of every image, those in the making too, and mark each chunk in the pack that serves it.
3. Packs that were condemned before this run began, longer ago than the grace time: delete those without a mark, bring
   back those with one.
4. Packs without a mark that are older than the grace time: condemn. Packs of which little is marked, and small ones when they are
   many: copy what is marked into new packs, then condemn.

Why nothing is lost. A capture may refer to a chunk that was there when it began, while a run finds that no image needs it. The
capture writes its indexes, *then* makes sure that all their packs are live, bringing back condemned ones (`store.hold`); after
that it publishes. A run deletes only what was condemned before its mark began. So either the mark began after the indexes
were written, and sees them; or it began before, and then the pack was condemned before that, and the capture brought it back or
found it gone, and failed. No clock decides this: the grace time only makes that failure rare. (Over NFS names may be seen
late, by up to a minute; the grace time must be longer than that.)

A lock file keeps two collectors apart (`litho.library.chunks.lock`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from litho.errors import IntegrityError, LibraryError, RefusedError
from litho.library import files, names
from litho.library.chunks import indexfile, roll
from litho.library.chunks.index import Index
from litho.library.chunks.known import Known
from litho.library.chunks.lock import Lock
from litho.library.chunks.mark import Marks
from litho.library.chunks.reader import check_stored
from litho.library.chunks.store import ChunkStore, Listing
from litho.library.chunks.writer import PACK_BYTES, ChunkWriter, Frame

GRACE_S = 24 * 3600.0
SUFFIX = ".chunks"
_SPARSE = 0.5
"""Share of a pack's bytes below which what is needed of it moves to a new pack."""
_SMALL = 1 / 16
"""Share of a full pack's bytes below which a pack is small; each capture leaves one at its end."""
_MANY = 16
"""So many small packs are put together."""

Cancelled = Callable[[], bool]


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did."""

    indexes: int
    """Indexes read."""
    packs: int
    """Live packs afterwards."""
    needed: int
    """Bytes of chunks in packs that images need."""
    deleted: int
    """Packs deleted."""
    freed: int
    """Bytes of the files deleted."""
    condemned: int
    """Packs that the next run after the grace time may delete."""
    moved: int
    """Bytes copied out of packs that were mostly not needed."""


def image_indexes(store: ChunkStore, *, damaged: dict[str, str] | None = None) -> Iterator[tuple[str, Index]]:
    """Every index of every version, published or in the making. Raises IntegrityError, LibraryError.

    With `damaged` an index that is not whole is put there, with what is wrong, and left out.

    Listed twice: a file that is renamed while a directory is read may be missed once. What is being written is no index yet.
    """
    root = store.library.root
    seen: set[str] = set()
    for _ in range(2):
        for name, parsed in list(store.library.entries()):
            final = name.removesuffix(".part")
            if not parsed.suffix.endswith(SUFFIX) or final in seen:
                continue
            try:
                index = _read(root, final, parsed)
            except IntegrityError as exc:
                if damaged is None:
                    raise
                seen.add(final)
                damaged[final] = exc.message
                continue
            if index is not None:
                seen.add(final)
                yield final, index


def _read(root: Path, final: str, parsed: names.FileName) -> Index | None:
    for path in (root / final, root / (final + ".part"), root / final):
        try:
            return indexfile.load(path, what=f"the index {path.name}")
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise files.library_error(exc, root) from exc
        except LibraryError:
            if path.name.endswith(".part"):
                continue
            raise
    return None


def collect(
    store: ChunkStore,
    *,
    grace_s: float = GRACE_S,
    pack_bytes: int = PACK_BYTES,
    cancelled: Cancelled = lambda: False,
) -> Swept:
    """Do one run. Raises RefusedError when another is at it, IntegrityError when an image's index is damaged (then nothing
    is deleted), LibraryError."""
    if not store.root.is_dir():
        return Swept(indexes=0, packs=0, needed=0, deleted=0, freed=0, condemned=0, moved=0)
    with Lock(store) as lock:
        return _Run(store, lock, grace_s, pack_bytes, cancelled).go()


class _Run:
    def __init__(self, store: ChunkStore, lock: Lock, grace_s: float, pack_bytes: int, cancelled: Cancelled) -> None:
        self._store = store
        self._lock = lock
        self._grace = grace_s
        self._pack_bytes = pack_bytes
        self._cancelled = cancelled
        self._deleted = 0
        self._freed = 0
        self._moved = 0

    def go(self) -> Swept:
        store = self._store
        before = store.listing()
        self._tidy(before)
        marks = Marks(store, before.live)
        count = 0
        for _, index in image_indexes(store):
            marks.add(index)
            count += 1
            self._go_on()
        with files.telling(store.root):
            # What is live as well was not condemned as far as a capture can see, which would not bring it back.
            for pack in sorted(before.condemned - before.live):
                self._judge(pack, needed=marks.needed(pack) > 0)
            self._thin(before, marks)
        after = store.listing()
        Known.load(store).rewrite()
        roll.write(store)
        return Swept(
            indexes=count,
            packs=len(after.live),
            needed=marks.total,
            deleted=self._deleted,
            freed=self._freed,
            condemned=len(after.condemned),
            moved=self._moved,
        )

    def _go_on(self) -> None:
        self._lock.beat()
        if self._cancelled():
            raise RefusedError("the collection was stopped", hint="start it again; nothing is lost", code="cancelled")

    def _old(self, path: Path) -> bool:
        try:
            return path.stat().st_mtime <= self._lock.now - self._grace
        except FileNotFoundError:
            return False

    def _delete(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            self._freed += size

    def _tidy(self, listing: Listing) -> None:
        """Step 1."""
        store = self._store
        with files.telling(store.root):
            for pack in listing.doomed:
                store.finish_dooming(pack)
            counted = listing.live | listing.condemned | listing.doomed
            leftovers = [store.path(pack, "pack.part") for pack in listing.unfinished]
            leftovers += [store.path(pack, "pack") for pack in listing.pack - counted]
            leftovers += [store.root / name for name in listing.other if name.endswith(".part")]
            leftovers += [store.path(pack, "checked") for pack in listing.checked - listing.pack]
            for path in leftovers:
                if self._old(path):
                    self._delete(path)

    def _judge(self, pack: bytes, *, needed: bool) -> None:
        """Step 3."""
        self._go_on()
        store = self._store
        path = store.path(pack, "idx.condemned")
        if needed:
            store.hold([pack])
        elif self._old(path):
            size = sum(one.stat().st_size for one in (store.path(pack, "pack"), path) if one.exists())
            if store.doom(pack):
                self._deleted += 1
                self._freed += size

    def _thin(self, before: Listing, marks: Marks) -> None:
        """Step 4."""
        store = self._store
        sparse: list[bytes] = []
        small: list[bytes] = []
        for pack in sorted(before.live):
            self._go_on()
            if not self._old(store.path(pack, "idx")):
                continue
            needed = marks.needed(pack)
            if not needed:
                store.condemn(pack)
                continue
            size = store.index(pack).size
            if needed < size * _SPARSE:
                sparse.append(pack)
            elif size < self._pack_bytes * _SMALL:
                small.append(pack)
        moving = sparse + (small if len(small) >= _MANY else [])
        if moving:
            self._move(moving, marks)

    def _move(self, moving: list[bytes], marks: Marks) -> None:
        """Copy what is needed of these packs into new ones, and condemn them once those count."""
        store = self._store
        moved: list[bytes] = []
        with ChunkWriter(store, pack_bytes=self._pack_bytes, known=Known(store)) as writer:
            for pack in moving:
                try:
                    self._copy(pack, marks, writer)
                except IntegrityError:
                    # A damaged pack stays as it is, and what was copied of it too: `scrub` tells.
                    continue
                moved.append(pack)
            writer.finish(())
            self._moved += writer.stored
        for pack in moved:
            store.condemn(pack)

    def _copy(self, pack: bytes, marks: Marks, writer: ChunkWriter) -> None:
        with self._store.path(pack, "pack").open("rb", buffering=0) as file:
            for record in marks.records(pack):
                self._go_on()
                frame = os.pread(file.fileno(), record.end - record.offset, record.offset)
                payload = bytes(check_stored(pack, record, memoryview(frame)))
                writer.add([Frame(record.digest, record.length, record.packed, payload)])
