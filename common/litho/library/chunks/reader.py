"""The way out: chunks by their hash, each checked before it is handed over.

A `ChunkReader` belongs to one thread: it keeps a way to the packs (`spans`) and a buffer for what lies side by side in them. The
chunks of one unit of I/O usually are neighbours in one pack, so they come in one read, a *stretch*. Who wants to wait for the
packs in one thread and to unpack in another reads stretches by `Ahead`, and gives them to `ChunkReader.take`.

Checked are: the pack's header when it is opened, each frame's header against the pack's index, the CRC of the stored bytes, the
length and the hash of the chunk. What does not agree is an IntegrityError that names the pack. A pack that was rewritten since
the image was captured is found through the catalogs.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import zstandard
from blake3 import blake3

from litho.errors import IntegrityError, LibraryError
from litho.library import files
from litho.library.chunks import pack as packs
from litho.library.chunks.index import Index
from litho.library.chunks.known import Known
from litho.library.chunks.pack import FRAME_HEADER, PackIndex, Record
from litho.library.chunks.spans import PAGE, Blame, PackFile, PackMissingError
from litho.library.chunks.store import ChunkStore

_WAY_OUT = (
    "restore the pack from a backup, use another version of the image, "
    "or capture it again after litho image scrub --mend"
)

SPAN = 8 * 1024 * 1024
"""Bytes read from a pack in one go at most; also the size of the buffer."""
GAP = 128 * 1024
"""Bytes that nobody asked for and are read all the same, rather than read twice."""
_TRIES = 3
_DAMAGE = ("corrupt-pack", "pack-missing", "library-missing")


class Wanted(NamedTuple):
    """A chunk, where it should be, and where it shall go."""

    digest: bytes
    pack: bytes
    into: memoryview
    """Exactly as long as the chunk."""


class Stretch(NamedTuple):
    """Chunks that lie side by side in one pack, and come in one read."""

    pack: bytes
    start: int
    end: int
    """Bytes of the pack."""
    chunks: tuple[tuple[Wanted, Record], ...]


class Fetched(NamedTuple):
    """What was read ahead of its unpacking."""

    stretches: list[tuple[Stretch, memoryview, Blame]]
    """With the bytes of each, and whom to tell if they are wrong."""
    left: list[Wanted]
    """What was not read, for want of room or of the pack."""


class Locator:
    """Finds chunks that are no longer in the pack that their image names. Shared by the readers of one job."""

    def __init__(self, store: ChunkStore) -> None:
        self.store = store
        self._known: Known | None = None
        self._gathering = threading.Lock()
        self._gone: dict[bytes, str] = {}

    def lost(self, pack: bytes, why: str) -> None:
        """The pack's file is not there (any more): from now on its chunks are looked for elsewhere."""
        self._gone[pack] = why
        self.store.forget(pack)
        self._known = None

    def locate(self, digest: bytes, hint: bytes) -> tuple[bytes, Record]:
        """The pack and the place of a chunk. Raises IntegrityError when no pack has it, LibraryError."""
        why = self._gone.get(hint, "")
        try:
            record = None if why else self.store.index(hint).find(digest)
            if record is not None:
                return hint, record
        except IntegrityError as exc:
            why = exc.message
        with self._gathering:
            # Whoever comes second waits: half of what there is would say that a chunk is nowhere.
            known = self._known
            if known is None:
                self.store.packs.gather()
                self._known = known = Known.load(self.store)
        other = known.find(digest)
        record = self.store.index(other).find(digest) if other is not None else None
        if other is None or record is None:
            raise IntegrityError(
                f"a chunk is in no pack of {self.store.root} ({why or hint.hex() + ' does not have it'})",
                hint=_WAY_OUT,
                code="chunk-missing",
            )
        return other, record

    def stretches(self, wanted: Sequence[Wanted]) -> list[Stretch]:
        """Where the chunks lie, neighbours together. Raises IntegrityError, LibraryError."""
        found: list[tuple[bytes, Record, Wanted]] = []
        for one in wanted:
            pack, record = self.locate(one.digest, one.pack)
            found.append((pack, record, one))
        found.sort(key=lambda item: (item[0], item[1].offset))
        made: list[Stretch] = []
        at = 0
        while at < len(found):
            pack, first, _ = found[at]
            end, stop = first.end, at + 1
            while stop < len(found):
                following, record, _ = found[stop]
                if following != pack or record.offset > end + GAP or record.end - first.offset > SPAN:
                    break
                end, stop = max(end, record.end), stop + 1
            chunks = tuple((one, record) for _, record, one in found[at:stop])
            made.append(Stretch(pack, first.offset, end, chunks))
            at = stop
        return made

    def require(self, index: Index) -> None:
        """Look whether every pack that `index` names is there and as long as it should be, or another has its chunks.

        A look at names, sizes and the packs' own indexes, not at the chunks: what can be known before the first write.
        Raises IntegrityError, LibraryError.
        """
        lost: set[bytes] = set()
        for pack in index.packs:
            try:
                wanted = self.store.index(pack).size
                size = self.store.packs.size(pack)
                _require_size(pack, size, wanted)
            except LibraryError as exc:
                if exc.code not in _DAMAGE:
                    raise
                self.lost(pack, f"the pack {pack.hex()} is missing" if exc.code == "pack-missing" else exc.message)
                lost.add(pack)
        if lost:
            for i in range(len(index.numbers)):
                named = index.pack(i)
                if named in lost:
                    self.locate(index.digest(i), named)


class ChunkReader:
    """Reads chunks; one for each thread. Use as a context manager."""

    def __init__(self, locator: Locator) -> None:
        self._locator = locator
        self._spans = locator.store.packs.spans()
        self._buffer = mmap.mmap(-1, SPAN)
        self._view = memoryview(self._buffer)
        self._unzstd = zstandard.ZstdDecompressor(max_window_size=packs.MAX_CHUNK)
        self.fetched = 0
        """Bytes read from packs."""
        self.read_s = 0.0
        """Seconds that reading them took."""

    def fetch(self, wanted: Sequence[Wanted]) -> None:
        """Fill each one's `into` with its chunk. Raises IntegrityError, LibraryError.

        A pack that was rewritten and deleted while this reads is left for the one that has its chunks now.
        """
        for _ in range(_TRIES):
            try:
                self._fetch(wanted)
                return
            except PackMissingError as exc:
                self._locator.lost(exc.pack, exc.message)
        self._fetch(wanted)

    def _fetch(self, wanted: Sequence[Wanted]) -> None:
        for stretch in self._locator.stretches(wanted):
            self._fill(stretch)

    def take(self, fetched: Fetched) -> None:
        """Unpack what was read ahead (`Ahead`), and fetch what was not. Raises IntegrityError, LibraryError.

        Where what was read is not as it should be, other sources are asked.
        """
        left = list(fetched.left)
        for stretch, data, blame in fetched.stretches:
            try:
                self._unpack(stretch, data)
            except IntegrityError as exc:
                blame(exc)
                left += [one for one, _ in stretch.chunks]
        if left:
            self.fetch(left)

    def _fill(self, stretch: Stretch) -> None:
        """Read a stretch and unpack the chunks in it. Where they are not what they should be, other sources are asked."""
        while True:
            data = self._read(stretch.pack, stretch.start, stretch.end)
            try:
                self._unpack(stretch, data)
            except IntegrityError as exc:
                self._spans.blame()(exc)
            else:
                return

    def _read(self, pack: bytes, start: int, end: int) -> memoryview:
        length = end - start
        view = self._view[:length] if length <= SPAN else memoryview(bytearray(length))
        since = time.perf_counter()
        self._spans.read(pack, start, view)
        self.fetched += length
        self.read_s += time.perf_counter() - since
        return view

    def _unpack(self, stretch: Stretch, data: memoryview) -> None:
        for one, record in stretch.chunks:
            frame = data[record.offset - stretch.start : record.end - stretch.start]
            unpack(stretch.pack, record, frame, one.into, self._unzstd)

    def close(self) -> None:
        """Close the packs."""
        self._spans.close()

    def __enter__(self) -> ChunkReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ahead:
    """Reads stretches for others to unpack; one for each thread. Use as a context manager.

    It asks for whole pages, up to the end of a pack: those need no page cache (`spans.PackFile`).
    """

    def __init__(self, locator: Locator) -> None:
        self._locator = locator
        self._spans = locator.store.packs.spans()
        self.fetched = 0
        """Bytes read from packs."""

    def read(self, wanted: Sequence[Wanted], room: memoryview) -> Fetched:
        """The bytes of packs in which `wanted` lie, one after the other in `room`, which begins on a page.

        What is not where it should be is left: who unpacks finds out where else it is, or what is to be said. Raises
        IntegrityError (code chunk-missing), LibraryError.
        """
        found = Fetched([], [])
        try:
            stretches = self._locator.stretches(wanted)
        except PackMissingError:
            found.left.extend(wanted)
            return found
        at = 0
        for stretch in stretches:
            with contextlib.suppress(IntegrityError):
                start = stretch.start - stretch.start % PAGE
                end = min(stretch.end + -stretch.end % PAGE, self._locator.store.index(stretch.pack).size)
                view = room[at : at + end - start]
                if len(view) == end - start:
                    self._spans.read(stretch.pack, start, view)
                    data = view[stretch.start - start : stretch.end - start]
                    found.stretches.append((stretch, data, self._spans.blame()))
                    self.fetched += len(view)
                    at += len(view) + -len(view) % PAGE
                    continue
            found.left.extend(one for one, _ in stretch.chunks)
        return found

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._spans.close()


def check_pack(store: ChunkStore, index: PackIndex) -> Iterator[int]:
    """Read a whole pack in the order in which it lies, and compare every stored byte with its CRC; nothing is unpacked.

    Its header and its length are looked at, too.

    Yields the bytes read since the last time. Raises IntegrityError, LibraryError.
    """
    buffer = _pages(SPAN)
    path = store.path(index.pack, "pack")
    with files.telling(store.root), contextlib.closing(PackFile(path, index.pack)) as file:
        file.forget()
        file.check_header()
        _require_size(index.pack, file.size, index.size)
        yield packs.PACK_HEADER
        begin = have = 0
        told = packs.PACK_HEADER
        for record in sorted(index, key=lambda one: one.offset):
            if record.end > begin + have:
                begin = record.offset - record.offset % PAGE
                if record.end - begin > len(buffer):
                    buffer = _pages(record.end - begin)
                have = file.read(begin, buffer)
                yield max(0, begin + have - told)
                told = max(told, begin + have)
            check_stored(index.pack, record, buffer[record.offset - begin : min(have, record.end - begin)])


def _require_size(pack: bytes, size: int, wanted: int) -> None:
    if size != wanted:
        raise IntegrityError(
            f"the pack {pack.hex()} has {size} bytes instead of {wanted}", hint=_WAY_OUT, code="corrupt-pack"
        )


def _pages(size: int) -> memoryview:
    """Memory that begins on a page, and is a multiple of pages."""
    return memoryview(mmap.mmap(-1, size + -size % PAGE))


def check_stored(pack: bytes, record: Record, frame: memoryview) -> memoryview:
    """The payload in `frame` (header and payload), if its bytes are those that were stored. Raises IntegrityError."""
    if packs.walk(bytes(frame[:FRAME_HEADER]), record.offset) != record or len(frame) != record.end - record.offset:
        raise _damaged(pack, record, "its frame is not what the pack's index says")
    payload = frame[FRAME_HEADER:]
    if packs.crc32(payload) != record.crc:
        raise _damaged(pack, record, "its stored bytes have changed")
    return payload


def unpack(
    pack: bytes, record: Record, frame: memoryview, into: memoryview, unzstd: zstandard.ZstdDecompressor
) -> None:
    """The chunk in `frame` (header and payload), checked in every way there is, into `into`. Raises IntegrityError."""
    payload = check_stored(pack, record, frame)
    if record.length != len(into):
        raise _damaged(pack, record, f"it has {record.length} bytes instead of {len(into)}")
    if not record.packed:
        into[:] = payload
    else:
        try:
            with unzstd.stream_reader(payload, read_size=len(payload) or 1) as source:
                at = 0
                while at < len(into) and (count := source.readinto(into[at:])):
                    at += count
        except zstandard.ZstdError as exc:
            raise _damaged(pack, record, f"it cannot be unpacked ({exc})") from exc
        if at != len(into):
            raise _damaged(pack, record, "it ends early")
    if blake3(into).digest() != record.digest:
        raise _damaged(pack, record, "its hash is not what the index says")


def _damaged(pack: bytes, record: Record, why: str) -> IntegrityError:
    return IntegrityError(
        f"the pack {pack.hex()} is damaged: of the chunk at byte {record.offset} {why}",
        hint=_WAY_OUT,
        code="corrupt-pack",
    )
