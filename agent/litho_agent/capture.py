"""The capture of one disk, from the look at it to the published image.

The disk is only read (unless `on_dirty=repair` was asked for). Everything that is written lies in the library under names
that end in `.part` until all of it has been read back and compared; then the version is published in one step. Whatever
goes wrong before that leaves the library as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from litho import __version__, amounts
from litho.errors import CancelledError, IntegrityError, LibraryError, LithoError
from litho.job import Job
from litho.library import FileRef, Library, Manifest, Part, Stage, check_name, files, verify
from litho.messages import OsFacts, Planned, Started, Succeeded
from litho_agent import endpoints, hostfacts, pipeline
from litho_agent.chunk.saver import ChunkSaver
from litho_agent.disks import Hold, choose, facts, held, inventory
from litho_agent.engines import tail
from litho_agent.engines.base import Engine, Source
from litho_agent.engines.choose import program_version
from litho_agent.gauges import Gauges
from litho_agent.lanes import each
from litho_agent.layout import read_layout
from litho_agent.losses import Losses, table_read
from litho_agent.mover import WorkOrder
from litho_agent.osfacts import read_os_release
from litho_agent.settle import CONDITION
from litho_agent.survey import Piece, survey
from litho_agent.telling import Teller, check_cancelled, reading
from litho_agent.transfer import Cancelled
from litho_agent.windows import Windows

_ENDINGS = {"zstd": ".zst", "gzip": ".gz", "none": ""}
_LEAST_SHARE = 20
"""No compressor makes real disks twenty times smaller: with less room than that a capture cannot end well."""


def capture(order: WorkOrder, teller: Teller) -> Succeeded:
    """Do `order`. Raises any of the tree in `litho.errors`; then nothing was published."""
    job = order.job
    check_name(job.image)
    library = Library.open(Path(order.library))
    library.check_writable()
    try:
        done = _capture(order, library, teller)
    except Exception:
        # Also for a defect of ours: who waits for the marker would wait for ever.
        _mark(library, job, "capturefailed")
        raise
    _mark(library, job, "capturedone")
    return done


def _capture(order: WorkOrder, library: Library, teller: Teller) -> Succeeded:
    began = time.monotonic()
    job = order.job
    teller.enter("look")
    disk = choose(inventory.read(), job.disk, "capture", job.allow).require()
    repairing = job.on_dirty == "repair"
    with held(disk, write=repairing) as hold, Windows(sector_size=disk.logical, write=repairing) as windows:
        with table_read(facts(disk)):
            layout = read_layout(hold.path)
        pieces = survey(hold, layout, job, windows)
        losses = Losses(job, facts(disk), teller)
        notes = [*layout.notes, *(note for piece in pieces for note in piece.notes), *losses.cannot(pieces)]
        streams = [piece for piece in pieces if piece.kind == "stream"]
        total = sum(piece.used for piece in streams)
        in_chunks = any(piece.used_map is not None for piece in pieces)
        # How much of it is in the library already nobody knows before all of it was read.
        check_room(library, total, notes, packed=job.compress != "none", shared=in_chunks)
        teller.say(Planned(disk=facts(disk), steps=tuple(piece.step for piece in pieces), total=total))
        teller.expect(total=total, parts=len(streams))
        for text in notes:
            teller.note(text)
        check_cancelled(teller)
        with Stage.open(library, job.image, order.owner) as stage:
            teller.say(Started())
            teller.enter("layout")
            table_dump = _put(stage, f"{disk.name}.sfdisk", layout.dump.encode()) if layout.dump else None
            head = _put(stage, f"{disk.name}.head", layout.head) if layout.head else None
            with ChunkSaver(stage, job, pieces) as chunks, losses.careful(pieces):
                saver = _Saver(stage, job, teller, streams, chunks=chunks, losses=losses)
                count = 1 if in_chunks else hostfacts.lanes_for(job.parallel, rotational=disk.rotational)
                parts = tuple(each(pieces, saver.save, count=count, cancelled=teller.cancelled))
                teller.enter("verify")
                chunks.finish(teller)
            notes += [*losses.notes, *chunks.notes]
            log = _put(stage, "job.log", teller.log().encode())
            manifest = Manifest(
                image=job.image,
                version=stage.version,
                created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                software=f"lithograph {__version__}",
                node=order.node,
                task=order.owner.task,
                disk=facts(disk),
                disk_name=disk.name,
                table=layout.table.label,
                table_dump=table_dump,
                head=head,
                log=log,
                parts=parts,
                os=_os_facts(hold, pieces),
                labels=job.labels,
                notes=tuple(text[:256] for text in notes),
            )
            manifest = chunks.with_parent(library, manifest)
            _read_back(stage, manifest, teller)
            check_cancelled(teller)
            teller.enter("publish")
            _publish(stage, manifest, notes)
    return Succeeded(
        image=job.image,
        version=manifest.version,
        used=manifest.used,
        stored=manifest.stored,
        seconds=time.monotonic() - began,
        disk=facts(disk),
        os=manifest.os,
        notes=tuple(notes),
        receipts=tuple(chunks.receipts[:256]),
        lost=manifest.lost,
    )


def check_room(library: Library, total: int, notes: list[str], *, packed: bool = True, shared: bool = False) -> None:
    """Refuse a capture for which the library has surely no room, and note one that may find too little. Raises LibraryError.

    `shared`: the library may have any part of it already.
    """
    free = library.free()
    if not shared and free < (total // _LEAST_SHARE if packed else total):
        raise LibraryError(
            f"the library {library.root} has {amounts.size(free)} free, and {amounts.size(total)} of used data are to be "
            "captured",
            hint="free some space or prune old versions",
            code="library-full",
        )
    if free < total // 2:
        notes.append(f"the library has only {amounts.size(free)} free for {amounts.size(total)} of used data")


class _Saver:
    """Saves pieces, perhaps several at once, and lets the gauges count them all."""

    def __init__(
        self, stage: Stage, job: Job, teller: Teller, streams: Sequence[Piece], *, chunks: ChunkSaver, losses: Losses
    ) -> None:
        self._stage = stage
        self._losses = losses
        self._chunks = chunks
        self._job = job
        self._gauges = Gauges(teller, disk="disk read")
        self._places = {piece.number: place for place, piece in enumerate(streams, start=1)}
        self._versions: dict[str, str] = {}

    def save(self, piece: Piece, cancelled: Cancelled) -> Part:
        """Save `piece`, and answer its entry in the manifest."""
        if cancelled():
            raise CancelledError("the task was cancelled on request")
        part = Part(
            number=piece.number,
            kind=piece.kind,
            start=piece.start,
            size=piece.size,
            fs=piece.probe.type,
            uuid=piece.probe.uuid,
            label=piece.probe.label,
            within=piece.within,
            extra=piece.extra | ({CONDITION: piece.condition} if piece.condition else {}),
        )
        if piece.used_map is not None:
            gauge = self._gauges.transfer(self._places[piece.number], piece.used)
            with self._losses.placed(piece, lambda: gauge.done):
                part = self._chunks.save(piece, part, gauge, cancelled)
            return self._losses.keep(piece, part)
        if piece.engine is None:
            return part
        return self._stream(piece, piece.engine, part, cancelled)

    def _stream(self, piece: Piece, engine: Engine, part: Part, cancelled: Cancelled) -> Part:
        job = self._job
        suffix = f"{piece.name}.{engine.suffix}{_ENDINGS[job.compress]}"
        gauge = self._gauges.transfer(self._places[piece.number], piece.used)
        source = Source(
            device=piece.device,
            fs=piece.probe.type,
            size=piece.size,
            used=piece.used,
            may_lose=self._losses.may_lose(piece, engine),
        )
        with self._stage.create(suffix) as sink, self._losses.placed(piece, lambda: gauge.done):
            saved = pipeline.save(
                engine,
                source,
                sink,
                compression=job.compress,
                level=job.level,
                tick=gauge.tick,
                cancelled=cancelled,
                watcher=gauge.watch,
            )
        gauge.finish(saved.file_bytes)
        left_out = engine.tail(piece.probe.type)
        done = msgspec.structs.replace(
            part,
            engine=engine.name,
            engine_version=self._version(engine),
            compression=job.compress,
            data=FileRef(file=self._stage.file_name(suffix), bytes=saved.file_bytes, sha256=saved.file_sha256),
            used=piece.used,
            stream_bytes=saved.stream_bytes,
            stream_sha256=saved.stream_sha256,
            extra=part.extra | (tail.to_extra(tail.read(piece.device, piece.size, left_out)) if left_out else {}),
        )
        return self._losses.keep(piece, done, saved.bad)

    def _version(self, engine: Engine) -> str:
        if engine.name not in self._versions:
            self._versions[engine.name] = program_version(engine)
        return self._versions[engine.name]


def _put(stage: Stage, suffix: str, data: bytes) -> FileRef:
    """A small file of the version."""
    with stage.create(suffix) as sink, files.telling(stage.library.root):
        endpoints.write_all(sink.fileno(), data)
    return FileRef(file=stage.file_name(suffix), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _read_back(stage: Stage, manifest: Manifest, teller: Teller) -> None:
    """Compare what lies in the library with what was sent there. Raises IntegrityError, LibraryError, CancelledError."""
    root = stage.library.root
    with files.telling(root):
        for ref in manifest.files():
            check_cancelled(teller)
            fd = os.open(root / f"{ref.file}.part", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                # What the server has is to be read, not what this machine remembers having sent.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
    total = sum(ref.bytes for ref in manifest.files())
    problems = verify.check_files(stage.library, manifest, reading(teller, total), staged=True)
    if problems:
        raise IntegrityError(
            f"the library did not keep what was written to it: {problems[0].sentence}",
            hint="check the file server and its disks, then start again",
        )


def _publish(stage: Stage, manifest: Manifest, notes: list[str]) -> None:
    """Publish. A version that exists and is only not the current one yet is a success with a note."""
    try:
        stage.publish(manifest)
    except LibraryError as exc:
        if exc.code != "pointer-stale":
            raise
        notes.append(str(exc))


def _os_facts(hold: Hold, pieces: tuple[Piece, ...]) -> OsFacts:
    """What operating system the disk holds: the first partition that says so. A capture does not fail for want of it."""
    for piece in pieces:
        if piece.kind == "stream":
            # Some file systems are looked into by mounting, which claims the partition.
            with contextlib.suppress(LithoError), hold.lend(piece.device):
                found = read_os_release(piece.device, piece.probe.type)
                if found != OsFacts():
                    return found
    return OsFacts()


def _mark(library: Library, job: Job, word: str) -> None:
    """Leave the end marker that Apache VCL waits for, when the site asks for it: `golden.img.capturedone`."""
    if job.vcl_markers:
        with contextlib.suppress(OSError):
            files.replace(library.root / f"{job.image}.img.{word}", b"")
