"""The restore of one image onto one disk, from the look at the image to a disk that boots.

Three parts, and the order is the point of it:

1. **Look.** The image is found; the disk is chosen, guarded and held, so that it is the same disk when it is written to; the
   table is fitted to it; every program that will be needed is looked for; every stored byte is hashed. Whatever is wrong is
   found here, with the disk untouched.
2. **Print.** Old signatures and the old table go, the new table comes without boot code and active flag, and each
   partition is filled.
3. **Settle.** Each partition is looked at for what it must be now, and its file system's own checker must find nothing;
   only then the table is made bootable and the boot code is written, last of all. A disk that is half printed does not
   pretend to boot. UEFI firmware is told of a loader that it would not find (`bootentry`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from litho import process
from litho.errors import CancelledError, IntegrityError
from litho.job import Job
from litho.library import FileRef, Library, Manifest, Part, files, names, verify
from litho.library.names import ImageRef
from litho.messages import Planned, Started, Succeeded, clip
from litho_agent import bootentry, hostfacts, pipeline
from litho_agent.chunk.printer import ChunkPrinter
from litho_agent.disks import Disk, Hold, choose, facts, held, inventory, require_same
from litho_agent.engines import tail
from litho_agent.engines.choose import named
from litho_agent.filesystems import make_swap
from litho_agent.gauges import Gauges
from litho_agent.lanes import each
from litho_agent.layout import Fitted, Table, parse_dump, partition_path, plan_fit, rehearse, write_head, write_table
from litho_agent.layout.device import disk_size, head_size
from litho_agent.layout.grow import can_grow, grow
from litho_agent.mover import WorkOrder
from litho_agent.remote.opened import opened
from litho_agent.settle import settled
from litho_agent.telling import Teller, check_cancelled, reading
from litho_agent.transfer import Cancelled
from litho_agent.volumes import VOLUME
from litho_agent.windows import Windows


def restore(order: WorkOrder, teller: Teller) -> Succeeded:
    """Do `order`. Raises any of the tree in `litho.errors`; the teller knows whether the disk was touched."""
    teller.enter("look")
    with opened(order, teller) as library:
        return _restore(library, order.job, teller)


def _restore(library: Library, job: Job, teller: Teller) -> Succeeded:
    began = time.monotonic()
    manifest = library.manifest(library.resolve(ImageRef(names.check_name(job.image), job.version)))
    table = _table(library, manifest)
    disk = choose(inventory.read(), job.disk, "restore", job.allow).require()
    fitted = _fit(manifest, table, disk, job)
    # Held from here on: reading the whole image may take an hour, in which somebody else could mount what was free.
    with held(disk, write=True) as hold, Windows(sector_size=disk.logical, write=True) as windows:
        require_same(disk, choose(inventory.read(), job.disk, "restore", job.allow).require())
        devices = Devices(hold.path, manifest.parts, windows)
        teller.say(Planned(disk=facts(disk), steps=steps(manifest, disk, fitted), total=manifest.used))
        streams = [part for part in manifest.parts if part.kind == "stream"]
        teller.expect(total=manifest.used, parts=len(streams))
        head = _read(library, manifest.head) if manifest.head else b""
        ready(hold, manifest, fitted, head)
        chunks = ChunkPrinter(library, manifest, job)
        chunks.ready()
        teller.enter("verify")
        verify.require(
            verify.check_files(library, manifest, reading(teller, sum(one.bytes for one in manifest.files())))
        )
        check_cancelled(teller)
        teller.say(Started())
        teller.enter("layout")
        teller.touching()
        write_table(hold, fitted.table)
        printer = _Printer(library, hold, teller, streams, devices=devices, chunks=chunks)
        for part in manifest.parts:
            printer.make(part)
        count = 1 if chunks.parts else hostfacts.lanes_for(job.parallel, rotational=disk.rotational)
        each(streams, printer.print, count=count, cancelled=teller.cancelled)
        chunks.read_back({part.number: devices.of(part) for part in chunks.parts}, teller)
        notes = [*manifest.notes, *fitted.notes, *chunks.notes()]
        if fitted.grown is not None:
            check_cancelled(teller)
            teller.enter("grow")
            notes += _grow(hold, manifest, devices, fitted.grown)
        elif table.label == "none" and manifest.parts and manifest.parts[0].fs == "ntfs":
            tail.repeat(hold.path, manifest.parts[0].size)
        teller.enter("settle")
        for part in manifest.parts:
            notes += settled(hold, devices.of(part), part, job, teller)
        check_cancelled(teller)
        write_head(hold, head, fitted.table)
        notes += bootentry.entered(hold.path, fitted.table)
    return Succeeded(
        image=manifest.image,
        version=manifest.version,
        used=manifest.used,
        stored=manifest.stored,
        seconds=time.monotonic() - began,
        disk=facts(disk),
        os=manifest.os,
        notes=tuple(clip(note) for note in notes),
        receipts=tuple(chunks.receipts[:256]),
        lost=manifest.lost,
    )


def steps(manifest: Manifest, disk: Disk, fitted: Fitted) -> tuple[str, ...]:
    """What will be done, for a person."""
    found = [f"{disk.name}: everything on it is replaced by {manifest.image}:{manifest.version}"]
    for part in manifest.parts:
        what = part.fs or "unknown content"
        how = {
            "stream": f"{part.used} bytes by {part.engine}",
            "swap": "made anew with its UUID and label",
            "empty": "a frame without content",
            "skipped": "left empty, as in the image",
        }[part.kind]
        title = f"LVM {part.extra.get(VOLUME, '')}" if part.within is not None else f"partition {part.number}"
        found.append(f"{title}: {what}, {how}")
    if fitted.grown is not None:
        found.append(f"partition {fitted.grown}: grown to the end of the disk")
    return tuple(found)


def ready(hold: Hold, manifest: Manifest, fitted: Fitted, head: bytes) -> None:
    """Find what would only be found in the middle: a program that is missing, an engine that this agent does not have, boot code
    that has no room. Raises LibraryError, IntegrityError, DiskError, MissingProgramError."""
    size, _ = disk_size(hold.fd)
    room = head_size(fitted.table, size)
    if len(head) > room:
        raise IntegrityError(
            f"the image's {len(head)} bytes before the first partition do not fit into the {room} before it on {hold.path}",
            code="bad-manifest",
        )
    needed: list[process.Argv] = [["sfdisk"], ["wipefs"]] if fitted.table.label != "none" else [["wipefs"]]
    for part in manifest.parts:
        if part.kind == "stream" and not part.chunk_root:
            needed.append(named(part.engine).restore(hold.path, part.fs))
            tail.from_extra(part.extra)
        elif part.kind == "swap":
            needed.append(make_swap(hold.path, uuid=part.uuid, label=part.label))
    if any(part.within is not None for part in manifest.parts):
        needed.append(["losetup"])
    for argv in needed:
        process.require(str(argv[0]))
    rehearse(hold, fitted.table)


class Devices:
    """The devices of an image's parts on the disk that it is printed on."""

    def __init__(self, disk: Path, parts: Sequence[Part], windows: Windows) -> None:
        self._disk = disk
        self._parts = {part.number: part for part in parts}
        self._windows = windows

    def of(self, part: Part) -> Path:
        """The device of `part`; the disk itself for part 0. The table must be written. Raises DiskError, EngineError."""
        if part.within is not None:
            frame = self._parts[part.within]
            return self._windows.over(self.of(frame), part.start - frame.start, part.size)
        return partition_path(self._disk, part.number) if part.number else self._disk


class _Printer:
    """Fills partitions, perhaps several at once, and lets the gauges count them all."""

    def __init__(
        self,
        library: Library,
        hold: Hold,
        teller: Teller,
        streams: Sequence[Part],
        *,
        devices: Devices,
        chunks: ChunkPrinter,
    ) -> None:
        self._chunks = chunks
        self._library = library
        self._devices = devices
        self._hold = hold
        self._teller = teller
        self._gauges = Gauges(teller, disk="disk write")
        self._places = {part.number: place for place, part in enumerate(streams, start=1)}

    def make(self, part: Part) -> None:
        """Make what is not stored: swap. It is lent the partition, so no other one may be written to at the same time."""
        if part.kind == "swap":
            check_cancelled(self._teller)
            device = self._devices.of(part)
            with self._hold.lend(device):
                process.run(make_swap(device, uuid=part.uuid, label=part.label), doing=f"making swap on {device}")

    def print(self, part: Part, cancelled: Cancelled) -> None:
        """Fill the partition of `part` with its stream."""
        if cancelled():
            raise CancelledError("the task was cancelled on request")
        assert part.data is not None  # noqa: S101 - a manifest's stream has one
        device = self._devices.of(part)
        gauge = self._gauges.transfer(self._places[part.number], part.used)
        if part.chunk_root:
            self._chunks.print(part, device, gauge, cancelled)
            return
        pipeline.restore(
            named(part.engine),
            self._library.root / part.data.file,
            device,
            part.fs,
            compression=part.compression,
            expect_file=part.data,
            expect_stream_bytes=part.stream_bytes,
            expect_stream_sha256=part.stream_sha256,
            tick=gauge.tick,
            cancelled=cancelled,
            watcher=gauge.watch,
        )
        left_out = tail.from_extra(part.extra)
        if left_out:
            tail.write(device, part.size, left_out)
        gauge.finish(part.data.bytes)


def _table(library: Library, manifest: Manifest) -> Table:
    """The partition table that the image's disk had."""
    if manifest.table_dump is None:
        if manifest.table != "none":
            raise IntegrityError(
                f"the image {manifest.image}:{manifest.version} says it has a table and names no file that holds it",
                code="bad-manifest",
            )
        found = [part for part in manifest.parts if part.within is None]
        if [(part.number, part.start) for part in found] not in ([], [(0, 0)]) or any(
            part.size > manifest.disk.size for part in found
        ):
            raise IntegrityError(
                f"the image {manifest.image}:{manifest.version} has no partition table, and parts that are not its whole disk",
                code="bad-manifest",
            )
        return Table(label="none", sector_size=manifest.disk.sector_size)
    table = parse_dump(_read(library, manifest.table_dump).decode(errors="replace"))
    described = {part.number: (part.start, part.size) for part in manifest.parts if part.within is None}
    if table.label != manifest.table or described != {
        part.number: (table.start_bytes(part), table.size_bytes(part)) for part in table.partitions
    }:
        raise IntegrityError(
            f"the partition table of {manifest.image}:{manifest.version} is not the one that its manifest describes",
            code="bad-manifest",
        )
    return table


def _fit(manifest: Manifest, table: Table, disk: Disk, job: Job) -> Fitted:
    return plan_fit(
        table,
        source_size=manifest.disk.size,
        target_size=disk.size,
        target_sector=disk.logical,
        fit=job.fit,
        growable=[part.number for part in manifest.parts if part.within is None and can_grow(part.fs)],
        target=disk.path,
    )


def _grow(hold: Hold, manifest: Manifest, devices: Devices, number: int) -> list[str]:
    part = next(part for part in manifest.parts if part.number == number)
    left = grow(hold, devices.of(part), part.fs, uuid=part.uuid, label=part.label)
    return [left] if left else []


def _read(library: Library, ref: FileRef) -> bytes:
    """The content of a small file, proven by its hash. Raises IntegrityError, LibraryError."""
    with files.telling(library.root):
        data = (library.root / ref.file).read_bytes()
    if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise IntegrityError(
            f"the file {ref.file} is damaged: its SHA-256 is not what the manifest says",
            hint="nothing was written; use another version, or capture again",
        )
    return data
