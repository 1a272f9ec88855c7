"""From which version an image came, and how much it shares with it: for people who look at a library.

What a capture stores does not depend on it: every chunk is looked up among all that the library has. So the parent is found
afterwards, in the indexes alone, without reading a byte of the disk:

* by name: the newest earlier version of the same image, if it has anything in common;
* else by sampling: up to 256 chunks, spread evenly over all that is not zeros, are held against other images at the same places.
  The version that has most of them is the parent if it has an eighth at least; of two with as many, the newer of an image.
  Looked at first are the versions whose indexes name the packs in which the samples were found, then the youngest images.

Only a version whose partitions have the same numbers and grids can be a parent. How much is shared is counted exactly, chunk by
chunk, in slices: an index may be hundreds of megabytes.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import msgspec
from blake3 import blake3

from litho.errors import IntegrityError, LithoError
from litho.library import files
from litho.library.chunks import index as indexes
from litho.library.chunks.gc import SUFFIX
from litho.library.chunks.pack import HASH, ID
from litho.library.chunks.scrub import ENGINE
from litho.library.chunks.usedmap import UsedMap, little
from litho.library.manifest import Manifest
from litho.library.names import ImageRef
from litho.library.shelf import Library

SAMPLES = 256
LEAST = 8
"""One of so many samples must be in a parent that does not have the image's name."""
_FIRST_LOOK = 16
"""Samples by which most strangers are told. Who has an eighth of all has none of these once in eight times."""
_LOOKED_AT = 64
"""Versions that are held against the samples at most: the newest of each image first, of the images the youngest."""
_RANKED = 1000
"""Versions of which it is asked which packs they name."""
_SLICE = 8192
"""Chunks that are compared at a time."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version came from."""

    image: str
    version: int
    shared: int
    """Bytes of used data in chunks that are the same and at the same place."""


class Sample(NamedTuple):
    """A chunk of the new version."""

    part: int
    number: int
    """Its place on the partition's grid."""
    digest: bytes
    pack: bytes
    """Where it lies; one that this version stored itself, if no other has the chunk."""


# ---------------------------------------------------------------- rules


def spread(counts: Sequence[int], samples: int = SAMPLES) -> list[tuple[int, int]]:
    """At most `samples` places `(which, place)`, spread evenly over several rows with so many places each. Pure."""
    total = sum(counts)
    wanted = min(samples, total)
    found, before, which = [], 0, 0
    for i in range(wanted):
        # The middle of the i-th of `wanted` equal stretches.
        at = (2 * i + 1) * total // (2 * wanted)
        while at - before >= counts[which]:
            before += counts[which]
            which += 1
        found.append((which, at - before))
    return found


def best(hits: Iterable[tuple[ImageRef, int]], samples: int, *, named: bool) -> ImageRef | None:
    """The version with most samples, the first of those with as many; None when no one has enough. Pure."""
    least = 1 if named else max(1, -(-samples // LEAST))
    found: ImageRef | None = None
    most = least - 1
    for ref, count in hits:
        if count > most:
            found, most = ref, count
        if most == samples:
            break
    return found


def newest_first(versions: dict[str, list[int]]) -> list[ImageRef]:
    """Every image's newest version, then every image's second newest, and so on; images in the order given. Pure."""
    rounds = max((len(one) for one in versions.values()), default=0)
    ordered = {name: sorted(one, reverse=True) for name, one in versions.items()}
    return [ImageRef(name, one[i]) for i in range(rounds) for name, one in ordered.items() if i < len(one)]


def likely(
    refs: Iterable[ImageRef], named: Callable[[ImageRef], frozenset[bytes]], samples: Mapping[bytes, int]
) -> list[ImageRef]:
    """`refs`, those first whose indexes name the packs of most samples (`named`: packs of a version); otherwise as they were."""
    weights = {ref: sum(samples.get(pack, 0) for pack in named(ref)) for ref in refs}
    return sorted(weights, key=lambda ref: -weights[ref])


# ---------------------------------------------------------------- the look


def find(library: Library, manifest: Manifest) -> Parent | None:
    """The parent of a version that is being made: its indexes lie in the library under their `.part` names.

    A version that cannot be read is no parent. Raises LibraryError, IntegrityError when the new version's own indexes cannot
    be read.
    """
    with contextlib.ExitStack() as opened:
        mine = {
            part.number: opened.enter_context(_Columns(library, f"{part.data.file}.part"))
            for part in manifest.parts
            if part.engine == ENGINE and part.data is not None
        }
        samples = list(_samples(mine))
        versions = _versions(library)
        own = [number for number in versions.pop(manifest.image, []) if number < manifest.version]
        named = [ImageRef(manifest.image, max(own))] if own else []
        found = best(_hits(library, named, samples), len(samples), named=True)
        if found is None:
            refs = likely(newest_first(versions)[:_RANKED], _packs(library), Counter(one.pack for one in samples))
            found = best(_hits(library, refs[:_LOOKED_AT], samples), len(samples), named=False)
        if found is None:
            return None
        with contextlib.suppress(LithoError):
            return Parent(image=found.name, version=found.version, shared=_shared(library, found, mine))
    return None


def _versions(library: Library) -> dict[str, list[int]]:
    """Every image's published versions, the image first that has the youngest; from one look at the directory, because a library
    may have a thousand images."""
    found: dict[str, list[int]] = {}
    born: dict[str, float] = {}
    for file, name in library.entries():
        if not name.suffix and not name.part:
            found.setdefault(name.image, []).append(name.version)
            with contextlib.suppress(OSError):
                born[name.image] = max(born.get(name.image, 0), (library.root / file).stat().st_mtime)
    return dict(sorted(found.items(), key=lambda item: -born.get(item[0], 0)))


def _packs(library: Library) -> Callable[[ImageRef], frozenset[bytes]]:
    """What tells the packs that a version's indexes name; none for a version that cannot be read."""
    indexed: dict[ImageRef, list[str]] = {}
    for file, name in library.entries():
        if name.suffix.endswith(SUFFIX) and not name.part:
            indexed.setdefault(ImageRef(name.image, name.version), []).append(file)

    def named(ref: ImageRef) -> frozenset[bytes]:
        found: set[bytes] = set()
        for file in indexed.get(ref, ()):
            with contextlib.suppress(LithoError), _Columns(library, file) as columns:
                found.update(columns.packs())
        return frozenset(found)

    return named


def _samples(mine: dict[int, _Columns]) -> Iterator[Sample]:
    numbers = list(mine)
    for which, place in spread([mine[number].head.chunks for number in numbers]):
        columns = mine[numbers[which]]
        pack = columns.pack(place)
        if pack is not None:
            yield Sample(numbers[which], columns.number(place), columns.digest(place), pack)


def _hits(library: Library, refs: Iterable[ImageRef], samples: list[Sample]) -> Iterator[tuple[ImageRef, int]]:
    """How many samples each version has at the same places."""
    # Evenly spread as well, so that a change at one end of the disk is no reason to turn a parent down.
    first = samples[:: max(1, len(samples) // _FIRST_LOOK)]
    for ref in refs if samples else ():
        with contextlib.suppress(LithoError), contextlib.ExitStack() as opened:
            theirs: dict[int, _Columns] = {}
            for part in library.manifest(ref).parts:
                if part.engine == ENGINE and part.data is not None:
                    theirs[part.number] = opened.enter_context(_Columns(library, part.data.file))
            if any(theirs[one.part].has(one) for one in first if one.part in theirs):
                yield ref, sum(theirs[one.part].has(one) for one in samples if one.part in theirs)


def _shared(library: Library, ref: ImageRef, mine: dict[int, _Columns]) -> int:
    total = 0
    for part in library.manifest(ref).parts:
        if part.number in mine and part.engine == ENGINE and part.data is not None:
            with _Columns(library, part.data.file) as theirs:
                theirs.check()
                total += _same_used(mine[part.number], theirs)
    return total


def _same_used(mine: _Columns, theirs: _Columns) -> int:
    """Bytes of used data in my chunks that the other has at the same place."""
    if mine.head.grain != theirs.head.grain:
        return 0
    grain, used = mine.head.grain, mine.used()
    same = mine.head.used
    others = theirs.rows()
    number, digest = next(others, (-1, b""))
    for place, mark in mine.rows():
        while 0 <= number < place:
            number, digest = next(others, (-1, b""))
        if number != place or digest != mark:
            same -= sum(extent.size for extent in used.within(place * grain, (place + 1) * grain))
    return same


class _Columns:
    """The index of a partition, read piece by piece. A context manager."""

    def __init__(self, library: Library, file: str) -> None:
        self._what = f"the index {file}"
        self._root = library.root
        with files.telling(library.root):
            self._fd = os.open(library.root / file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(self._fd).st_size
            self.head = indexes.read_head(self._read(0, min(size, indexes.HEADER)), what=self._what, file_bytes=size)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _read(self, offset: int, length: int) -> bytes:
        with files.telling(self._root):
            data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise IntegrityError(f"{self._what} is cut", code="corrupt-index")
        return data

    def number(self, place: int) -> int:
        return int.from_bytes(self._read(self.head.numbers_at + 4 * place, 4), "little")

    def digest(self, place: int) -> bytes:
        return self._read(self.head.digests_at + HASH * place, HASH)

    def pack(self, place: int) -> bytes | None:
        """The pack that the chunk's place names; None when the chunk is all zeros."""
        at = int.from_bytes(self._read(self.head.digests_at + HASH * self.head.chunks + 4 * place, 4), "little")
        return None if at == indexes.ZEROS else self._read(self.head.bytes - ID * (self.head.packs - at), ID)

    def packs(self) -> set[bytes]:
        ids = self._read(self.head.bytes - ID * self.head.packs, ID * self.head.packs)
        return {ids[at : at + ID] for at in range(0, len(ids), ID)}

    def has(self, sample: Sample) -> bool:
        """Is the sample's chunk here, at the same place?"""
        count = self.head.chunks
        place = bisect_left(range(count), sample.number, key=self.number)
        return place < count and self.number(place) == sample.number and self.digest(place) == sample.digest

    def used(self) -> UsedMap:
        return UsedMap.from_bytes(self._read(indexes.HEADER, 16 * self.head.extents), self.head.size)

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Number and hash of each chunk, in order."""
        for begin in range(0, self.head.chunks, _SLICE):
            count = min(_SLICE, self.head.chunks - begin)
            numbers = array("I")
            numbers.frombytes(self._read(self.head.numbers_at + 4 * begin, 4 * count))
            digests = self._read(self.head.digests_at + HASH * begin, HASH * count)
            for i, number in enumerate(little(numbers)):
                yield number, digests[i * HASH : (i + 1) * HASH]

    def check(self) -> None:
        """Raises IntegrityError when the file is not what was written."""
        at, end = indexes.HEADER, self.head.bytes
        hasher = blake3(self._read(0, indexes.HEADER - HASH))
        while at < end:
            piece = self._read(at, min(_SLICE * HASH, end - at))
            hasher.update(piece)
            at += len(piece)
        if hasher.digest() != self._read(indexes.HEADER - HASH, HASH):
            raise IntegrityError(f"{self._what} is damaged: its hash is not what it says", code="corrupt-index")
