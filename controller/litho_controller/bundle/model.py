"""What a bundle holds, whichever form it has: seed files with a manifest.cfg, or xCAT's with a manifest.xml. Pure.

Both become one `Content`: a `Manifest` whose file values are names of members, the rows, and for xCAT's form the files that
columns name (package lists and such), which that form carries along.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from litho_controller.bundle import manifest as cfg
from litho_controller.bundle import rows as rows_of
from litho_controller.bundle import sums, xcat
from litho_controller.bundle.faults import bad, damaged, shown
from litho_controller.bundle.manifest import Extra, Manifest
from litho_controller.bundle.rows import Rows

SMALL = {
    cfg.FILE: cfg.MAX_BYTES,
    sums.FILE: sums.MAX_BYTES,
    sums.SIGNATURE: sums.SIGNATURE_BYTES,
    rows_of.FILE: rows_of.MAX_BYTES,
}
"""Members that are about the bundle and not part of the image, and how many bytes each may have."""

COLUMN_FILES = {
    "osimage": ("synclists",),
    "linuximage": ("pkglist", "otherpkglist", "exlist", "postinstall"),
}
"""Columns whose files xCAT's form carries along."""


class ColumnFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a column names."""

    table: str
    column: str
    path: str
    """Where it was on the exporting site."""
    member: str


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle holds."""

    form: Literal["litho", "xcat"]
    manifest: Manifest
    rows: Rows
    columns: tuple[ColumnFile, ...] = ()
    beside: tuple[str, ...] = ()
    """Members that go beside the root image: xCAT's litefile.csv."""
    notes: tuple[str, ...] = ()


def is_xcat_manifest(name: str) -> bool:
    """True for `manifest.xml`, on top or in the one directory of xCAT's form."""
    return posixpath.basename(name) == xcat.FILE and name.count("/") <= 1


def content(small: Mapping[str, bytes], members: Collection[str], install: str) -> Content:
    """What the bundle with these small members, and these members altogether, holds. Raises RefusedError, IntegrityError.

    `install` is this site's install directory, for a bundle that has no rows of its own.
    """
    described = [name for name in small if name == cfg.FILE or is_xcat_manifest(name)]
    if not described:
        raise bad(
            f"the bundle has no {cfg.FILE}",
            hint="it is neither a bundle of Lithograph's or xcatexport's form, nor one of xCAT's imgexport",
            code="no-manifest",
        )
    if len(described) > 1:
        raise bad(
            f"the bundle has {len(described)} manifests: {', '.join(sorted(map(shown, described))[:4])}",
            hint="one image a bundle",
            code="bad-manifest",
        )
    made = _own(small, install) if described[0] == cfg.FILE else _foreign(described[0], small, members)
    _complete(made, members)
    return made


def _own(small: Mapping[str, bytes], install: str) -> Content:
    manifest = cfg.parse(small[cfg.FILE])
    if rows_of.FILE in small:
        rows = rows_of.parse(small[rows_of.FILE])
        rows_of.agree(rows, manifest)
        # What manifest.cfg requires stands in the rows, too, whatever tables.json left out.
        basis = rows_of.derived(manifest, rows.installdir).osimage
        said = {key: basis[key] for key in ("profile", "provmethod", "osvers", "osarch") if key in basis}
        rows = msgspec.structs.replace(rows, osimage={**rows.osimage, **said})
    else:
        rows = rows_of.derived(manifest, install)
    return Content(form="litho", manifest=manifest, rows=rows)


def _complete(made: Content, members: Collection[str]) -> None:
    for member in made.manifest.files():
        if member not in members:
            raise damaged(f"the manifest names {shown(member)}, which is not in the bundle")
        if member in SMALL:
            raise bad(f"the manifest names {shown(member)} as a file of the image", code="bad-manifest")
    taken = [posixpath.basename(member) for member in made.manifest.files()]
    if made.manifest.method != "install" and len(set(taken[:3])) != len(taken[:3]):
        raise bad("the manifest names one file for two purposes", code="bad-manifest")


def _foreign(where: str, small: Mapping[str, bytes], members: Collection[str]) -> Content:
    found = xcat.parse(small[where])
    folder = posixpath.dirname(where)
    prefix = folder + "/" if folder else ""
    cells = found.osimage
    name = cells.get("imagename") or found.linuximage.get("imagename", "")
    method = cells.get("provmethod", "")
    if method not in ("install", "netboot", "statelite"):
        raise bad(
            f"{xcat.FILE}: osimage.provmethod is {shown(method)}",
            hint="install, netboot and statelite can be imported here",
            code="bad-manifest",
        )

    def member(path: str, below: str = "") -> str:
        return prefix + below + posixpath.basename(path)

    values: dict[str, object] = {
        "name": name,
        "os": cells.get("osvers", ""),
        "arch": cells.get("osarch", ""),
        "profile": cells.get("profile", ""),
        "method": method,
        "media": found.media or method == "install",
    }
    beside: list[str] = []
    if method == "install":
        values["template"] = member(_need(found.linuximage, "linuximage.template"))
    else:
        rootimg = "rootimg" if method == "netboot" else "rootimgtree"
        for key, element in (("kernel", "kernel"), ("initrd", "ramdisk"), ("rootimg", rootimg)):
            values[key] = member(_need(found.files, element))
        if path := found.files.get("litefile"):
            beside.append(member(path))
    extras: list[Extra] = []
    for extra in found.extra:
        extras.extend(_extra(extra, prefix, members))
    manifest = cfg.check(msgspec.convert({**values, "extra": extras}, Manifest, from_attributes=True))
    columns = tuple(
        ColumnFile(table=table, column=column, path=path, member=member(path))
        for table, names in COLUMN_FILES.items()
        for column in names
        for path in getattr(found, table).get(column, "").split(",")
        if cfg.is_place(path) and member(path) in members
    )
    own = rows_of.checked(
        Rows(
            installdir="/install",
            osimage={key: value for key, value in cells.items() if key != rows_of.KEY},
            linuximage={key: value for key, value in found.linuximage.items() if key != rows_of.KEY},
        )
    )
    own.osimage.setdefault("imagetype", "linux")
    notes = ("litefile.csv was placed beside the root image; there is no litefile table here",) if beside else ()
    return Content(form="xcat", manifest=manifest, rows=own, columns=columns, beside=tuple(beside), notes=notes)


def _need(cells: Mapping[str, str], key: str) -> str:
    value = cells.get(key.rpartition(".")[2], "")
    if not value or "," in value:
        raise bad(f"{xcat.FILE}: {key} must name one file", code="bad-manifest")
    return value


def _extra(extra: xcat.XcatExtra, prefix: str, members: Collection[str]) -> list[Extra]:
    """xCAT puts a file flat below `extra/`, a directory below `extra/<its old path>/`, to be copied into the destination."""
    flat = f"{prefix}extra/{posixpath.basename(extra.src)}"
    if flat in members:
        return [Extra(flat, extra.dest)]
    folder = f"{prefix}extra/{extra.src.lstrip('/')}/"
    found = [
        Extra(name, posixpath.join(extra.dest, posixpath.dirname(name[len(folder) :])).rstrip("/"))
        for name in sorted(members)
        if name.startswith(folder)
    ]
    if not found:
        raise damaged(f"the manifest names the extra {shown(extra.src)}, which is not in the bundle")
    return found
