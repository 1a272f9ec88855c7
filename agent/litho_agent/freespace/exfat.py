"""What an exFAT uses, from its allocation bitmap (Microsoft's exFAT specification 1.00, 3.1, 3.4, 7.1).

The boot region is believed when its checksum is right, the bitmap when what the file system stands on (the bitmap, the root
folder) is marked in it. Everything before the clusters is used, and what lies behind the last one.

Not read here: a volume with two tables and bitmaps (TexFAT), or one that is marked as dirty.
"""

from __future__ import annotations

import struct
from itertools import chain

from litho_agent.freespace.base import DoubtError, ReadAt, Runs, WholeError, covered, exactly, joined, scaled, set_bits

_BOOT_SECTORS = 11
_UNSUMMED = (106, 107, 112)
"""Bytes that change while the volume is in use."""
_SECOND, _DIRTY, _FAILED = 0x1, 0x2, 0x4
_BITMAP, _ENTRY, _UNUSED = 0x81, 32, 0x00
_MOST_CLUSTERS = 2**32 - 11
_MOST_ROOT = 256 * 1024 * 1024
"""The specification's limit of a folder, in bytes."""


def used(read_at: ReadAt, size: int) -> Runs:
    """The used runs. Raises DoubtError."""
    volume = _Volume(read_at, size)
    root = volume.chain(volume.root, _MOST_ROOT)
    first, length = _bitmap_entry(volume.content(root))
    if length != -(-volume.clusters // 8):
        raise DoubtError("the exFAT's bitmap is not as long as its volume asks for")
    place = volume.chain(first, length)
    if len(place) != -(-length // volume.cluster):
        raise DoubtError("the exFAT's bitmap is not where it has to be")
    marked = set_bits(volume.content(place)[:length], volume.clusters)
    covered(marked, ((one, 1) for one in root), "the root folder")
    covered(marked, ((one, 1) for one in place), "the bitmap")
    taken = scaled(marked, volume.cluster, volume.heap)
    end = volume.heap + volume.clusters * volume.cluster
    return joined(chain([(0, volume.heap)], taken, [(end, volume.end - end)]))


def _bitmap_entry(folder: bytes) -> tuple[int, int]:
    """First cluster, counted from 0, and bytes of the bitmap."""
    found = []
    for at in range(0, len(folder) - _ENTRY + 1, _ENTRY):
        if folder[at] == _UNUSED:
            break
        if folder[at] == _BITMAP:
            first, length = struct.unpack_from("<IQ", folder, at + 20)
            found.append((first - 2, length))
    if len(found) != 1:
        raise DoubtError(f"the exFAT has {len(found)} bitmaps")
    return found[0]


class _Volume:
    """Where things lie. Clusters are counted from 0."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at = read_at
        boot = exactly(read_at, 0, 512)
        (sectors,) = struct.unpack_from("<Q", boot, 72)
        table, table_length, heap, clusters, root = struct.unpack_from("<5I", boot, 80)
        flags, sector_shift, per_shift, tables = struct.unpack_from("<HBBB", boot, 106)
        if boot[3:11] != b"EXFAT   " or not 9 <= sector_shift <= 12 or sector_shift + per_shift > 25:
            raise DoubtError("it is no exFAT")
        if tables != 1 or flags & _SECOND:
            # partclone reads the first bitmap, and as if it lay in one piece.
            raise WholeError("the exFAT has two tables")
        if flags & (_DIRTY | _FAILED):
            raise DoubtError("the exFAT is marked as dirty or as failing")
        sector = 1 << sector_shift
        self.cluster = sector << per_shift
        self.clusters, self.root = clusters, root - 2
        self.heap, self.end = heap * sector, sectors * sector
        self._table, self._next = table * sector, (clusters + 2) * 4
        fits = (table + table_length) <= heap and self._next <= table_length * sector and self.end <= size
        if not fits or not 0 < clusters <= _MOST_CLUSTERS or self.heap + clusters * self.cluster > self.end:
            raise DoubtError("the exFAT's tables have no room for its clusters, or it is larger than its partition")
        if _checksum(exactly(read_at, 0, _BOOT_SECTORS * sector)) != exactly(read_at, _BOOT_SECTORS * sector, 4):
            raise DoubtError("the checksum of the exFAT's boot sectors is wrong")

    def chain(self, first: int, most: int) -> list[int]:
        """The clusters of a file of at most `most` bytes that begins at `first`, by the table."""
        found: list[int] = []
        while True:
            if not 0 <= first < self.clusters or len(found) * self.cluster >= most + self.cluster:
                raise DoubtError("a file of the exFAT leads out of it, or in a circle")
            found.append(first)
            (following,) = struct.unpack("<I", exactly(self._read_at, self._table + 4 * (first + 2), 4))
            if following == 0xFFFFFFFF:
                return found
            first = following - 2

    def content(self, clusters: list[int]) -> bytes:
        """The bytes of these clusters."""
        return b"".join(exactly(self._read_at, self.heap + one * self.cluster, self.cluster) for one in clusters)


def _checksum(region: bytes) -> bytes:
    total = 0
    for at, byte in enumerate(region):
        if at not in _UNSUMMED:
            total = ((total >> 1) | (total << 31 & 0x80000000)) + byte & 0xFFFFFFFF
    return total.to_bytes(4, "little")
