"""Scripts for iPXE. Pure: what is asked, and what is answered.

    first        one fixed address for DHCP; it goes on to the script of the card that boots
    armed        kernel, initrd, words: the node's task waits for it
    again        ask once more in a while: another answer is on its way
    local        its own disk
    menu         a machine that no node is: its own disk, or show itself to the controller
    discover     the root image without a task

iPXE (1.0.0+git-20190125 as in Debian 12, and newer) cuts a line at blanks, replaces `${...}`, and takes `||`, `&&`, `;` and
`#` as words of its own; it has no quotes. What goes into a line here consists of words that `words.parse` or a check of this
project has let through, and `_line` holds that once more, so that no table's cell can add a line or a command.

How a machine gets to its own disk: `exit 1` gives it back to the firmware, which takes the next entry of its boot order. The 1
is for UEFI: a boot option that ends well ends the boot order with it, and the machine stands in its setup (seen with OVMF
2022.11); one that fails is followed by the next. A BIOS knows no such code. For a BIOS that starts anew or hangs there is
`sanboot --drive 0x80`, the first disk, started by iPXE itself. A kernel that cannot be fetched does not send a node with a task
to its disk: the script asks again.
"""

from __future__ import annotations

import re

from litho_controller.boot import macs
from litho_controller.boot.plan import Boot

EXIT = "exit 1"
RETRY_S = 5
MENU_MS = 10_000
_SAFE = re.compile(r"[A-Za-z0-9_.,:=/+@%\[\]!*?^~ ()-]*", re.ASCII)


def first(base: str) -> str:
    """The one address that DHCP hands out. `netX` is the card that iPXE opened last, so the one with the lease."""
    return _script(
        "lithograph: the card that boots says who it is",
        f"chain --replace {base}/boot/${{netX/mac:hexhyp}}.ipxe || chain --replace {base}/boot/${{net0/mac:hexhyp}}.ipxe ||",
        EXIT,
        expands=True,
    )


def armed(boot: Boot, *, mac: str, base: str, tell: str) -> str:
    """The root image with a task."""
    return _script(boot.title, *_start(boot, mac=mac, base=base, tell=tell))


def again(*, title: str, mac: str, base: str, tell: str, pause_s: int = RETRY_S) -> str:
    """Ask again after a while."""
    return _script(title, f"echo lithograph: {shown(tell)}", f"sleep {pause_s}", *_ask(mac, base))


def local(*, title: str, tell: str, sanboot: bool) -> str:
    """The machine's own disk."""
    return _script(title, f"echo lithograph: {shown(tell)}", *_disk(sanboot=sanboot), expands=True)


def discover(boot: Boot, *, mac: str, base: str) -> str:
    """The root image for a machine that no node is."""
    return armed(boot, mac=mac, base=base, tell=f"{mac} is unknown and shows itself to the controller")


def menu(boot: Boot, *, mac: str, base: str, sanboot: bool) -> str:
    """A choice for whoever stands before the machine; without a choice its own disk."""
    return _script(
        boot.title,
        f"menu Lithograph: {mac} is not known here",
        "item local Boot from the local disk",
        "item discover Show this machine to the controller",
        f"choose --default local --timeout {MENU_MS} chosen || goto local",
        "goto ${chosen}",
        ":local",
        *_disk(sanboot=sanboot),
        ":discover",
        *_start(boot, mac=mac, base=base, tell="shows itself to the controller"),
        expands=True,
    )


def _start(boot: Boot, *, mac: str, base: str, tell: str) -> tuple[str, ...]:
    return (
        f"echo lithograph: {shown(tell)}",
        f"kernel {boot.files}/{boot.kernel} initrd={boot.initrd_name} {boot.line(macs.hexhyp(mac))} || goto failed",
        f"initrd --name {boot.initrd_name} {boot.files}/{boot.initrd} || goto failed",
        "boot || goto failed",
        ":failed",
        f"echo lithograph: {boot.called} cannot be fetched, trying again in {RETRY_S} s",
        f"sleep {RETRY_S}",
        *_ask(mac, base),
    )


def _ask(mac: str, base: str) -> tuple[str, ...]:
    """The script anew, until somebody answers: the state may be another one by then."""
    return (
        ":ask",
        "imgfree",
        f"chain --replace {base}/boot/{macs.hexhyp(mac)}.ipxe || sleep {RETRY_S}",
        "goto ask",
    )


def _disk(*, sanboot: bool) -> tuple[str, ...]:
    if not sanboot:
        return (EXIT,)
    return ("iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||", EXIT)


def shown(text: str) -> str:
    """Free text (an image's name, a state) as it may be shown: what is special to iPXE becomes a dot."""
    return "".join(char if _SAFE.fullmatch(char) else "." for char in text[:160])


def _script(title: str, *lines: str, expands: bool = False) -> str:
    for line in lines:
        held = re.sub(r"\$\{[A-Za-z0-9/:]+\}", "", line) if expands else line
        plain = re.sub(r"( (\|\||&&)(?= |$))", "", held)
        if not _SAFE.fullmatch(plain):
            raise ValueError(f"this cannot be a line of a script: {line!r}")
    return "\n".join(("#!ipxe", f"# {shown(title)}", *lines, ""))
