"""The format of an image's index: what one partition held, chunk by chunk. Pure.

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
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from blake3 import blake3

from litho.errors import IntegrityError, LibraryError
from litho.library.chunks.pack import HASH, ID, MAX_CHUNK, VERSION
from litho.library.chunks.usedmap import UsedMap, little

ZEROS = (1 << 32) - 1
"""Stands for a pack: the chunk is all zeros and lies nowhere."""
MAX_BYTES = 4 * 1024**3
"""Bytes; the index of a petabyte of scattered data would have more, and no reader would hold it."""

_MAGIC = b"LITHOIX\x01"
_HEAD = struct.Struct("<8sHHIQQQQQ32s")
HEADER = _HEAD.size + HASH
"""Bytes of the header."""
_ROOT = struct.Struct("<24sIQQQ")
_ROOT_NAME = b"lithograph chunk root 1"


class Head(NamedTuple):
    """The header of an index, as far as it says where the columns lie."""

    grain: int
    size: int
    used: int
    extents: int
    chunks: int
    packs: int

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
    digests: bytes
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
        return self.digests[i * HASH : (i + 1) * HASH]

    def span(self, i: int) -> tuple[int, int]:
        """First byte, and the byte behind the last, of the chunk in place `i`."""
        start = self.numbers[i] * self.grain
        return start, min(self.size, start + self.grain)

    def pack(self, i: int) -> bytes | None:
        """The pack in which the chunk in place `i` lay; None when it is all zeros."""
        at = self.pack_of[i]
        return None if at == ZEROS else self.packs[at]


def root(grain: int, used: UsedMap, numbers: array[int], digests: bytes | bytearray) -> bytes:
    """The hash over what the partition held."""
    body = used.to_bytes()
    hasher = blake3(_ROOT.pack(_ROOT_NAME, grain, used.size, len(used), len(numbers)))
    for piece in (body, little(numbers).tobytes(), bytes(digests)):
        hasher.update(piece)
    return hasher.digest()


def make(
    grain: int,
    used: UsedMap,
    numbers: array[int],
    digests: bytes | bytearray,
    *,
    pack_of: array[int],
    packs: Sequence[bytes],
) -> Index:
    """An index, its root worked out."""
    return Index(
        grain=grain,
        used=used,
        numbers=numbers,
        digests=bytes(digests),
        pack_of=pack_of,
        packs=tuple(packs),
        root=root(grain, used, numbers, digests),
    )


def dump(index: Index) -> bytes:
    """The index's file."""
    extents = index.used.to_bytes()
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
    body = b"".join(
        (
            extents,
            little(index.numbers).tobytes(),
            index.digests,
            little(index.pack_of).tobytes(),
            *index.packs,
        )
    )
    return b"".join((head, blake3(head).update(body).digest(), body))


def read_head(data: bytes, *, what: str, file_bytes: int) -> Head:
    """The header of an index of which `file_bytes` are there, for who reads it piece by piece; `what` names it in errors.

    Raises IntegrityError when it is no index or has not as many bytes as it says.
    """
    if len(data) < HEADER:
        raise _damaged(what, "it is cut")
    magic, version, _, grain, size, used, extents, chunks, packs, _ = _HEAD.unpack_from(data)
    found = Head(grain, size, used, extents, chunks, packs)
    if (magic, version) != (_MAGIC, VERSION) or found.bytes != file_bytes or not 512 <= found.grain <= MAX_CHUNK:
        raise _damaged(what, "it is no index of this format, or is cut")
    return found


def parse(data: bytes, *, what: str, expect_root: bytes = b"") -> Index:
    """The index in `data`; `what` names it in errors, `expect_root` is what the manifest says of it.

    Raises IntegrityError when its bytes are not what was written, LibraryError when it is of a newer format.
    """
    view = memoryview(data)
    head, body = view[: _HEAD.size], view[HEADER:]
    if len(data) < HEADER or blake3(head).update(body).digest() != data[_HEAD.size : HEADER]:
        raise _damaged(what, "its hash is not what it says")
    magic, version, _, grain, size, used_bytes, n_extents, n_chunks, n_packs, said = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise _damaged(what, "it is no index")
    if version != VERSION:
        raise LibraryError(
            f"{what} has format {version}, and this program reads {VERSION}",
            hint="use a newer Lithograph on this machine",
            code="newer-format",
        )
    lengths = (n_extents * 16, n_chunks * 4, n_chunks * HASH, n_chunks * 4, n_packs * ID)
    if sum(lengths) != len(body) or not 512 <= grain <= MAX_CHUNK:
        raise _damaged(what, "its parts do not fit together")
    columns: list[memoryview] = []
    at = 0
    for length in lengths:
        columns.append(body[at : at + length])
        at += length
    try:
        used = UsedMap.from_bytes(columns[0], size)
    except IntegrityError as exc:
        raise _damaged(what, exc.message) from exc
    numbers, pack_of = array("I"), array("I")
    numbers.frombytes(columns[1])
    pack_of.frombytes(columns[3])
    numbers, pack_of = little(numbers), little(pack_of)
    ids = bytes(columns[4])
    index = Index(
        grain=grain,
        used=used,
        numbers=numbers,
        digests=bytes(columns[2]),
        pack_of=pack_of,
        packs=tuple(ids[i : i + ID] for i in range(0, len(ids), ID)),
        root=said,
    )
    # First the look that costs nothing: a file that says much more than it has is not to be worked out.
    if used.used != used_bytes or used_bytes > n_chunks * grain or size > grain << 32:
        raise _damaged(what, "its chunks are not those of its used bytes")
    if numbers != used.chunks(grain):
        raise _damaged(what, "its chunks are not those of its used bytes")
    if any(at >= n_packs and at != ZEROS for at in set(pack_of)):
        raise _damaged(what, "it names a pack that it does not list")
    if root(grain, used, numbers, index.digests) != said or (expect_root and said != expect_root):
        raise _damaged(what, "its root hash is not what the manifest says" if expect_root else "its root hash is wrong")
    return index


def _damaged(what: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{what} is damaged: {why}",
        hint="use another version of the image, or capture it again",
        code="corrupt-index",
    )
