"""What a web server says before the bytes: one strict parser, and the rules of what may follow. Pure.

A server of an image's files is asked for two things: a whole small file, or a range of a pack. So few answers are good: 200 with
a length for the first, 206 with exactly the range that was asked for the second. Everything else is a `SourceError` that says
what is wrong with the source, and whether it makes sense to ask it again.
"""

from __future__ import annotations

import re

import msgspec

from litho.errors import LibraryError

MAX_HEAD = 16 * 1024
"""Bytes of an answer's first line and fields."""
_STATUS = re.compile(rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-5][0-9]{2})(?: [\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}):[ \t]*(?P<value>[\x20-\x7e\x80-\xff\t]*?)[ \t]*")
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})/(?P<total>[0-9]{1,18})", re.ASCII)
_ONCE = frozenset({"content-length", "content-range", "content-encoding", "transfer-encoding", "content-type"})
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceError(LibraryError):
    """A source did not give what it was asked for."""

    default_code = "source"

    def __init__(self, message: str, *, lasting: bool = False, missing: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        """It would answer the same again: it need not be asked any more."""
        self.missing = missing
        """It does not have this file."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line and the fields of an answer; names in small letters."""

    status: int
    fields: dict[str, str]
    lasts: bool
    """The connection may be used again."""


class Body(msgspec.Struct, frozen=True):
    """What follows the head."""

    length: int
    """Bytes that come now."""
    total: int
    """Bytes of the whole file."""


def read_head(data: bytes) -> Head:
    """The head in `data`, without the empty line at its end. Raises SourceError."""
    if len(data) > MAX_HEAD:
        raise too_long()
    first, *rest = data.split(b"\r\n")
    match = _STATUS.fullmatch(first)
    if match is None:
        raise SourceError("it does not speak HTTP/1.1", lasting=True)
    fields: dict[str, str] = {}
    for line in rest:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise SourceError("its answer has a field that is none", lasting=True)
        name = field["name"].decode().lower()
        if name in fields and name in _ONCE:
            raise SourceError(f"its answer says {name} twice", lasting=True)
        fields[name] = field["value"].decode("latin-1")
    words = {word.strip().lower() for word in fields.get("connection", "").split(",")}
    lasts = "close" not in words and (match["minor"] == b"1" or "keep-alive" in words)
    return Head(status=int(match["status"]), fields=fields, lasts=lasts)


def too_long() -> SourceError:
    """The head does not end."""
    return SourceError(f"its answer begins with more than {MAX_HEAD} bytes of fields", lasting=True)


def body(head: Head, *, limit: int, start: int | None = None) -> Body:
    """What follows `head`, which answers the wish for `limit` bytes from `start` on, or with None for a whole file of at most
    `limit` bytes. Raises SourceError for any other answer."""
    status = head.status
    if status not in (200, 206):
        raise _refused(status, head.fields)
    for name, plain in (("content-encoding", "identity"), ("transfer-encoding", "identity")):
        said = head.fields.get(name, plain).lower()
        if said != plain:
            raise SourceError(f"it packs or cuts what it sends ({name}: {said[:40]})", lasting=True)
    if "content-length" not in head.fields:
        raise SourceError("its answer has no content-length", lasting=True)
    length = _number(head.fields["content-length"])
    if start is None:
        if status != 200:
            raise SourceError("it answers with a range that nobody asked for", lasting=True)
        if length > limit:
            raise SourceError(f"it would send {length} bytes where at most {limit} belong", lasting=True)
        return Body(length, length)
    if status == 200:
        raise SourceError("it sends whole files where a range was asked for: it knows no ranges", lasting=True)
    match = _RANGE.fullmatch(head.fields.get("content-range", ""))
    if match is None:
        raise SourceError("its content-range cannot be understood", lasting=True)
    first, last, total = (int(match[name]) for name in ("first", "last", "total"))
    if (first, last) != (start, start + limit - 1) or length != limit or last >= total:
        raise SourceError(
            f"it sends bytes {first} to {last} of {total} ({length} bytes) where {start} to {start + limit - 1} were asked for",
            lasting=True,
        )
    return Body(length, total)


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise SourceError("its content-length is no number", lasting=True)
    return int(text)


def _refused(status: int, fields: dict[str, str]) -> SourceError:
    if status in (404, 410):
        return SourceError("it does not have the file (HTTP 404)", missing=True)
    if status == 416:
        return SourceError("its file is shorter than the library's (HTTP 416)", lasting=True)
    if status in (401, 403):
        return SourceError(f"it does not let this node read (HTTP {status})", lasting=True)
    if 300 <= status < 400:
        return SourceError(f"it points elsewhere, and that is not followed (HTTP {status})", lasting=True)
    return SourceError(f"it answers HTTP {status}", lasting=status not in _AGAIN)
