"""What differs between two versions, partition by partition.

Chunks are compared by their hashes, without reading one of them: the indexes say all. Of two streams only this can be said
without unpacking: that they are the same, or that they are not.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from litho.library import files
from litho.library.chunks.index import Index
from litho.library.chunks.scrub import ENGINE, read_index
from litho.library.manifest import Manifest, Part
from litho.library.shelf import Library

_MAX_DUMP = 4 * 1024 * 1024


class PartDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One partition in both versions, or in one of them. Counts are bytes of the partition, by whole chunks."""

    number: int
    fs: str
    how: Literal["chunks", "stream", "facts", "first only", "second only"]
    """What was compared: chunk by chunk, streams by their hash, or only what the manifests say (swap, empty partitions)."""
    equal: bool
    same: int = 0
    changed: int = 0
    """Used in both, with other content."""
    new: int = 0
    """Used in the second only."""
    gone: int = 0
    """Used in the first only."""


class ImageDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions."""

    table: bool
    """True: the partition tables are equal."""
    parts: tuple[PartDiff, ...]

    @property
    def equal(self) -> bool:
        """True when nothing differs that was compared."""
        return self.table and all(part.equal for part in self.parts)


def compare(library: Library, first: Manifest, second: Manifest) -> ImageDiff:
    """What differs. Raises IntegrityError when an index is damaged, LibraryError."""
    before = {part.number: part for part in first.parts}
    after = {part.number: part for part in second.parts}
    parts = []
    for number in sorted(before.keys() | after.keys()):
        old, new = before.get(number), after.get(number)
        if old is not None and new is not None:
            parts.append(_compare_parts(library, old, new))
        elif old is not None:
            parts.append(PartDiff(number=number, fs=old.fs, how="first only", equal=False, gone=old.used))
        elif new is not None:
            parts.append(PartDiff(number=number, fs=new.fs, how="second only", equal=False, new=new.used))
    return ImageDiff(table=_table(library, first) == _table(library, second), parts=tuple(parts))


def _table(library: Library, manifest: Manifest) -> tuple[str, bytes]:
    """The table's kind, and its dump with a word of its own for the disk's name, which says nothing of the content."""
    if manifest.table_dump is None:
        return manifest.table, b""
    with files.telling(library.root):
        dump = files.read_small(library.root / manifest.table_dump.file, _MAX_DUMP)
    return manifest.table, dump.replace(f"/dev/{manifest.disk_name}".encode(), b"/dev/disk")


def _compare_parts(library: Library, old: Part, new: Part) -> PartDiff:
    facts = (old.kind, old.fs, old.size, old.uuid, old.label) == (new.kind, new.fs, new.size, new.uuid, new.label)
    if old.engine == new.engine == ENGINE:
        one, other = read_index(library, old), read_index(library, new)
        if one.grain == other.grain:
            same, changed, added, gone = chunks(one, other)
            equal = facts and one.root == other.root
            return PartDiff(
                number=new.number,
                fs=new.fs,
                how="chunks",
                equal=equal,
                same=same,
                changed=changed,
                new=added,
                gone=gone,
            )
    if old.data is None or new.data is None:
        return PartDiff(number=new.number, fs=new.fs, how="facts", equal=facts and old.data == new.data)
    equal = facts and old.engine == new.engine and old.stream_sha256 == new.stream_sha256 != ""
    return PartDiff(number=new.number, fs=new.fs, how="stream", equal=equal, same=new.used if equal else 0)


def chunks(first: Index, second: Index) -> tuple[int, int, int, int]:
    """Bytes that are the same, changed, new and gone between two indexes of one grain."""
    same = changed = new = gone = 0
    i = k = 0
    while i < len(first.numbers) or k < len(second.numbers):
        left = first.numbers[i] if i < len(first.numbers) else None
        right = second.numbers[k] if k < len(second.numbers) else None
        if right is None or (left is not None and left < right):
            low, high = first.span(i)
            gone += high - low
            i += 1
        elif left is None or right < left:
            low, high = second.span(k)
            new += high - low
            k += 1
        else:
            low, high = second.span(k)
            if first.digest(i) == second.digest(k) and first.span(i) == second.span(k):
                same += high - low
            else:
                changed += high - low
            i, k = i + 1, k + 1
    return same, changed, new, gone
