"""Bad sectors: where a source could not be read, counted, placed, and told.

`on-bad-sector=stop` ends a capture at the first one, with the place; `continue` goes on with a stand-in (zeros, or the
word BADSECTOR where partclone saves) and remembers each place in the manifest. What is remembered is bounded: after
`MOST_PLACES` runs only the sums go on.

There is an end to going on. A disk that loses more than `may_lose` of one partition is dying or gone, and an image of it
would be believed by somebody.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from litho import process
from litho.errors import DiskError, LithoError
from litho.library.manifest import BadRange, Part
from litho.messages import DiskFacts
from litho_agent.engines import rescue
from litho_agent.engines.used import Extent

MOST_PLACES = 1000
"""Runs of bad sectors that a manifest lists for one partition."""
_SHOWN = 4
"""Of these, how many a sentence tells."""
_LEAST_LOSS = 1024 * 1024
_BEFORE = 64 * 1024 * 1024
"""Bytes of used data before the place where a stream ended in which the cause is looked for: what was in pipes and buffers."""
_LOOK = 1024 * 1024 * 1024
"""Bytes of used data that are read at most to find the place."""
_LOOK_S = 180.0
_TRIED = 4096
"""Bytes that are read at each place to see whether a disk answers at all: a sector of any disk."""
_BLKRASET, _BLKRAGET = 0x1262, 0x1263
_FOUND = re.compile(r"^bad ([0-9]{1,19}) ([0-9]{1,19})$", re.MULTILINE)


def may_lose(used: int) -> int:
    """How many of `used` bytes a capture may go on without: a tenth, and a megabyte in any case. Pure."""
    return max(_LEAST_LOSS, used // 10)


class BadMap:
    """Runs of bytes that could not be read, as a program tells of them: in ascending order, perhaps twice."""

    def __init__(self) -> None:
        self._ranges: list[BadRange] = []
        self._end = 0
        self._last_start = 0
        self.bytes = 0
        """All of them, also those that are not listed."""
        self.places = 0
        """How many runs there are, also those that are not listed."""

    def add(self, start: int, size: int) -> None:
        """A run. What begins below the end of the last one was told before."""
        if start < self._end or size <= 0:
            return
        self.bytes += size
        if self.places and start == self._end:
            if len(self._ranges) == self.places:
                self._ranges[-1] = BadRange(start=self._last_start, size=start + size - self._last_start)
        else:
            self.places += 1
            self._last_start = start
            if len(self._ranges) < MOST_PLACES:
                self._ranges.append(BadRange(start=start, size=size))
        self._end = start + size

    @property
    def ranges(self) -> tuple[BadRange, ...]:
        """The first `MOST_PLACES` runs."""
        return tuple(self._ranges)


def find(device: Path, extents: Sequence[Extent], *, timeout_s: float = _LOOK_S) -> BadRange | None:
    """The first run of bad sectors in `extents`; None when all can be read, or not within `timeout_s` seconds."""
    text = "".join(f"{extent.start} {extent.size}\n" for extent in extents)
    try:
        done = process.run(
            rescue.find_command(device),
            stdin=text.encode(),
            ok=range(-64, 256),
            timeout_s=timeout_s,
            doing=f"looking for bad sectors on {device}",
        )
    except LithoError:
        return None
    found = _FOUND.search(done.err)
    return BadRange(start=int(found[1]), size=int(found[2])) if found else None


def silent(device: Path) -> bool:
    """True when no place of `device` that is tried can be read: that is no bad sector, the disk is gone."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return True
    # Aligned memory, as O_DIRECT wants it; what the page cache still knows of the disk must not answer for it.
    with contextlib.closing(mmap.mmap(-1, _TRIED)) as block:
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            for eighth in range(8):
                with contextlib.suppress(OSError):
                    if os.preadv(fd, [block], size // 8 * eighth // _TRIED * _TRIED) > 0:
                        return False
            return True
        except OSError:
            return True
        finally:
            os.close(fd)


def near(extents: Sequence[Extent], done: int) -> tuple[Extent, ...]:
    """The used bytes around the place where a stream of `done` used bytes broke off: where its cause is looked for. Pure."""
    begin, end = max(0, done - _BEFORE), done - _BEFORE + _LOOK
    found: list[Extent] = []
    passed = 0
    for extent in extents:
        low, high = max(begin - passed, 0), min(end - passed, extent.size)
        if low < high:
            found.append(Extent(extent.start + low, high - low))
        passed += extent.size
    return tuple(found)


@contextlib.contextmanager
def without_readahead(devices: Iterable[Path]) -> Iterator[None]:
    """Let reads through the page cache fail for one page only, instead of for all that the kernel would read along.

    Measured with Linux 6.18: a block device's page cache has large folios, so partclone lost 512 KiB for one bad sector with the
    kernel's read-ahead and 4 KiB without. A device that has no such setting is left as it is.
    """
    before: list[tuple[int, int]] = []
    try:
        for device in devices:
            with contextlib.suppress(OSError):
                fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    sectors = int.from_bytes(fcntl.ioctl(fd, _BLKRAGET, bytes(8)), sys.byteorder)
                    fcntl.ioctl(fd, _BLKRASET, 0)
                except OSError:
                    os.close(fd)
                else:
                    before.append((fd, sectors))
        yield
    finally:
        for fd, sectors in reversed(before):
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, _BLKRASET, sectors)
            os.close(fd)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of a disk, as sentences name it."""

    disk: DiskFacts
    name: str
    """`sda1`."""
    start: int
    """Bytes from the start of the disk."""


def stopped(place: Place, found: BadRange, *, engine: str, rescues: bool) -> DiskError:
    """The error of a capture that ends at a bad sector. Pure."""
    known = ", ".join(word for word in (place.disk.model, place.disk.serial) if word)
    go_on = "litho.on-bad-sector=continue to go on without it"
    way_out = f"say {go_on}" if rescues else f"{engine} cannot go on past it; say litho.engine=auto or raw, and {go_on}"
    return DiskError(
        f"the disk {place.disk.path}{f' ({known})' if known else ''} has a bad sector in {place.name}: "
        f"{_placed(place, found)} cannot be read",
        hint=f"{way_out}, or replace the disk (`smartctl -a {place.disk.path}` tells its state)",
        code="bad-sector",
    )


def tableless(disk: DiskFacts, found: BadRange) -> DiskError:
    """The error of a capture that cannot read the partition table, or what lies before the first partition. Pure."""
    known = ", ".join(word for word in (disk.model, disk.serial) if word)
    return DiskError(
        f"the disk {disk.path}{f' ({known})' if known else ''} has a bad sector at its partition table, or before its first "
        f"partition: {found.size} bytes at byte {found.start} of the disk cannot be read",
        hint="no capture goes on past that, whatever litho.on-bad-sector says; copy what can be read to a new disk (ddrescue) "
        f"and replace this one (`smartctl -a {disk.path}` tells its state)",
        code="bad-sector",
    )


def gone(place: Place) -> DiskError:
    """The error of a capture whose disk no longer answers. Pure."""
    known = ", ".join(word for word in (place.disk.model, place.disk.serial) if word)
    return DiskError(
        f"the disk {place.disk.path}{f' ({known})' if known else ''} no longer answers: nothing of {place.name} can be read",
        hint="look at the node's kernel log, the disk's cable and its power; nothing was published",
        code="disk-gone",
    )


def too_many(device: Path, lost: int) -> DiskError:
    """The error of a capture that was to go on, and lost too much. Pure."""
    return DiskError(
        f"{device} cannot be read in so many places ({lost} bytes) that an image of it would not be one",
        hint="replace the disk; the node's kernel log and `smartctl -a` tell its state",
        code="bad-sectors-many",
    )


def told(place: Place, part: Part) -> str:
    """What a person is told of a partition that was saved without some sectors, short enough for a note. Pure."""
    lost, places = part.lost
    shown = ", ".join(f"{one.start} ({one.size} bytes)" for one in part.bad[:_SHOWN])
    more = f" and {places - _SHOWN} more places" if places > _SHOWN else ""
    return (
        f"{place.name}: {lost} bytes in {places} place{'' if places == 1 else 's'} could not be read and are lost, "
        f"at byte {shown}{more}"
    )


def _placed(place: Place, found: BadRange) -> str:
    return f"{found.size} bytes at byte {found.start} of {place.name} (byte {place.start + found.start} of the disk)"
