"""A partition table as data: what `sfdisk --dump` says, parsed strictly, and the script from which sfdisk makes it again.

One text serves for both ways, and it is also what the library keeps: `sfdisk --dump` of util-linux, which other tools
and people read as well. It comes back from a library years later and perhaps from a stranger's bundle, so
`parse_dump` believes nothing: unknown keys, numbers out of range, partitions that overlap or leave the disk, a
logical one outside its extended one are all a DiskError. What the script then hands to sfdisk is built from checked
values only.

Positions are in sectors of `sector_size` bytes, as in the table itself.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Literal

import msgspec

from litho.errors import DiskError

Label = Literal["dos", "gpt", "none"]

MAX_PARTITIONS = 1024
MAX_TEXT = 1024 * 1024
"""Characters of a dump."""

_GUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.ASCII)
_ATTR = re.compile(
    r"RequiredPartition|NoBlockIOProtocol|LegacyBIOSBootable|GUID:(?:4[89]|5[0-9]|6[0-3])(?:,(?:4[89]|5[0-9]|6[0-3]))*+",
    re.ASCII,
)
"""An attribute of a GPT's entry, as sfdisk writes it: the bits 0 to 2 by name, 48 to 63 by number."""
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
# Nothing is given back (the plus behind a quantifier): a megabyte of blanks would else be tried in every way there is.
_FIELD = re.compile(r'\s*+(?P<key>[A-Za-z-]++)\s*+(?:=\s*+(?P<value>"(?:[^"\\]|\\.)*+"|[^,"]*+))?+\s*+(?:,|$)')
_EXTENDED = frozenset({"5", "f", "85"})
_HEADERS = {"label", "label-id", "device", "unit", "first-lba", "last-lba", "table-length", "sector-size", "grain"}

ESP_GPT = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
"""Type of an EFI system partition."""
ESP_DOS = "ef"
LINUX_GPT = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
LINUX_DOS = "83"
DEFAULT_LENGTH = 128
"""Entries of a GPT when nothing else is said."""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """One entry."""

    number: int
    start: int
    """Sectors from the start of the disk."""
    size: int
    """Sectors."""
    type: str
    """Hexadecimal without zeros in front (dos), or an upper-case GUID (gpt)."""
    uuid: str = ""
    name: str = ""
    attrs: str = ""
    bootable: bool = False

    @property
    def end(self) -> int:
        """The last sector."""
        return self.start + self.size - 1


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The table of a disk; `none` is a disk without one (a file system on the whole disk)."""

    label: Label
    sector_size: int
    """Bytes."""
    id: str = ""
    """`0x1234abcd` (dos) or an upper-case GUID (gpt)."""
    partitions: tuple[Partition, ...] = ()
    """In order of their numbers, which need not be their order on the disk."""
    first_lba: int = 0
    """GPT: first sector that a partition may use; 0 when not said."""
    last_lba: int = 0
    table_length: int = DEFAULT_LENGTH

    def extended(self) -> Partition | None:
        """The extended partition of an MBR."""
        if self.label != "dos":
            return None
        return next((part for part in self.partitions if self.is_extended(part)), None)

    def is_extended(self, part: Partition) -> bool:
        """True for the frame of the logical partitions, which has no content of its own."""
        return self.label == "dos" and part.number <= 4 and part.type in _EXTENDED

    def is_logical(self, part: Partition) -> bool:
        """True for a partition inside the extended one."""
        return self.label == "dos" and part.number > 4

    def partition(self, number: int) -> Partition:
        """The partition with that number. Raises DiskError."""
        for part in self.partitions:
            if part.number == number:
                return part
        raise DiskError(f"the partition table has no partition {number}", code="bad-table")

    def start_bytes(self, part: Partition) -> int:
        """Bytes from the start of the disk."""
        return part.start * self.sector_size

    def size_bytes(self, part: Partition) -> int:
        """Bytes of the partition."""
        return part.size * self.sector_size

    @property
    def reserved(self) -> int:
        """Sectors at the start that the table itself takes: MBR; or protective MBR, header and entries of a GPT."""
        if self.label == "none":
            return 0
        return 1 if self.label == "dos" else 2 + self.entry_sectors

    @property
    def entry_sectors(self) -> int:
        """Sectors of a GPT's entries (128 bytes each, at least 16 KiB as UEFI wants); they stand at both ends of the disk."""
        size = max(self.table_length, DEFAULT_LENGTH) * 128
        return -(-size // self.sector_size)

    def same(self, other: Table) -> bool:
        """True when `other` is what this table asks for. What this one leaves open (identifiers, the usable space) may be any."""
        if len(self.partitions) != len(other.partitions):
            return False
        parts = tuple(
            msgspec.structs.replace(theirs, uuid=mine.uuid and theirs.uuid)
            for mine, theirs in zip(self.partitions, other.partitions, strict=True)
        )
        mine = msgspec.structs.replace(self, first_lba=0, last_lba=0)
        return mine == msgspec.structs.replace(
            other, first_lba=0, last_lba=0, id=self.id and other.id, partitions=parts
        )

    def unbootable(self) -> Table:
        """The same places and numbers with nothing that firmware would boot from: no active flag, no EFI system partition."""
        parts = []
        for part in self.partitions:
            kind = {ESP_GPT: LINUX_GPT, ESP_DOS: LINUX_DOS}.get(part.type, part.type)
            attrs = " ".join(word for word in part.attrs.split(" ") if word != "LegacyBIOSBootable")
            parts.append(msgspec.structs.replace(part, type=kind, attrs=attrs, bootable=False))
        return msgspec.structs.replace(self, partitions=tuple(parts))

    def script(self) -> str:
        """The text from which `sfdisk` makes this table. Sizes of the disk are left for sfdisk to find."""
        lines = [f"label: {self.label}", "unit: sectors"]
        if self.id:
            lines.insert(1, f"label-id: {self.id}")
        if self.first_lba:
            lines.append(f"first-lba: {self.first_lba}")
        if self.label == "gpt" and self.table_length != DEFAULT_LENGTH:
            lines.append(f"table-length: {self.table_length}")
        lines.append("")
        lines += [_line(part) for part in self.partitions]
        return "\n".join(lines) + "\n"


def _line(part: Partition) -> str:
    # The device's name only carries the number.
    words = [f"start={part.start}", f"size={part.size}", f"type={part.type}"]
    if part.uuid:
        words.append(f"uuid={part.uuid}")
    if part.name:
        words.append(f'name="{_quoted(part.name)}"')
    if part.attrs:
        words.append(f'attrs="{part.attrs}"')
    if part.bootable:
        words.append("bootable")
    return f"/dev/disk-part{part.number} : {', '.join(words)}"


def _quoted(text: str) -> str:
    """As sfdisk writes names: every byte that is not plain as `\\xHH`."""
    return "".join(chr(b) if 0x20 <= b < 0x7F and chr(b) not in '"\\`$' else f"\\x{b:02x}" for b in text.encode())


def _unquoted(text: str) -> str:
    raw = re.sub(r"\\x([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), text)
    try:
        # The escapes stand for bytes of UTF-8; what is not escaped was ASCII, or is text already.
        return raw.encode("latin-1").decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        return raw


def partition_path(disk: Path | str, number: int) -> Path:
    """The node of a partition, as the kernel names it: `sda1`, `nvme0n1p1`, `loop0p1`; number 0 is the disk itself."""
    text = str(disk)
    if number == 0:
        return Path(text)
    return Path(f"{text}p{number}" if text[-1:].isdigit() else f"{text}{number}")


def parse_dump(text: str) -> Table:
    """The table in the output of `sfdisk --dump`. Raises DiskError for anything that is not surely one."""
    if len(text) > MAX_TEXT:
        raise _bad(f"its dump has {len(text)} characters")
    headers: dict[str, str] = {}
    parts: list[tuple[int, dict[str, str]]] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if " : " in line or re.match(r"\S+\s*:\s*start=", line):
            node, _, rest = line.partition(":")
            parts.append((_number_of(node.strip(), headers.get("device", "")), _fields(rest)))
        else:
            key, colon, value = line.partition(":")
            key = key.strip()
            if not colon or key not in _HEADERS or key in headers or parts:
                raise _bad(f"the line {line[:80]!r} is not understood")
            headers[key] = value.strip()
    return _built(headers, parts)


def _built(headers: dict[str, str], parts: list[tuple[int, dict[str, str]]]) -> Table:
    label = headers.get("label", "")
    if label not in ("dos", "gpt"):
        raise DiskError(
            f"a partition table of the kind {label[:20]!r} is not supported",
            hint="MBR (dos), GPT and disks without a table are; capture it with engine raw",
            code="table-kind",
        )
    if headers.get("unit", "sectors") != "sectors":
        raise _bad("it does not count in sectors")
    sector_size = _int(headers.get("sector-size", "512"), "sector-size")
    if sector_size not in (512, 1024, 2048, 4096):
        raise _bad(f"sectors of {sector_size} bytes do not exist")
    gpt = label == "gpt"
    id_ = headers.get("label-id", "")
    id_ = id_.upper() if gpt else id_.lower()
    if id_ and not (_GUID.fullmatch(id_) if gpt else re.fullmatch(r"0x[0-9a-f]{8}", id_, re.ASCII)):
        raise _bad(f"{id_[:50]!r} is not its identifier")
    table = Table(
        label="gpt" if gpt else "dos",
        sector_size=sector_size,
        id=id_,
        first_lba=_int(headers.get("first-lba", "0"), "first-lba") if gpt else 0,
        last_lba=_int(headers.get("last-lba", "0"), "last-lba") if gpt else 0,
        table_length=_int(headers.get("table-length", str(DEFAULT_LENGTH)), "table-length") if gpt else DEFAULT_LENGTH,
        partitions=tuple(sorted((_partition(number, fields, gpt) for number, fields in parts), key=lambda p: p.number)),
    )
    check(table)
    return table


def check(table: Table) -> None:
    """Raise DiskError unless the table can exist: numbers, order and places as its kind allows them."""
    if not 1 <= table.table_length <= MAX_PARTITIONS:
        raise _bad(f"it has room for {table.table_length} partitions")
    numbers = [part.number for part in table.partitions]
    if len(set(numbers)) != len(numbers):
        raise _bad("two partitions have the same number")
    if any(number > (table.table_length if table.label == "gpt" else MAX_PARTITIONS) for number in numbers):
        raise _bad("a partition's number is out of range")
    frames = [part for part in table.partitions if table.is_extended(part)]
    if len(frames) > 1:
        raise _bad("it has two extended partitions")
    logical = [part for part in table.partitions if table.is_logical(part)]
    for part in table.partitions:
        if part.start < max(1, table.reserved):
            raise _bad(f"partition {part.number} starts in the table itself")
        if table.label == "dos" and part.start + part.size > 2**32:
            raise _bad(f"partition {part.number} lies beyond what an MBR can say")
        if table.last_lba and part.end > table.last_lba:
            raise _bad(f"partition {part.number} ends behind the usable space")
    for part in logical:
        # One sector at least in front of it belongs to its own entry.
        if not frames or part.start <= frames[0].start or part.end > frames[0].end:
            raise _bad(f"logical partition {part.number} is not inside an extended one")
    _check_overlap([part for part in table.partitions if not table.is_logical(part)])
    _check_overlap(logical)


def _check_overlap(parts: list[Partition]) -> None:
    ordered = sorted(parts, key=lambda part: part.start)
    for before, after in itertools.pairwise(ordered):
        if after.start <= before.end:
            raise _bad(f"partitions {before.number} and {after.number} overlap")


def _partition(number: int, fields: dict[str, str], gpt: bool) -> Partition:
    unknown = set(fields) - {"start", "size", "type", "Id", "uuid", "name", "attrs", "bootable"}
    if unknown or "start" not in fields or "size" not in fields:
        raise _bad(f"the line of partition {number} is not understood")
    kind = fields.get("type", fields.get("Id", ""))
    kind = kind.upper() if gpt else kind.lower().removeprefix("0x").lstrip("0")
    uuid = fields.get("uuid", "").upper() if gpt else ""  # an MBR's are made from its identifier
    size = _int(fields["size"], "size")
    if not (_GUID.fullmatch(kind) if gpt else re.fullmatch(r"[0-9a-f]{1,2}", kind, re.ASCII)) or size == 0:
        raise _bad(f"partition {number} has no type or no size")
    attrs = fields.get("attrs", "").split()
    if (uuid and not _GUID.fullmatch(uuid)) or len(attrs) > 4 or not all(_ATTR.fullmatch(word) for word in attrs):
        raise _bad(f"partition {number} has a bad UUID or attribute")
    if "bootable" in fields if gpt else ("name" in fields or attrs):
        raise _bad(f"partition {number} has what no entry of its kind of table has")
    name = _unquoted(fields.get("name", ""))
    if len(name.encode("utf-16-le", errors="surrogatepass")) > 72 or "\0" in name:
        raise _bad(f"the name of partition {number} is too long")
    return Partition(
        number=number,
        start=_int(fields["start"], "start"),
        size=size,
        type=kind,
        uuid=uuid,
        name=name,
        attrs=fields.get("attrs", ""),
        bootable="bootable" in fields,
    )


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    stripped = text.strip()
    while at < len(stripped):
        match = _FIELD.match(stripped, at)
        if match is None or match["key"] in found:
            raise _bad(f"the line {text[:80]!r} is not understood")
        value = match["value"] or ""
        found[match["key"]] = value[1:-1] if value.startswith('"') else value.strip()
        at = match.end()
    return found


def _number_of(node: str, device: str) -> int:
    rest = node.removeprefix(device) if device else node
    match = re.search(r"([0-9]{1,4})$", rest, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise _bad(f"{node[:80]!r} has no partition number")
    return int(match[1])


def _int(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise _bad(f"{text[:40]!r} is no {what}")
    return int(text)


def _bad(why: str) -> DiskError:
    return DiskError(f"the partition table is not a valid one: {why}", code="bad-table")
