"""Making a pack's index forget chunks that are damaged, so that whoever looks for them looks elsewhere.

Call with the collector's lock (`litho.library.chunks.lock`): the index is replaced, while the collector renames it.
"""

from __future__ import annotations

import contextlib
import errno
import os
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
    from the frames. Raises LibraryError.

    Each is read once more: a server that did not answer in time is no damage, and what an index forgets is deleted some day.
    """
    with files.telling(store.root):
        if not store.path(pack, "idx").exists():
            # A capture may bring a condemned pack back at any moment, without the lock. Were its condemned index written here
            # just then, it would have both, and the collector delete it while images rely on it.
            store.hold([pack])
            if not store.path(pack, "idx").exists():
                return False
    store.forget(pack)
    try:
        old = store.index(pack)
        keep = [record for record in old if record.digest not in chunks]
        keep += _whole(store, pack, [record for record in old if record.digest in chunks])
        size = old.size
    except IntegrityError:
        try:
            keep, size = rebuild(store, pack)
        except FileNotFoundError:
            return False
    with files.telling(store.root):
        files.replace(store.path(pack, "idx"), packs.dump_index(pack, size, keep))
    store.forget(pack)
    return True


def _whole(store: ChunkStore, pack: bytes, records: list[packs.Record]) -> list[packs.Record]:
    """Those of `records` whose chunks are what they should be after all. Raises LibraryError."""
    found: list[packs.Record] = []
    unzstd = zstandard.ZstdDecompressor(max_window_size=packs.MAX_CHUNK)
    try:
        with store.path(pack, "pack").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            packs.check_pack_header(os.pread(file.fileno(), packs.PACK_HEADER, 0), pack)
            for record in records:
                with contextlib.suppress(IntegrityError, OSError):
                    frame = memoryview(os.pread(file.fileno(), record.end - record.offset, record.offset))
                    unpack(pack, record, frame, memoryview(bytearray(record.length)), unzstd)
                    found.append(record)
    except (IntegrityError, FileNotFoundError):
        return []
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise files.library_error(exc, store.root) from exc
    return found


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
