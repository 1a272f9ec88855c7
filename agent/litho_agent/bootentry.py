"""A boot entry in the firmware of a machine with UEFI, for a restored disk whose loader the firmware would not find by itself.

Firmware looks at one place of an EFI system partition without being told, the fallback: `\\EFI\\BOOT\\BOOTX64.EFI`. Most
distributions install their loader elsewhere (`\\EFI\\debian\\shimx64.efi`) and tell the firmware of their own machine so; that
entry lies in the machine's NVRAM and comes with no image. So after a restore:

* The fallback is there, or the machine was not booted by UEFI: nothing to do.
* An entry for this partition (by its GUID) with this loader is there, from the time before: nothing to do.
* Else one is made, and put **behind** all others of the boot order: a node that boots over the network must go on to do so.

Only in the root image: on somebody's own machine the restored disk may be meant for another one. Nothing here ends a task: the
disk is right by now, and what could not be done is told in a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from litho import process
from litho.errors import LithoError
from litho_agent.finish import in_rootimg
from litho_agent.layout import Table, partition_path
from litho_agent.layout.table import ESP_GPT, Partition
from litho_agent.mounting import mounted

VARIABLES = Path("/sys/firmware/efi/efivars")
"""There when the kernel was started by UEFI, and mounted by the root image's init."""
FALLBACK = "efi/boot/bootx64.efi"
LOADERS = ("shimx64.efi", "grubx64.efi", "bootmgfw.efi", "systemd-bootx64.efi", "elilo.efi")
"""File names of loaders, the better one first: shim starts where Secure Boot is on and where it is not."""

_ENTRY = re.compile(r"Boot([0-9A-F]{4})[* ] (.*)")
_ORDER = re.compile(r"BootOrder: ([0-9A-F]{4}(?:,[0-9A-F]{4})*)\s*")
_PLAIN = re.compile(r"[A-Za-z0-9._ -]{1,64}", re.ASCII)
_MOST = 4096
"""Files of an EFI system partition that are looked at."""


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    """What the firmware has."""

    order: tuple[str, ...] = ()
    found: dict[str, str] = {}
    """Number -> label and device path, as efibootmgr shows them."""

    def has(self, partition: str, loader: str) -> bool:
        """True when an entry names the partition with that GUID and that loader."""
        words = (partition.lower(), dos_path(loader).lower())
        return any(all(word in text.lower() for word in words) for text in self.found.values())


def parse(text: str) -> Entries:
    """The entries in the output of `efibootmgr -v`. Pure."""
    order: tuple[str, ...] = ()
    found = {}
    for line in text.splitlines():
        if match := _ORDER.fullmatch(line):
            order = tuple(match[1].split(","))
        elif match := _ENTRY.fullmatch(line):
            found[match[1]] = match[2]
    return Entries(order=order, found=found)


def dos_path(loader: str) -> str:
    """`EFI/debian/shimx64.efi` as firmware writes it: `\\EFI\\debian\\shimx64.efi`. Pure."""
    return "\\" + loader.replace("/", "\\")


def pick(files: Iterable[str]) -> str:
    """The loader that an entry should name, of the paths on an EFI system partition; empty when none is needed or known. Pure.

    Case plays no part on FAT. Of several systems the better loader's name wins, then the alphabet.
    """
    known = {path.lower(): path for path in files}
    if FALLBACK in known:
        return ""
    loaders = [
        (LOADERS.index(low.rsplit("/", 1)[1]), low)
        for low, path in known.items()
        if low.startswith("efi/")
        and low.rsplit("/", 1)[1] in LOADERS
        and all(_PLAIN.fullmatch(word) for word in path.split("/"))
    ]
    return known[min(loaders)[1]] if loaders else ""


def label(loader: str) -> str:
    """What the entry is called: the vendor's folder. Pure."""
    return loader.split("/")[1]


def esp(table: Table) -> Partition | None:
    """The first EFI system partition of a GPT. Pure."""
    return next((part for part in table.partitions if table.label == "gpt" and part.type == ESP_GPT), None)


def behind(before: Entries, after: Entries) -> tuple[str, tuple[str, ...]]:
    """The number that is new in `after`, and the order with it at the end; an empty number when nothing is new. Pure."""
    new = sorted(set(after.found) - set(before.found))
    if not new:
        return "", after.order
    rest = tuple(number for number in after.order if number != new[0])
    return new[0], (*rest, new[0])


def entered(disk: Path, table: Table, *, variables: Path = VARIABLES) -> tuple[str, ...]:
    """See to it that the firmware finds the loader on `disk`, which was restored; answers what a person should know."""
    part = esp(table)
    if part is None or not variables.is_dir() or not in_rootimg():
        return ()
    try:
        with mounted(partition_path(disk, part.number), "vfat", read_only=True) as root:
            loader = pick(_files(root))
        return (_enter(disk, part, loader),) if loader else ()
    except (LithoError, OSError) as exc:
        told = exc.message if isinstance(exc, LithoError) else str(exc)
        return (
            f"the firmware was not told of the restored system ({told}): if it does not start, choose its loader in the "
            "firmware's setup",
        )


def _files(root: Path) -> Sequence[str]:
    """Paths of the files in EFI/*/ and EFI/*/*/, below `root`."""
    found: list[str] = []
    for top in root.iterdir():
        if top.name.lower() == "efi" and top.is_dir():
            for pattern in ("*/*", "*/*/*"):
                for path in top.glob(pattern):
                    if len(found) >= _MOST:
                        return found
                    if path.is_file():
                        found.append(str(path.relative_to(root)))
    return found


def _entries() -> Entries:
    return parse(process.run(["efibootmgr", "-v"], timeout_s=60, doing="reading the firmware's boot entries").out)


def _enter(disk: Path, part: Partition, loader: str) -> str:
    """Make the entry where it is missing. Raises LithoError."""
    before = _entries()
    if before.has(part.uuid, loader):
        return f"the firmware has an entry for {loader}"
    argv: list[str | Path] = ["efibootmgr", "--quiet", "--create-only", "--disk", disk, "--part", str(part.number)]
    argv += ["--loader", dos_path(loader), "--label", label(loader)]
    process.run(argv, timeout_s=60, doing="making a boot entry")
    number, order = behind(before, _entries())
    if number:
        process.run(
            ["efibootmgr", "--quiet", "--bootorder", ",".join(order)], timeout_s=60, doing="setting the boot order"
        )
    return f"the firmware was told of {loader}: the boot entry {label(loader)}, last in its order"
