"""The rules of names. Pure.

An image's name becomes part of file names on NFS, of topics, table cells and URLs, so it is strict: ASCII letters, digits and
`. _ + -`, a letter or digit first, 100 characters at most. Three more rules keep the flat library unambiguous:

* no `.v<digits>` that ends the name or stands before `-` or `.`: that is where a version's file names begin;
* no ending that a file of the library has (`.json`, `.part`, `.capturedone`, `.capturefailed`);
* not `.` or `..` (a dot cannot come first anyway).

So every file name can be split back into image, version and the rest in exactly one way.
"""

from __future__ import annotations

import re

import msgspec

from litho.errors import UsageError

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)
_VERSION_INSIDE = re.compile(r"\.v[0-9]+(?=$|[-.])", re.ASCII)
_ENDINGS = (".json", ".part", ".capturedone", ".capturefailed")
_SUFFIX = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)
_FILE = re.compile(
    r"(?P<image>.+?)\.v(?P<version>[1-9][0-9]{0,8})(?:\.json|-(?P<suffix>.+?))(?P<part>\.part)?", re.ASCII
)


class ImageRef(msgspec.Struct, frozen=True, order=True):
    """`name` or `name:version`; version 0 is whatever is current."""

    name: str
    version: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name


class FileName(msgspec.Struct, frozen=True):
    """A file name of the library, taken apart."""

    image: str
    version: int
    suffix: str
    """What follows `<image>.v<version>-`; empty for the manifest."""
    part: bool
    """True while it is being made."""


def is_name(text: str) -> bool:
    """True when `text` may be an image's name."""
    return (
        len(text) <= MAX_NAME
        and _NAME.fullmatch(text) is not None
        and _VERSION_INSIDE.search(text) is None
        and not text.endswith(_ENDINGS)
        and not text.endswith(".")
    )


def check_name(text: str) -> str:
    """`text` if it may be an image's name. Raises UsageError that says what is allowed."""
    if not is_name(text):
        raise UsageError(
            f"{text[:120]!r} cannot be the name of an image",
            hint="use up to 100 ASCII letters, digits and . _ + -, beginning with a letter or digit, "
            "without .v<number> and without the endings .json and .part",
            code="bad-image-name",
        )
    return text


def parse_ref(text: str) -> ImageRef:
    """`golden` or `golden:2`. Raises UsageError."""
    name, colon, version = text.partition(":")
    check_name(name)
    if not colon:
        return ImageRef(name)
    if not re.fullmatch(r"v?[1-9][0-9]{0,8}", version, re.ASCII):
        raise UsageError(
            f"{text[:120]!r} does not name a version",
            hint="write name:number, such as golden:2",
            code="bad-image-name",
        )
    return ImageRef(name, int(version.lstrip("v")))


def manifest_file(name: str, version: int) -> str:
    """`golden.v2.json`."""
    return f"{name}.v{version}.json"


def pointer_file(name: str) -> str:
    """`golden.json`."""
    return f"{name}.json"


def part_file(name: str, version: int, suffix: str) -> str:
    """`golden.v2-sda1.partclone.zst`. Raises UsageError for a suffix that is none."""
    if len(suffix) > 100 or _SUFFIX.fullmatch(suffix) is None or suffix.endswith((".part", ".json")):
        raise UsageError(f"{suffix[:120]!r} cannot end the name of a library file", code="bad-image-name")
    return f"{name}.v{version}-{suffix}"


def parse_file(text: str) -> FileName | None:
    """A file name taken apart; None when it belongs to no version of any image."""
    match = _FILE.fullmatch(text)
    if match is None or not is_name(match["image"]):
        return None
    suffix = match["suffix"] or ""
    if suffix and (_SUFFIX.fullmatch(suffix) is None or suffix.endswith((".part", ".json"))):
        return None
    return FileName(match["image"], int(match["version"]), suffix, match["part"] is not None)
