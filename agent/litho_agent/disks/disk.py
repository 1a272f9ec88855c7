"""A disk as the rules see it: plain data, without any way to touch the device.

`inventory` fills these structs from the running kernel; a test writes them down by hand; `choose` and `guard` decide over
them. They are msgspec structs, so `litho-agent disks --json` and the inventory of a claim are the same data.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from litho import amounts
from litho.messages import DiskFacts

Transport = Literal[
    "ata",
    "nvme",
    "usb",
    "virtio",
    "mmc",
    "mmc-boot",
    "sas",
    "scsi",
    "fc",
    "iscsi",
    "firewire",
    "xen",
    "nbd",
    "pmem",
    "loop",
    "optical",
    "floppy",
    "device-mapper",
    "md",
    "ram",
    "unknown",
]
"""How the disk hangs on the machine. `mmc-boot` are the boot and RPMB areas of an eMMC; the last ones are no disks."""

VIRTUAL: frozenset[str] = frozenset({"optical", "floppy", "device-mapper", "md", "ram", "mmc-boot"})
"""Block devices that are never the disk of an image, not even by name."""


HolderKind = Literal["lvm", "md", "multipath", "dm-crypt", "raid", "dm", "bcache", "drbd", "loop", "other"]


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the kernel that has the disk, or a partition of it, as its own."""

    device: str
    """Which node is held: `sda2`."""
    by: str
    """Who holds it: `dm-0`, `md127`, `loop3`."""
    kind: HolderKind
    name: str = ""
    """The holder's own name where it has one, such as `vg0-root`."""


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """The disk, or a partition of it, in use by a file system or as swap."""

    device: str
    where: str
    """Mount point; empty for swap."""
    fs: str = ""
    read_only: bool = False
    swap: bool = False


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What blkid finds on the disk or on a partition of it."""

    device: str
    type: str
    """As blkid names it: `ext4`, `LVM2_member`, `gpt` for a partition table."""
    usage: str = ""
    """`filesystem`, `raid`, `crypto`, `other`, or `table`."""
    label: str = ""
    uuid: str = ""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One whole block device."""

    name: str
    """The kernel's name of this boot: `sda`, `nvme0n1`."""
    path: str
    """Its node: `/dev/sda`."""
    by_id: tuple[str, ...] = ()
    """Links `/dev/disk/by-id/...` that lead to it."""
    by_path: tuple[str, ...] = ()
    serial: str = ""
    other_serials: tuple[str, ...] = ()
    """Further forms in which tools print the serial (udev's ID_SERIAL, ID_SERIAL_SHORT, ID_SCSI_SERIAL)."""
    wwn: str = ""
    """As the kernel or udev says it, such as `naa.5000c500a1b2c3d4` or `0x5000c500a1b2c3d4`."""
    model: str = ""
    size: int = 0
    """Bytes; 0 when there is no medium."""
    logical: int = 512
    """Bytes a logical sector: what partition tables count in."""
    physical: int = 512
    rotational: bool = False
    removable: bool = False
    transport: Transport = "unknown"
    read_only: bool = False
    partitions: tuple[str, ...] = ()
    """Names of the partition nodes that the kernel has now."""
    holders: tuple[Holder, ...] = ()
    mounts: tuple[Mount, ...] = ()
    signatures: tuple[Signature, ...] = ()
    note: str = ""
    """Why signatures are missing, when they could not be read."""

    @property
    def has_content(self) -> bool:
        """True when a partition table, a file system or anything else that blkid knows lies on it."""
        return bool(self.signatures or self.partitions)


def facts(disk: Disk) -> DiskFacts:
    """What a task's plan and an image's manifest say about the disk."""
    return DiskFacts(
        path=disk.path,
        size=disk.size,
        serial=disk.serial,
        wwn=disk.wwn,
        model=disk.model,
        sector_size=disk.logical,
        by_path=disk.by_path[0] if disk.by_path else "",
    )


def described(disk: Disk) -> str:
    """One line by which a person finds the disk: name, size, model and serial."""
    words = [disk.path, amounts.size(disk.size) if disk.size else "no medium", disk.transport]
    if disk.model:
        words.append(disk.model)
    if disk.serial:
        words.append(f"serial {disk.serial}")
    return ", ".join(words)
