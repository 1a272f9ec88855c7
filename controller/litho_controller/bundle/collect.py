"""Finding what goes into a bundle: from the rows of an image to files on this machine. Blocks, and changes nothing.

A column that is needed and empty is named in the error. Where a row leaves a place open, it is where the seed puts it: the
template `<install>/custom/<os>/<arch>/<profile>.tmpl`, the files of a netboot image
`<install>/netboot/<os>/<arch>/<profile>/`.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from litho.errors import LithoError, NotFoundError, RefusedError, UsageError
from litho.library import ImageRef, Library
from litho.library import manifest as library_manifest
from litho_controller.bundle import captured, chunked, cpio
from litho_controller.bundle import manifest as cfg
from litho_controller.bundle import rows as rows_of
from litho_controller.bundle.faults import telling
from litho_controller.bundle.manifest import Extra, Manifest
from litho_controller.bundle.model import SMALL
from litho_controller.bundle.piece import Piece as Piece  # noqa: PLC0414 - exported from here
from litho_controller.bundle.piece import made as made  # noqa: PLC0414 - exported from here
from litho_controller.bundle.plan import INITRDS, KERNELS, ROOTIMGS, TREE
from litho_controller.bundle.rows import Cells, Rows
from litho_controller.bundle.site import Site
from litho_controller.bundle.tarwrite import packer
from litho_controller.tables.osimages import PROVMETHOD

_METHODS = ("install", "netboot", "statelite")
_PLACES = {"profile": "osimage.profile", "os": "osimage.osvers", "arch": "osimage.osarch"}

Row = Mapping[str, str | None]


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What will be in a bundle."""

    manifest: Manifest
    rows: Rows
    files: list[Piece]
    home: str = ""
    """The directory that the files of a netboot or statelite image lie in, or the template's path."""


def collect(
    ref: ImageRef,
    osimage: Row,
    linuximage: Row,
    extra: tuple[str, ...],
    *,
    site: Site,
    library: Library,
    scratch: Callable[[], Path],
) -> Collected:
    """What the bundle of this image holds; `scratch` makes a directory for what must be packed first.

    Raises NotFoundError, RefusedError, UsageError, LithoError.
    """
    if not osimage:
        raise NotFoundError(
            f"there is no osimage {ref.name}",
            hint="see what there is with: litho lsdef -t osimage",
            code="osimage-missing",
        )
    rows = rows_of.checked(
        Rows(installdir=site.install, osimage=rows_of.filled(osimage), linuximage=rows_of.filled(linuximage))
    )
    method = rows.osimage.get("provmethod", "")
    if _is_captured(ref, rows, library):
        found = _captured(ref, rows, library)
    elif method not in _METHODS:
        said = f"is {method!r}" if method else "is empty"
        raise _column(ref.name, "osimage.provmethod", said, "install, netboot and statelite can be exported")
    elif ref.version:
        raise UsageError(f"{ref.name} is no captured disk and has no versions", hint=f"export {ref.name}")
    else:
        base = {"name": ref.name, **{key: _needed(rows, ref.name, column) for key, column in _PLACES.items()}}
        found = _install(base, rows, site) if method == "install" else _netboot(base, rows, site, scratch)
    files = list(found.files)
    extras = []
    for text in extra:
        source, place = cfg.parse_extra(text)
        piece = piece_of(posixpath.basename(source), Path(source), f"the extra file {source}")
        files.append(piece)
        extras.append(Extra(piece.member, place))
    need_distinct(files)
    manifest = cfg.check(msgspec.structs.replace(found.manifest, extra=tuple(extras)))
    return msgspec.structs.replace(found, manifest=manifest, files=files)


def need_distinct(files: list[Piece]) -> None:
    """Refuse two files of one name, and names that a bundle itself has. Raises RefusedError."""
    seen: set[str] = set()
    for file in files:
        if file.member in seen or file.member in SMALL:
            raise RefusedError(
                f"two files of the bundle would be called {file.member}", hint="rename one of them", code="name-taken"
            )
        seen.add(file.member)


def _needed(rows: Rows, name: str, column: str) -> str:
    table, _, key = column.partition(".")
    value = rows.table(table).get(key, "")
    if not value:
        raise _column(name, column, "is empty", "fill it in, then export again")
    if not cfg.is_word(value):
        raise _column(name, column, f"is {value!r}, which cannot be part of a path", "")
    return value


def _column(name: str, column: str, problem: str, hint: str) -> RefusedError:
    return RefusedError(f"the osimage {name} cannot be exported: {column} {problem}", hint=hint, code="bad-osimage")


# ---------------------------------------------------------------- the methods


def _is_captured(ref: ImageRef, rows: Rows, library: Library) -> bool:
    plain = rows.osimage.get("provmethod") in (PROVMETHOD, "image") and "template" not in rows.linuximage
    return plain and bool(library.versions(ref.name))


def _captured(ref: ImageRef, rows: Rows, library: Library) -> Collected:
    stored = library.manifest(ref)
    indexes: dict[str, bytes] = {}
    packs: list[Piece] = []
    bundled = stored
    if chunked.has(stored):
        bundled, indexes, packs = chunked.outgoing(library, stored)
    bundled = captured.renamed(bundled, stored.image, captured.NUMBER)
    member = library_manifest_name(bundled)
    manifest = Manifest(
        name=ref.name,
        method="image",
        profile=rows.osimage.get("profile", "") or ref.name,
        os=rows.osimage.get("osvers", ""),
        arch=rows.osimage.get("osarch", ""),
        image=member,
    )
    files = [made(member, library_manifest.dump(bundled))]
    for old, new in zip(stored.files(), bundled.files(), strict=True):
        if old.file in indexes:
            files.append(made(new.file, indexes[old.file]))
            continue
        file = piece_of(new.file, library.root / old.file, f"the part {old.file}")
        if file.size != old.bytes:
            raise LithoError(
                f"{old.file} has {file.size} bytes and its manifest says {old.bytes}",
                hint=f"look at it with: litho image verify {ref}",
                code="corrupt",
            )
        # The library has promised it; the second look, while it is written, holds it to that.
        file.sha256 = old.sha256
        files.append(file)
    return Collected(manifest=manifest, rows=rows, files=[*files, *packs])


def library_manifest_name(manifest: library_manifest.Manifest) -> str:
    """What the library manifest is called in a bundle."""
    return f"{manifest.image}.v{manifest.version}.json"


def _install(base: Cells, rows: Rows, site: Site) -> Collected:
    usual = posixpath.join(site.custom(base["os"], base["arch"]), base["profile"] + ".tmpl")
    path = rows.linuximage.get("template") or usual
    if not Path(path).is_file():
        column = "linuximage.template"
        said = f"is {path}, which is no file" if "template" in rows.linuximage else f"is empty, and there is no {usual}"
        raise _column(base["name"], column, said, "name the template there")
    template = piece_of(posixpath.basename(path), Path(path), "the template")
    values = {**base, "method": "install", "template": template.member, "media": True}
    manifest = msgspec.convert(values, Manifest)
    return Collected(manifest=manifest, rows=rows, files=[template], home=path)


def _netboot(base: Cells, rows: Rows, site: Site, scratch: Callable[[], Path]) -> Collected:
    method = rows.osimage["provmethod"]
    home = Path(rows.linuximage.get("rootimgdir") or site.netboot(base["os"], base["arch"], base["profile"]))
    if not home.is_dir():
        raise _column(base["name"], "linuximage.rootimgdir", f"means {home}, which is no directory", "build the image")
    kernel = _first(home, KERNELS, "kernel")
    initrd = _first(home, INITRDS[method], "initial RAM disk")
    files = [piece_of(path.name, path, what) for path, what in ((kernel, "the kernel"), (initrd, "the initrd"))]
    try:
        rootimg = _first(home, ROOTIMGS, "packed root image")
    except NotFoundError:
        if method != "statelite" or not (home / TREE).is_dir():
            raise
        # A statelite node lives on the tree itself; nobody has packed it before.
        rootimg = scratch() / "rootimgtree.gz"
        with telling(rootimg), rootimg.open("wb", buffering=0) as file:
            cpio.pack(home / TREE, packer(file, "gzip"))
    files.append(piece_of(rootimg.name, rootimg, "the root image"))
    manifest = msgspec.convert(
        {**base, "method": method, "kernel": kernel.name, "initrd": initrd.name, "rootimg": rootimg.name},
        Manifest,
    )
    return Collected(manifest=manifest, rows=rows, files=files, home=str(home))


def _first(home: Path, usual: tuple[str, ...], what: str) -> Path:
    for name in usual:
        if (home / name).is_file():
            return home / name
    raise NotFoundError(
        f"there is no {what} in {home}", hint=f"it is called one of: {', '.join(usual)}", code="file-missing"
    )


def piece_of(member: str, path: Path, what: str) -> Piece:
    """A file on disk, to be called `member`. Raises NotFoundError, RefusedError, LithoError; `what` is its name in them."""
    if not cfg.is_member(member):
        raise RefusedError(
            f"{what} is called {member!r}, which cannot be in a bundle",
            hint="use letters, digits and . _ + @ % = , - in its name",
            code="bad-name",
        )
    with telling(path):
        if not path.is_file():
            raise NotFoundError(
                f"{what} is no file: {path}", hint="a directory is exported as a tar file of it", code="file-missing"
            )
        found = path.stat()
    return Piece(
        member=member, path=path, size=found.st_size, executable=bool(found.st_mode & 0o100), seen=_inode(found)
    )


def seen(path: Path) -> tuple[int, ...]:
    """What tells that a file is still the same: device, inode, size, and the times of its last changes. Raises LithoError."""
    with telling(path):
        return _inode(path.stat())


def _inode(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
