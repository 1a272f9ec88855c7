"""What a library holds and what it costs: for each version, and of what would be free if the version were not there.

A chunk that several versions share is counted with each of them under `chunks`, and with none under `alone`. So `alone` and the
streams are what deleting one version gives back (its chunks when the collector has come by, twice, with its grace time between).
"""

from __future__ import annotations

from array import array

import msgspec

from litho.errors import LithoError
from litho.library import files
from litho.library.chunks.mark import Marks
from litho.library.chunks.scrub import ENGINE, read_index
from litho.library.chunks.store import ChunkStore
from litho.library.manifest import Manifest
from litho.library.names import ImageRef
from litho.library.shelf import Library


class VersionUsage(msgspec.Struct, kw_only=True):
    """One version of an image, in bytes."""

    image: str
    version: int
    used: int = 0
    """Of the captured disk."""
    files: int = 0
    """Files that are its own: streams, tables, indexes."""
    chunks: int = 0
    """Chunks that it needs, as they are stored."""
    alone: int = 0
    """Those among them that no other version needs."""
    error: str = ""
    """Why it could not be counted."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A library, in bytes."""

    versions: tuple[VersionUsage, ...]
    used: int
    """Of all captured disks together, as if each were kept as it was."""
    files: int
    chunks: int
    """Chunks that are needed, each counted once."""
    packs: int
    """Files of packs, with what is not needed any more."""
    pack_count: int
    condemned: int
    """Files of packs that the collector will delete."""
    free: int
    """Of the file system."""


class _Tally:
    """Chunks by the versions that need them: for each chunk of each pack the last version that came by, and whether it was the
    only one. Five bytes a chunk."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._last: dict[bytes, array[int]] = {}
        self._shared: dict[bytes, bytearray] = {}
        self.total = 0

    def count(self, pack: bytes, at: int, number: int, versions: list[VersionUsage]) -> None:
        """The version in place `number` of `versions` needs this chunk."""
        index = self._store.index(pack)
        last = self._last.setdefault(pack, array("I", bytes(4 * len(index))))
        shared = self._shared.setdefault(pack, bytearray(len(index)))
        before = last[at]
        if before == number + 1:
            return
        last[at] = number + 1
        record = index.record(at)
        size = record.end - record.offset
        versions[number].chunks += size
        if before == 0:
            versions[number].alone += size
            self.total += size
        elif not shared[at]:
            shared[at] = 1
            versions[before - 1].alone -= size


def usage(library: Library) -> Usage:
    """Count everything. A version that cannot be read is listed with its error. Raises LibraryError."""
    store = ChunkStore(library)
    listing = store.listing()
    marks, tally = Marks(store, listing.live), _Tally(store)
    versions: list[VersionUsage] = []
    for name in library.images():
        for version in library.versions(name):
            one = VersionUsage(image=name, version=version)
            versions.append(one)
            try:
                manifest = library.manifest(ImageRef(name, version))
                one.used, one.files = manifest.used, sum(ref.bytes for ref in manifest.files())
                _count(library, manifest, marks, tally, versions)
            except LithoError as exc:
                one.error = exc.message
    with files.telling(store.root):
        sizes = {pack: _size(store, pack) for pack in listing.pack}
    return Usage(
        versions=tuple(versions),
        used=sum(one.used for one in versions),
        files=sum(one.files for one in versions),
        chunks=tally.total,
        packs=sum(sizes.values()),
        pack_count=len(sizes),
        condemned=sum(sizes.get(pack, 0) for pack in listing.condemned | listing.doomed),
        free=library.free(),
    )


def _count(library: Library, manifest: Manifest, marks: Marks, tally: _Tally, versions: list[VersionUsage]) -> None:
    for part in manifest.parts:
        if part.engine != ENGINE or part.data is None:
            continue
        index = read_index(library, part)
        for i in range(len(index.numbers)):
            found = marks.place(index, i)
            if found is not None:
                tally.count(*found, len(versions) - 1, versions)


def _size(store: ChunkStore, pack: bytes) -> int:
    try:
        return store.path(pack, "pack").stat().st_size
    except FileNotFoundError:
        return 0
