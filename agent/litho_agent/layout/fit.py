"""Fitting an image's partition table onto a disk of another size. Pure: numbers in, a table or a refusal out.

* Same size or larger: every partition keeps its place and size. With `grow`, the partition that ends last takes the
  rest of the disk, if what lies on it can grow (and with a logical one its extended partition).
* Smaller: only free space behind the last partition can be given up, and the free tail of an extended partition. No
  file system is ever shrunk here, and nothing is moved; if that is not enough, the refusal says the numbers.
* Another sector size is refused. Tables count in sectors and file systems remember the size they were made with (FAT,
  NTFS and XFS do in their boot sectors), so a copy would not be readable even if the table were translated.

A GPT keeps its backup in the last sectors, which therefore count as needed. An MBR reaches 2^32 sectors (2 TiB at
512 bytes) and not further, however large the disk.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from litho import amounts
from litho.errors import RefusedError
from litho.job import Fit
from litho_agent.layout.table import Partition, Table, check

_ALIGN = 1024 * 1024
"""Bytes to which a grown partition's end is rounded down."""
_MBR_LIMIT = 2**32 - 1


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it will stand on the target."""

    table: Table
    grown: int | None = None
    """Number of the partition whose content has to be grown afterwards; 0 is the whole disk."""
    notes: tuple[str, ...] = ()


def plan_fit(
    table: Table,
    *,
    source_size: int,
    target_size: int,
    target_sector: int,
    fit: Fit = "keep",
    growable: Collection[int] = (),
    target: str = "the disk",
) -> Fitted:
    """The table for a disk of `target_size` bytes with `target_sector` bytes a sector.

    `source_size` is the size of the disk that the image was made of, `growable` the numbers of the partitions whose content
    can grow, `target` names the disk in a refusal. Raises RefusedError before anything was touched.
    """
    if target_sector != table.sector_size:
        raise RefusedError(
            f"the image was made on a disk with {table.sector_size} bytes a sector and {target} has {target_sector}: its "
            "partition table and file systems count in sectors and could not be read there",
            hint=f"choose a disk with {table.sector_size} bytes a sector",
            code="sector-size",
        )
    if table.label == "none":
        if target_size < source_size:
            raise _too_small(source_size, target_size, target, "the file system takes the whole disk")
        larger = target_size > source_size
        return Fitted(table=table, grown=0 if fit == "grow" and larger and 0 in growable else None)
    usable = last_usable(table, target_size)
    shrunk = _trim_extended(table, usable)
    notes = [] if shrunk is table else ["the extended partition was cut by its free end to fit the disk"]
    last = _last(shrunk)
    if last is not None and last.end > usable:
        needed = (last.end + 1 + (_tail(table))) * table.sector_size
        raise _too_small(needed, target_size, target, f"partition {last.number} ends there")
    shrunk = msgspec.structs.replace(shrunk, last_lba=usable if table.label == "gpt" else 0)
    if fit != "grow" or last is None:
        return Fitted(table=shrunk, notes=tuple(notes))
    return _grow(shrunk, usable, growable, notes)


def last_usable(table: Table, size: int) -> int:
    """The last sector that a partition may have on a disk of `size` bytes."""
    last = size // table.sector_size - 1 - _tail(table)
    return last if table.label == "gpt" else min(last, _MBR_LIMIT - 1)


def _tail(table: Table) -> int:
    """Sectors at the end that the table itself takes."""
    return 1 + table.entry_sectors if table.label == "gpt" else 0


def _last(table: Table) -> Partition | None:
    """The partition with content that ends last."""
    parts = [part for part in table.partitions if not table.is_extended(part)]
    frame = table.extended()
    if frame is not None and not any(table.is_logical(part) for part in parts):
        parts.append(frame)
    return max(parts, key=lambda part: part.end, default=None)


def _trim_extended(table: Table, usable: int) -> Table:
    frame = table.extended()
    if frame is None or frame.end <= usable:
        return table
    inside = max((part.end for part in table.partitions if table.is_logical(part)), default=frame.start + 1)
    end = max(usable, inside)
    return _replaced(table, frame.number, end) if end < frame.end else table


def _grow(table: Table, usable: int, growable: Collection[int], notes: list[str]) -> Fitted:
    last = _last(table)
    assert last is not None  # noqa: S101 - the caller looked
    align = max(1, _ALIGN // table.sector_size)
    end = (usable + 1) // align * align - 1
    if end <= last.end:
        return Fitted(table=table, notes=tuple(notes))
    if last.number not in growable:
        notes.append(
            f"partition {last.number} is the last one and what lies on it cannot be grown; the space behind it stays free"
        )
        return Fitted(table=table, notes=tuple(notes))
    grown = _replaced(table, last.number, end)
    frame = grown.extended()
    if frame is not None and table.is_logical(last) and frame.end < end:
        grown = _replaced(grown, frame.number, end)
    check(grown)
    before, after = table.size_bytes(last), grown.size_bytes(grown.partition(last.number))
    notes.append(f"partition {last.number} was grown from {amounts.size(before)} to {amounts.size(after)}")
    return Fitted(table=grown, grown=last.number, notes=tuple(notes))


def _replaced(table: Table, number: int, end: int) -> Table:
    """The table with partition `number` ending at sector `end`."""
    parts = tuple(
        msgspec.structs.replace(part, size=end - part.start + 1) if part.number == number else part
        for part in table.partitions
    )
    return msgspec.structs.replace(table, partitions=parts)


def _too_small(needed: int, has: int, target: str, why: str) -> RefusedError:
    return RefusedError(
        f"{target} is too small: the image needs {needed} bytes ({amounts.size(needed)}; {why}) "
        f"and it has {has} ({amounts.size(has)})",
        hint="choose a larger disk, or make the partition smaller on the source and capture it again",
        code="disk-too-small",
    )
