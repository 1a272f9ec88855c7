"""Chunks in bundles: what an image of the engine `chunk` needs of the library's packs, as packs of the bundle's own.

    golden.v1-sda1.chunks           the index, which names the bundle's packs
    chunks/<id>.pack                each chunk that the image needs, once, in the order in which the partitions have them

A library shares packs among images and rewrites them, so the bundle has neither its packs nor their names. `outgoing` puts the
frames of the image's chunks, as they are stored, into packs that depend on nothing but the image; a pack's identifier is made
of the hashes in it. So the same image gives the same bundle, and anybody can read its packs (docs/reference/chunks.md).

`bring` is the way back, and the way of every capture: a chunk that the library has is not stored again; every other one is
unpacked, held against its hash and appended to a pack of the library's; then the indexes are written anew with the packs in
which the chunks lie here. When an import fails afterwards, what it stored is a pack that no image needs, and the collector
takes it.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import zstandard
from blake3 import blake3

from litho.errors import IntegrityError, LithoError
from litho.library import FileRef, Library, Manifest
from litho.library.chunks import ChunkStore, ChunkWriter, Index
from litho.library.chunks import index as indexes
from litho.library.chunks import pack as packs
from litho.library.chunks.pack import FRAME_HEADER, ID, PACK_HEADER, Record
from litho.library.chunks.reader import Locator, check_stored, unpack
from litho.library.chunks.scrub import read_index
from litho.library.chunks.writer import Frame
from litho.library.manifest import Part
from litho_controller.bundle.faults import damaged, shown, telling
from litho_controller.bundle.intake import Member
from litho_controller.bundle.piece import Piece, made

ENGINE = "chunk"
PACK_BYTES = 1024 * 1024 * 1024
"""Of a pack in a bundle, about; a bundle of 10,000 members holds ten terabytes so."""
MAX_INDEX = 1024 * 1024 * 1024
"""Bytes of an index that is taken from a bundle: three terabytes of used data."""
_NAME = b"lithograph bundle pack 1"
_BLOCK = 1024 * 1024
_OPEN = 32


def has(manifest: Manifest) -> bool:
    """True for an image of which a partition is stored as chunks."""
    return any(part.engine == ENGINE for part in manifest.parts)


def is_pack(member: str) -> bool:
    """True for the name of a pack in a bundle."""
    stem = member.removeprefix("chunks/").removesuffix(".pack")
    return member == f"chunks/{stem}.pack" and len(stem) == 2 * ID and not stem.strip("0123456789abcdef")


# ---------------------------------------------------------------- out


class _Pack:
    """A pack of the bundle: which chunks of which partition it holds, in order."""

    def __init__(self) -> None:
        self.size = PACK_HEADER
        self.places = array("Q")
        """Partition (place among the indexes) in the high 32 bits, place of the chunk in its index in the low ones."""
        self.hasher = blake3(_NAME)

    @property
    def id(self) -> bytes:
        """Made of what is in it."""
        return self.hasher.digest()[:ID]


def outgoing(library: Library, manifest: Manifest) -> tuple[Manifest, dict[str, bytes], list[Piece]]:
    """What goes into a bundle: the manifest with the bundle's own indexes, these by their files' names, and the packs.

    Blocks. Raises IntegrityError when a chunk is missing, LibraryError.
    """
    store = ChunkStore(library)
    locator = Locator(store)
    parts = [part for part in manifest.parts if part.engine == ENGINE]
    found = [read_index(library, part) for part in parts]
    made_packs = [_Pack()]
    seen: dict[bytes, int] = {}
    columns: list[array[int]] = []
    added: list[int] = []
    for at, index in enumerate(found):
        column, bytes_added = array("I"), 0
        for i in range(len(index.numbers)):
            hint = index.pack(i)
            if hint is None:
                column.append(indexes.ZEROS)
                continue
            digest = index.digest(i)
            number = seen.get(digest)
            if number is None:
                _, record = locator.locate(digest, hint)
                length = FRAME_HEADER + record.stored
                if made_packs[-1].size + length > PACK_BYTES and made_packs[-1].places:
                    made_packs.append(_Pack())
                number = seen[digest] = len(made_packs) - 1
                pack = made_packs[number]
                pack.places.append(at << 32 | i)
                pack.hasher.update(digest)
                pack.size += length
                bytes_added += length
            column.append(number)
        columns.append(column)
        added.append(bytes_added)
    ids = [pack.id for pack in made_packs]
    data: dict[str, bytes] = {}
    changed: dict[int, Part] = {}
    for part, index, column, stored in zip(parts, found, columns, added, strict=True):
        if part.data is None:
            continue
        data[part.data.file] = body = indexes.dump(_with_packs(index, column, ids))
        changed[part.number] = _part(part, body, stored)
    frames = _Frames(locator, found)
    pieces = [
        Piece(member=f"chunks/{pack.id.hex()}.pack", size=pack.size, source=frames.of(pack))
        for pack in made_packs
        if pack.places
    ]
    return _with_parts(manifest, changed), data, pieces


class _Frames:
    """Reads frames of the library's packs. Raises IntegrityError, LibraryError."""

    def __init__(self, locator: Locator, found: list[Index]) -> None:
        self._locator = locator
        self._indexes = found

    def of(self, pack: _Pack) -> Callable[[], Iterator[bytes]]:
        """The bytes of a bundle's pack, whenever they are asked for."""

        def read() -> Iterator[bytes]:
            block = bytearray(packs.pack_header(pack.id))
            files: dict[bytes, int] = {}
            try:
                for place in pack.places:
                    index, i = self._indexes[place >> 32], place & 0xFFFFFFFF
                    block += self._frame(index.digest(i), index.pack(i) or b"", files)
                    if len(block) >= _BLOCK:
                        yield bytes(block)
                        block.clear()
                yield bytes(block)
            finally:
                for fd in files.values():
                    os.close(fd)

        return read

    def _frame(self, digest: bytes, hint: bytes, files: dict[bytes, int]) -> memoryview:
        for last in (False, True):
            where, record = self._locator.locate(digest, hint)
            try:
                frame = self._read(where, record, files)
            except FileNotFoundError as exc:
                # The collector has put the pack's chunks into another one.
                self._locator.lost(where, f"the pack {where.hex()} is missing")
                if last:
                    raise IntegrityError(f"the pack {where.hex()} is missing", code="pack-missing") from exc
                continue
            check_stored(where, record, frame)
            return frame
        raise LithoError("a chunk was looked for in vain")

    def _read(self, where: bytes, record: Record, files: dict[bytes, int]) -> memoryview:
        path = self._locator.store.path(where, "pack")
        fd = files.get(where)
        if fd is None:
            if len(files) >= _OPEN:
                os.close(files.pop(next(iter(files))))
            fd = files[where] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with telling(path):
            return memoryview(os.pread(fd, record.end - record.offset, record.offset))


def _with_packs(index: Index, column: array[int], ids: list[bytes]) -> Index:
    """The index with other packs: `column` has the place in `ids` of each chunk's."""
    used = [number for number in dict.fromkeys(column) if number != indexes.ZEROS]
    place = {number: at for at, number in enumerate(used)} | {indexes.ZEROS: indexes.ZEROS}
    return msgspec.structs.replace(
        index, pack_of=array("I", (place[number] for number in column)), packs=tuple(ids[number] for number in used)
    )


def _part(part: Part, index: bytes, stored: int) -> Part:
    """The part with another index."""
    assert part.data is not None  # noqa: S101 - the caller has looked
    ref = made(part.data.file, index)
    return msgspec.structs.replace(
        part,
        data=FileRef(file=part.data.file, bytes=ref.size, sha256=ref.sha256),
        stream_bytes=ref.size,
        stream_sha256=ref.sha256,
        chunk_stored=stored,
    )


def _with_parts(manifest: Manifest, changed: Mapping[int, Part]) -> Manifest:
    parts = tuple(changed.get(part.number, part) for part in manifest.parts)
    return msgspec.structs.replace(manifest, parts=parts)


# ---------------------------------------------------------------- in


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose chunks are in the library, and which is not published yet."""

    manifest: Manifest
    indexes: dict[str, Path]
    """Where the new index of each part lies, by the name that it has in the bundle."""
    packs: frozenset[bytes]
    """Those that must stay."""


def bring(
    library: Library, manifest: Manifest, members: Mapping[str, Member], room: Path, stop: Callable[[], None]
) -> Brought:
    """Store the chunks of a bundle's image and write its indexes anew into `room`. Blocks.

    Raises IntegrityError when the bundle's chunks are not what its indexes say, LibraryError, LithoError.
    """
    parts = [part for part in manifest.parts if part.engine == ENGINE]
    found = {part.number: _index(part, members) for part in parts}
    needed: dict[bytes, int] = {}
    for index in found.values():
        for i in range(len(index.numbers)):
            if index.pack(i) is not None:
                low, high = index.span(i)
                needed[index.digest(i)] = high - low
    changed: dict[int, Part] = {}
    lying: dict[str, Path] = {}
    held: set[bytes] = set()
    with ChunkWriter(ChunkStore(library)) as writer:
        for name in sorted(filter(is_pack, members)):
            _store(name, members[name], needed, writer, stop)
        stored = writer.stored
        for part in parts:
            stop()
            index = _placed(part, found[part.number], writer)
            held.update(index.packs)
            body = indexes.dump(index)
            assert part.data is not None  # noqa: S101 - `_index` has looked
            path = room / f"index-{part.number}"
            with telling(path):
                path.write_bytes(body)
            lying[part.data.file] = path
            changed[part.number] = _part(part, body, stored)
            # What all parts together added is said once.
            stored = 0
        writer.finish(sorted(held))
    return Brought(manifest=_with_parts(manifest, changed), indexes=lying, packs=frozenset(held))


def _index(part: Part, members: Mapping[str, Member]) -> Index:
    member = members.get(part.data.file) if part.data is not None else None
    if member is None or member.path is None or not part.chunk_root or member.size > MAX_INDEX:
        raise damaged(
            f"the index of partition {part.number} is missing from the bundle, or larger than an index can be"
        )
    with telling(member.path):
        data = member.path.read_bytes()
    try:
        index = indexes.parse(data, what=f"the index {member.name}", expect_root=bytes.fromhex(part.chunk_root))
    except IntegrityError as exc:
        raise damaged(exc.message) from exc
    if index.size != part.size:
        raise damaged(
            f"{shown(member.name)} is of a partition of {index.size} bytes, and the manifest says {part.size}"
        )
    return index


def _store(
    name: str, member: Member, needed: Mapping[bytes, int], writer: ChunkWriter, stop: Callable[[], None]
) -> None:
    """Append what the library lacks of one pack. Every frame is held against its hash, also one that is not stored."""
    unzstd = zstandard.ZstdDecompressor()
    room = bytearray(packs.MAX_CHUNK)
    pack = bytes.fromhex(name.removeprefix("chunks/").removesuffix(".pack"))
    for record, frame in _walk(name, member, pack):
        stop()
        if needed.get(record.digest) != record.length:
            raise damaged(f"{shown(name)} has a chunk that no partition of the image needs")
        try:
            unpack(pack, record, memoryview(frame), memoryview(room)[: record.length], unzstd)
        except IntegrityError as exc:
            raise damaged(exc.message) from exc
        if writer.find(record.digest) is None:
            payload = frame[FRAME_HEADER:]
            writer.add([Frame(digest=record.digest, length=record.length, packed=record.packed, payload=payload)])


def _walk(name: str, member: Member, pack: bytes) -> Iterator[tuple[Record, bytes]]:
    """The frames of a pack from front to back."""
    if member.path is None:
        raise damaged(f"{shown(name)} did not arrive")
    with telling(member.path), member.path.open("rb", buffering=_BLOCK) as file:
        try:
            packs.check_pack_header(file.read(PACK_HEADER), pack)
        except IntegrityError as exc:
            raise damaged(exc.message) from exc
        at = PACK_HEADER
        while head := file.read(FRAME_HEADER):
            record = packs.walk(head, at)
            payload = file.read(record.stored) if record is not None else b""
            if record is None or len(payload) != record.stored:
                raise damaged(f"{shown(name)} is no pack of chunks from byte {at} on")
            yield record, head + payload
            at = record.end


def _placed(part: Part, index: Index, writer: ChunkWriter) -> Index:
    """The index with the packs in which its chunks lie here."""
    numbers: dict[bytes, int] = {}
    column = array("I")
    for i in range(len(index.numbers)):
        if index.pack(i) is None:
            column.append(indexes.ZEROS)
            continue
        pack = writer.find(index.digest(i))
        if pack is None:
            raise damaged(f"the bundle lacks chunks of partition {part.number}")
        column.append(numbers.setdefault(pack, len(numbers)))
    return msgspec.structs.replace(index, pack_of=column, packs=tuple(numbers))
