"""What the readers of free space share: reading exactly, bitmaps as runs, and what is left when the free is taken away. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from litho.errors import EngineError

ReadAt = Callable[[int, int], bytes]
"""(offset, length) in bytes of the partition -> what lies there; shorter at its end."""
Runs = list[tuple[int, int]]
"""(start, bytes) of each run."""
MOST = 128 * 1024 * 1024
"""Bytes of a bitmap or table that is read here: a node may have little memory. An NTFS of 4 TB has that much."""
_STEP = 8 * 1024 * 1024
_MIXED = re.compile(rb"\xff+|[^\x00\xff]", re.DOTALL)


class DoubtError(EngineError):
    """What a file system says of its free space is not understood, or does not add up."""

    code = "bad-used-map"


class WholeError(DoubtError):
    """It is known that partclone 0.3.23 gets such a file system wrong: all of it is to be taken."""


def exactly(read_at: ReadAt, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`. Raises DoubtError when the partition ends before, or it is more than `MOST`."""
    if length > MOST:
        raise DoubtError(f"its record of {length} bytes is more than is read here")
    pieces = []
    while length:
        piece = read_at(offset, min(length, _STEP))
        if not piece:
            raise DoubtError(f"the partition ends at byte {offset}, before what is to be read")
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return b"".join(pieces)


def _bits(value: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for bit in range(8):
        if value >> bit & 1:
            if found and sum(found[-1]) == bit:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((bit, 1))
    return tuple(found)


_OF_BYTE = tuple(_bits(value) for value in range(256))


def set_bits(bitmap: bytes, count: int) -> Runs:
    """The runs `(first, how many)` of set bits among the first `count`; the lowest bit of a byte comes first."""
    found: Runs = []
    for match in _MIXED.finditer(bitmap):
        at, length = match.start() * 8, match.end() - match.start()
        pieces = ((0, 8 * length),) if bitmap[match.start()] == 0xFF else _OF_BYTE[bitmap[match.start()]]
        for first, bits in pieces:
            _add(found, at + first, bits)
    while found and sum(found[-1]) > count:
        first, bits = found.pop()
        if first < count:
            found.append((first, count - first))
    return found


def rest(free: Iterable[tuple[int, int]], count: int) -> Runs:
    """The runs of `0 ... count` outside of `free`, which is ascending. Raises DoubtError when free runs overlap or leave it."""
    found: Runs = []
    at = 0
    for first, length in free:
        if first < at or length <= 0 or first + length > count:
            raise DoubtError(f"{length} free blocks from {first} of {count} cannot be")
        if first > at:
            _add(found, at, first - at)
        at = first + length
    if at < count:
        _add(found, at, count - at)
    return found


def scaled(runs: Iterable[tuple[int, int]], unit: int, base: int = 0) -> Iterator[tuple[int, int]]:
    """Runs of blocks of `unit` bytes that begin at byte `base`, in bytes."""
    return ((base + first * unit, length * unit) for first, length in runs)


def covered(runs: Runs, wanted: Iterable[tuple[int, int]], what: str) -> None:
    """Raises DoubtError when a run of `wanted`, which is `what`, does not lie wholly in one of `runs` (ascending)."""
    for first, length in wanted:
        at = bisect_right(runs, first, key=lambda run: run[0]) - 1
        if at < 0 or first + length > sum(runs[at]):
            raise DoubtError(f"{what} lies in what is said to be free")


def joined(runs: Iterable[tuple[int, int]]) -> Runs:
    """Ascending runs, those that touch or overlap made one."""
    found: Runs = []
    for start, length in runs:
        _add(found, start, length)
    return found


def _add(found: Runs, start: int, length: int) -> None:
    if length <= 0:
        return
    if found and start <= sum(found[-1]):
        first, before = found[-1]
        found[-1] = (first, max(before, start + length - first))
    else:
        found.append((start, length))
