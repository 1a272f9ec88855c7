"""Making a pack's index forget chunks that are damaged, so that whoever looks for them looks elsewhere.

Call with the collector's lock (`litho.library.chunks.lock`): the index is replaced, while the collector renames it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Set

import zstandard

from litho.errors import IntegrityError
from litho.library import files
from litho.library.chunks import pack as packs
from litho.library.chunks.pack import FRAME_HEADER
from litho.library.chunks.reader import unpack
from litho.library.chunks.store import ChunkStore


def take_out(store: ChunkStore, pack: bytes, chunks: Set[bytes]) -> bool:
    """Make the index of a pack forget these chunks; False when the pack is gone. An index that is damaged itself is made anew
    from the frames. Raises LibraryError."""
    store.forget(pack)
    try:
        old = store.index(pack)
        keep = [record for record in old if record.digest not in chunks]
        size = old.size
    except IntegrityError:
        try:
            keep, size = rebuild(store, pack)
        except FileNotFoundError:
            return False
    with files.telling(store.root):
        kind = "idx" if store.path(pack, "idx").exists() else "idx.condemned"
        files.replace(store.path(pack, kind), packs.dump_index(pack, size, keep))
    store.forget(pack)
    return True


def rebuild(store: ChunkStore, pack: bytes) -> tuple[list[packs.Record], int]:
    """The records of a pack from its frames alone, up to where no frame begins, and the file's size. Raises OSError."""
    found: dict[bytes, packs.Record] = {}
    unzstd = zstandard.ZstdDecompressor(max_window_size=packs.MAX_CHUNK)
    with store.path(pack, "pack").open("rb") as file:
        at = file.seek(0, 2)
        size = at
        at = packs.PACK_HEADER
        while True:
            file.seek(at)
            record = packs.walk(file.read(FRAME_HEADER), at)
            if record is None:
                break
            file.seek(at)
            frame = memoryview(file.read(record.end - at))
            with contextlib.suppress(IntegrityError):
                unpack(pack, record, frame, memoryview(bytearray(record.length)), unzstd)
                found[record.digest] = record
            at = record.end
    return list(found.values()), size
