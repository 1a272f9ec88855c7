"""What an XFS uses, from the trees of free extents of its allocation groups (XFS Algorithms & Data Structures, 3rd edition).

Each group has two trees of the same extents: one by place, one by length. Both are read and have to hold the same; a flipped
bit in either shows so, with version 5's checksums and without. Their sum must be the group's, and the groups' sum the
superblock's. Blocks in a group's reserve (AGFL) are in no tree and count as used, a log within the file system too.

Not read here: a realtime or an external log device, a file system that asks for repair, and features that change the trees or
are not known.
"""

from __future__ import annotations

import struct

from litho_agent.freespace.base import DoubtError, ReadAt, Runs, exactly, joined, rest, scaled

_SUPER = struct.Struct(">4sIQQQ16sQ")
_GROUP = struct.Struct(">4s12I")
_LAZY = 0x02
_MORE = 0x8000
_INCOMPAT = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""ftype, sparse inodes, meta uuid, bigtime, large extent counts, exchange, parent pointers; not: needs repair (0x10)."""
_RO_COMPAT = 0x01 | 0x02 | 0x04 | 0x08
"""Trees of free inodes, owners, references, counts of inode blocks."""
_LEAST_GROUP = 16 * 1024 * 1024
_HIGHEST_LEVEL = 9


def used(read_at: ReadAt, size: int) -> Runs:
    """The used runs. Raises DoubtError."""
    boot = exactly(read_at, 0, 512)
    magic, block, blocks, realtime, _, _, log = _SUPER.unpack_from(boot)
    group_blocks, groups = struct.unpack_from(">II", boot, 84)
    version, sector = struct.unpack_from(">HH", boot, 100)
    (free_blocks,) = struct.unpack_from(">Q", boot, 144)
    features, _, _, ro_compat, incompat = struct.unpack_from(">5I", boot, 200)
    if magic != b"XFSB" or version & 0xF not in (4, 5) or boot[126]:
        raise DoubtError("it is no finished XFS of version 4 or 5")
    modern = version & 0xF == 5
    if realtime or not log or (modern and (ro_compat & ~_RO_COMPAT or incompat & ~_INCOMPAT)):
        raise DoubtError("the XFS has a realtime device, an external log, or features that are not known here")
    powers = all(one & (one - 1) == 0 for one in (block, sector))
    if not (powers and 512 <= block <= 65536 and 512 <= sector <= 32768 and blocks * block <= size):
        raise DoubtError("the XFS's sizes cannot be")
    if group_blocks * block < _LEAST_GROUP or groups != -(-blocks // group_blocks):
        raise DoubtError("the XFS's allocation groups do not make up its size")
    free: Runs = []
    total = 0
    lazy = modern or (version & _MORE and features & _LAZY)
    for number in range(groups):
        length = min(group_blocks, blocks - number * group_blocks)
        group = _Group(read_at, number, number * group_blocks * block, block, length, modern=modern)
        found, spare = group.read(sector)
        free.extend((number * group_blocks + first, count) for first, count in found)
        total += sum(count for _, count in found) + spare[0] + (spare[1] if lazy else 0)
    if total != free_blocks:
        raise DoubtError(f"the XFS's groups have {total} free blocks, and its superblock says {free_blocks}")
    return joined(scaled(rest(free, blocks), block))


class _Group:
    """One allocation group."""

    def __init__(self, read_at: ReadAt, number: int, start: int, block: int, length: int, *, modern: bool) -> None:
        self._read_at = read_at
        self._number = number
        self._start = start
        """Bytes from the start of the partition."""
        self._block = block
        self._length = length
        """Blocks."""
        self._modern = modern
        self._head = 56 if modern else 16
        self._left = 0

    def read(self, sector: int) -> tuple[Runs, tuple[int, int]]:
        """Free extents by place, in blocks of the group; blocks in reserve and blocks that the trees take beside their roots."""
        header = exactly(self._read_at, self._start + sector, 64)
        magic, version, number, length, by_place, by_size, _, levels, size_levels, _, _, _, spare = _GROUP.unpack_from(
            header
        )
        free, longest, trees = struct.unpack_from(">3I", header, 52)
        if (magic, version, number, length) != (b"XAGF", 1, self._number, self._length):
            raise DoubtError(f"the header of the XFS's group {self._number} is damaged")
        places = self._tree((b"AB3B" if self._modern else b"ABTB"), by_place, levels)
        lengths = self._tree((b"AB3C" if self._modern else b"ABTC"), by_size, size_levels)
        if places != sorted(lengths) or sum(count for _, count in places) != free:
            raise DoubtError(f"the trees of free extents of the XFS's group {self._number} do not agree")
        if max((count for _, count in places), default=0) != longest:
            raise DoubtError(f"the longest free extent of the XFS's group {self._number} is not the one that it names")
        return places, (spare, trees)

    def _tree(self, magic: bytes, root: int, levels: int) -> Runs:
        if not 1 <= levels <= _HIGHEST_LEVEL:
            raise DoubtError(f"a tree of the XFS's group {self._number} has {levels} levels")
        self._left = self._length
        return self._below(magic, root, levels - 1)

    def _below(self, magic: bytes, at: int, level: int) -> Runs:
        """The extents of the leaves under block `at`, in the tree's order."""
        self._left -= 1
        if not 0 < at < self._length or self._left < 0:
            raise DoubtError(f"a tree of the XFS's group {self._number} leads out of it, or in a circle")
        place = self._start + at * self._block
        data = exactly(self._read_at, place, self._block)
        kind, its_level, count = struct.unpack_from(">4sHH", data)
        room = self._block - self._head
        sound = (kind, its_level) == (magic, level) and 0 <= count <= room // (8 if level == 0 else 12)
        if self._modern and sound:
            address, _, _, owner = struct.unpack_from(">QQ16sI", data, 16)
            sound = (address * 512, owner) == (place, self._number)
        if not sound:
            raise DoubtError(f"block {at} of the XFS's group {self._number} is none of its tree")
        if level == 0:
            return list(struct.iter_unpack(">II", data[self._head : self._head + 8 * count]))
        found: Runs = []
        # The pointers stand behind the room for as many keys as fit, not behind the keys that there are.
        pointers = self._head + room // 12 * 8
        for (child,) in struct.iter_unpack(">I", data[pointers : pointers + 4 * count]):
            found += self._below(magic, child, level - 1)
        return found
