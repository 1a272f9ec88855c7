"""What lies on a disk that is to be captured, partition by partition: the ground for the plan.

Everything here only looks. For each partition it settles what will be done with it: an extended partition is a frame without
content, swap is made anew from its UUID and label, everything else is saved: as a stream by one engine, or in chunks. What
should not be captured blindly (a dirty journal, a hibernated Windows, an encrypted volume) is found here, before anything was
written anywhere; only `on_dirty=repair` lets a file system's own program write to the source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from litho.job import Job
from litho.library.chunks import UsedMap
from litho_agent.chunk.usage import used_map
from litho_agent.condition import decide, inspect, repair
from litho_agent.disks import Hold
from litho_agent.engines.base import Engine
from litho_agent.engines.choose import CHUNK, ENGINES, choose_for, settled
from litho_agent.engines.used import used_bytes
from litho_agent.filesystems import SWAP, Probe, probe
from litho_agent.layout import Layout, Table, partition_path


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
    condition: str = ""
    """The state of a file system that is copied although it is not clean, because the task says so."""

    @property
    def step(self) -> str:
        """What will be done, for a person."""
        what = self.probe.type or "unknown content"
        if self.kind == "stream":
            return f"{self.name}: {what}, {self.used} bytes by {self.engine.name if self.engine else CHUNK}"
        return f"{self.name}: {what}, {_TOLD[self.kind]}"


_TOLD = {
    "swap": "made anew with its UUID and label",
    "empty": "a frame without content",
    "skipped": "left out",
}


def survey(hold: Hold, layout: Layout, job: Job) -> tuple[Piece, ...]:
    """Look at every partition of the held disk, in order of their numbers.

    Raises DiskError, EngineError, RefusedError (an engine that was asked for cannot save what lies there, or it should not
    be captured as it is).
    """
    job = msgspec.structs.replace(job, engine=settled(job))
    table, disk = layout.table, hold.path
    if table.label == "none":
        return (_piece(hold, 0, disk, job, start=0, size=layout.size),)
    return tuple(
        _frame(table, disk, part.number)
        if table.is_extended(part)
        else _piece(
            hold,
            part.number,
            partition_path(disk, part.number),
            job,
            start=table.start_bytes(part),
            size=table.size_bytes(part),
        )
        for part in table.partitions
    )


def _frame(table: Table, disk: Path, number: int) -> Piece:
    part = table.partition(number)
    device = partition_path(disk, number)
    return Piece(
        number=number,
        name=device.name,
        device=device,
        start=table.start_bytes(part),
        size=table.size_bytes(part),
        probe=Probe(),
        kind="empty",
    )


def _piece(hold: Hold, number: int, device: Path, job: Job, *, start: int, size: int) -> Piece:
    found = probe(device)
    kind: Literal["stream", "swap", "skipped"] = "stream"
    engine: Engine | None = None
    mapped: UsedMap | None = None
    used = 0
    condition = ""
    if found.type == SWAP:
        kind = "swap"
    elif job.skip_unknown and found.empty:
        kind = "skipped"
    else:
        state = inspect(device, found.type)
        way = decide(device, state, job.on_dirty)
        condition = state.state if way == "raw" else ""
        if way == "repair":
            repair(hold, device, found.type)
        if job.engine == CHUNK:
            # A file system that is taken as it stands may not know what is used.
            mapped = used_map(device, "" if way == "raw" else found.type, size)
            used = mapped.used
        elif way == "raw":
            engine, used = ENGINES["raw"], size
        else:
            engine = choose_for(device, found.type, job.engine)
            used = used_bytes(device, found.type) or size
    return Piece(
        number=number,
        name=device.name,
        device=device,
        start=start,
        size=size,
        probe=found,
        kind=kind,
        engine=engine,
        used_map=mapped,
        used=used,
        condition=condition,
    )
