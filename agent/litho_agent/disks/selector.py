"""How a person names a disk: `sda`, `/dev/disk/by-path/...`, `serial=S3Z1NX0K`, `transport=nvme,size>=400G`.

A selector is one or more terms joined by commas, and a disk must meet every one of them. All matches are exact:
`serial=S3Z1` does not match a disk whose serial is `S3Z1NX0K`. Only two freedoms are taken, both for the sake of boot
loaders' configuration files: letters of a WWN match in either case and with or without the prefix (`0x`, `naa.`,
`eui.`), and `_` in a model stands for a blank.

Sizes are decimal with K, M, G, T, P, as they stand on a disk's label (`500G` is 500,000,000,000 bytes), and binary with
Ki, Mi, Gi, Ti, Pi.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from litho import amounts
from litho.errors import UsageError
from litho_agent.disks.disk import Disk, Transport

Kind = Literal["name", "path", "serial", "wwn", "model", "size>=", "size<=", "transport"]

ALLOWED = "sda, /dev/disk/by-path/..., serial=, wwn=, model=, size>=, size<=, transport=, joined by commas"
_TRANSPORTS: tuple[str, ...] = get_args(Transport)
_NAME = re.compile(r"[a-z][a-z0-9!-]{0,63}", re.ASCII)
_PATH = re.compile(r"/dev/[A-Za-z0-9_.:+@=!#%~/-]{1,240}", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,15})(?:([KMGTP])(i?)B?|B)?", re.ASCII)
_POWERS: dict[str, int] = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


class Term(msgspec.Struct, frozen=True):
    """One condition."""

    kind: Kind
    value: str
    size: int = 0
    """Bytes, of a size term."""

    def matches(self, disk: Disk) -> bool:
        """True when `disk` meets the condition."""
        return not self.differs(disk)

    def differs(self, disk: Disk) -> str:
        """Why `disk` does not meet the condition; empty when it does."""
        value = self.value
        if self.kind == "name":
            return "" if disk.name == value else f"its name is {disk.name}, not {value}"
        if self.kind == "path":
            return "" if value in (disk.path, *disk.by_id, *disk.by_path) else f"{value} does not lead to it"
        if self.kind == "serial":
            known = (disk.serial, *disk.other_serials)
            return "" if value in known else f"its serial is {disk.serial or 'unknown'}, not {value}"
        if self.kind == "wwn":
            found = disk.wwn and _bare_wwn(disk.wwn) == _bare_wwn(value)
            return "" if found else f"its WWN is {disk.wwn or 'unknown'}, not {value}"
        if self.kind == "model":
            found = disk.model and _blanks(disk.model) == _blanks(value)
            return "" if found else f"its model is {disk.model or 'unknown'}, not {value}"
        if self.kind == "transport":
            return "" if disk.transport == value else f"its transport is {disk.transport}, not {value}"
        fits = disk.size >= self.size if self.kind == "size>=" else disk.size <= self.size
        word = "less" if self.kind == "size>=" else "more"
        return "" if fits else f"it has {amounts.size(disk.size)}, {word} than {value}"


class Selector(msgspec.Struct, frozen=True):
    """What was asked for; no terms at all means that the default rule chooses."""

    terms: tuple[Term, ...] = ()
    text: str = ""

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def singles_out(self) -> bool:
        """True when it names one certain device, and not just a sort of device."""
        return any(term.kind in ("name", "path", "serial", "wwn") for term in self.terms)

    def names_transport(self, transport: str) -> bool:
        """True when it asks for this transport in so many words."""
        return any(term.kind == "transport" and term.value == transport for term in self.terms)

    def differs(self, disk: Disk) -> str:
        """Why `disk` is not meant; empty when it is."""
        return next((why for term in self.terms if (why := term.differs(disk))), "")


def parse(text: str) -> Selector:
    """The selector in `text`. Raises UsageError that names the term and what is allowed."""
    stripped = text.strip()
    if not stripped:
        return Selector()
    if len(stripped) > 256:
        raise UsageError(
            f"a disk selector of {len(stripped)} characters is too long", hint="use at most 256", code="bad-selector"
        )
    terms = tuple(_term(word.strip(), stripped) for word in stripped.split(","))
    return Selector(terms, stripped)


def _term(word: str, whole: str) -> Term:
    for kind in ("size>=", "size<="):
        if word.startswith(kind):
            return Term(kind, word[len(kind) :], parse_size(word[len(kind) :]))
    if word.startswith("/"):
        if _PATH.fullmatch(word) and ".." not in word.split("/"):
            plain = word.removeprefix("/dev/")
            return Term("name", plain) if _NAME.fullmatch(plain) else Term("path", word)
        raise _bad(word, whole)
    key, equals, value = word.partition("=")
    value = value.strip()
    if not equals:
        if _NAME.fullmatch(word) and word not in ("serial", "wwn", "model", "size", "transport"):
            return Term("name", word)
        raise _bad(word, whole)
    if not value or not value.isprintable():
        raise _bad(word, whole)
    if key in ("serial", "wwn", "model"):
        return Term(key, value)  # type: ignore[arg-type]  # the tuple above is the proof
    if key == "transport":
        if value in _TRANSPORTS:
            return Term("transport", value)
        raise UsageError(
            f"{value!r} is no transport (in {whole!r})",
            hint=f"use one of {', '.join(_TRANSPORTS)}",
            code="bad-selector",
        )
    raise _bad(word, whole)


def parse_size(text: str) -> int:
    """Bytes of `500G`, `1TiB`, `4096`. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text[:60]!r} is not a size",
            hint="write a whole number with K, M, G, T (decimal) or Ki, Mi, Gi, Ti (binary)",
            code="bad-selector",
        )
    step = 1024 if match[3] else 1000
    return int(match[1]) * int(step ** _POWERS[match[2] or ""])


def _bad(word: str, whole: str) -> UsageError:
    where = f" (in {whole[:120]!r})" if word != whole else ""
    return UsageError(f"{word[:120]!r} does not name a disk{where}", hint=f"use {ALLOWED}", code="bad-selector")


def _bare_wwn(text: str) -> str:
    return re.sub(r"^(naa\.|eui\.|uuid\.|0x)", "", text.strip().lower())


def _blanks(text: str) -> str:
    return " ".join(text.replace("_", " ").split())
