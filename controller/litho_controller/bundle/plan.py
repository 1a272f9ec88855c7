"""What goes where: the rule that turns a bundle's content into places and rows. Pure.

    template            <install>/custom/<os>/<arch>/<file>
    kernel and so on    <install>/netboot/<os>/<arch>/<profile>/, with the root image expanded beside it in `rootimg`
    extra FILE:PATH     PATH/<file>, below an allowed root; not among media and other profiles unless the bundle is trusted
    xCAT's column files where they were, when that is below an allowed root, else <install>/custom/<os>/<arch>/<profile>/<file>

The directory of a profile is placed as a whole, by one rename: a node never finds the new kernel beside the old root image.
Files whose names nobody would find there again (a kernel called `bzImage-6.1`) are given the usual ones.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Literal

import msgspec

from litho.library import names
from litho_controller.bundle import rows as rows_of
from litho_controller.bundle.faults import bad, shown
from litho_controller.bundle.manifest import Manifest
from litho_controller.bundle.model import Content
from litho_controller.bundle.rows import Cells
from litho_controller.bundle.site import Site

KERNELS = ("kernel", "vmlinuz", "vmlinux")
INITRDS = {
    "netboot": ("initrd-stateless.gz", "initrd.gz", "initrd.img", "initrd"),
    "statelite": ("initrd-statelite.gz", "initrd.gz", "initrd.img", "initrd"),
}
ROOTIMGS = (
    *("rootimg.tar.xz", "rootimg.tar.gz", "rootimg.cpio.xz", "rootimg.cpio.gz", "rootimg.gz", "rootimg.sfs"),
    *("rootimg.tar.zst", "rootimg.cpio.zst", "rootimgtree.gz"),
)
"""What the files in a profile's directory are called, best first (the first six in the order of xCAT's own choice)."""
ARCHES = frozenset(
    {
        *("x86_64", "amd64", "x86", "i386", "i486", "i586", "i686", "aarch64", "arm64", "armhf", "armv7l"),
        *("ppc", "ppc64", "ppc64le", "ppc64el", "s390", "s390x", "ia64", "riscv64"),
    }
)
"""Second levels of the directories in which copycds leaves installation media, `<install>/<os>/<arch>`."""
TREE = "rootimg"
"""The expanded root image, beside the packed one."""


class Inner(msgspec.Struct, frozen=True):
    """A file in a profile's directory."""

    member: str
    path: str
    """Below the directory; empty for a root image whose name must be found from its content."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that appears: a file, or a profile's directory."""

    kind: Literal["file", "profile"]
    target: str
    member: str = ""
    """Of a file."""
    inner: tuple[Inner, ...] = ()
    """Of a profile's directory."""
    expand: str = ""
    """The member that is expanded into its `rootimg`."""
    executable: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an import will do."""

    name: str
    method: str
    form: str
    placed: tuple[Placed, ...]
    osimage: Cells
    linuximage: Cells
    image: str = ""
    """Method image: the member that is the library manifest."""
    media: str = ""
    """The directory in which copycds leaves the installation media that the image needs."""
    notes: tuple[str, ...] = ()


def plan(
    content: Content, site: Site, *, executable: Mapping[str, bool], rename: str = "", trusted: bool = False
) -> Plan:
    """What importing `content` does at `site`. `executable` has every member. Raises RefusedError, UsageError.

    `rename` is the image's new name, which becomes its profile, too; `trusted`: take guarded columns (see `rows`).
    """
    manifest = content.manifest
    if rename:
        names.check_name(rename)
        manifest = msgspec.structs.replace(manifest, name=rename, profile=rename)
    notes = list(content.notes)
    fixed: Cells = {}
    placed: list[Placed] = []
    inner: list[Inner] = []
    home = site.netboot(manifest.os, manifest.arch, manifest.profile)
    if manifest.method == "install":
        target = _template(manifest, site, renamed=bool(rename))
        placed.append(Placed(kind="file", target=target, member=manifest.template))
        fixed["template"] = target
    elif manifest.method != "image":
        inner, told = _profile(manifest, content.beside)
        notes += told
        fixed["rootimgdir"] = home
    columns = _columns(content, manifest, site, trusted=trusted)
    placed += [place for place, _, _ in columns]
    for extra in manifest.extra:
        target = posixpath.join(extra.path, posixpath.basename(extra.file))
        placed.append(Placed(kind="file", target=target, member=extra.file, executable=executable[extra.file]))
    if not trusted:
        _refuse_others(placed, home, site)
    placed, into_home = _sorted_out(placed, home if inner else "", site)
    if inner:
        whole = Placed(kind="profile", target=home, inner=(*inner, *into_home), expand=manifest.rootimg)
        _need_distinct([one.path for one in whole.inner if one.path])
        placed.insert(0, whole)
    _need_distinct([one.target for one in placed])
    osimage, linuximage, left_out = rows_of.taken(
        _rows(content, columns, manifest, site), install=site.install, roots=site.roots, trusted=trusted, fixed=fixed
    )
    media = posixpath.join(site.install, manifest.os, manifest.arch) if manifest.media else ""
    return Plan(
        name=manifest.name,
        method=manifest.method,
        form=content.form,
        placed=tuple(placed),
        osimage={**osimage, "profile": manifest.profile},
        linuximage=linuximage,
        image=manifest.image,
        media=media,
        notes=(*notes, *left_out),
    )


def _template(manifest: Manifest, site: Site, *, renamed: bool) -> str:
    base = posixpath.basename(manifest.template)
    if renamed:
        base = manifest.name + posixpath.splitext(base)[1]
    return posixpath.join(site.custom(manifest.os, manifest.arch), base)


def _profile(manifest: Manifest, beside: tuple[str, ...]) -> tuple[list[Inner], list[str]]:
    notes = []
    inner = []
    initrds = INITRDS[manifest.method]
    for what, member, usual in (("kernel", manifest.kernel, KERNELS), ("initrd", manifest.initrd, initrds)):
        base = posixpath.basename(member)
        if base not in usual:
            notes.append(f"{base} was placed as {usual[0]}, the name by which a {what} is found")
            base = usual[0]
        inner.append(Inner(member, base))
    base = posixpath.basename(manifest.rootimg)
    inner.append(Inner(manifest.rootimg, base if base in ROOTIMGS else ""))
    inner += [Inner(member, posixpath.basename(member)) for member in beside]
    return inner, notes


def _columns(
    content: Content, manifest: Manifest, site: Site, *, trusted: bool
) -> list[tuple[Placed, tuple[str, str], tuple[str, str]]]:
    """xCAT's column files: where each goes, its column, and how the column's value changes."""
    found = []
    known: dict[str, str] = {}
    for file in content.columns:
        if file.column in rows_of.GUARDED[file.table] and not trusted:
            continue
        here = rows_of.rebased(file.path, content.rows.installdir, site.install)
        if not rows_of.below(here, site.roots):
            own = posixpath.join(site.custom(manifest.os, manifest.arch), manifest.profile)
            here = posixpath.join(own, posixpath.basename(file.path))
        change = ((file.table, file.column), (file.path, here))
        if here not in known:
            found.append((Placed(kind="file", target=here, member=file.member), *change))
            known[here] = file.member
    return found


def _rows(
    content: Content,
    columns: list[tuple[Placed, tuple[str, str], tuple[str, str]]],
    manifest: Manifest,
    site: Site,
) -> rows_of.Rows:
    """The bundle's rows with the paths of column files as they will be."""
    tables = {"osimage": dict(content.rows.osimage), "linuximage": dict(content.rows.linuximage)}
    for _, (table, column), (old, new) in columns:
        words = tables[table][column].split(",")
        tables[table][column] = ",".join(new if word == old else word for word in words)
    basis = rows_of.derived(manifest, site.install)
    return msgspec.structs.replace(
        content.rows,
        osimage={**basis.osimage, **tables["osimage"]} if content.form == "xcat" else tables["osimage"],
        linuximage={**basis.linuximage, **tables["linuximage"]} if content.form == "xcat" else tables["linuximage"],
    )


def _sorted_out(placed: list[Placed], home: str, site: Site) -> tuple[list[Placed], list[Inner]]:
    """Which files go on their own, and which into the profile's directory. Raises RefusedError for a place that is not
    allowed.
    """
    own: list[Placed] = []
    into_home: list[Inner] = []
    for one in placed:
        if not rows_of.below(one.target, site.roots) or one.target in site.roots:
            raise bad(
                f"the bundle wants to place {shown(posixpath.basename(one.target))} in "
                f"{shown(posixpath.dirname(one.target))}, which is outside of {', '.join(site.roots)}",
                hint="the site key bundleroots lists what is allowed",
                code="bundle-escape",
            )
        if home and one.target.startswith(home + "/"):
            path = one.target[len(home) + 1 :]
            if path == TREE or path.startswith(TREE + "/"):
                raise bad(
                    f"the bundle wants to place {shown(path)} inside the expanded root image",
                    hint="it belongs into the root image itself",
                    code="bundle-escape",
                )
            into_home.append(Inner(one.member, path))
        else:
            own.append(one)
    return own, into_home


def _refuse_others(placed: list[Placed], home: str, site: Site) -> None:
    """Raise RefusedError for a file that would come to lie among another system's: one that a stranger adds to installation
    media or to a profile would be installed and booted on nodes that have nothing to do with the bundle."""
    for one in placed:
        level = (
            one.target.removeprefix(site.install + "/").split("/") if one.target.startswith(site.install + "/") else []
        )
        media = len(level) > 2 and level[0] != "custom" and level[1] in ARCHES
        profile = len(level) > 1 and level[0] == "netboot" and not one.target.startswith(home + "/")
        if media or profile:
            what = "the installation media" if media else "what other images boot"
            raise bad(
                f"the bundle wants to place {shown(posixpath.basename(one.target))} in "
                f"{shown(posixpath.dirname(one.target))}, among {what}",
                hint="only a bundle that a trusted key has signed may do that, or one imported with --all-columns",
                code="bundle-escape",
            )


def _need_distinct(targets: list[str]) -> None:
    """No target twice, and none inside of another. Raises RefusedError."""
    known = set(targets)
    if len(known) != len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise bad(f"the bundle wants to place two files as {shown(twice)}", code="bad-bundle")
    for target in targets:
        above = posixpath.dirname(target)
        while above not in ("", "/"):
            if above in known:
                raise bad(f"the bundle wants to place {shown(target)} below a file", code="bad-bundle")
            above = posixpath.dirname(above)
