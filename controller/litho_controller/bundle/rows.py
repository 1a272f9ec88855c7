"""The rows of osimage and linuximage that travel with an image, and which of a stranger's values are taken. Pure.

`tables.json` holds both rows as they are, and the site's install directory, so that a path below it means the same below
another's:

    {"format": 1, "installdir": "/install", "osimage": {"osvers": "rhels5.4", ...}, "linuximage": {...}}

What manifest.cfg says (name, os, arch, profile, method) counts over it and must not contradict it. Three kinds of columns:

* described: words for people and for the node, which runs the image anyway;
* placed: the template and the root image's directory, which follow from where the import puts the files;
* guarded: paths that make the *management node* run or read something (a script for building the root image, lists of files
  to copy to nodes). They are taken from a bundle that somebody trusted has signed, or when a person says so, and left out
  otherwise.

Any other path is taken when it lies below an allowed root or where xCAT's own files are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from litho_controller.bundle.faults import bad, shown
from litho_controller.bundle.manifest import Manifest, is_place
from litho_controller.tables.osimages import PROVMETHOD
from litho_controller.tables.schema import TABLES

FILE = "tables.json"
MAX_BYTES = 1024 * 1024
KEY = "imagename"
XCAT_SHARE = "/opt/xcat/share/xcat"

GUARDED = {"osimage": ("synclists", "cfmdir"), "linuximage": ("postinstall", "partitionfile", "driverupdatesrc")}
PATHS = {
    "osimage": (),
    "linuximage": ("template", "pkglist", "pkgdir", "otherpkglist", "otherpkgdir", "exlist", "rootimgdir", "kerneldir"),
}

Cell = Annotated[str, msgspec.Meta(max_length=4096)]
Cells = dict[str, str]


class Rows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both rows: columns that have a value, without the image's name."""

    format: Literal[1] = 1
    installdir: Cell
    osimage: dict[Cell, Cell]
    linuximage: dict[Cell, Cell]

    def table(self, name: str) -> Cells:
        """The row of that table."""
        return self.osimage if name == "osimage" else self.linuximage


def parse(data: bytes) -> Rows:
    """The rows in `data`. Raises RefusedError."""
    try:
        found = msgspec.json.decode(data, type=Rows)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise bad(f"{FILE} is not as the format says ({exc})", code="bad-tables") from exc
    return checked(found)


def checked(rows: Rows) -> Rows:
    """`rows` when every column and value may be. Raises RefusedError."""
    if not is_place(rows.installdir):
        raise bad(f"the bundle's install directory is {shown(rows.installdir)}", code="bad-tables")
    for table in ("osimage", "linuximage"):
        for column, value in rows.table(table).items():
            if column not in TABLES[table].columns or column == KEY:
                raise bad(f"the bundle has an unknown column {table}.{shown(column)}", code="bad-tables")
            if not all(" " <= char <= "~" or char == "\n" for char in value):
                raise bad(
                    f"the bundle's column {table}.{column} has characters that xCAT cannot carry",
                    hint="use ASCII",
                    code="bad-tables",
                )
    return rows


def dump(rows: Rows) -> bytes:
    """The file of these rows: columns sorted, so that equal rows are equal bytes."""
    return msgspec.json.format(msgspec.json.encode(rows, order="sorted"), indent=1) + b"\n"


def filled(row: Mapping[str, str | None]) -> Cells:
    """A row's columns that have a value, without the name."""
    return {column: value for column, value in row.items() if value is not None and column != KEY}


def provmethod(manifest: Manifest) -> str:
    """The provmethod that an image of this method has; what prints a captured disk onto a node is `install` (see `osimages`)."""
    return PROVMETHOD if manifest.method == "image" else manifest.method


def derived(manifest: Manifest, install: str) -> Rows:
    """The rows that follow from manifest.cfg alone, for a bundle that has no others."""
    osimage = {
        "profile": manifest.profile,
        "imagetype": "linux",
        "provmethod": provmethod(manifest),
        "osname": "Linux",
        "osvers": manifest.os,
        "osarch": manifest.arch,
        "osdistroname": f"{manifest.os}-{manifest.arch}" if manifest.os and manifest.arch else "",
    }
    linuximage: Cells = {}
    if manifest.method == "install":
        linuximage["pkgdir"] = f"{install}/{manifest.os}/{manifest.arch}"
    if manifest.method == "statelite":
        osimage["rootfstype"] = "nfs"
    if manifest.method == "image":
        del osimage["osname"]
    return Rows(installdir=install, osimage={k: v for k, v in osimage.items() if v}, linuximage=linuximage)


def agree(rows: Rows, manifest: Manifest) -> None:
    """Refuse rows that say something else than manifest.cfg. Raises RefusedError."""
    said = {"profile": manifest.profile, "provmethod": provmethod(manifest)}
    said.update({"osvers": manifest.os, "osarch": manifest.arch} if manifest.os or manifest.method != "image" else {})
    for column, value in said.items():
        there = rows.osimage.get(column, value)
        # A captured disk of an unknown system has no os; and a system's arch may be all that is known.
        if value and there != value:
            raise bad(
                f"the bundle contradicts itself: {FILE} has {shown(there)} as osimage.{column} and manifest.cfg "
                f"{shown(value)}",
                code="bad-tables",
            )


def taken(
    rows: Rows, *, install: str, roots: Sequence[str], trusted: bool, fixed: Mapping[str, str]
) -> tuple[Cells, Cells, list[str]]:
    """Which values of `rows` this site takes: (osimage, linuximage, notes about what was left out).

    `fixed` are columns of linuximage that the import itself sets; `roots` are the allowed roots.
    """
    notes: list[str] = []
    found: dict[str, Cells] = {}
    for table in ("osimage", "linuximage"):
        kept: Cells = {}
        for column, value in rows.table(table).items():
            if table == "linuximage" and column in fixed:
                continue
            if column in GUARDED[table] or column in PATHS[table]:
                moved = ",".join(rebased(path, rows.installdir, install) for path in value.split(","))
                if column in GUARDED[table] and not trusted:
                    notes.append(
                        f"{table}.{column} was left out: it makes this machine read or run {moved[:120]} "
                        "(--all-columns takes it, and so does a trusted signature)"
                    )
                    continue
                if not trusted and not all(_allowed(path, roots) for path in moved.split(",")):
                    notes.append(f"{table}.{column} was left out: {moved[:120]} is outside of {', '.join(roots)}")
                    continue
                value = moved  # noqa: PLW2901 - the path as it is here
            kept[column] = value
        found[table] = kept
    return found["osimage"], {**found["linuximage"], **fixed}, notes


def rebased(path: str, old: str, new: str) -> str:
    """A path below one site's install directory as the same below another's."""
    return new + path[len(old) :] if path == old or path.startswith(old + "/") else path


def below(path: str, roots: Sequence[str]) -> bool:
    """True when an absolute path lies below one of `roots`."""
    return is_place(path) and any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _allowed(path: str, roots: Sequence[str]) -> bool:
    # xCAT writes some directories with a comma or a slash at the end.
    flat = path.strip().rstrip("/")
    return not flat or below(flat, [*roots, XCAT_SHARE])
