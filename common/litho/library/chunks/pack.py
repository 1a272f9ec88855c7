"""The formats of a pack and of its index. Pure: bytes in, structs out.

A pack is a header of 64 bytes and frames after each other up to the end of the file. A frame is a header of 48 bytes and the
chunk, packed as one zstd frame or as it is. The frame's header says all that is needed to unpack and check it, so a pack without
its index can be read from front to back (`walk`).

    pack header     magic 8 | version u16 | zero u16 | zero u32 | pack id 16 | BLAKE3 of the first 32 bytes, 32
    frame           magic 4 | CRC-32 of the payload u32 | payload length u32 | plain length u32, top bit: not packed |
                    BLAKE3 of the chunk 32 | payload

    pack index      magic 8 | version u16 | zero u16 | records u32 | pack id 16 | pack file's length u64 |
                    BLAKE3 32 of (the 40 bytes before + all records) | records
    record          BLAKE3 of the chunk 32 | offset of the frame u32 | payload length u32 |
                    plain length u32, top bit: not packed | CRC-32 u32

Integers are little-endian. Records are sorted by hash. The CRC is over the payload as it is stored, because a zstd frame has bits
that may flip without changing what comes out of it; those too are damage.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3
from isal import isal_zlib

from litho.errors import IntegrityError, LibraryError

VERSION = 1
HASH = 32
ID = 16
PLAIN = 1 << 31
"""Flag in a plain length: the payload is the chunk itself."""
MAX_CHUNK = 16 * 1024 * 1024
"""Bytes that a chunk has at most; a reader refuses more, whatever a file says."""
MAX_PACK = (1 << 32) - 1

_PACK = struct.Struct("<8sHHI16s")
_PACK_MAGIC = b"LITHOPK\x01"
PACK_HEADER = _PACK.size + HASH
_FRAME = struct.Struct("<4sIII32s")
_FRAME_MAGIC = b"LCF\x01"
FRAME_HEADER = _FRAME.size
_INDEX = struct.Struct("<8sHHI16sQ")
_INDEX_MAGIC = b"LITHOPI\x01"
INDEX_HEADER = _INDEX.size + HASH
_RECORD = struct.Struct("<32sIIII")
RECORD = _RECORD.size
_PREFIX = struct.Struct(f">Q{RECORD - 8}x")


class Record(NamedTuple):
    """One chunk in a pack."""

    digest: bytes
    offset: int
    """Bytes from the start of the pack to the frame's header."""
    stored: int
    """Bytes of the payload."""
    length: int
    """Bytes of the chunk."""
    packed: bool
    """True: zstd; False: the payload is the chunk."""
    crc: int

    @property
    def end(self) -> int:
        """The first byte behind the frame."""
        return self.offset + FRAME_HEADER + self.stored


def crc32(payload: bytes | memoryview) -> int:
    """The CRC-32 of a payload: that of zlib, by the processor's own instructions (docs/decisions/0027)."""
    return isal_zlib.crc32(payload)


def pack_header(pack: bytes) -> bytes:
    """The first bytes of the pack with the identifier `pack`."""
    head = _PACK.pack(_PACK_MAGIC, VERSION, 0, 0, pack)
    return head + blake3(head).digest()


def check_pack_header(data: bytes, pack: bytes) -> None:
    """Raise IntegrityError unless `data` begins as the pack `pack` does, LibraryError when it is of a newer format."""
    head = data[: _PACK.size]
    if len(data) < PACK_HEADER or blake3(head).digest() != data[_PACK.size : PACK_HEADER]:
        raise IntegrityError(f"the pack {pack.hex()} is damaged at its beginning", code="corrupt-pack")
    magic, version, _, _, identity = _PACK.unpack(head)
    if magic != _PACK_MAGIC or identity != pack:
        raise IntegrityError(f"the pack {pack.hex()} is another file than its name says", code="corrupt-pack")
    if version != VERSION:
        raise _newer(f"pack {pack.hex()}", version)


def frame_header(record: Record) -> bytes:
    """What stands before the payload of `record`."""
    flagged = record.length if record.packed else record.length | PLAIN
    return _FRAME.pack(_FRAME_MAGIC, record.crc, record.stored, flagged, record.digest)


def walk(data: bytes, offset: int) -> Record | None:
    """The record of the frame whose header is `data`, at `offset` in its pack; None when no frame begins there."""
    if len(data) < FRAME_HEADER:
        return None
    magic, crc, stored, flagged, digest = _FRAME.unpack(data[:FRAME_HEADER])
    length = flagged & ~PLAIN
    if magic != _FRAME_MAGIC or not 0 < length <= MAX_CHUNK or not 0 < stored <= 2 * MAX_CHUNK:
        return None
    return Record(digest, offset, stored, length, not flagged & PLAIN, crc)


class PackIndex:
    """Where the chunks of one pack lie: the records as they stand in the file, taken apart when asked for."""

    def __init__(self, pack: bytes, size: int, body: bytes) -> None:
        self.pack = pack
        self.size = size
        """Bytes of the pack's file."""
        self._body = body
        self._prefixes: array[int] | None = None

    def __len__(self) -> int:
        return len(self._body) // RECORD

    def __iter__(self) -> Iterator[Record]:
        return (self.record(i) for i in range(len(self)))

    def record(self, i: int) -> Record:
        """The record in place `i`."""
        digest, offset, stored, flagged, crc = _RECORD.unpack_from(self._body, i * RECORD)
        return Record(digest, offset, stored, flagged & ~PLAIN, not flagged & PLAIN, crc)

    def position(self, digest: bytes) -> int:
        """The place of the chunk with that hash among the records, -1 when the pack has none."""
        if self._prefixes is None:
            # Asked for by captures and restores, some thousand times each: worth a column of its own.
            self._prefixes = array("Q", self.prefixes())
        body, prefixes = self._body, self._prefixes
        prefix = int.from_bytes(digest[:8], "big")
        at = bisect_left(prefixes, prefix)
        while at < len(prefixes) and prefixes[at] == prefix:
            if body.startswith(digest, at * RECORD):
                return at
            at += 1
        return -1

    def find(self, digest: bytes) -> Record | None:
        """The chunk with that hash, None when the pack has none."""
        at = self.position(digest)
        return None if at < 0 else self.record(at)

    def prefixes(self) -> list[int]:
        """The first 64 bits of every hash, ascending."""
        return [prefix for (prefix,) in _PREFIX.iter_unpack(self._body)]


def dump_index(pack: bytes, size: int, records: Sequence[Record]) -> bytes:
    """The index file of a pack of `size` bytes."""
    head = _INDEX.pack(_INDEX_MAGIC, VERSION, 0, len(records), pack, size)
    body = b"".join(
        _RECORD.pack(r.digest, r.offset, r.stored, r.length if r.packed else r.length | PLAIN, r.crc)
        for r in sorted(records)
    )
    return head + blake3(head + body).digest() + body


def parse_index(data: bytes, pack: bytes) -> PackIndex:
    """The index of `pack`. Raises IntegrityError when its bytes are not what was written, LibraryError when it is newer."""
    what = f"the index of the pack {pack.hex()}"
    head, body = data[: _INDEX.size], data[INDEX_HEADER:]
    if len(data) < INDEX_HEADER or blake3(head + body).digest() != data[_INDEX.size : INDEX_HEADER]:
        raise IntegrityError(f"{what} is damaged", code="corrupt-pack")
    magic, version, _, count, identity, size = _INDEX.unpack(head)
    if magic != _INDEX_MAGIC or identity != pack:
        raise IntegrityError(f"{what} is another file than its name says", code="corrupt-pack")
    if version != VERSION:
        raise _newer(f"index of the pack {pack.hex()}", version)
    if len(body) != count * RECORD:
        raise IntegrityError(
            f"{what} has {len(body)} bytes of records instead of {count * RECORD}", code="corrupt-pack"
        )
    last = b""
    for digest, offset, stored, flagged, _ in _RECORD.iter_unpack(body):
        length, plain = flagged & ~PLAIN, flagged & PLAIN
        fits = offset >= PACK_HEADER and offset + FRAME_HEADER + stored <= size and 0 < length <= MAX_CHUNK
        if not fits or digest <= last or (plain and stored != length):
            raise IntegrityError(f"{what} has a record that cannot be", code="corrupt-pack")
        last = digest
    return PackIndex(pack, size, body)


def _newer(what: str, version: int) -> LibraryError:
    return LibraryError(
        f"the {what} has format {version}, and this program reads {VERSION}",
        hint="use a newer Lithograph on this machine",
        code="newer-format",
    )
