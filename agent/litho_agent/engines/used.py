"""Which bytes of a partition hold data: asked before a save, for the plan, the progress and the proof afterwards.

`partclone.<fs> -D` writes a map of used extents without copying anything; it was correct for every file system that
partclone knows but FAT12 (measured with partclone 0.3.23: only the used extents on a target full of other bytes gave a clean
file system). It takes up to two seconds because its progress thread sleeps in whole seconds. For ext2/3/4 the same map comes
from `dumpe2fs` at once. (The chunk engine reads more file systems' records itself: `litho_agent.freespace`. What a stream of
partclone or partimage must hold at least is told here, because it is what they count.)

What neither knows (ReiserFS, JFS, swap, nothing at all) has no map. Nor has an F2FS on a disk with 4096 bytes a sector, where
partclone finds no super block, nor a FAT12, of which it takes other clusters than those in use: 11 of 12 files were lost, in its
map and in its stream, and fsck.fat saw nothing (`partclone_reads`).
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from litho import process
from litho.errors import DiskError, EngineError
from litho_agent.engines.base import Verdict
from litho_agent.engines.partclone import PROGRAMS, failed
from litho_agent.freespace import fat

_EXT = frozenset({"ext2", "ext3", "ext4"})
_LINE = re.compile(r"0x([0-9A-Fa-f]{1,16})\s+0x([0-9A-Fa-f]{1,16})\s+([+?])")
_END = re.compile(r"0x([0-9A-Fa-f]{1,16})\s+\?")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_HEAD_LIMIT = 60
_CLASSIC_SECTOR = 512
T = TypeVar("T")


class Extent(msgspec.Struct, frozen=True, order=True):
    """A run of used bytes."""

    start: int
    """Bytes from the start of the partition."""
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


def used_bytes(device: Path, fs: str) -> int:
    """Bytes of used blocks on `device`; 0 when there is no way to tell. Raises EngineError (MissingProgramError)."""
    extents = used_extents(device, fs)
    return sum(extent.size for extent in extents) if extents is not None else 0


def used_extents(device: Path, fs: str) -> tuple[Extent, ...] | None:
    """The used runs in ascending order, merged where they touch; None when there is no way to tell. Raises EngineError."""
    doing = f"look for used blocks on {device}"
    if fs in _EXT:
        return parse_dumpe2fs(process.run(("dumpe2fs", device), doing=doing, timeout_s=600).out)
    program = PROGRAMS.get(fs)
    if program is None or not partclone_reads(device, fs):
        return None
    argv = (program, "-q", "-D", "-s", device, "-o", "-", "-L", "/dev/null")
    done = process.run(argv, ok=range(-64, 256), doing=doing, timeout_s=600)
    if done.code != 0 or "Partclone successfully mapped" not in done.err:
        raise failed(doing, Verdict(code=done.code, words=done.err, stream_bytes=len(done.out)))
    return parse_domain_log(done.out)


def partclone_reads(device: Path, fs: str) -> bool:
    """False for what partclone 0.3.23 knows by name and cannot read: an F2FS on sectors of 4096 bytes, and a FAT12.

    Raises DiskError.
    """
    if fs not in PROGRAMS:
        return False
    if fs == "vfat":
        return not fat.is_fat12(_asked(device, lambda fd: os.pread(fd, _CLASSIC_SECTOR, 0)))
    return fs != "f2fs" or _asked(device, _sector_size) == _CLASSIC_SECTOR


def _sector_size(fd: int) -> int:
    blksszget = 0x1268
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        return _CLASSIC_SECTOR
    return int.from_bytes(fcntl.ioctl(fd, blksszget, bytes(4)), "little")


def _asked(device: Path, ask: Callable[[int], T]) -> T:
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return ask(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise DiskError(f"{device} cannot be opened: {exc.strerror}", code="disk-missing") from exc


def parse_domain_log(text: str) -> tuple[Extent, ...]:
    """The used extents in a map of `partclone -D` (ddrescue's format). Pure. Raises EngineError when it is no such map.

    The map must cover the file system from its first byte to the end that it names, without a gap: a cut map is not believed.
    """
    end: int | None = None
    at = 0
    extents: list[Extent] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        row = _LINE.fullmatch(line)
        if row is None:
            named = _END.fullmatch(line)
            if named is None or end is not None:
                raise _bad(f"a line that is none of a map: {line[:_HEAD_LIMIT]!r}")
            end = int(named[1], 16)
            continue
        start, size = int(row[1], 16), int(row[2], 16)
        if start != at:
            raise _bad(f"a gap at byte {at}")
        at = start + size
        if row[3] == "+":
            _append(extents, start, size)
    if end is None or at > end or (extents and extents[-1].end > end):
        raise _bad("an end that does not fit")
    if at != end:
        raise _bad(f"an early end at byte {at} of {end}")
    return tuple(extents)


def parse_dumpe2fs(text: str) -> tuple[Extent, ...]:
    """The used extents by what `dumpe2fs` says: all that is not listed as free. Pure. Raises EngineError.

    The free blocks listed must add up to what the superblock says is free, so that no line was misread.
    """
    block_size = _number(text, "Block size")
    count = _number(text, "Block count")
    free_total = _number(text, "Free blocks")
    if not 1024 <= block_size <= 65536 or not 0 < count < 2**48:
        raise _bad(f"{count} blocks of {block_size} bytes")
    free: list[tuple[int, int]] = []
    for line in re.findall(r"^  Free blocks: ?(.*)$", text, re.MULTILINE):
        for first, last in _RANGE.findall(line):
            free.append((int(first), int(last or first)))
    free.sort()
    if sum(last - first + 1 for first, last in free) != free_total:
        raise EngineError(
            "the file system's bitmaps and its count of free blocks do not agree: it was not cleanly unmounted, or is damaged",
            hint="check it with e2fsck",
            code="fs-dirty",
        )
    extents: list[Extent] = []
    at = 0
    for first, last in free:
        if first < at or last < first or last >= count:
            raise _bad(f"a free range {first}-{last} that cannot be")
        _append(extents, at * block_size, (first - at) * block_size)
        at = last + 1
    _append(extents, at * block_size, (count - at) * block_size)
    return tuple(extents)


def _append(extents: list[Extent], start: int, size: int) -> None:
    if size == 0:
        return
    if extents and extents[-1].end == start:
        extents[-1] = Extent(extents[-1].start, extents[-1].size + size)
    else:
        extents.append(Extent(start, size))


def _number(text: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+([0-9]{{1,18}})$", text, re.MULTILINE)
    if found is None:
        raise _bad(f"nothing about {key!r}")
    return int(found[1])


def _bad(what: str) -> EngineError:
    return EngineError(f"the list of used blocks cannot be read: it has {what}", code="bad-used-map")
