"""The format of an image's index: what one partition held, chunk by chunk. Pure; `indexfile` reads files.

    header      magic 8 | version u16 | zero u16 | bytes of a chunk u32 | partition's size u64 | used bytes u64 |
                extents u64 | chunks u64 | packs u64 | root 32 | BLAKE3 32 of everything else in the file
    extents     start u64, length u64 each: the used bytes
    numbers     u32 each, ascending: place of the chunk on the grid
    hashes      32 bytes each: BLAKE3 of the chunk, unused bytes taken as zeros
    packs of    u32 each: which of the packs below had the chunk when this was written; 2^32-1: all zeros, not stored
    pack ids    16 bytes each

Columns instead of rows: each is one array, read in one step. The *root* is the BLAKE3 hash of what the partition held
(`root`), without where it was stored; the manifest keeps it, and reading a disk back gives the same one.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from blake3 import blake3

from litho.errors import IntegrityError, LibraryError
from litho.library.chunks.hashes import WINDOW, StoredHashes
from litho.library.chunks.pack import HASH, ID, MAX_CHUNK, VERSION
from litho.library.chunks.usedmap import UsedMap, little

ZEROS = (1 << 32) - 1
"""Stands for a pack: the chunk is all zeros and lies nowhere."""
MAX_BYTES = 4 * 1024**3
"""Bytes; the index of a petabyte of scattered data would have more, and no reader would hold it."""

_PIECE = 1024 * 1024
"""Bytes in hand at a time. A multiple of a hash and of a number."""
THREADS = 2
"""Of BLAKE3, where there is much to hash: what the smallest nodes have."""
Hashes = bytes | bytearray | StoredHashes

_MAGIC = b"LITHOIX\x01"
_HEAD = struct.Struct("<8sHHIQQQQQ32s")
HEADER = _HEAD.size + HASH
"""Bytes of the header."""
_ROOT = struct.Struct("<24sIQQQ")
_ROOT_NAME = b"lithograph chunk root 1"


class Head(NamedTuple):
    """The header of an index."""

    grain: int
    size: int
    used: int
    extents: int
    chunks: int
    packs: int
    root: bytes
    hash: bytes
    """Of everything else in the file."""

    @property
    def lengths(self) -> tuple[int, int, int, int, int]:
        """Bytes of the columns: extents, numbers, hashes, packs of the chunks, packs."""
        return (self.extents * 16, self.chunks * 4, self.chunks * HASH, self.chunks * 4, self.packs * ID)

    @property
    def numbers_at(self) -> int:
        """Where the column of numbers begins; those behind it follow."""
        return HEADER + 16 * self.extents

    @property
    def digests_at(self) -> int:
        """Where the column of hashes begins."""
        return self.numbers_at + 4 * self.chunks

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return self.digests_at + (HASH + 4) * self.chunks + ID * self.packs


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition held."""

    grain: int
    """Bytes of a chunk."""
    used: UsedMap
    numbers: array[int]
    """Chunk numbers, ascending."""
    digests: Hashes
    """32 bytes a chunk, in the same order."""
    pack_of: array[int]
    """Place in `packs` for each chunk, or ZEROS."""
    packs: tuple[bytes, ...]
    root: bytes

    @property
    def size(self) -> int:
        """Bytes of the partition."""
        return self.used.size

    @property
    def total(self) -> int:
        """Bytes of all chunks."""
        if not self.numbers:
            return 0
        return (len(self.numbers) - 1) * self.grain + min(self.grain, self.size - self.numbers[-1] * self.grain)

    def digest(self, i: int) -> bytes:
        """Hash of the chunk in place `i`."""
        return bytes(self.digests[i * HASH : (i + 1) * HASH])

    def span(self, i: int) -> tuple[int, int]:
        """First byte, and the byte behind the last, of the chunk in place `i`."""
        start = self.numbers[i] * self.grain
        return start, min(self.size, start + self.grain)

    def pack(self, i: int) -> bytes | None:
        """The pack in which the chunk in place `i` lay; None when it is all zeros."""
        at = self.pack_of[i]
        return None if at == ZEROS else self.packs[at]


def root(
    grain: int, used: UsedMap, numbers: array[int], digests: Hashes, *, instead: Mapping[int, bytes | bytearray] = {}
) -> bytes:
    """The hash over what the partition held; `instead` has whole windows of hashes that are to stand for those in `digests`, by
    their number (`hashes.WINDOW` bytes each, fewer in the last)."""
    hasher = blake3(_ROOT.pack(_ROOT_NAME, grain, used.size, len(used), len(numbers)), max_threads=THREADS)
    hasher.update(used.to_bytes())
    for piece in _pieces(numbers):
        hasher.update(piece)
    for at in range(0, len(digests), WINDOW):
        hasher.update(instead.get(at // WINDOW) or digests[at : at + WINDOW])
    return hasher.digest()


def root_hasher(head: Head) -> blake3:
    """What is to be fed with the columns extents, numbers and hashes to become the root hash."""
    return blake3(_ROOT.pack(_ROOT_NAME, head.grain, head.size, head.extents, head.chunks), max_threads=THREADS)


def _pieces(column: array[int]) -> Iterator[bytes]:
    """The bytes of a column of numbers, without a second copy of all of it."""
    step = _PIECE // column.itemsize
    for begin in range(0, len(column), step):
        yield little(column[begin : begin + step]).tobytes()


def make(
    grain: int,
    used: UsedMap,
    numbers: array[int],
    digests: Hashes,
    *,
    pack_of: array[int],
    packs: Sequence[bytes],
) -> Index:
    """An index, its root worked out. The columns are taken as they are, not copied."""
    return Index(
        grain=grain,
        used=used,
        numbers=numbers,
        digests=digests,
        pack_of=pack_of,
        packs=tuple(packs),
        root=root(grain, used, numbers, digests),
    )


def dump(index: Index) -> bytes:
    """The index's file."""
    return b"".join(dump_pieces(index))


def dump_pieces(index: Index) -> Iterator[bytes]:
    """The index's file, piece by piece."""
    head = _HEAD.pack(
        _MAGIC,
        VERSION,
        0,
        index.grain,
        index.size,
        index.used.used,
        len(index.used),
        len(index.numbers),
        len(index.packs),
        index.root,
    )
    hasher = blake3(head, max_threads=THREADS)
    for piece in _body(index):
        hasher.update(piece)
    yield head + hasher.digest()
    yield from _body(index)


def _body(index: Index) -> Iterator[bytes]:
    yield index.used.to_bytes()
    yield from _pieces(index.numbers)
    for begin in range(0, len(index.digests), _PIECE):
        yield bytes(index.digests[begin : begin + _PIECE])
    yield from _pieces(index.pack_of)
    yield b"".join(index.packs)


def read_head(data: bytes, *, what: str, file_bytes: int) -> Head:
    """The header of an index file of `file_bytes` bytes. Raises IntegrityError, LibraryError when it is of a newer format.

    Whether the file is what was written only its hash says, which is for the caller to look at.
    """
    if len(data) < HEADER:
        raise damaged(what, "it is too short")
    magic, version, _, grain, size, used, extents, chunks, packs, said = _HEAD.unpack(data[: _HEAD.size])
    if magic != _MAGIC:
        raise damaged(what, "it is no index")
    if version != VERSION:
        raise LibraryError(
            f"{what} has format {version}, and this program reads {VERSION}",
            hint="use a newer Lithograph on this machine",
            code="newer-format",
        )
    head = Head(grain, size, used, extents, chunks, packs, said, data[_HEAD.size : HEADER])
    if head.bytes != file_bytes or not 512 <= head.grain <= MAX_CHUNK:
        raise damaged(what, "its parts do not fit together")
    return head


def parse(data: bytes, *, what: str, expect_root: bytes = b"") -> Index:
    """The index in `data`; `what` names it in errors, `expect_root` is what the manifest says of it.

    Raises IntegrityError when its bytes are not what was written, LibraryError when it is of a newer format.
    """
    # The hash before all else, so that damage is told as such and not as what it happens to look like.
    view = memoryview(data)
    if len(data) < HEADER or blake3(view[: _HEAD.size]).update(view[HEADER:]).digest() != data[_HEAD.size : HEADER]:
        raise damaged(what, "its hash is not what it says")
    head = read_head(data[:HEADER], what=what, file_bytes=len(data))
    columns: list[memoryview] = []
    at = HEADER
    for length in head.lengths:
        columns.append(view[at : at + length])
        at += length
    numbers, pack_of = array("I"), array("I")
    numbers.frombytes(columns[1])
    pack_of.frombytes(columns[3])
    return assemble(
        head,
        columns[0],
        little(numbers),
        bytes(columns[2]),
        pack_of=little(pack_of),
        ids=bytes(columns[4]),
        what=what,
        expect_root=expect_root,
    )


def assemble(
    head: Head,
    extents: bytes | memoryview,
    numbers: array[int],
    digests: Hashes,
    *,
    pack_of: array[int],
    ids: bytes,
    what: str,
    expect_root: bytes,
    found_root: bytes = b"",
) -> Index:
    """An index of its columns, each held against the others; `found_root` is its root hash where that was worked out already.

    Raises IntegrityError.
    """
    try:
        used = UsedMap.from_bytes(extents, head.size)
    except IntegrityError as exc:
        raise damaged(what, exc.message) from exc
    # First the look that costs nothing: a file that says much more than it has is not to be worked out.
    if used.used != head.used or head.used > head.chunks * head.grain or head.size > head.grain << 32:
        raise damaged(what, "its chunks are not those of its used bytes")
    if numbers != used.chunks(head.grain):
        raise damaged(what, "its chunks are not those of its used bytes")
    if any(at >= head.packs and at != ZEROS for at in set(pack_of)):
        raise damaged(what, "it names a pack that it does not list")
    index = Index(
        grain=head.grain,
        used=used,
        numbers=numbers,
        digests=digests,
        pack_of=pack_of,
        packs=tuple(ids[i : i + ID] for i in range(0, len(ids), ID)),
        root=head.root,
    )
    found = found_root or root(head.grain, used, numbers, digests)
    if found != head.root or (expect_root and head.root != expect_root):
        raise damaged(what, "its root hash is not what the manifest says" if expect_root else "its root hash is wrong")
    return index


def damaged(what: str, why: str) -> IntegrityError:
    """An index that is not what was written."""
    return IntegrityError(
        f"{what} is damaged: {why}",
        hint="use another version of the image, or capture it again",
        code="corrupt-index",
    )
