"""A strict reader of tar streams, for archives from strangers.

Formats: POSIX ustar, pax (POSIX.1-2001) and GNU's long names, which is what every tar of today writes. One pass, no
seeking. Written anew because the standard library's reader is made to read whatever it can: it takes headers of any length
into memory, guesses where a header is damaged, and knows sparse files. Here a header that is not exactly right ends the
reading:

* the checksum must hold, numbers must be octal (or GNU's base 256) and in range;
* extended headers have at most 64 KiB, and no two of one kind stand before an entry;
* sparse files, multi-volume parts and types nobody knows are refused;
* only a file has data;
* after the end there are zeros and nothing else, so that nothing can hide there.

What an entry's name and type mean for the reader is for the caller to judge; names are bytes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from litho_controller.bundle.faults import bad, damaged, shown
from litho_controller.bundle.limits import Limits

BLOCK = 512
MAX_EXTENDED = 64 * 1024
MAX_PADDING = 4 * 1024 * 1024
"""Bytes of zeros after the end; GNU tar pads to 10 KiB by default, `-b` allows more."""

Kind = Literal["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]

_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}


class Plain(Protocol):
    """Where plain bytes come from: `litho_controller.bundle.packed.PlainReader`, or something that reads like it."""

    def read(self, size: int) -> memoryview:
        """At most `size` bytes, empty at the end."""

    def read_exactly(self, size: int) -> bytes:
        """`size` bytes, no fewer."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an archive."""

    name: bytes
    kind: Kind
    size: int = 0
    """Bytes of data; 0 for all but files."""
    mode: int = 0o644
    """The twelve permission bits."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since 1970."""
    link: bytes = b""
    """Where a link points to."""


class Body:
    """The data of one entry, read piece by piece. What is not read is skipped."""

    def __init__(self, source: Plain, size: int) -> None:
        self._source = source
        self.left = size

    def read(self, size: int = 1024 * 1024) -> memoryview:
        """At most `size` bytes, empty at the end of the entry. Raises IntegrityError when the archive ends inside."""
        if not self.left:
            return memoryview(b"")
        piece = self._source.read(min(size, self.left))
        if not piece:
            raise damaged("the archive ends in the middle of a file")
        self.left -= len(piece)
        return piece


def entries(source: Plain, limits: Limits) -> Iterator[tuple[Entry, Body]]:
    """Every entry with its data, in the archive's order, to the very end. Raises RefusedError, IntegrityError."""
    count = total = 0
    extended = _Extended()
    while True:
        header = source.read_exactly(BLOCK)
        if header.count(0) == BLOCK:
            if extended.seen:
                raise bad("the archive ends after an extended header", code="bad-tar")
            _padding(source)
            return
        fields = _Fields(header)
        if fields.type in (b"x", b"g", b"L", b"K"):
            extended.add(fields.type, _extended_data(source, fields.size))
            continue
        entry = _entry(fields, extended)
        extended = _Extended(extended.everywhere)
        count += 1
        total += entry.size
        _bounded(entry, limits, count, total)
        body = Body(source, entry.size)
        yield entry, body
        while body.left:
            body.read()
        _skip(source, -entry.size % BLOCK)


def _bounded(entry: Entry, limits: Limits, count: int, total: int) -> None:
    if count > limits.entries:
        raise bad(f"the archive has more than {limits.entries} entries", code="bundle-limit")
    if total > limits.bytes:
        raise bad(f"the archive unpacks to more than {limits.bytes} bytes", code="bundle-limit")
    if len(entry.name) > limits.name or len(entry.link) > limits.name:
        raise bad(f"the archive has a name of more than {limits.name} bytes", code="bundle-limit")


class _Fields:
    """A header block, taken apart."""

    def __init__(self, block: bytes) -> None:
        blanked = block[:148] + b" " * 8 + block[156:]
        if _octal(block[148:156], "checksum") != sum(blanked):
            raise bad("the archive has a header whose checksum is wrong", hint="is it a tar file?", code="bad-tar")
        self.type = block[156:157]
        self.size = _number(block[124:136], "size")
        self.mode = _number(block[100:108], "mode") & 0o7777
        self.uid = _number(block[108:116], "uid")
        self.gid = _number(block[116:124], "gid")
        self.mtime = _number(block[136:148], "mtime")
        self.link = _text(block[157:257])
        self.name = _text(block[0:100])
        # Only POSIX has a prefix; in GNU's own format ("ustar  ") other things stand there.
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            self.name = prefix + b"/" + self.name


class _Extended:
    """What extended headers said about the next entry, and about all."""

    def __init__(self, everywhere: dict[bytes, bytes] | None = None) -> None:
        self.everywhere = everywhere or {}
        self.values: dict[bytes, bytes] = {}
        self.seen: set[bytes] = set()

    def add(self, kind: bytes, data: bytes) -> None:
        if kind in self.seen:
            raise bad("the archive has two extended headers for one entry", code="bad-tar")
        self.seen.add(kind)
        if kind == b"L":
            self.values[b"path"] = _text(data)
        elif kind == b"K":
            self.values[b"linkpath"] = _text(data)
        elif kind == b"x":
            self.values.update(_records(data))
        else:
            self.everywhere = {**self.everywhere, **_records(data)}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key, self.everywhere.get(key))


def _entry(fields: _Fields, extended: _Extended) -> Entry:
    name = extended.get(b"path") or fields.name
    kind = _KINDS.get(fields.type)
    if kind is None or any(key.startswith(b"GNU.sparse") for key in (*extended.values, *extended.everywhere)):
        raise bad(
            f"the archive has an entry of a kind that is not taken ({shown(fields.type)}: {shown(name)})",
            code="bad-tar",
        )
    if kind == "file" and fields.type == b"\0" and name.endswith(b"/"):
        kind = "dir"  # as tar of before 1988 wrote it
    size = _whole(extended.get(b"size"), fields.size)
    if kind != "file" and size:
        raise bad(f"the archive has data where none can be ({shown(name)})", code="bad-tar")
    if b"\0" in name or not name:
        raise bad("the archive has an entry without a proper name", code="bad-tar")
    return Entry(
        name=name,
        kind=kind,
        size=size,
        mode=fields.mode,
        uid=_whole(extended.get(b"uid"), fields.uid),
        gid=_whole(extended.get(b"gid"), fields.gid),
        mtime=_decimal(extended.get(b"mtime"), fields.mtime),
        link=extended.get(b"linkpath") or fields.link,
    )


def _extended_data(source: Plain, size: int) -> bytes:
    if size > MAX_EXTENDED:
        raise bad(f"the archive has an extended header of {size} bytes", code="bundle-limit")
    data = source.read_exactly(size)
    _skip(source, -size % BLOCK)
    return data


def _records(data: bytes) -> dict[bytes, bytes]:
    """pax: `<length> <key>=<value>\\n` after each other, the length counting all of it."""
    found: dict[bytes, bytes] = {}
    while data:
        digits, blank, _ = data.partition(b" ")
        if not blank or len(digits) > 6 or not digits.isdigit():
            raise bad("the archive has an extended header that is damaged", code="bad-tar")
        length = int(digits)
        record, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or length <= len(digits) + 1 or key in found:
            raise bad("the archive has an extended header that is damaged", code="bad-tar")
        found[key] = value[:-1]
    return found


def _number(field: bytes, what: str) -> int:
    if field[0] == 0x80:
        number = int.from_bytes(field[1:], "big")
    elif field[0] & 0x80:
        if what != "mtime":
            raise bad(f"the archive has a negative {what}", code="bad-tar")
        number = 0  # a file from before 1970
    else:
        number = _octal(field, what)
    if number >= 2**62:
        raise bad(f"the archive has a {what} that is out of range", code="bad-tar")
    return number


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if any(digit not in b"01234567" for digit in digits):
        raise bad(f"the archive has a header whose {what} is no number", hint="is it a tar file?", code="bad-tar")
    return int(digits, 8)


def _whole(value: bytes | None, otherwise: int) -> int:
    """A size or an owner: digits and nothing else, so that no other reader takes it for another number."""
    if value is not None and not value.isdigit():
        raise bad("the archive has an extended header with a number that is none", code="bad-tar")
    return _decimal(value, otherwise)


def _decimal(value: bytes | None, otherwise: int) -> int:
    """A time may have a fraction, and be before 1970."""
    if value is None:
        return otherwise
    whole = value.partition(b".")[0]
    if whole.startswith(b"-") and whole[1:].isdigit():
        return 0
    if not whole.isdigit() or len(whole) > 18:
        raise bad("the archive has an extended header with a number that is none", code="bad-tar")
    return int(whole)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _skip(source: Plain, size: int) -> None:
    if size:
        source.read_exactly(size)


def _padding(source: Plain) -> None:
    """Read to the end, through the second block of zeros and whatever the writer filled up with."""
    left = MAX_PADDING
    while piece := source.read(64 * 1024):
        left -= len(piece)
        if left < 0 or any(piece):
            raise bad("the archive has something after its end", code="bad-tar")
