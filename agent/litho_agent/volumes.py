"""A physical volume of LVM in a capture: which stretches of it are stored, and when it should not be taken apart.

The rules, in order:

1. A physical volume whose metadata cannot be believed, or whose group needs a disk that is not this one, is refused: half a
   group is no image of anything. `on_dirty=raw` takes it block by block, as it lies there.
2. A logical volume that lies in one piece, and on which no other one stands, is looked at and saved like a partition.
3. Of every other volume (several pieces, striped, mirrored, thin, the origin of a snapshot) each piece is saved as bytes. What it
   holds cannot be looked at without activating it, which is said in a note.
4. The head of the physical volume, with label and metadata, comes last: without it a half-printed group is none.

Stretches are numbered from `FIRST`: the kernel gives no partition such a number.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from litho.errors import DiskError
from litho_agent.condition import CLEAN, Condition
from litho_agent.layout import lvm, lvmtext
from litho_agent.layout.lvm import PhysicalVolume

FIRST = 257
"""Number of the first stretch of a disk; Linux knows 256 partitions of a disk."""
MOST = 700
"""Stretches of a disk that an image can have."""
BYTES_ONLY = "bytes-only"
"""Key of `Part.extra`: a piece of something, in which nothing is to be looked for."""
VOLUME = "lvm"
"""Key of `Part.extra`: `group/volume` of which the part is all or a piece; `group` for the head."""
_RAW = "say litho.on-dirty=raw to copy this physical volume block by block, as it is"


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a physical volume that is stored."""

    title: str
    """`vg0/root`; `vg0` for the head."""
    start: int
    """Bytes from the start of the physical volume."""
    size: int
    whole: bool = False
    """It is all of a logical volume."""
    head: bool = False
    """It is the physical volume's head."""


def look(device: Path, size: int) -> PhysicalVolume:
    """The physical volume on `device` of `size` bytes. Only reads. Raises DiskError (`bad-lvm` when it cannot be believed)."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise DiskError(f"{device} cannot be opened: {exc.strerror}", code="disk-missing") from exc
    try:
        found = lvm.read(lambda offset, length: os.pread(fd, length, offset))
    except OSError as exc:
        raise DiskError(f"{device} cannot be read: {exc.strerror}", code="read-error") from exc
    finally:
        os.close(fd)
    end = max((window.start + window.size for window in found.windows), default=found.head)
    if end > size:
        raise lvmtext.bad(f"it has {end} bytes, more than its partition ({size})")
    return found


def unreadable(error: DiskError) -> Condition:
    """The condition of a physical volume that `look` could not read. Pure."""
    return Condition("errors", f"holds what cannot be captured as it is: {error.message}", way_out=_RAW)


def condition(found: PhysicalVolume, here: Collection[str]) -> Condition:
    """May `found` be taken apart? `here` are the UUIDs of the physical volumes on the same disk. Pure."""
    group = found.group
    if group is not None:
        missing = [uuid for uuid in group.members if uuid not in here]
        if missing:
            return Condition(
                "incomplete",
                f"belongs to the volume group {group.name}, of which {len(missing)} of {len(group.members)} physical volumes "
                f"are not on this disk ({missing[0]}{', ...' if len(missing) > 1 else ''})",
                way_out=f"capture a disk that holds a whole group, or {_RAW}",
            )
    if len(found.windows) >= MOST:
        return Condition(
            "errors", f"has {len(found.windows)} pieces of volumes, more than an image can have", way_out=_RAW
        )
    return CLEAN


def stretches(found: PhysicalVolume) -> tuple[Stretch, ...]:
    """What is stored of `found`, its head last. Pure."""
    group = found.group.name if found.group else ""
    return (
        *(
            Stretch(
                title=f"{group}/{window.volume}" if window.volume else group,
                start=window.start,
                size=window.size,
                whole=window.whole,
            )
            for window in found.windows
        ),
        Stretch(title=group, start=0, size=found.head, head=True),
    )


def notes(name: str, found: PhysicalVolume) -> list[str]:
    """What a person should know of volumes that cannot be looked into. `name` is the partition's. Pure."""
    pieces: dict[str, int] = {}
    for window in found.windows:
        if window.volume and not window.whole:
            pieces[window.volume] = pieces.get(window.volume, 0) + 1
    group = found.group.name if found.group else ""
    return [
        f"{name}: the volume {group}/{volume} {'is not a plain one' if count == 1 else 'does not lie in one piece'}: its {count} "
        f"{'piece was' if count == 1 else 'pieces were'} taken byte by byte, and nobody looked whether it was clean"
        for volume, count in pieces.items()
    ]
