"""Boot files for sites whose nodes boot by TFTP: xnba (iPXE as xCAT has it), pxelinux, GRUB 2. Pure texts, and the hand that
writes.

    <tftpdir>/xcat/xnba/nodes/<node>            #!gpxe     #<state>     the node's script
    <tftpdir>/xcat/xnba/nodes/<node>.uefi       the same for UEFI
    <tftpdir>/pxelinux.cfg/01-<mac>             #<state>   one for each address of the node
    <tftpdir>/boot/grub2/grub.cfg-01-<mac>      #<state>
    ... and by the address in hexadecimal (0A000001) when hosts.ip says it

    <tftpdir>/xcat/osimage/<image>/             kernel and initrd of an osimage, for pxelinux and GRUB

noderes.netboot decides which: `xnba`, `pxe`, `grub2` (also `grub2-tftp`, `grub2-http`); nothing means xnba. The second line of
xnba's and the first of the others is the node's state, as xCAT's nodestat reads it. Paths and shapes of the files are those of
xCAT 2.19.

Every file is written under another name and renamed, so that a node that is just reading one gets it whole. The token of an armed
task is in it: TFTP has no passwords, and the file must be readable by the TFTP server's user. It is turned into a local boot
as soon as the task is claimed or ends.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
from pathlib import Path

import msgspec

from litho.errors import LithoError, UsageError
from litho.messages import is_name
from litho_controller.boot import ipxe, macs, plan
from litho_controller.boot.plan import Boot, Facts

XNBA, PXE, GRUB = "xnba", "pxe", "grub2"
FOLDERS = {XNBA: "xcat/xnba/nodes", PXE: "pxelinux.cfg", GRUB: "boot/grub2"}


class File(msgspec.Struct, frozen=True):
    """One boot file, by its path below the TFTP server's directory."""

    path: str
    text: str


def method(facts: Facts) -> str:
    """Which of the three the node boots by. Raises UsageError for one that is none."""
    word = facts.netboot.strip() or XNBA
    for known in (XNBA, PXE, GRUB):
        if word == known or (known == GRUB and word in ("grub2-tftp", "grub2-http")):
            return known
    raise UsageError(
        f"{facts.node} boots by {word[:40]!r}, for which no file can be written",
        hint="set noderes.netboot to xnba, pxe or grub2",
        code="bad-netboot",
    )


def files(facts: Facts, boot: Boot | None, *, state: str) -> list[File]:
    """The files of a node: the root image for `boot`, its own disk for None. `state` is the node's, in xCAT's words. Raises
    UsageError."""
    if not is_name(facts.node):
        raise UsageError(f"{facts.node[:80]!r} cannot be the name of a node", code="bad-node-name")
    kind, own = method(facts), macs.of_cell(facts.mac)
    folder, title = FOLDERS[kind], ipxe.shown(state)
    if kind == XNBA:
        bios, uefi = xnba(boot, title), xnba(boot, title, uefi=True)
        return [File(f"{folder}/{facts.node}", bios), File(f"{folder}/{facts.node}.uefi", uefi)]
    render = pxelinux if kind == PXE else grub
    stem = "grub.cfg-" if kind == GRUB else ""
    hexip, server = _hexip(facts.ip), plan.tftp_host(facts)
    found = [File(f"{folder}/{stem}01-{macs.hexhyp(mac)}", render(boot, title, mac, server)) for mac in own]
    # By the address of the network a node is looked for when no file has its card; the card that boots is not known there.
    if hexip and own:
        found.append(File(f"{folder}/{stem}{hexip}", render(boot, title, own[0], server)))
    return found


def xnba(boot: Boot | None, title: str, *, uefi: bool = False) -> str:
    """xCAT's own iPXE asks for it by the node's name. Why UEFI gets another end: see `ipxe`."""
    head = f"#!gpxe\n#{title}\n"
    if boot is None:
        return f"{head}{ipxe.EXIT if uefi else 'exit'}\n"
    return (
        f"{head}imgfetch -n kernel {boot.files}/{boot.kernel}\n"
        "imgload kernel\n"
        f"imgargs kernel initrd={boot.initrd_name} {boot.line('${netX/mac:hexhyp}')}\n"
        f"imgfetch -n {boot.initrd_name} {boot.files}/{boot.initrd}\n"
        "imgexec kernel\n"
    )


def pxelinux(boot: Boot | None, title: str, mac: str, server: str = "") -> str:
    """Kernel and initrd come by TFTP: not every pxelinux knows HTTP. `server` is another one than the node booted from."""
    head = f"#{title}\nDEFAULT xCAT\nLABEL xCAT\n"
    if boot is None:
        return f"{head} LOCALBOOT 0\n"
    folder = f"{server}::{boot.folder}" if server else boot.folder
    kernel, initrd = f"{folder}/{boot.kernel_name}", f"{folder}/{boot.initrd_name}"
    return f"{head} KERNEL {kernel}\n APPEND initrd={initrd} {boot.line(macs.hexhyp(mac))}\n"


def grub(boot: Boot | None, title: str, mac: str, server: str = "") -> str:
    """GRUB's own script; what is special to it stands in no word (`words.parse`). `server` as in `pxelinux`, in xCAT's form."""
    head = f"#{title}\nset timeout=5\n"
    if boot is None:
        return f'{head}menuentry "local" {{\n    exit\n}}\n'
    words = boot.line(macs.hexhyp(mac))
    kernel, initrd = f"/{boot.folder}/{boot.kernel_name}", f"/{boot.folder}/{boot.initrd_name}"
    root = f"set root=tftp,{server}\n" if server else ""
    return f'{head}{root}menuentry "{title}" {{\n    linux {kernel} {words}\n    initrd {initrd}\n}}\n'


def _hexip(text: str) -> str:
    """`0A000001` for 10.0.0.1; empty for anything that is no IPv4 address."""
    try:
        return f"{int(ipaddress.IPv4Address(text.strip())):08X}"
    except ValueError:
        return ""


class TftpFiles:
    """The TFTP server's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def share(self, folder: str, found: list[Path]) -> None:
        """Let `folder` have copies of these files under their own names. Blocks. Raises LithoError."""
        for source in found:
            path = self._directory / folder / source.name
            beside = path.with_name(f".{path.name}.new")
            try:
                new = source.stat()
                with contextlib.suppress(FileNotFoundError):
                    old = path.stat()
                    if (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
                        continue
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                beside.unlink(missing_ok=True)
                shutil.copyfile(source, beside)
                beside.chmod(0o644)
                os.utime(beside, ns=(new.st_atime_ns, new.st_mtime_ns))
                beside.rename(path)
            except OSError as exc:
                raise _error(path, exc) from exc

    def write(self, found: list[File]) -> None:
        """Put files in their places. Blocks. Raises LithoError."""
        for one in found:
            path = self._directory / one.path
            beside = path.with_name(f".{path.name}.new")
            try:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                beside.unlink(missing_ok=True)
                fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                with os.fdopen(fd, "w") as file:
                    os.fchmod(fd, 0o644)
                    file.write(one.text)
                beside.rename(path)
            except OSError as exc:
                raise _error(path, exc) from exc


def _error(path: Path, exc: OSError) -> LithoError:
    return LithoError(
        f"the boot file {path} cannot be written ({exc.strerror or exc})",
        hint="check the rights and the space of boot.tftpdir",
        code="boot-file",
    )
