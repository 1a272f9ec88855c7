"""What a FAT12, FAT16 or FAT32 uses, from its file allocation table (Microsoft's FAT specification 1.03; Linux's fs/fat).

A cluster is free when its entry is zero. The table is believed when its copies say the same and the clusters make up the volume.
Everything before the clusters is used, and what lies between the last cluster and the end of the volume.

Not read here: a FAT32 that keeps only one of its tables up to date.
"""

from __future__ import annotations

import re
import struct
from itertools import chain

from litho_agent.freespace.base import DoubtError, ReadAt, Runs, WholeError, exactly, joined, rest, scaled

_FAT12_CLUSTERS, _FAT16_CLUSTERS, _FAT32_CLUSTERS = 4085, 65525, 0x0FFFFFF5
_ONE_TABLE, _ACTIVE = 0x80, 0x0F
_PIECE = 1024 * 1024
# Each way takes whole entries, so that a match never begins within one; the first is what is wanted.
_ZEROS = {
    2: re.compile(rb"((?:\0\0)+)|(?:(?!\0\0)..)+", re.DOTALL),
    4: re.compile(rb"((?:\0\0\0\0)+)|(?:(?!\0\0\0\0)....)+", re.DOTALL),
}


def is_fat12(boot: bytes) -> bool:
    """Does the boot sector of a FAT say that its entries have 12 bits? By the number of clusters, as drivers tell it."""
    if len(boot) < 512:
        return False
    sector, per, reserved, copies, roots, small = struct.unpack_from("<HBHBHH", boot, 11)
    table = struct.unpack_from("<H", boot, 22)[0]
    if not sector or not per or not table:
        return False
    sectors = small or struct.unpack_from("<I", boot, 32)[0]
    first = reserved + copies * table + -(-roots * 32 // sector)
    return bool((sectors - first) // per < _FAT12_CLUSTERS)


def used(read_at: ReadAt, size: int) -> Runs:
    """The used runs. Raises DoubtError."""
    boot = exactly(read_at, 0, 512)
    sector, per, reserved, copies, roots, small = struct.unpack_from("<HBHBHH", boot, 11)
    table = struct.unpack_from("<H", boot, 22)[0]
    wide = table == 0
    sectors = small or struct.unpack_from("<I", boot, 32)[0]
    if wide:
        table, flags = struct.unpack_from("<IH", boot, 36)
        if flags & _ONE_TABLE and flags & _ACTIVE:
            raise WholeError("the FAT32 keeps only one of its tables up to date, and not the first")
        if flags & _ONE_TABLE or roots:
            raise DoubtError("the FAT32 does not keep its tables alike")
    if sector not in (512, 1024, 2048, 4096) or per not in (1, 2, 4, 8, 16, 32, 64, 128):
        raise DoubtError("the FAT's sizes cannot be")
    if not reserved or copies not in (1, 2) or not table or sectors * sector > size:
        raise DoubtError("the FAT's tables cannot be, or it is larger than its partition")
    first = reserved + copies * table + -(-roots * 32 // sector)
    clusters = (sectors - first) // per
    width = 8 if wide else 4 if clusters >= _FAT12_CLUSTERS else 3
    # In half bytes, so that FAT12's three are a whole number.
    needed = -(-(clusters + 2) * width // 2)
    if not 0 < clusters < _FAT32_CLUSTERS or needed > table * sector or (not wide and clusters >= _FAT16_CLUSTERS):
        raise DoubtError("the FAT's tables have no room for its clusters")
    data = exactly(read_at, reserved * sector, needed)
    if data[0] != boot[21] or (copies == 2 and not _same(read_at, (reserved + table) * sector, data)):
        raise DoubtError("the FAT's two tables do not say the same")
    free = _free12(data, clusters) if width == 3 else _free(data, width // 2)
    if wide:
        root = struct.unpack_from("<I", boot, 44)[0]
        if not 2 <= root < clusters + 2 or not any(data[root * 4 : root * 4 + 4]):
            raise DoubtError("the FAT32's root folder lies in what is said to be free")
    taken = scaled(rest(free, clusters), per * sector, first * sector)
    end = (first + clusters * per) * sector
    return joined(chain([(0, first * sector)], taken, [(end, sectors * sector - end)]))


def _same(read_at: ReadAt, offset: int, data: bytes) -> bool:
    """Does `data` stand at `offset`, too? Compared in pieces: a table may be large."""
    view = memoryview(data)
    pieces = (view[at : at + _PIECE] for at in range(0, len(data), _PIECE))
    return all(exactly(read_at, offset + number * _PIECE, len(one)) == one for number, one in enumerate(pieces))


def _free(data: bytes, width: int) -> Runs:
    """Runs of free clusters, counted from 0, in a table with entries of `width` bytes. The first two entries are none."""
    found = _ZEROS[width].finditer(data, 2 * width)
    return [
        (match.start() // width - 2, (match.end() - match.start()) // width) for match in found if match[1] is not None
    ]


def _free12(data: bytes, clusters: int) -> Runs:
    found: Runs = []
    for entry in range(2, clusters + 2):
        at = entry * 3 // 2
        pair = data[at] | data[at + 1] << 8
        if not (pair >> 4 if entry & 1 else pair & 0xFFF):
            found.append((entry - 2, 1))
    return joined(found)
