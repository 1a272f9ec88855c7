"""Which chunks many packs hold, in eight bytes a chunk. Pure; the file is a cache and can be made anew from the packs' indexes.

An *entry* is one 64-bit number: the first 44 bits of a chunk's hash, then 20 bits that say which pack (its place in the catalog's
list). Entries are sorted, so ten million of them are 80 MB that are read in one step and searched by halving. A hit is only a
hint: the pack's own index says whether the whole hash is there (44 bits are shared by chance once in a million times at ten
million chunks).

    header      magic 8 | version u16 | zero u16 | packs u32 | entries u64 | BLAKE3 32 of everything else
    pack ids    16 bytes each
    entries     u64 each, ascending
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from blake3 import blake3

from litho.errors import IntegrityError
from litho.library.chunks.pack import HASH, ID, VERSION, PackIndex
from litho.library.chunks.usedmap import little

PACK_BITS = 20
MAX_PACKS = 1 << PACK_BITS
_MASK = MAX_PACKS - 1
_MAGIC = b"LITHOCA\x01"
_HEAD = struct.Struct("<8sHHIQ")
_HEADER = _HEAD.size + HASH
_SLICES = 16
_LARGE = 2_000_000
"""Entries from which joining goes slice by slice: a Python list of them all would take 40 bytes each."""


class Catalog:
    """The chunks of `packs`, as sorted entries."""

    def __init__(self, packs: Sequence[bytes], entries: array[int]) -> None:
        self.packs = tuple(packs)
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def candidates(self, digest: bytes) -> Sequence[bytes]:
        """The packs that may hold the chunk with this hash; mostly none, or one."""
        low = int.from_bytes(digest[:8], "big") & ~_MASK
        entries = self.entries
        at = stop = bisect_left(entries, low)
        while stop < len(entries) and entries[stop] <= low | _MASK:
            stop += 1
        return [self.packs[entry & _MASK] for entry in entries[at:stop]] if stop > at else ()


def of_packs(indexes: Iterable[PackIndex]) -> Catalog:
    """A catalog of these packs, made in memory."""
    packs: list[bytes] = []
    found: list[int] = []
    for index in indexes:
        number = len(packs)
        packs.append(index.pack)
        found.extend((prefix & ~_MASK) | number for prefix in index.prefixes())
    found.sort()
    return Catalog(packs, array("Q", found))


def join(catalogs: Sequence[Catalog], alive: set[bytes]) -> Catalog:
    """One catalog of all packs that are in `alive`. Memory is bounded by doing large ones in slices of the hashes' range."""
    packs: list[bytes] = []
    place: dict[bytes, int] = {}
    maps: list[list[int]] = []
    for catalog in catalogs:
        numbers: list[int] = []
        for pack in catalog.packs:
            if pack not in alive or pack in place:
                # What two catalogs both cover is taken from the first.
                numbers.append(-1)
                continue
            place[pack] = len(packs)
            numbers.append(len(packs))
            packs.append(pack)
        maps.append(numbers)
    slices = _SLICES if sum(map(len, catalogs)) > _LARGE else 1
    width = (1 << 64) // slices
    joined = array("Q")
    for i in range(slices):
        part: list[int] = []
        for catalog, numbers in zip(catalogs, maps, strict=True):
            low = bisect_left(catalog.entries, i * width)
            high = bisect_left(catalog.entries, (i + 1) * width) if i + 1 < slices else len(catalog.entries)
            part.extend(
                (entry & ~_MASK) | number
                for entry in catalog.entries[low:high]
                if (number := numbers[entry & _MASK]) >= 0
            )
        part.sort()
        joined.extend(part)
    return Catalog(packs, joined)


def dump(catalog: Catalog) -> bytes:
    """The catalog's file."""
    head = _HEAD.pack(_MAGIC, VERSION, 0, len(catalog.packs), len(catalog.entries))
    ids, entries = b"".join(catalog.packs), little(catalog.entries).tobytes()
    return b"".join((head, blake3(head).update(ids).update(entries).digest(), ids, entries))


def parse(data: bytes) -> Catalog:
    """What `dump` wrote. Raises IntegrityError for anything else, a newer format too: a cache is thrown away, not repaired."""
    view = memoryview(data)
    if len(data) < _HEADER:
        raise IntegrityError("the catalog is cut", code="corrupt-catalog")
    head, body = view[: _HEAD.size], view[_HEADER:]
    magic, version, _, packs, count = _HEAD.unpack(head)
    hashed = blake3(head).update(body).digest()
    if magic != _MAGIC or version != VERSION or len(body) != packs * ID + count * 8:
        raise IntegrityError("the catalog is not as its format says", code="corrupt-catalog")
    if hashed != data[_HEAD.size : _HEADER] or packs > MAX_PACKS:
        raise IntegrityError("the catalog is damaged", code="corrupt-catalog")
    ids = bytes(body[: packs * ID])
    entries = array("Q")
    entries.frombytes(body[packs * ID :])
    return Catalog([ids[i : i + ID] for i in range(0, len(ids), ID)], little(entries))
