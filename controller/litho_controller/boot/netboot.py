"""What a node boots that is set to an osimage of xCAT's methods: netboot, statelite, install.

`locate` finds the image's files on this machine and says what is missing; `boot` makes of them what one node boots. Files are
where xCAT and an import put them:

    netboot     <install>/netboot/<os>/<arch>/<profile>/    kernel, initrd-stateless.gz, rootimg.tar.gz (or cpio.gz, ...)
    statelite   the same with initrd-statelite.gz and the tree rootimg/, which the node mounts by NFS
    install     <install>/<os>/<arch>/                      the media, as copycds leaves them; the template becomes the answer
                                                            file of each node (`litho_controller.boot.autoinst`)

linuximage.rootimgdir may name another directory below installdir. Nodes fetch over HTTP, from `/install/` on the nodes' door,
whatever installdir is: the address that xCAT's own initrds and templates expect.

The words are xCAT's: `imgurl=` (or `root=nfs:`, `NFSROOT=`) and `XCAT= NODE= FC= XCATHTTPPORT=` for its dracut modules,
`inst.repo= inst.ks=`, `install= autoyast=` or `url=` for installers; then consoles, and the administrator's own words of
linuximage.addkcmdline and bootparams.addkcmdline last. Source of the words: xCAT 2.19 (anaconda.pm, sles.pm, debian.pm).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from litho.errors import NotFoundError, RefusedError
from litho.library import names
from litho_controller.boot import plan, words
from litho_controller.boot.plan import Boot, Facts
from litho_controller.bundle.manifest import is_word
from litho_controller.bundle.plan import INITRDS, KERNELS, ROOTIMGS, TREE
from litho_controller.bundle.site import Site

STATUS = {"netboot": "netbooting", "statelite": "netbooting", "install": "installing"}
"""nodelist.status of a node that has fetched its boot script, in xCAT's words."""
ROOT = "install"
"""First level of the addresses under which nodes fetch what lies below installdir."""
PACKED = tuple(name for name in ROOTIMGS if name.startswith("rootimg."))
LITE = "rootimg-statelite.gz"
MEDIA = (
    ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"),
    ("boot/{arch}/loader/linux", "boot/{arch}/loader/initrd"),
    ("1/boot/{arch}/loader/linux", "1/boot/{arch}/loader/initrd"),
    ("install/netboot/ubuntu-installer/{deb}/linux", "install/netboot/ubuntu-installer/{deb}/initrd.gz"),
    ("install/netboot/debian-installer/{deb}/linux", "install/netboot/debian-installer/{deb}/initrd.gz"),
)
"""Where media have their installer's kernel and initrd: Red Hat's, SUSE's (two layouts of copycds), Ubuntu's, Debian's."""

NO_MEDIA = ("netboot", "custom", "autoinst", "image", "postscripts", "prescripts", "kits", "sysclone", "winpostscripts")
"""Directories of installdir that are no system's media, whatever a row says: all of an image's media is given out, and these
hold other images' root trees, templates and captured disks."""

_PATH = re.compile(r"(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)+", re.ASCII)
_DRACUT = {"rhels": 6, "rhel": 6, "centos": 6, "SL": 6, "fedora": 12}
"""From which release on the system's initrd is dracut's, which mounts by `root=nfs:`; older ones know NFSROOT=."""
_RED_HAT_OLD = ("rhels", "rhel", "rhelhpc", "centos", "SL")
_RELEASE = re.compile(r"([A-Za-z]+)[ -]?([0-9]+)", re.ASCII)

Row = Mapping[str, str | None]


class OsImage(msgspec.Struct, frozen=True, kw_only=True):
    """An osimage whose files are there."""

    name: str
    method: str
    os: str
    arch: str
    profile: str
    home: str
    """The directory that its files lie in: of the profile, or of the media."""
    path: str
    """The same as nodes ask for it: `/install/netboot/rhels5.4/x86_64/foo`."""
    kernel: str
    """Below `home`, like `initrd` and `rootimg`."""
    initrd: str
    rootimg: str = ""
    """The packed root image that the node fetches; empty where it fetches none."""
    template: str = ""
    """Path of an install image's template."""
    addkcmdline: str = ""
    rootfstype: str = ""
    nfsrootopts: str = ""

    @property
    def state(self) -> str:
        """What a node is set to, in xCAT's words: `netboot rhels5.4-x86_64-foo`."""
        return f"{self.method} {self.os}-{self.arch}-{self.profile}"

    @property
    def files(self) -> tuple[str, ...]:
        """What nodes may fetch of a profile's directory."""
        return tuple(name for name in (self.kernel, self.initrd, self.rootimg) if name)


def method_of(osimage: Row, linuximage: Row, *, captured: bool) -> str:
    """`netboot`, `statelite` or `install` for an image that nodes boot by itself; empty for everything else. Pure.

    With provmethod=install it is the template that tells an image of an installer from a captured disk; `captured`: the
    library has an image of that name.
    """
    method = osimage.get("provmethod") or ""
    if method in ("netboot", "statelite"):
        return method
    return method if method == "install" and not captured and linuximage.get("template") else ""


def home_of(osimage: Row, linuximage: Row, site: Site) -> str:
    """The directory of an image's files, whether or not it is there; empty when the rows do not say it. Pure."""
    os, arch, profile = (osimage.get(column) or "" for column in ("osvers", "osarch", "profile"))
    if osimage.get("provmethod") == "install":
        return posixpath.join(site.install, os, arch) if is_word(os) and is_word(arch) else ""
    if named := (linuximage.get("rootimgdir") or "").rstrip("/"):
        return named
    return site.netboot(os, arch, profile) if all(map(is_word, (os, arch, profile))) else ""


def locate(name: str, osimage: Row, linuximage: Row, site: Site) -> OsImage:
    """The image of these rows with its files. Blocks. Raises NotFoundError, RefusedError: what is missing, and where."""
    said = {}
    for key, column in (("os", "osvers"), ("arch", "osarch"), ("profile", "profile")):
        said[key] = osimage.get(column) or ""
        if not is_word(said[key]):
            what = f"is {said[key][:80]!r}" if said[key] else "is empty"
            raise _refused(name, f"osimage.{column} {what}", f"chdef -t osimage {name} {column}=...")
    method, home = osimage.get("provmethod") or "", home_of(osimage, linuximage, site)
    if not names.is_name(name):
        raise _refused(name[:100], "that is no name of an image", "define it anew under another name")
    if method == "install" and said["os"] in NO_MEDIA:
        raise _refused(
            name, f"osimage.osvers is {said['os']!r}, and {home} holds no media", "name the system, such as rhels9.2"
        )
    if not _PATH.fullmatch(home) or not home.startswith(site.install + "/"):
        raise _refused(
            name, f"its files are in {home[:200]}, and nodes fetch from below {site.install} only", "move them there"
        )
    if method == "install":
        kernel, initrd = _media(name, Path(home), said["os"], said["arch"])
        rootimg, template = "", _template(name, linuximage)
    else:
        folder = Path(home)
        if not folder.is_dir():
            raise _missing(
                name, f"its directory {home} is not there", "import or build the image, or correct rootimgdir"
            )
        kernel = _first(name, folder, KERNELS, "kernel")
        initrd = _first(name, folder, INITRDS[method], "initrd")
        rootimg, template = _root(name, folder, method, osimage.get("rootfstype") or ""), ""
    return OsImage(
        name=name,
        method=method,
        home=home,
        path=f"/{ROOT}{home[len(site.install) :]}",
        kernel=kernel,
        initrd=initrd,
        rootimg=rootimg,
        template=template,
        addkcmdline=linuximage.get("addkcmdline") or "",
        rootfstype=osimage.get("rootfstype") or "",
        nfsrootopts=osimage.get("nfsrootopts") or "",
        **said,
    )


def _root(name: str, folder: Path, method: str, rootfstype: str) -> str:
    if method == "netboot":
        return _first(name, folder, PACKED, "packed root image")
    if rootfstype == "ramdisk":
        return _first(name, folder, (LITE,), "packed root image")
    if not (folder / TREE).is_dir():
        raise _missing(name, f"there is no tree {folder / TREE} that a node could mount", "import or build the image")
    return ""


def _template(name: str, linuximage: Row) -> str:
    path = linuximage.get("template") or ""
    if not Path(path).is_file():
        raise _missing(name, f"its template {path[:200] or '(none)'} is no file", "correct linuximage.template")
    return path


def _media(name: str, folder: Path, os: str, arch: str) -> tuple[str, str]:
    if not folder.is_dir():
        raise RefusedError(
            f"the osimage {name} installs from the media of {os} {arch}, and they are not in {folder}",
            hint="run copycds with them first",
            code="media-missing",
        )
    deb = {"x86_64": "amd64", "aarch64": "arm64"}.get(arch, arch)
    for pair in MEDIA:
        kernel, initrd = (one.format(arch=arch, deb=deb) for one in pair)
        if (folder / kernel).is_file() and (folder / initrd).is_file():
            return kernel, initrd
    raise _missing(
        name,
        f"the media in {folder} have no installer's kernel and initrd in a known place",
        "run copycds again; known are " + ", ".join(kernel for kernel, _ in MEDIA),
    )


def _first(name: str, folder: Path, usual: tuple[str, ...], what: str) -> str:
    for one in usual:
        if (folder / one).is_file():
            return one
    raise _missing(name, f"there is no {what} in {folder}", f"it is called one of: {', '.join(usual)}")


def _missing(name: str, what: str, hint: str) -> NotFoundError:
    return NotFoundError(f"no node can boot the osimage {name}: {what}", hint=hint, code="osimage-files")


def _refused(name: str, what: str, hint: str) -> RefusedError:
    return RefusedError(f"no node can boot the osimage {name}: {what}", hint=hint, code="bad-osimage")


# ---------------------------------------------------------------- what one node boots


def boot(image: OsImage, facts: Facts, *, url: str, keys: Mapping[str, str]) -> Boot:
    """What a node boots of an image. Pure. `url` is the controller's, `keys` those of the site table. Raises UsageError for what
    cannot stand on a command line."""
    base = plan.for_host(url, facts.xcatmaster)
    own = (
        *words.parse(image.addkcmdline, of=f"linuximage.addkcmdline of {image.name}"),
        *words.parse(facts.addkcmdline, of=f"bootparams.addkcmdline of {facts.node}"),
    )
    said = _installer(image, facts, base) if image.method == "install" else _root_words(image, facts, base, keys)
    return Boot(
        node=facts.node,
        title=image.state,
        files=f"{base}{image.path}",
        kernel=image.kernel,
        initrd=image.initrd,
        folder=f"xcat/osimage/{image.name}",
        called=image.name,
        words=(*said, *plan.consoles(facts), *own),
        card=plan.card(facts),
    )


def _installer(image: OsImage, facts: Facts, base: str) -> tuple[str, ...]:
    repo, answers = f"{base}{image.path}", f"{base}/{ROOT}/autoinst/{facts.node}"
    family, release = release_of(image.os)
    if "/loader/" in image.kernel:
        medium = "/1" if image.kernel.startswith("1/") else ""
        return (f"autoyast={answers}", f"install={repo}{medium}", "netsetup=dhcp,all")
    if image.kernel.startswith("install/netboot/"):
        return (f"url={answers}", "auto=true", "priority=critical", f"hostname={facts.node}")
    # Red Hat's installer takes the words without `inst.` up to release 8, and those with it from 7 on.
    if family in _RED_HAT_OLD and release < 7:
        return (f"repo={repo}", f"ks={answers}", "quiet")
    return (f"inst.repo={repo}", f"inst.ks={answers}", "quiet")


def _root_words(image: OsImage, facts: Facts, base: str, keys: Mapping[str, str]) -> tuple[str, ...]:
    flow = "1" if keys.get("useflowcontrol", "").lower() in ("1", "yes", "y") else "0"
    port = keys.get("xcatdport", "")
    where = urlsplit(base)
    host = where.hostname or ""
    found = [f"imgurl={base}{image.path}/{image.rootimg}" if image.rootimg else _nfs(image, facts, host)]
    if image.method == "statelite":
        found.append("STATEMNT=")
    shown = f"[{host}]" if ":" in host else host
    found.append(f"XCAT={shown}:{port if re.fullmatch('[0-9]{1,5}', port, re.ASCII) else '3001'}")
    found += [f"NODE={facts.node}", f"FC={flow}", f"XCATHTTPPORT={where.port or 80}"]
    if image.method == "statelite" and image.nfsrootopts:
        found += words.parse(f"MNTOPTS={image.nfsrootopts}", of=f"osimage.nfsrootopts of {image.name}")
    return tuple(found)


def _nfs(image: OsImage, facts: Facts, host: str) -> str:
    """Where the tree is mounted from: noderes.nfsserver and nfsdir, else the controller's host and the image's own directory."""
    server = facts.nfsserver.strip()
    server = plan.bracketed(host if server in ("", plan.MASTER) else server)
    folder = image.home
    if top := facts.nfsdir.strip():
        folder = (
            top[1:] if top.startswith("//") else f"{top.rstrip('/')}/netboot/{image.os}/{image.arch}/{image.profile}"
        )
    family, release = release_of(image.os)
    old = release < _DRACUT.get(family, 0)
    word = f"NFSROOT={server}:{folder}" if old else f"root=nfs:{server}:{folder}/{TREE}:ro"
    return " ".join(words.parse(word, of=f"noderes.nfsserver and nfsdir of {facts.node}"))


def release_of(os: str) -> tuple[str, int]:
    """`rhels5.4` -> (`rhels`, 5); release 0 for a name without a number. Pure."""
    found = _RELEASE.match(os)
    return (found[1], int(found[2])) if found else (os, 0)
