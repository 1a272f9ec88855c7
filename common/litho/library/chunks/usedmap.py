"""Which bytes of a partition are used: arithmetic on extents. Pure.

A `UsedMap` holds extents that are sorted, apart from each other, not empty and within the partition, as two plain arrays: a
fragmented disk has a million of them.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from litho.errors import IntegrityError

GRAIN = 128 * 1024
"""Bytes of a chunk. Measured: 256 KiB stores 1.5 times as much of a change as 64 KiB does, 128 KiB 1.2 times, in the same time
(docs/decisions/0020-chunks-of-128-kib.md)."""
UNIT = 4 * 1024 * 1024
"""Bytes of the grid that disks are read and written in."""


class Extent(NamedTuple):
    """A run of bytes from the start of the partition."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


class UsedMap:
    """The used bytes of a partition of `size` bytes."""

    def __init__(self, extents: Iterable[tuple[int, int]], size: int) -> None:
        """Sorts, joins and clips what it is given; empty extents are left out."""
        self.size = size
        self._starts = array("Q")
        self._ends = array("Q")
        for start, length in sorted(extents):
            begin, end = max(0, start), min(size, start + length)
            if end <= begin:
                continue
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(begin)
                self._ends.append(end)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Extent]:
        for start, end in zip(self._starts, self._ends, strict=True):
            yield Extent(start, end - start)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UsedMap):
            return NotImplemented
        return (self.size, self._starts, self._ends) == (other.size, other._starts, other._ends)

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    @property
    def used(self) -> int:
        """Used bytes in all."""
        return sum(self._ends) - sum(self._starts)

    def within(self, low: int, high: int) -> list[Extent]:
        """The used bytes from `low` up to `high`."""
        found: list[Extent] = []
        at = bisect_right(self._ends, low)
        while at < len(self._starts) and self._starts[at] < high:
            begin, end = max(low, self._starts[at]), min(high, self._ends[at])
            found.append(Extent(begin, end - begin))
            at += 1
        return found

    def holes(self, low: int, high: int) -> list[Extent]:
        """The bytes from `low` up to `high` that are not used."""
        found: list[Extent] = []
        at = low
        for extent in self.within(low, high):
            if extent.start > at:
                found.append(Extent(at, extent.start - at))
            at = extent.end
        if at < high:
            found.append(Extent(at, high - at))
        return found

    def merged(self, gap: int, align: int = 1) -> UsedMap:
        """The map with every extent grown outwards to `align` and holes of at most `gap` bytes filled: what to read in one go."""
        ends = self.size if self.size % align == 0 else self.size - self.size % align + align
        grown = UsedMap((), ends)
        for start, end in zip(self._starts, self._ends, strict=True):
            begin, stop = start - start % align, end + -end % align
            if grown._ends and begin <= grown._ends[-1] + gap:
                grown._ends[-1] = max(grown._ends[-1], stop)
            else:
                grown._starts.append(begin)
                grown._ends.append(stop)
        return grown

    def chunks(self, grain: int) -> array[int]:
        """The numbers of the chunks in which a used byte lies, ascending. Raises OverflowError beyond 2^32 chunks."""
        numbers = array("I")
        following = 0
        for start, end in zip(self._starts, self._ends, strict=True):
            first, last = max(start // grain, following), (end - 1) // grain
            if last >= first:
                numbers.extend(range(first, last + 1))
                following = last + 1
        return numbers

    def to_bytes(self) -> bytes:
        """Pairs of start and length, 64-bit little-endian."""
        flat = array("Q", [0]) * (2 * len(self._starts))
        flat[0::2] = self._starts
        flat[1::2] = array("Q", (e - s for s, e in zip(self._starts, self._ends, strict=True)))
        return little(flat).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, size: int) -> UsedMap:
        """What `to_bytes` wrote. Raises IntegrityError when it is not such a map."""
        flat = array("Q")
        flat.frombytes(data)
        flat = little(flat)
        found = cls((), size)
        found._starts = flat[0::2]
        lengths = flat[1::2]
        last = -1
        for start, length in zip(found._starts, lengths, strict=True):
            if start <= last or length == 0 or start + length > size:
                raise IntegrityError("the map of used bytes overlaps or leaves the partition", code="corrupt-index")
            last = start + length
        found._ends = array("Q", (s + n for s, n in zip(found._starts, lengths, strict=True)))
        return found


def little(numbers: array[int]) -> array[int]:
    """`numbers` in the byte order of the files, from or to that of the machine."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def units(numbers: array[int], grain: int, unit: int = UNIT) -> Iterator[tuple[int, int]]:
    """Slices `[from, to)` of `numbers` (chunk numbers, ascending) that lie in one unit of I/O each."""
    per = max(1, unit // grain)
    begin = 0
    while begin < len(numbers):
        group = numbers[begin] // per
        end = begin + 1
        while end < len(numbers) and numbers[end] // per == group:
            end += 1
        yield begin, end
        begin = end
