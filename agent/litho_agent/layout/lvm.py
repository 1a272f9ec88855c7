"""What a physical volume of LVM2 holds, read from its own bytes. Pure: a reader in, extents out.

No LVM tool is asked and no device-mapper is needed: a node that images disks has neither, and must not activate what it finds.
The format is that of LVM2's text metadata (lib/format_text and lib/label of its source; measured with LVM 2.03.16):

    sector 0..3   label "LABELONE", CRC, then the header: UUID, size, where data and metadata areas lie
    metadata area 512 bytes of header (CRC, magic, size, place of the newest text), then a ring buffer of texts
    text          names, numbers, strings, lists and sections in braces: the whole volume group

`lvmtext` reads the text. The newest text's CRC must be right, every number in range, and no two volumes may lie on the same
extent; else nothing is believed.

What is found is cut into windows: stretches of the physical volume.

* `head`: everything before the first extent: label, metadata, boot loader area. Restored byte for byte it makes the same
  physical volume in the same group again, with all UUIDs.
* a volume that lies in one piece here is one window, and can be looked into like a partition.
* of any other volume (striped, several pieces, mirror, thin pool) each piece is a window that is only bytes.

Extents that no volume has are not in any window.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Mapping

import msgspec

from litho_agent.layout import lvmtext
from litho_agent.layout.lvmtext import Value, bad, number_of, section_of, text_of, values_of

ReadAt = Callable[[int, int], bytes]
"""(offset, length) in bytes of the physical volume -> what lies there; shorter at its end."""
MEMBER = "LVM2_member"
"""What blkid calls a physical volume."""

_SECTOR = 512
_LABEL_SECTORS = 4
_CRC_START = 0xF597A6CF
_MAGIC = b" LVM2 x[5A%r0N*>"
_MDA_HEADER = 512
_MAX_TEXT = 16 * 1024 * 1024
_MAX_AREAS = 16
_MAX_EXTENTS = 2**32


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the physical volume that is to be stored."""

    volume: str
    """Name of the logical volume; empty for metadata behind the extents."""
    start: int
    """Bytes from the start of the physical volume."""
    size: int
    whole: bool
    """It is all of its volume, in order: what lies in it can be looked at like a partition."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The volume group, as far as this physical volume is concerned."""

    name: str
    uuid: str
    members: tuple[str, ...]
    """UUIDs of its physical volumes, this one too."""


class PhysicalVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A physical volume."""

    uuid: str
    size: int
    """Bytes that it had when it was made; the partition may be larger."""
    head: int
    """Bytes before the first extent."""
    group: Group | None = None
    """None when it belongs to no group."""
    windows: tuple[Window, ...] = ()
    """What is to be stored beside the head, in ascending order."""


def read(read_at: ReadAt) -> PhysicalVolume:
    """The physical volume that `read_at` reads. Raises DiskError (`bad-lvm`) when it is none, or its metadata is damaged."""
    uuid, size, data, areas = _label(read_at)
    texts = [text for area in areas if (text := _newest(read_at, *area)) is not None]
    head = data
    behind = [area for area in areas if area[0] >= data]
    if not areas:
        raise bad("it keeps no metadata of its own: they lie on other physical volumes of its group")
    if not texts:
        return PhysicalVolume(uuid=uuid, size=size, head=head, windows=_behind(behind))
    newest = max((lvmtext.parse(text) for text in texts), key=_seqno)
    group, windows = _group(newest, uuid, head)
    return PhysicalVolume(uuid=uuid, size=size, head=head, group=group, windows=(*windows, *_behind(behind)))


def _behind(areas: list[tuple[int, int]]) -> tuple[Window, ...]:
    return tuple(Window(volume="", start=start, size=size, whole=False) for start, size in areas)


# ---------------------------------------------------------------- the label and the metadata area


def _label(read_at: ReadAt) -> tuple[str, int, int, list[tuple[int, int]]]:
    """(UUID, size, start of the data, metadata areas as (start, size)) of the physical volume."""
    for number in range(_LABEL_SECTORS):
        sector = read_at(number * _SECTOR, _SECTOR)
        if len(sector) == _SECTOR and sector[:8] == b"LABELONE" and sector[24:32] == b"LVM2 001":
            break
    else:
        raise bad("it has no label")
    if _u64(sector, 8) != number or _crc(sector[20:]) != _u32(sector, 16):
        raise bad("its label is damaged")
    at = _u32(sector, 20)
    if not 32 <= at <= _SECTOR - 40:
        raise bad("its label is damaged")
    raw = sector[at : at + 32].decode("ascii", "replace")
    if not re.fullmatch(r"[A-Za-z0-9]{32}", raw, re.ASCII):
        raise bad("its label has no UUID")
    size, at = _u64(sector, at + 32), at + 40
    data, at = _areas(sector, at)
    metadata, _ = _areas(sector, at)
    if len(data) != 1 or data[0][0] < _LABEL_SECTORS * _SECTOR:
        raise bad(f"it has {len(data)} data areas where one is expected")
    end = max(size, 0)
    for start, length in metadata:
        if length < 2 * _MDA_HEADER or start < _SECTOR or start + length > end:
            raise bad("a metadata area lies outside of it")
    return _dashed(raw), size, data[0][0], metadata


def _areas(sector: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """A list of (start, size) that ends with zeros, and where the next one begins."""
    found: list[tuple[int, int]] = []
    while len(found) <= _MAX_AREAS and at + 16 <= _SECTOR:
        start, size = _u64(sector, at), _u64(sector, at + 8)
        at += 16
        if not start:
            return found, at
        found.append((start, size))
    raise bad("its label is damaged")


def _newest(read_at: ReadAt, start: int, size: int) -> str | None:
    """The text that a metadata area holds now; None when it holds none."""
    header = read_at(start, _MDA_HEADER)
    right = len(header) == _MDA_HEADER and header[4:20] == _MAGIC and _crc(header[4:]) == _u32(header, 0)
    if not right or _u32(header, 20) != 1 or (_u64(header, 24), _u64(header, 32)) != (start, size):
        raise bad("its metadata area is damaged")
    offset, length, crc, flags = _u64(header, 40), _u64(header, 48), _u32(header, 56), _u32(header, 60)
    if not offset or not length or flags & 1:
        return None
    if not _MDA_HEADER <= offset < size or length > min(size - _MDA_HEADER, _MAX_TEXT):
        raise bad("its metadata area is damaged")
    first = min(length, size - offset)
    # A ring: what does not fit before its end goes on behind the header.
    text = read_at(start + offset, first) + (read_at(start + _MDA_HEADER, length - first) if length > first else b"")
    if len(text) != length or _crc(text) != crc:
        raise bad("its metadata are damaged (their checksum is wrong)")
    try:
        return text.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError as exc:
        raise bad("its metadata are no text") from exc


def _crc(data: bytes) -> int:
    """LVM's: CRC-32 with a start of its own and without the inversions at either end."""
    return zlib.crc32(data, _CRC_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _dashed(raw: str) -> str:
    """A UUID as LVM shows it and blkid says it: groups of 6, 4, 4, 4, 4, 4 and 6."""
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(raw[a:b] for a, b in itertools.pairwise(cuts))


# ---------------------------------------------------------------- what it means


def _seqno(found: dict[str, Value]) -> int:
    name = _name_of(found)
    return number_of(section_of(found, name), "seqno")


def _name_of(found: dict[str, Value]) -> str:
    groups = [name for name, value in found.items() if isinstance(value, dict)]
    if len(groups) != 1:
        raise bad(f"its metadata name {len(groups)} volume groups")
    return groups[0]


def _group(found: dict[str, Value], uuid: str, head: int) -> tuple[Group, list[Window]]:
    """The group, and the windows that its volumes have on the physical volume `uuid`."""
    name = _name_of(found)
    body = section_of(found, name)
    physical = {
        key: section_of(section_of(body, "physical_volumes"), key) for key in section_of(body, "physical_volumes")
    }
    named = [key for key, one in physical.items() if text_of(one, "id") == uuid]
    if len(named) != 1:
        raise bad("its metadata name it twice" if named else "its metadata do not name it")
    own = named[0]
    extent = number_of(body, "extent_size") * _SECTOR
    first = number_of(physical[own], "pe_start") * _SECTOR
    count = number_of(physical[own], "pe_count")
    if extent <= 0 or first != head or count > _MAX_EXTENTS:
        raise bad("its label and its metadata do not agree")
    logical = section_of(body, "logical_volumes") if "logical_volumes" in body else {}
    beneath = _beneath(logical)
    windows: list[Window] = []
    for volume in logical:
        found_here = _windows(volume, section_of(logical, volume), own, physical, first=first, extent=extent)
        windows += [msgspec.structs.replace(one, whole=one.whole and volume not in beneath) for one in found_here]
    windows.sort(key=lambda one: one.start)
    end = first
    for window in windows:
        if window.start < end or window.start + window.size > first + count * extent:
            raise bad(f"the volume {window.volume[:60]!r} lies where another one does, or behind the end")
        end = window.start + window.size
    members = tuple(text_of(one, "id") for one in physical.values())
    return Group(name=name, uuid=text_of(body, "id"), members=members), windows


def _beneath(logical: Mapping[str, Value]) -> set[str]:
    """Volumes that another one stands on, such as the origin of a snapshot. Of these every block counts: what the file system
    in it gave up may be what the snapshot shows."""
    found: set[str] = set()
    for name in logical:
        for segment in section_of(logical, name).values():
            for key, value in segment.items() if isinstance(segment, dict) else ():
                words = value if isinstance(value, list) else [value]
                found |= {word for word in words if key != "type" and isinstance(word, str) and word in logical}
    return found


def _windows(
    name: str, volume: Mapping[str, Value], own: str, physical: Mapping[str, object], *, first: int, extent: int
) -> list[Window]:
    """The windows of one volume on the physical volume `own`."""
    pieces: list[tuple[int, int]] = []
    linear = "VISIBLE" in values_of(volume, "status")
    expected = 0
    for number in range(1, number_of(volume, "segment_count") + 1):
        segment = section_of(volume, f"segment{number}")
        length = number_of(segment, "extent_count")
        linear &= number_of(segment, "start_extent") == expected
        expected += length
        found = _pieces(segment, length, physical)
        linear &= text_of(segment, "type") == "striped" and len(found) == 1 and found[0][0] == own
        for at, start, count in found:
            if at != own:
                continue
            if pieces and sum(pieces[-1]) == start and linear:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + count)
            else:
                pieces.append((start, count))
    whole = linear and len(pieces) == 1
    return [
        Window(volume=name, start=first + start * extent, size=count * extent, whole=whole) for start, count in pieces
    ]


def _pieces(segment: Mapping[str, Value], length: int, physical: Mapping[str, object]) -> list[tuple[str, int, int]]:
    """(physical volume, first extent, extents) for each piece of a segment that lies on a physical volume itself."""
    kind = text_of(segment, "type")
    found: list[tuple[str, int, int]] = []
    for key in ("stripes", "mirrors", "raids"):
        if key not in segment:
            continue
        words = values_of(segment, key)
        for name, start in zip(words[::2], words[1::2], strict=False):
            if not isinstance(name, str) or name not in physical:
                # Another volume, whose own segments say where it lies.
                continue
            if not isinstance(start, int) or not 0 <= start < _MAX_EXTENTS or kind not in ("striped", "mirror"):
                raise bad(f"a segment of the type {kind[:40]!r} is not understood")
            stripes = number_of(segment, "stripe_count") if kind == "striped" else 1
            if not 0 < stripes <= length or length % stripes:
                raise bad("a segment has a number of stripes that cannot be")
            found.append((name, start, length // stripes))
    return found
