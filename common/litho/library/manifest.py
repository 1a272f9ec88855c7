"""What a manifest holds, and the strict way in and out of its file.

The file is JSON of two levels: `{"format": 1, "sha256": "<hex>", "body": {...}}`. The hash is over the bytes of the body
exactly as they stand in the file, so a flipped bit in a manifest is found like one in a part.
`docs/reference/library.md` describes the format for other readers. Everything read from a library is hostile
until `parse` has returned it: file names must be the version's own, numbers must be in range, hashes must be hashes.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from litho.errors import IntegrityError, LibraryError
from litho.job import Short
from litho.library import names
from litho.messages import DiskFacts, OsFacts

FORMAT: Literal[1] = 1
MAX_BYTES = 16 * 1024 * 1024

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class FileRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the version, and what must be in it."""

    file: Short
    bytes: Count
    sha256: Sha256


class BadRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes of the source that could not be read. In the stream stand zeros in their place (partclone: the word BADSECTOR)."""

    start: Count
    """Bytes from the start of the partition."""
    size: Count


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One partition (or the whole disk, number 0, when it has no table)."""

    number: Annotated[int, msgspec.Meta(ge=0, le=1024)]
    kind: Literal["stream", "swap", "empty", "skipped"]
    """stream: its content lies in `data`; swap: made anew; empty: nothing to store (an extended partition);
    skipped: left out on request."""
    start: Count
    """Bytes from the start of the disk."""
    size: Count
    """Bytes of the partition."""
    within: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    """Number of the part inside of which this one lies: a logical volume of LVM, or a piece of one, on its physical volume.
    It has a number above 256, which no partition has, and what it lies in is `empty`. None for a partition."""
    fs: Short = ""
    """File system as blkid names it: ext4, vfat, swap, ...; empty when unknown."""
    uuid: Short = ""
    label: Short = ""
    engine: Short = ""
    engine_version: Short = ""
    compression: Literal["zstd", "gzip", "none"] = "none"
    data: FileRef | None = None
    """The stored file: compressed stream. None unless kind is stream."""
    used: Count = 0
    """Bytes of used blocks."""
    stream_bytes: Count = 0
    stream_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """Of the engine's stream, before compression; never empty when kind is stream."""
    chunk_root: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """Engine chunk: `data` is the index of the partition's chunks, and this is its root hash (`litho.library.chunks.index`).
    The index is also the stream: `stream_bytes` and `stream_sha256` are its own, and `compression` is none."""
    chunk_stored: Count = 0
    """Engine chunk: bytes that this version added to the packs, which it shares with others."""
    bad: tuple[BadRange, ...] = ()
    """What could not be read, in ascending order; at most the first 1000 places."""
    bad_bytes: Count = 0
    """All bytes that could not be read, also those of places that are not listed."""
    bad_places: Count = 0
    """How many places there are, also those that are not listed."""
    extra: dict[Short, Short] = {}
    """Facts that only one kind of part has, such as a FAT's cluster size or an LVM volume's name."""

    @property
    def lost(self) -> tuple[int, int]:
        """(bytes, places) that could not be read when it was captured."""
        return max(self.bad_bytes, sum(one.size for one in self.bad)), max(self.bad_places, len(self.bad))


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of one image."""

    image: Short
    version: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
    created: Short
    """UTC, `2026-11-22T16:00:00Z`, by the clock of the machine that made it."""
    software: Short
    """Who wrote it: `lithograph 0.1.0`."""
    node: Short = ""
    task: Short = ""
    disk: DiskFacts
    disk_name: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9!._-]*\Z")]
    """The kernel's name of the source disk, `sda`; part files are named by it."""
    table: Literal["dos", "gpt", "none"]
    table_dump: FileRef | None = None
    """What `sfdisk --dump` said. None when there is no table."""
    head: FileRef | None = None
    """Sectors from 0 to the first partition, at most 1 MiB more than the table needs: boot code and GRUB's core image."""
    log: FileRef | None = None
    """What the capture did, program by program, as text for people. None in images that did not come from a capture of ours."""
    parts: tuple[Part, ...]
    os: OsFacts = OsFacts()
    parent: Count = 0
    """The version that this one came from, as far as chunks tell (`litho.library.chunks.parent`); 0 for none."""
    parent_image: Short = ""
    """Its image; empty for none."""
    shared: Count = 0
    """Bytes of used data in chunks that are the same, and at the same place, in the parent."""
    labels: dict[Short, Short] = {}
    notes: tuple[Short, ...] = ()

    def files(self) -> list[FileRef]:
        """Every file of the version but the manifest itself."""
        found = [ref for ref in (self.table_dump, self.head, self.log) if ref is not None]
        found.extend(part.data for part in self.parts if part.data is not None)
        return found

    @property
    def stored(self) -> int:
        """Bytes that the version added to the library, without the manifest."""
        return sum(ref.bytes for ref in self.files()) + sum(part.chunk_stored for part in self.parts)

    @property
    def used(self) -> int:
        """Bytes of used data on the source."""
        return sum(part.used for part in self.parts)

    @property
    def lost(self) -> int:
        """Bytes of the source that could not be read."""
        return sum(part.lost[0] for part in self.parts)


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    sha256: str
    body: msgspec.Raw


class Pointer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `<image>.json` holds."""

    format: Literal[1] = FORMAT
    image: Short
    version: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]


def dump(manifest: Manifest) -> bytes:
    """The manifest's file."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    digest = hashlib.sha256(body).hexdigest()
    return b'{"format": %d,\n"sha256": "%s",\n"body": %s}\n' % (FORMAT, digest.encode(), body)


def parse(data: bytes, *, name: str, version: int) -> Manifest:
    """The manifest in `data`, which must be that of `name`'s `version`.

    Raises IntegrityError when its bytes are not what was written, LibraryError when it is of another format.
    """
    where = names.manifest_file(name, version)
    if len(data) > MAX_BYTES:
        raise LibraryError(
            f"the manifest {where} has {len(data)} bytes, more than any manifest has", code="bad-manifest"
        )
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise IntegrityError(
            f"the manifest {where} is damaged ({exc})", hint=_hint(name), code="corrupt-manifest"
        ) from exc
    if envelope.format != FORMAT:
        raise LibraryError(
            f"the manifest {where} has format {envelope.format}, and this program reads format {FORMAT}",
            hint="use a newer Lithograph",
            code="bad-manifest",
        )
    body = bytes(envelope.body)
    if hashlib.sha256(body).hexdigest() != envelope.sha256:
        raise IntegrityError(
            f"the manifest {where} is damaged (its hash does not match)",
            hint=_hint(name),
            code="corrupt-manifest",
        )
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise LibraryError(f"the manifest {where} is not as the format says ({exc})", code="bad-manifest") from exc
    _check(manifest, name, version, where)
    return manifest


def parse_pointer(data: bytes, *, name: str) -> int:
    """The current version that `<name>.json` names. Raises IntegrityError."""
    try:
        pointer = msgspec.json.decode(data, type=Pointer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise IntegrityError(
            f"{names.pointer_file(name)} is damaged ({exc})",
            hint=f"name a version, as in {name}:1, or let a new capture write it anew",
            code="corrupt-manifest",
        ) from exc
    if pointer.image != name:
        raise IntegrityError(
            f"{names.pointer_file(name)} speaks of the image {pointer.image!r}", code="corrupt-manifest"
        )
    return pointer.version


def _hint(name: str) -> str:
    return f"restore it from a backup, or use another version of {name}"


def _check(manifest: Manifest, name: str, version: int, where: str) -> None:
    if (manifest.image, manifest.version) != (name, version):
        raise LibraryError(
            f"the manifest {where} speaks of {manifest.image!r} version {manifest.version}",
            code="bad-manifest",
        )
    seen: set[str] = set()
    for ref in manifest.files():
        parsed = names.parse_file(ref.file)
        own = (
            parsed is not None
            and (parsed.image, parsed.version) == (name, version)
            and parsed.suffix
            and not parsed.part
        )
        if not own or ref.file in seen:
            raise LibraryError(
                f"the manifest {where} names the file {ref.file!r}, which is not one of its own",
                code="bad-manifest",
            )
        seen.add(ref.file)
    if bool(manifest.parent) != bool(manifest.parent_image) or (
        manifest.parent and not names.is_name(manifest.parent_image)
    ):
        raise LibraryError(f"the manifest {where} names a parent that cannot be", code="bad-manifest")
    numbers = [part.number for part in manifest.parts]
    if len(set(numbers)) != len(numbers):
        raise LibraryError(f"the manifest {where} names a partition twice", code="bad-manifest")
    _check_inside(manifest.parts, where)
    for part in manifest.parts:
        if part.data is not None and not part.stream_sha256:
            raise LibraryError(
                f"the manifest {where} has no hash for the stream of partition {part.number}", code="bad-manifest"
            )
        if (part.engine == "chunk" and part.data is not None) != bool(part.chunk_root):
            raise LibraryError(
                f"the manifest {where} says of partition {part.number} that its engine is {part.engine!r}, and its root hash "
                "says otherwise",
                code="bad-manifest",
            )
        if (part.kind == "stream") != (part.data is not None):
            raise LibraryError(
                f"the manifest {where} says of partition {part.number} that it is {part.kind}, and its file says otherwise",
                code="bad-manifest",
            )


def _check_inside(parts: tuple[Part, ...], where: str) -> None:
    """Parts inside of others lie in them, beside each other."""
    frames = {part.number: part for part in parts if part.within is None and part.kind == "empty"}
    ends: dict[int, int] = {}
    for part in sorted(parts, key=lambda one: one.start):
        if part.within is None:
            continue
        frame = frames.get(part.within)
        end = part.start + part.size
        low = max(frame.start, ends.get(part.within, 0)) if frame else 0
        if frame is None or part.number <= 256 or part.start < low or end > frame.start + frame.size:
            raise LibraryError(
                f"the manifest {where} says that part {part.number} lies in part {part.within}, where it has no room",
                code="bad-manifest",
            )
        ends[part.within] = end
