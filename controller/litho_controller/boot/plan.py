"""Kernel, initrd and words of one node's boot, before any boot loader's syntax. Pure.

The order of the words follows xCAT's netboot line: where the root image is, which card, consoles, and the administrator's own
last, so that they win where the last one wins.

| word | from |
|---|---|
| litho.rootimg=URL | the controller's boot files |
| BOOTIF=01-MAC | the card that boots, or an address in noderes.installnic or primarynic |
| netdev=NIC | a card's name there |
| console=tty0 console=ttySn,SPEED[n8r] | nodehm.serialport, serialspeed, serialflow |
| boot.kcmdline | settings |
| litho.controller, node, task, token | the armed task |
| bootparams.addkcmdline | the node, or its first group that has it |
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from urllib.parse import urlsplit, urlunsplit

import msgspec

from litho.errors import UsageError
from litho_controller.boot import macs

KERNEL, INITRD, ROOTIMG = "vmlinuz", "initrd.img", "rootimg.squashfs"
"""Names of the files as the root image's build makes them."""
IMAGE = "xcat/image/x86"
"""Where kernel and initrd lie below the TFTP server's directory, as the root image's xCAT layout has them."""
MASTER = "<xcatmaster>"
"""In a cell of noderes that names a server: the controller as the node knows it."""

_NIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})|[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*", re.ASCII)
_TFTP_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)
_PORT = re.compile(r"(?:ttyS)?([0-9]{1,2})", re.ASCII)
_SPEED = re.compile(r"[0-9]{2,7}", re.ASCII)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What xCAT's tables say of a node's boot; the empty text where they say nothing."""

    node: str
    mac: str = ""
    addkcmdline: str = ""
    installnic: str = ""
    primarynic: str = ""
    xcatmaster: str = ""
    nfsserver: str = ""
    nfsdir: str = ""
    tftpserver: str = ""
    netboot: str = ""
    serialport: str = ""
    serialspeed: str = ""
    serialflow: str = ""
    ip: str = ""
    provmethod: str = ""
    """The osimage that the node is set to, where it is set to one of xCAT's own methods."""


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What one node boots: the root image with these words."""

    node: str
    title: str
    """For a person at the console: `install image-x86-golden`. Also the first comment of a boot file, which xCAT's tools read."""
    files: str
    """URL of the directory below which kernel and initrd lie."""
    kernel: str = KERNEL
    """Below `files`; the name behind the last slash is what it is called in `folder`."""
    initrd: str = INITRD
    folder: str = IMAGE
    """Where both lie below a TFTP server's directory."""
    called: str = "the root image"
    """What is said of it on the console."""
    words: tuple[str, ...]
    """Of the kernel command line, without the card."""
    card: str = ""
    """`netdev=eth1` or `BOOTIF=01-...` when the tables name one; empty: the card that boots, which the loader knows."""

    @property
    def initrd_name(self) -> str:
        """What loaders call the initrd."""
        return self.initrd.rpartition("/")[2]

    @property
    def kernel_name(self) -> str:
        """What the kernel is called in `folder`."""
        return self.kernel.rpartition("/")[2]

    def line(self, mac: str = "") -> str:
        """The command line; `mac` is the card that boots, or a loader's own word for it."""
        card = self.card or (f"BOOTIF=01-{mac}" if mac else "")
        return " ".join((self.words[0], *([card] if card else []), *self.words[1:]))


def for_host(url: str, host: str) -> str:
    """`url` with another host and the same port: the controller as this node knows it (noderes.xcatmaster). Raises UsageError."""
    name = host.strip()
    if not name:
        return url
    if not _HOST.fullmatch(name):
        raise UsageError(f"{name[:80]!r} cannot be a host", hint="correct noderes.xcatmaster", code="bad-cmdline")
    parts = urlsplit(url)
    shown = f"[{name}]" if ":" in name else name
    return urlunsplit(parts._replace(netloc=f"{shown}:{parts.port}" if parts.port else shown))


def server(name: str, url: str, xcatmaster: str) -> str:
    """A cell that names a server, with xCAT's `<xcatmaster>` in it settled: the controller as the node knows it. `url` is the
    controller's. Raises UsageError."""
    if name.strip() != MASTER:
        return name.strip()
    return urlsplit(for_host(url, xcatmaster)).hostname or ""


def bracketed(server: str) -> str:
    """A server's name as it stands before a colon: an IPv6 address in brackets, `[fd00::1]`, anything else as it is. Pure."""
    with contextlib.suppress(ValueError):
        return f"[{ipaddress.IPv6Address(server)}]"
    return server


def tftp_host(facts: Facts) -> str:
    """From which TFTP server the node takes kernel and initrd, as it knows it (noderes.tftpserver); empty means the one that it
    booted from, and so does xCAT's `<xcatmaster>`. Raises UsageError."""
    name = facts.tftpserver.strip()
    if name in ("", MASTER):
        return ""
    if not _TFTP_HOST.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} cannot be the TFTP server of {facts.node}",
            hint="write its IPv4 address or name into noderes.tftpserver",
            code="bad-cmdline",
        )
    return name


def card(facts: Facts) -> str:
    """The word that names the card, from installnic or primarynic: a name, an address, or empty (also for `mac`). Raises
    UsageError."""
    text = facts.installnic.strip() or facts.primarynic.strip()
    if text in ("", "mac"):
        return ""
    mac = macs.normal(text)
    if mac:
        return f"BOOTIF=01-{macs.hexhyp(mac)}"
    if not _NIC.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r} cannot be a network card of {facts.node}",
            hint="write its name, its MAC address or `mac` into noderes.installnic",
            code="bad-cmdline",
        )
    return f"netdev={text}"


def consoles(facts: Facts) -> tuple[str, ...]:
    """The console words; none when nodehm names no serial port. Raises UsageError."""
    port = facts.serialport.strip()
    if not port:
        return ()
    number, speed = _PORT.fullmatch(port), facts.serialspeed.strip() or "115200"
    if number is None or not _SPEED.fullmatch(speed):
        raise UsageError(
            f"the serial console of {facts.node} is no port and speed: {port[:40]!r}, {speed[:40]!r}",
            hint="write a number into nodehm.serialport and serialspeed, as 0 and 115200",
            code="bad-cmdline",
        )
    flow = "n8r" if facts.serialflow.strip() in ("hard", "cts", "ctsrts") else ""
    return ("console=tty0", f"console=ttyS{int(number[1])},{speed}{flow}")


def boot(facts: Facts, *, title: str, url: str, common: tuple[str, ...], own: tuple[str, ...]) -> Boot:
    """The boot of one node. `url` is the controller's, `common` boot.kcmdline, `own` the agent's words and the node's.

    Raises UsageError when the tables hold what cannot stand on a command line.
    """
    files = f"{for_host(url, facts.xcatmaster)}/boot/files"
    return Boot(
        node=facts.node,
        title=title,
        files=files,
        words=(f"litho.rootimg={files}/{ROOTIMG}", *consoles(facts), *common, *own),
        card=card(facts),
    )
