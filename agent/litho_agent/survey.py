"""What lies on a disk that is to be captured, partition by partition: the ground for the plan.

Everything here only looks. For each partition it settles what will be done with it: an extended partition is a frame without
content, swap is made anew from its UUID and label, everything else is saved: as a stream by one engine, or in chunks. What
should not be captured blindly (a dirty journal, a hibernated Windows, an encrypted volume) is found here, before anything was
written anywhere, and so is a bad sector that keeps a file system from being looked at; only `on_dirty=repair` lets a file
system's own program write to the source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from litho.errors import DiskError, EngineError
from litho.job import Job
from litho.library.chunks import UsedMap
from litho.messages import DiskFacts
from litho_agent import volumes
from litho_agent.chunk.usage import used_map
from litho_agent.condition import Way, decide, inspect, repair
from litho_agent.disks import Hold
from litho_agent.engines import bad
from litho_agent.engines.base import Engine
from litho_agent.engines.choose import CHUNK, ENGINES, choose_for, settled
from litho_agent.engines.used import Extent, used_bytes
from litho_agent.filesystems import SWAP, Probe, probe
from litho_agent.layout import Layout, partition_path
from litho_agent.layout.lvm import MEMBER, PhysicalVolume
from litho_agent.windows import Windows

_SUSPECT = frozenset(
    {"engine", "engine-failed", "engine-crashed", "disk-io", "unreadable", "read-error", "bad-used-map"}
)
"""Codes of failures to look at a file system that a bad sector may be behind."""
_LOOK_S = 60.0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One partition, and what a capture does with it."""

    number: int
    """0 is the whole disk, when it has no table."""
    name: str
    """The kernel's name: `sda1`."""
    device: Path
    start: int
    """Bytes from the start of the disk."""
    size: int
    probe: Probe
    kind: Literal["stream", "swap", "empty", "skipped"]
    engine: Engine | None = None
    """What makes the stream; None where there is none, and where the chunk engine saves it."""
    used_map: UsedMap | None = None
    """Which bytes the chunk engine saves."""
    used: int = 0
    """Bytes of used data; the partition's size where nobody can tell."""
    within: int | None = None
    """Number of the piece inside of which this one lies."""
    extra: dict[str, str] = {}
    """Facts for `Part.extra`."""
    notes: tuple[str, ...] = ()
    """What a person should know of it."""
    condition: str = ""
    """The state of a file system that is copied although it is not clean, because the task says so."""

    @property
    def step(self) -> str:
        """What will be done, for a person."""
        what = self.probe.type or "unknown content"
        if volumes.VOLUME in self.extra:
            what = f"{what} of {self.extra[volumes.VOLUME]}"
        if self.kind == "stream":
            return f"{self.name}: {what}, {self.used} bytes by {self.engine.name if self.engine else CHUNK}"
        return f"{self.name}: {what}, {_TOLD[self.kind]}"


_TOLD = {
    "swap": "made anew with its UUID and label",
    "empty": "a frame without content",
    "skipped": "left out",
}


_CLAIMED = frozenset({"f2fs"})
"""File systems whose engine wants the device for itself, also to read."""


def survey(hold: Hold, layout: Layout, job: Job, windows: Windows) -> tuple[Piece, ...]:
    """Look at every partition of the held disk, in order of their numbers; after each physical volume of LVM what lies in it,
    through `windows`.

    Raises DiskError, EngineError, RefusedError (an engine that was asked for cannot save what lies there, or it should not
    be captured as it is).
    """
    job = msgspec.structs.replace(job, engine=settled(job))
    table, disk = layout.table, hold.path
    if table.label == "none":
        places = [_Place(number=0, device=disk, start=0, size=layout.size)]
    else:
        places = [
            _Place(
                number=part.number,
                device=partition_path(disk, part.number),
                start=table.start_bytes(part),
                size=table.size_bytes(part),
                frame=table.is_extended(part),
            )
            for part in table.partitions
        ]
    looked = [(place, Probe()) if place.frame else _looked(place, disk, job) for place in places]
    members = {found.uuid for _, found in looked if found.type == MEMBER}
    pieces: list[Piece] = []
    for place, found in looked:
        if place.frame:
            pieces.append(_frame(place, found))
        elif found.type == MEMBER and (volume := _volume(place, members, job)) is not None:
            pieces.append(_frame(place, found, volume))
            pieces += _inside(hold, place, volume, job, windows, first=volumes.FIRST + len(pieces))
        else:
            pieces.append(_piece(hold, _seen(place, found, windows), found, job))
    return tuple(pieces)


def _seen(place: _Place, found: Probe, windows: Windows) -> _Place:
    """The place through a device on which its engine's program works.

    Trap: partclone.f2fs, map and save, opens its source exclusively to see whether it is mounted, which the hold on the disk
    forbids (`f2fs_dev_is_umounted`, measured with partclone 0.3.23). A loop device over the partition is not held.
    """
    if found.type not in _CLAIMED:
        return place
    name = place.name or place.device.name
    return msgspec.structs.replace(place, device=windows.over(place.device, 0, place.size), name=name)


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where something lies, and through which device."""

    number: int
    device: Path
    start: int
    size: int
    frame: bool = False
    """An extended partition."""
    name: str = ""
    """Instead of the device's own."""
    within: int | None = None
    extra: dict[str, str] = {}
    unseen: str = ""
    """Why nothing can be said of what lies there; a note."""

    @property
    def title(self) -> str:
        """What people are told: `sda1`."""
        return self.name or self.device.name


def _looked(place: _Place, disk: Path, job: Job) -> tuple[_Place, Probe]:
    """What blkid says of `place`. Raises DiskError, EngineError."""
    try:
        return place, probe(place.device)
    except DiskError as exc:
        return _past(place, disk, job, exc), Probe()


def _past(place: _Place, disk: Path, job: Job, error: DiskError | EngineError) -> _Place:
    """`place`, of which nothing can be said because of bad sectors, when the job goes on past them.

    Raises `error` when no bad sector is behind it, and DiskError (`bad-sector`) with the place when the job is to stop.
    """
    if error.code not in _SUSPECT:
        raise error
    found = bad.find(place.device, (Extent(0, place.size),), timeout_s=_LOOK_S)
    if found is None:
        raise error
    if job.on_bad_sector == "stop":
        where = bad.Place(disk=DiskFacts(path=str(disk), size=0), name=place.title, start=place.start)
        raise bad.stopped(where, found, engine="", rescues=True) from error
    note = (
        f"{place.title}: what lies there cannot be looked at because of bad sectors (the first at byte {found.start}), so every "
        "block of it is taken, and nobody looked whether it was clean"
    )
    return msgspec.structs.replace(place, unseen=note, extra=place.extra | {volumes.BYTES_ONLY: "yes"})


def _volume(place: _Place, members: set[str], job: Job) -> PhysicalVolume | None:
    """The physical volume that is taken apart; None for one that is taken block by block. Raises DiskError, RefusedError."""
    volume: PhysicalVolume | None = None
    try:
        volume = volumes.look(place.device, place.size)
    except DiskError as exc:
        if exc.code != "bad-lvm":
            raise
        found = volumes.unreadable(exc)
    else:
        found = volumes.condition(volume, members)
    return volume if decide(place.device, found, job.on_dirty) == "as-is" else None


def _inside(
    hold: Hold, place: _Place, volume: PhysicalVolume, job: Job, windows: Windows, *, first: int
) -> list[Piece]:
    """What is stored of a physical volume, in the order of `volumes.stretches`."""
    pieces = []
    for count, stretch in enumerate(volumes.stretches(volume)):
        device = windows.over(place.device, stretch.start, stretch.size)
        inner = _Place(
            number=first + count,
            device=device,
            start=place.start + stretch.start,
            size=stretch.size,
            name=f"{place.device.name}-{'lvm' if stretch.head else f'lv{count + 1}'}",
            within=place.number,
            extra={volumes.VOLUME: stretch.title} | ({} if stretch.whole else {volumes.BYTES_ONLY: "yes"}),
        )
        if stretch.whole:
            pieces.append(_piece(hold, *_looked(inner, hold.path, job), job))
        else:
            pieces.append(_bytes(inner, job))
    return pieces


def _bytes(place: _Place, job: Job) -> Piece:
    """A piece of something: nothing in it is looked at."""
    chunked = job.engine == CHUNK
    return Piece(
        number=place.number,
        name=place.name,
        device=place.device,
        start=place.start,
        size=place.size,
        probe=Probe(),
        kind="stream",
        engine=None if chunked else ENGINES["raw"],
        used_map=used_map(place.device, "", place.size) if chunked else None,
        used=place.size,
        within=place.within,
        extra=place.extra,
    )


def _frame(place: _Place, found: Probe, volume: PhysicalVolume | None = None) -> Piece:
    """An extended partition, or a physical volume whose content follows."""
    return Piece(
        number=place.number,
        name=place.device.name,
        device=place.device,
        start=place.start,
        size=place.size,
        probe=found,
        kind="empty",
        notes=tuple(volumes.notes(place.device.name, volume)) if volume else (),
    )


def _piece(hold: Hold, place: _Place, found: Probe, job: Job) -> Piece:
    device, size = place.device, place.size
    kind: Literal["stream", "swap", "skipped"] = "stream"
    engine: Engine | None = None
    mapped: UsedMap | None = None
    used = 0
    condition = ""
    if found.type == SWAP:
        kind = "swap"
    elif job.skip_unknown and found.empty and not place.unseen:
        kind = "skipped"
    else:
        way: Way = "raw"
        try:
            if not place.unseen:
                state = inspect(device, found.type)
                way = decide(device, state, job.on_dirty)
                condition = state.state if way == "raw" else ""
                if way == "repair":
                    repair(hold, device, found.type)
            engine, mapped, used = _means(place, found.type, way, job)
        except (DiskError, EngineError) as exc:
            place = _past(place, hold.path, job, exc)
            engine, mapped, used = _means(place, found.type, "raw", job)
    return Piece(
        number=place.number,
        name=place.title,
        device=device,
        start=place.start,
        size=size,
        probe=found,
        kind=kind,
        engine=engine,
        used_map=mapped,
        used=used,
        within=place.within,
        extra=place.extra,
        notes=(place.unseen,) if place.unseen else (),
        condition=condition,
    )


def _means(place: _Place, fs: str, way: Way, job: Job) -> tuple[Engine | None, UsedMap | None, int]:
    """(engine, chunks' map, used bytes) of what is saved of `place`. Raises EngineError, RefusedError."""
    device, size = place.device, place.size
    if job.engine == CHUNK:
        # A file system that is taken as it stands may not know what is used.
        mapped = used_map(device, "" if way == "raw" else fs, size)
        return None, mapped, mapped.used
    if way == "raw":
        return ENGINES["raw"], None, size
    engine = choose_for(device, fs, job.engine)
    return engine, None, used_bytes(device, fs) or size
