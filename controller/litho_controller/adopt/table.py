"""What a dump of a partition table means, told by sfdisk itself.

Twenty years of `sfdisk -d` have two dialects: the old one (util-linux before 2.26) has `Id=83`, lines for empty
entries and no identifier. Instead of a second parser, the text is handed to sfdisk, which lays the table into a
sparse file: what sfdisk then reads there is the table, in today's words, checked by the program that will write it on
a restore as well.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import msgspec

from litho import process
from litho.errors import EngineError, LithoError, UsageError
from litho.library import files
from litho.process import Argv

MAX_BYTES = 1024 * 1024
SECTOR = 512
_MOST_SECTORS = 2**42
_EXTENDED = frozenset({"5", "f", "85"})
_SWAP = frozenset({"82", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"})
_LINE = re.compile(r"\s*\S+\s*:\s*start=\s*(?P<start>[0-9]{1,15})\s*,\s*size=\s*(?P<size>[0-9]{1,15})\b", re.ASCII)
_LAST = re.compile(r"^last-lba:\s*([0-9]{1,15})\s*$", re.MULTILINE | re.ASCII)
_ID_AT = 440
_GPT_TAIL = 33


class Entry(msgspec.Struct, frozen=True):
    """A partition of the table."""

    number: int
    start: int
    """Bytes from the start of the disk."""
    size: int
    """Bytes."""
    kind: str
    """`extended`, `swap` or `data`."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A partition table that sfdisk has accepted."""

    label: str
    """`dos` or `gpt`."""
    dump: str
    """In today's words, for the library."""
    entries: tuple[Entry, ...]
    disk_size: int
    """Bytes that a disk needs at least; how large the source was, a dump does not say."""

    @property
    def head_room(self) -> int:
        """Bytes before the first partition."""
        return min((entry.start for entry in self.entries), default=self.disk_size)


class _Node(msgspec.Struct, frozen=True):
    node: str
    start: int
    size: int
    type: str


class _Json(msgspec.Struct, frozen=True):
    label: str
    partitions: tuple[_Node, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    partitiontable: _Json


def read(path: Path, disk: str, boot: bytes = b"") -> Table:
    """The table in the dump `path` of the disk `disk`, whose boot sector `boot` holds the identifier that old dumps lack.

    Raises UsageError for a dump that is none, MissingProgramError.
    """
    try:
        data = files.read_small(path, MAX_BYTES + 1) if path.is_file() else b""
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror})", code="file-unreadable") from exc
    text = data.decode("utf-8", "replace")
    if not data or len(data) > MAX_BYTES or "\0" in text or not _LINE.search(text):
        raise _bad(path, "it is not the output of `sfdisk --dump`")
    found = re.search(r"^sector-size:\s*([0-9]{1,6})\s*$", text, re.MULTILINE | re.ASCII)
    if found is not None and int(found[1]) != SECTOR:
        raise _bad(path, f"it counts in sectors of {found[1]} bytes, and only {SECTOR} can be adopted")
    lines = [line for line in text.splitlines() if not _empty(line)]
    places = [(int(match["start"]), int(match["size"])) for match in map(_LINE.match, lines) if match]
    end = max((start + size for start, size in places), default=0)
    if not 0 < end <= _MOST_SECTORS:
        raise _bad(path, "it has no partition")
    last = _LAST.search(text)
    sectors = max(int(last[1]), end) + 1 + _GPT_TAIL if last else end + 2048
    if not last and len(boot) >= _ID_AT + 4 and "label-id:" not in text and any(boot[_ID_AT : _ID_AT + 4]):
        lines.insert(0, f"label-id: 0x{int.from_bytes(boot[_ID_AT : _ID_AT + 4], 'little'):08x}")
    if not any(line.startswith("label:") for line in lines):
        lines.insert(0, "label: dos")
    return _laid(path, "\n".join(lines) + "\n", sectors, end, disk)


def _empty(line: str) -> bool:
    match = _LINE.match(line)
    return match is not None and int(match["size"]) == 0


def _laid(path: Path, script: str, sectors: int, end: int, disk: str) -> Table:
    with tempfile.TemporaryDirectory(prefix="litho-adopt-") as folder:
        file = Path(folder) / "disk"
        try:
            with file.open("wb") as sink:
                sink.truncate(sectors * SECTOR)
        except OSError as exc:
            raise LithoError(
                f"{folder} does not take a sparse file of {sectors * SECTOR} bytes ({exc.strerror})",
                hint="set TMPDIR to a directory on another file system",
            ) from exc
        try:
            _sfdisk(["sfdisk", "--quiet", "--wipe=never", file], script.encode())
            said = _sfdisk(["sfdisk", "--json", file])
            dump = _sfdisk(["sfdisk", "--dump", file])
        except EngineError as exc:
            if exc.code == "missing-program":
                raise
            raise _bad(path, f"sfdisk does not take it ({exc.message})") from exc
        try:
            table = msgspec.json.decode(said, type=_Answer).partitiontable
        except msgspec.MsgspecError as exc:
            raise _bad(path, f"sfdisk reads it as something that is not understood ({exc})") from exc
        if table.label not in ("dos", "gpt"):
            raise _bad(path, f"a table of the kind {table.label!r} cannot be adopted")
        entries = tuple(_entry(node, str(file), table.label) for node in table.partitions)
    wanted = sorted((int(m["start"]), int(m["size"])) for m in map(_LINE.match, script.splitlines()) if m)
    if sorted((entry.start // SECTOR, entry.size // SECTOR) for entry in entries) != wanted:
        raise _bad(path, "sfdisk moves its partitions, so they cannot all be right")
    joint = "p" if disk[-1:].isdigit() else ""
    dump = re.sub(rf"^{re.escape(str(file))}([0-9]+) ", rf"/dev/{disk}{joint}\1 ", dump, flags=re.MULTILINE)
    return Table(
        label=table.label,
        dump=dump.replace(f"device: {file}\n", f"device: /dev/{disk}\n"),
        entries=entries,
        disk_size=(sectors if table.label == "gpt" else end) * SECTOR,
    )


def _sfdisk(argv: Argv, script: bytes | None = None) -> str:
    return process.run(argv, stdin=script, timeout_s=60).out


def _entry(node: _Node, device: str, label: str) -> Entry:
    kind = "swap" if node.type in _SWAP else "data"
    if label == "dos" and node.type in _EXTENDED:
        kind = "extended"
    return Entry(int(node.node.removeprefix(device)), node.start * SECTOR, node.size * SECTOR, kind)


def _bad(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path.name} holds no partition table that can be adopted: {why}", hint="nothing was adopted", code="bad-table"
    )
