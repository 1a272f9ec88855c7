"""Adopting one image: every file read to its end and checked, then published as a version, or nothing at all.

What can be kept as it is (one stream, plain or packed with gzip or zstd) is copied byte for byte, or linked where
that was asked for. Several volumes, and bzip2, which no agent unpacks, become one stream that is packed with zstd.
Either way the manifest gets the hashes that the originals never had. The originals are opened for reading only; their
names, times and bytes stay.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import platform
import re
import secrets
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec
import zstandard

from litho import __version__
from litho.errors import IntegrityError, LibraryError, LithoError, RefusedError, UsageError
from litho.job import Compression
from litho.library import FileRef, Library, Manifest, Owner, Part, Stage, care, check_name, files
from litho.messages import DiskFacts, clip
from litho_controller.adopt import partclone, partimage, probing
from litho_controller.adopt import table as tables
from litho_controller.adopt.names import Sorted
from litho_controller.adopt.packed import Packed, about
from litho_controller.adopt.stream import Stream
from litho_controller.adopt.table import Entry, Table

Tick = Callable[[int], None]
"""Told how many bytes of the originals were read since the last call."""

SLACK = 64 * 1024
"""Bytes by which a partition may be larger than its image says: kernels of old counted in blocks, tools in tracks."""

_ENDINGS: dict[Compression, str] = {"zstd": ".zst", "gzip": ".gz", "none": ""}
_HEAD_CAP = 1024 * 1024
_GPT_RESERVED = 34 * 512
_BOOT_CODE = 440
_SMALL = 4 * 1024 * 1024
_UUID = re.compile(r'^UUID="?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"?\s*$', re.MULTILINE | re.ASCII)
_LABEL = re.compile(r'^LABEL="?([^"\n]{0,16})"?\s*$', re.MULTILINE)


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What one image was found to hold."""

    program: str
    size: int
    used: int
    kept: dict[int, bytes]
    boot_sector: bytes = b""
    note: str = ""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream lies in the library."""

    ref: FileRef
    compression: Compression
    stream_bytes: int
    stream_sha256: str


class Adoption:
    """One image on its way into the library. Looking at the files' names, first bytes and table is done by making it."""

    def __init__(self, name: str, sorted_: Sorted, *, link: bool = False, leave_out: Sequence[int] = ()) -> None:
        """Raises UsageError, NotFoundError, RefusedError before anything was read through or written."""
        self.name = check_name(name)
        self._files = sorted_
        self._link = link
        self._parts = {number: Packed(paths) for number, paths in sorted_.parts.items()}
        boot = _small(sorted_.boot) if sorted_.boot else b""
        if sorted_.boot is not None and len(boot) < _BOOT_CODE:
            raise UsageError(f"{sorted_.boot.name} is no boot sector: it has {len(boot)} bytes", code="bad-file-name")
        self.table = tables.read(sorted_.table, sorted_.disk, boot)
        self._head = self._joined_head(boot)
        self._left_out = frozenset(leave_out)
        self._check_numbers()
        self.total = sum(packed.bytes for packed in self._parts.values())
        """Bytes that will be read."""

    def _check_numbers(self) -> None:
        known = {entry.number: entry for entry in self.table.entries}
        there = ", ".join(str(number) for number in known)
        for number in self._parts:
            if number not in known or known[number].kind == "extended":
                what = (
                    "is an extended one, which holds no data" if number in known else f"is not in it (it has {there})"
                )
                raise UsageError(
                    f"the image of partition {number} does not go with the table {self._files.table.name}: the partition {what}",
                    hint="give the table of the disk that the images were made of",
                    code="table-differs",
                )
        for entry in self.table.entries:
            if entry.kind == "data" and entry.number not in self._parts and entry.number not in self._left_out:
                raise UsageError(
                    f"the table {self._files.table.name} has a partition {entry.number} of {entry.size} bytes, and no image "
                    "of it is among the files",
                    hint=f"give its files too, or say --leave-out {entry.number}",
                    code="missing-part",
                )

    def _joined_head(self, boot: bytes) -> bytes:
        """The sectors before the first partition, as far as they are there and have room."""
        gap = _small(self._files.gap) if self._files.gap and len(boot) == tables.SECTOR else b""
        reserved = tables.SECTOR if self.table.label == "dos" else _GPT_RESERVED
        return (boot + gap)[: min(self.table.head_room, reserved + _HEAD_CAP)]

    def run(self, library: Library, tick: Tick) -> Manifest:
        """Read, check, store and publish; answers the manifest. Raises any of the tree; then nothing was published."""
        free = library.free()
        if free < self.total and not self._link:
            raise LibraryError(
                f"the library {library.root} has {free} bytes free, and the images take {self.total}",
                hint="free some space or prune old versions",
                code="library-full",
            )
        _sweep(library)
        with Stage.open(library, self.name, _owner()) as stage:
            notes = [f"adopted from {', '.join(self._names())}"]
            parts = tuple(self._part(stage, entry, tick, notes) for entry in self.table.entries)
            if not self._head:
                notes.append(
                    "no boot sector was among the files: a disk that this is printed on may not boot by itself"
                )
            disk = self._files.disk
            manifest = Manifest(
                image=self.name,
                version=stage.version,
                created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                software=f"lithograph {__version__} (adopted)",
                disk=DiskFacts(path=f"/dev/{disk}", size=self.table.disk_size),
                disk_name=disk,
                table="gpt" if self.table.label == "gpt" else "dos",
                table_dump=_put(stage, f"{disk}.sfdisk", self.table.dump.encode()),
                head=_put(stage, f"{disk}.head", self._head) if self._head else None,
                parts=parts,
                notes=tuple(clip(note, 256) for note in notes),
            )
            stage.publish(manifest)
        return manifest

    def _names(self) -> list[str]:
        return [paths[0].name for paths in self._files.parts.values()]

    def _part(self, stage: Stage, entry: Entry, tick: Tick, notes: list[str]) -> Part:
        packed = self._parts.get(entry.number)
        if packed is None:
            return self._without_image(entry, notes)
        first = packed.volumes[0][0]
        engine = packed.kind()
        try:
            read, stored = self._stored(stage, entry, packed, engine, tick)
            _check_size(self.table, entry, read.size)
            found = probing.probe(read.kept, read.size)
        except (IntegrityError, RefusedError, UsageError) as exc:
            if isinstance(exc, IntegrityError):
                raise about(first, exc) from exc
            raise type(exc)(f"{first.name} cannot be adopted: {exc.message}", hint=exc.hint, code=exc.code) from exc
        if read.note:
            notes.append(f"{first.name} {read.note}")
        if read.boot_sector and not self._head:
            self._head = read.boot_sector
        return Part(
            number=entry.number,
            kind="stream",
            start=entry.start,
            size=entry.size,
            fs=found.type,
            uuid=found.uuid,
            label=found.label,
            engine=engine,
            engine_version=read.program[:60],
            compression=stored.compression,
            data=stored.ref,
            used=read.used,
            stream_bytes=stored.stream_bytes,
            stream_sha256=stored.stream_sha256,
            extra=_tail(probing.ntfs_tail(read.kept, entry.size)),
        )

    def _without_image(self, entry: Entry, notes: list[str]) -> Part:
        place = Part(number=entry.number, kind="empty", start=entry.start, size=entry.size)
        if entry.kind == "extended":
            return place
        if entry.number in self._left_out:
            notes.append(f"partition {entry.number} was left out")
            return msgspec.structs.replace(place, kind="skipped")
        path = self._files.swaps.get(entry.number)
        said = _small(path).decode("utf-8", "replace") if path else ""
        known = _UUID.search(said)
        label = _LABEL.search(said)
        if known is None:
            notes.append(f"partition {entry.number} is swap whose UUID nobody kept: it gets a new one")
        return msgspec.structs.replace(
            place,
            kind="swap",
            fs="swap",
            uuid=known[1].lower() if known else str(uuid.uuid4()),
            label=label[1] if label and label[1].isascii() and label[1].isprintable() else "",
        )

    def _stored(self, stage: Stage, entry: Entry, packed: Packed, engine: str, tick: Tick) -> tuple[Read, Stored]:
        keep: Compression | None = None
        if len(packed.volumes) == 1 and packed.packing != "bzip2":
            keep = packed.packing
        joint = "p" if self._files.disk[-1:].isdigit() else ""
        suffix = f"{self._files.disk}{joint}{entry.number}.{engine}{_ENDINGS[keep or 'zstd']}"
        linked = self._linkable(packed) if self._link and packed.whole else None
        with contextlib.ExitStack() as held:
            sink = held.enter_context(stage.create(suffix)) if linked is None else None
            store = _Store(sink, keep=keep, root=stage.library.root, tick=tick)
            stream = Stream(packed.blocks(store.packed), store.plain)
            read = _read(stream, engine, len(packed.volumes))
            store.finish()
        if linked is not None:
            stage.link(suffix, linked)
        return read, store.stored(stage.file_name(suffix))

    def _linkable(self, packed: Packed) -> Path:
        path = packed.volumes[0][0]
        if not path.stat().st_mode & 0o004:
            raise RefusedError(
                f"{path.name} may not be read by everybody, and a link to it could not be read over NFS",
                hint="leave out --link, so that it is copied",
                code="not-linkable",
            )
        return path.resolve()


def _read(stream: Stream, engine: str, volumes: int) -> Read:
    if engine == "partclone":
        clone = partclone.read(stream)
        note = "" if clone.checked else "has no checksums: only its length and its packing could be checked"
        return Read(program=clone.program, size=clone.size, used=clone.used, kept=clone.kept, note=note)
    image = partimage.read(stream, volumes=volumes)
    return Read(program=image.program, size=image.size, used=image.used, kept=image.kept, boot_sector=image.boot_sector)


class _Store:
    """Takes the packed bytes and the plain bytes of one image, hashes both, and writes the ones that the library shall have."""

    def __init__(self, sink: IO[bytes] | None, *, keep: Compression | None, root: Path, tick: Tick) -> None:
        """`keep` is the packing that stays as it is; None: the plain bytes are packed anew. Without `sink` nothing is written."""
        self._sink = sink
        self._keep = keep
        self._root = root
        self._tick = tick
        self._file_hash = hashlib.sha256()
        self._file_bytes = 0
        self._stream_hash = hashlib.sha256()
        self._stream_bytes = 0
        packer = zstandard.ZstdCompressor(level=1, threads=-1, write_checksum=True, write_content_size=False)
        self._frame = packer.compressobj() if keep is None else None

    def packed(self, data: bytes) -> None:
        """The following bytes of the originals."""
        self._tick(len(data))
        if self._keep is not None:
            self._write(data)

    def plain(self, data: bytes) -> None:
        """The following bytes of the stream."""
        self._stream_hash.update(data)
        self._stream_bytes += len(data)
        if self._frame is not None:
            self._write(self._frame.compress(data))

    def finish(self) -> None:
        """The stream has ended."""
        if self._frame is not None:
            self._write(self._frame.flush())

    def stored(self, file: str) -> Stored:
        """What the manifest says of it."""
        return Stored(
            ref=FileRef(file=file, bytes=self._file_bytes, sha256=self._file_hash.hexdigest()),
            compression=self._keep or "zstd",
            stream_bytes=self._stream_bytes,
            stream_sha256=self._stream_hash.hexdigest(),
        )

    def _write(self, data: bytes) -> None:
        self._file_hash.update(data)
        self._file_bytes += len(data)
        if self._sink is not None:
            _write_all(self._sink, data, self._root)


def _write_all(sink: IO[bytes], data: bytes, root: Path) -> None:
    view = memoryview(data)
    with files.telling(root):
        while view:
            view = view[sink.write(view) :]


def _check_size(table: Table, entry: Entry, size: int) -> None:
    if not size <= entry.size <= size + SLACK:
        raise UsageError(
            f"it is of a partition of {size} bytes, and partition {entry.number} of the table has {entry.size}",
            hint="give the table of the disk that the images were made of",
            code="table-differs",
        )


def _put(stage: Stage, suffix: str, data: bytes) -> FileRef:
    with stage.create(suffix) as sink:
        _write_all(sink, data, stage.library.root)
    return FileRef(file=stage.file_name(suffix), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _tail(data: bytes) -> dict[str, str]:
    """The last bytes of a partition as the manifest keeps them: zlib, base64, in pieces (docs/reference/library.md)."""
    text = base64.b64encode(zlib.compress(data, 9)).decode("ascii") if data else ""
    return {f"tail.{at // 256}": text[at : at + 256] for at in range(0, len(text), 256)}


def _small(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return files.read_small(path, _SMALL)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror or exc})", code="file-unreadable") from exc


def _boot() -> str:
    """Which boot of this machine it is."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _owner() -> Owner:
    return Owner(session=f"adopt-{_boot()}-{secrets.token_hex(8)}", host=platform.node()[:256], pid=os.getpid())


def _sweep(library: Library) -> None:
    """Delete what an adoption on this machine left that was killed: of another boot, or of a process that is no more."""

    def dead(owner: Owner | None) -> bool:
        if owner is None or owner.host != platform.node()[:256] or not owner.session.startswith("adopt-"):
            return False
        return not owner.session.startswith(f"adopt-{_boot()}-") or not Path(f"/proc/{owner.pid}").exists()

    with contextlib.suppress(LithoError):
        care.sweep(library, dead=dead)
