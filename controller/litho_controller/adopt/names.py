"""How other tools call the files of an image. Pure: names in, roles out.

| file | by Apache VCL and by hand | Clonezilla |
|---|---|---|
| partition table | `golden-sda.sfdisk` | `sda-pt.sf` |
| boot sector | `golden-sda.mbr` | `sda-mbr` |
| the sectors behind it | | `sda-hidden-data-after-mbr` |
| a partition | `golden-sda1.gz`, `golden-sda1.000`, `hda1.img` | `sda1.ext4-ptcl-img.gz.aa`, `sda1.aa` |
| swap | | `swappt-sda5.info` |

A partition may lie in several files that end in `.000 .001 …` or `.aa .ab …`; all of them must be there. The name of
the disk is taken from the names and must be the same in all: `hda` is as good as `sda`, both is one too many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from litho.errors import UsageError

Kind = Literal["table", "boot", "gap", "swap", "part"]

_DISK = r"(?:(?P<disk>(?:[shv]d|xvd)[a-z]{1,2})|(?P<long>nvme[0-9]{1,2}n[0-9]{1,2}|mmcblk[0-9]{1,2}))"
_BEFORE = r"(?P<before>(?:.*[-_.])?)"
_ENDINGS: tuple[tuple[Kind, str], ...] = (
    ("table", r"(?:\.sfdisk|-pt\.sf)"),
    ("boot", r"[.-]mbr"),
    ("gap", r"-hidden-data-after-mbr"),
)
_WHOLE = tuple((kind, re.compile(_BEFORE + _DISK + ending, re.ASCII)) for kind, ending in _ENDINGS)
_SWAP = re.compile(r"(?P<before>)swappt-" + _DISK + r"(?(long)p)(?P<number>[1-9][0-9]{0,2})\.info", re.ASCII)
_PART = re.compile(_BEFORE + _DISK + r"(?(long)p)(?P<number>[1-9][0-9]{0,2})(?P<rest>(?:[.-].*)?)", re.ASCII)
_NUMBERED = re.compile(r"(?P<base>.*)\.(?P<order>[0-9]{3})", re.ASCII)
_LETTERED = re.compile(r"(?P<base>.*)\.(?P<order>[a-z]{2,3})", re.ASCII)
_WORDS = frozenset(
    {"gz", "xz", "lz", "pi", "img", "bz", "lzo", "zst", "raw", "pcl", "pc", "dd", "bin", "dat", "bak", "old"}
)
"""Endings of one file that look like the letters of `split`."""
_NEVER = (".md5", ".sha1", ".sha256", ".txt", ".json", ".info", ".log")


class Role(msgspec.Struct, frozen=True):
    """What a file is, by its name."""

    kind: Kind
    disk: str
    before: str
    """What stands before the disk's name: `golden-`."""
    number: int = 0
    base: str = ""
    """The name without its place among several."""
    order: int | None = None
    """Its place among several, from 0."""


class Sorted(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one image."""

    disk: str
    table: Path
    boot: Path | None = None
    gap: Path | None = None
    swaps: dict[int, Path] = {}
    parts: dict[int, tuple[Path, ...]]
    """In the order in which they are read."""


def role(name: str) -> Role | None:
    """What the file `name` is; None when the name does not tell."""
    for kind, pattern in _WHOLE:
        match = pattern.fullmatch(name)
        if match is not None:
            return Role(kind, match["disk"] or match["long"], match["before"])
    match = _SWAP.fullmatch(name)
    if match is not None:
        return Role("swap", match["disk"] or match["long"], "", int(match["number"]))
    match = _PART.fullmatch(name)
    if match is None or name.endswith(_NEVER):
        return None
    base, order = _order(name)
    return Role("part", match["disk"] or match["long"], match["before"], int(match["number"]), base, order)


def _order(name: str) -> tuple[str, int | None]:
    found = _NUMBERED.fullmatch(name)
    if found is not None:
        return found["base"], int(found["order"])
    found = _LETTERED.fullmatch(name)
    if found is None or found["order"] in _WORDS:
        return name, None
    order = 0
    for letter in found["order"]:
        order = order * 26 + ord(letter) - ord("a")
    return found["base"], order


def sort(
    files: Sequence[Path],
    *,
    optional: Sequence[Path] = (),
    table: Path | None = None,
    boot: Path | None = None,
    parts: Sequence[tuple[int, Path]] = (),
) -> Sorted:
    """Put files into their roles: `files` must all have one, `optional` (what lay in a named directory) may have.

    `table`, `boot` and `parts` are named outright, whatever they are called. Raises UsageError.
    """
    found: list[tuple[Role, Path]] = []
    for path in [*files, *optional]:
        known = role(path.name)
        if known is not None:
            found.append((known, path))
        elif path not in optional:
            raise UsageError(
                f"the name {path.name!r} does not say what the file is",
                hint="names like golden-sda.sfdisk, golden-sda.mbr and golden-sda1.gz do; or say --table, --boot, --part N=FILE",
                code="bad-file-name",
            )
    _one("the images", {known.before for known, _ in found if known.kind != "swap"})
    disks = {known.disk for known, _ in found}
    _one("the disks", disks)
    whole = {kind: _single(kind, [path for known, path in found if known.kind == kind]) for kind in ("boot", "gap")}
    tables = [path for known, path in found if known.kind == "table"]
    the_table = table or _single("table", tables)
    if the_table is None:
        raise UsageError(
            "no partition table is among the files, and without it nobody knows where the partitions belong",
            hint="give the output of `sfdisk --dump` of the disk as golden-sda.sfdisk, or with --table FILE",
            code="no-table",
        )
    numbers = sorted({known.number for known, _ in found if known.kind == "part"})
    members = {number: _ordered(number, found) for number in numbers}
    for number, path in parts:
        if not 1 <= number <= 128:
            raise UsageError(f"{number} is no number of a partition", code="bad-file-name")
        members[number] = (*(members.get(number, ()) if number not in numbers else ()), path)
    if not members:
        raise UsageError("no image of a partition is among the files", code="no-parts")
    return Sorted(
        disk=next(iter(disks), "sda"),
        table=the_table,
        boot=boot or whole["boot"],
        gap=whole["gap"],
        swaps={known.number: path for known, path in found if known.kind == "swap"},
        parts=dict(sorted(members.items())),
    )


def _one(what: str, found: set[str]) -> None:
    if len(found) > 1:
        named = ", ".join(repr(one.strip("-_.")) for one in sorted(found))
        raise UsageError(
            f"the files are not of one image: {what} in their names are {named}",
            hint="adopt one disk of one image at a time",
            code="bad-file-name",
        )


def _single(kind: str, paths: list[Path]) -> Path | None:
    if len(paths) > 1:
        raise UsageError(
            f"two files are a {kind}: {paths[0].name} and {paths[1].name}",
            hint="give one of them",
            code="bad-file-name",
        )
    return paths[0] if paths else None


def _ordered(number: int, found: Sequence[tuple[Role, Path]]) -> tuple[Path, ...]:
    mine = [(known, path) for known, path in found if known.kind == "part" and known.number == number]
    bases = sorted({known.base for known, _ in mine})
    if len(bases) > 1 or (len(mine) > 1 and any(known.order is None for known, _ in mine)):
        names = sorted(path.name for _, path in mine)
        raise UsageError(
            f"partition {number} has more than one image: {names[0]} and {names[1]}",
            hint="give the files of one of them",
            code="bad-file-name",
        )
    mine.sort(key=lambda one: one[0].order or 0)
    for expected, (known, path) in enumerate(mine):
        if known.order is not None and known.order != expected:
            missing = "is there twice" if known.order < expected else f"is not there: volume {expected} is missing"
            where = path.name if known.order < expected else f"what comes before {path.name}"
            raise UsageError(
                f"{where} {missing}", hint="give all volumes of the image, each once", code="missing-volume"
            )
    return tuple(path for _, path in mine)
