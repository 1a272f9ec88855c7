"""What disks this machine has: sysfs first, udev's database and blkid for the rest.

Everything that a decision rests on (size, sectors, read-only, holders, mounts) comes from the kernel itself: sysfs
and /proc. udev's database, read by pyudev, adds the serials and names that only it works out; where no udevd runs (a
small root image, a container) it is empty, and serial, WWN and model are read from the drivers' own files in sysfs
instead. The links under /dev/disk are taken as they stand.

`Roots` says where /sys, /proc and /dev are, so a test can hand in a recorded tree of another machine; `Properties` and
`Prober` are the two edges behind which udev and blkid stand.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from litho.errors import LithoError
from litho_agent.disks.disk import Disk, Holder, HolderKind, Mount, Signature, Transport
from litho_agent.filesystems import Probe, probe_all

Properties = Callable[[str], Mapping[str, str]]
"""udev's properties of a block device by its kernel name; empty when udev knows nothing."""
Prober = Callable[[Path], Sequence[Probe]]
"""Everything that lies on a device. Raises LithoError when it cannot be read."""

_MAX_ATTRIBUTE = 64 * 1024
"""Bytes that are looked at in a sysfs file."""


class Roots(msgspec.Struct, frozen=True):
    """Where the kernel's file systems are."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")


def udev_properties(name: str) -> Mapping[str, str]:
    """From udev's database by pyudev; empty where there is no libudev, no udevd or no such device."""
    try:
        import pyudev  # noqa: PLC0415 - libudev is loaded on import and may be absent
    except ImportError:
        return {}
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "block", name)
        return {str(key): str(value) for key, value in device.properties.items()}
    except (pyudev.DeviceNotFoundError, OSError, ValueError):
        return {}


THIS_MACHINE = Roots()


def read(
    roots: Roots = THIS_MACHINE, *, properties: Properties = udev_properties, prober: Prober = probe_all
) -> tuple[Disk, ...]:
    """Every whole block device, in the kernel's order of names (sda, sdb, ..., sdaa). Never raises for one odd device."""
    block = roots.sys / "block"
    try:
        names = sorted((entry.name for entry in block.iterdir()), key=natural)
    except OSError:
        return ()
    mounts = _mounts(roots)
    links = _links(roots)
    loops = _loop_users(roots, names)
    found = []
    for name in names:
        directory = block / name
        # The hidden paths of a multipath NVMe namespace have no node of their own.
        if _text(directory / "hidden") == "1":
            continue
        disk = _disk(
            roots,
            name,
            directory,
            udev=properties(name),
            prober=prober,
            mounts=mounts,
            links=links,
            loops=loops,
        )
        found.append(disk)
    return tuple(found)


def natural(name: str) -> tuple[object, ...]:
    """Sort key that puts sdb before sdaa and nvme2n1 before nvme10n1."""
    letters = re.fullmatch(r"([a-z]{2})([a-z]{1,3})", name)
    if letters and letters[1] in ("sd", "hd", "vd"):
        return (letters[1], len(letters[2]), letters[2])
    split = re.split(r"([0-9]+)", name)
    return (split[0], 0, "", *((int(word), "") if word.isdigit() else (0, word) for word in split[1:]))


def _disk(
    roots: Roots,
    name: str,
    directory: Path,
    *,
    udev: Mapping[str, str],
    prober: Prober,
    mounts: Mapping[str, list[Mount]],
    links: Mapping[str, list[str]],
    loops: Mapping[str, list[str]],
) -> Disk:
    parts = tuple(sorted((p.parent.name for p in directory.glob("*/partition")), key=natural))
    transport = _transport(name, directory, udev)
    size = _number(directory / "size") * 512  # always in units of 512 bytes, whatever the sector size
    nodes = (name, *parts)
    holders = tuple(
        holder
        for node in nodes
        for holder in _holders(roots, node, directory if node == name else directory / node, loops)
    )
    signatures: tuple[Signature, ...] = ()
    note = ""
    if size and transport not in ("ram", "optical", "floppy"):
        signatures, note = _signatures(roots, nodes, prober)
    serial, others = _serials(directory, udev)
    card = _text(directory / "device/type") == "SD"
    return Disk(
        name=name,
        # "!" stands for "/" in sysfs names (cciss!c0d0).
        path=f"/dev/{name.replace('!', '/')}",
        by_id=tuple(sorted(link for link in links.get(name, []) if "/by-id/" in link)),
        by_path=tuple(sorted(link for link in links.get(name, []) if "/by-path/" in link)),
        serial=serial,
        other_serials=others,
        wwn=_first(_text(directory / "wwid"), _text(directory / "device/wwid"), udev.get("ID_WWN", "")),
        model=_first(_text(directory / "device/model"), _text(directory / "device/name"), udev.get("ID_MODEL", "")),
        size=size,
        logical=_number(directory / "queue/logical_block_size", 512),
        physical=_number(directory / "queue/physical_block_size", 512),
        rotational=_text(directory / "queue/rotational") == "1",
        # An SD card says "not removable" of itself because the reader is built in.
        removable=_text(directory / "removable") == "1" or (transport == "mmc" and card),
        transport=transport,
        read_only=_text(directory / "ro") == "1",
        partitions=parts,
        holders=holders,
        mounts=tuple(mount for node in nodes for mount in mounts.get(node, [])),
        signatures=signatures,
        note=note,
    )


def _transport(name: str, directory: Path, udev: Mapping[str, str]) -> Transport:
    by_name: tuple[tuple[str, Transport], ...] = (
        (r"nvme\d+n\d+", "nvme"),
        (r"vd[a-z]+", "virtio"),
        (r"mmcblk\d+(boot\d+|rpmb|gp\d+)", "mmc-boot"),
        (r"mmcblk\d+", "mmc"),
        (r"loop\d+", "loop"),
        (r"(z?ram)\d+", "ram"),
        (r"dm-\d+", "device-mapper"),
        (r"md.*", "md"),
        (r"(sr|scd)\d+", "optical"),
        (r"fd\d+", "floppy"),
        (r"xvd[a-z]+", "xen"),
        (r"nbd\d+", "nbd"),
        (r"pmem.*", "pmem"),
        (r"hd[a-z]", "ata"),
    )
    where = os.path.realpath(directory)
    # USB before all else: a USB-to-SATA bridge also looks like SCSI, and to udev like ATA.
    if re.search(r"/usb\d+/", where) or udev.get("ID_BUS") == "usb":
        return "usb"
    for pattern, transport in by_name:
        if re.fullmatch(pattern, name):
            return transport
    by_place: tuple[tuple[str, Transport], ...] = (
        (r"/ata\d+/", "ata"),
        (r"/end_device-\d", "sas"),
        (r"/session\d+/", "iscsi"),
        (r"/rport-\d", "fc"),
        (r"/fw\d+", "firewire"),
        (r"/virtio\d+/", "virtio"),
        (r"/host\d+/", "scsi"),
    )
    for pattern, transport in by_place:
        if re.search(pattern, where):
            return transport
    return "unknown"


def _serials(directory: Path, udev: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The serial that stands on the label, and the other forms in which tools print it."""
    found = [
        _text(directory / "device/serial"),
        _text(directory / "serial"),
        _vpd_serial(directory / "device/vpd_pg80"),
        udev.get("ID_SCSI_SERIAL", "").strip(),
        udev.get("ID_SERIAL_SHORT", "").strip(),
        udev.get("ID_SERIAL", "").strip(),
    ]
    known = list(dict.fromkeys(word for word in found if word))
    return (known[0], tuple(known[1:])) if known else ("", ())


def _vpd_serial(path: Path) -> str:
    """The unit serial number page of a SCSI disk (SPC: four bytes of header, the last two its length, then ASCII)."""
    try:
        page = path.read_bytes()[:_MAX_ATTRIBUTE]
    except OSError:
        return ""
    if len(page) < 4 or page[1] != 0x80:
        return ""
    length = int.from_bytes(page[2:4], "big")
    return _clean(page[4 : 4 + length].decode("ascii", errors="replace"))


def _holders(roots: Roots, node: str, directory: Path, loops: Mapping[str, list[str]]) -> Iterable[Holder]:
    for loop in loops.get(node, []):
        yield Holder(device=node, by=loop, kind="loop")
    try:
        names = sorted(entry.name for entry in (directory / "holders").iterdir())
    except OSError:
        return
    for by in names:
        uuid = _text(roots.sys / "block" / by / "dm/uuid")
        name = _text(roots.sys / "block" / by / "dm/name")
        yield Holder(device=node, by=by, kind=holder_kind(by, uuid), name=name)


def holder_kind(by: str, dm_uuid: str) -> HolderKind:
    """What kind of thing the holder `by` is; device-mapper says in its uuid who made the mapping."""
    prefixes: tuple[tuple[str, HolderKind], ...] = (
        ("mpath-", "multipath"),
        ("LVM-", "lvm"),
        ("CRYPT-", "dm-crypt"),
        ("DMRAID-", "raid"),
    )
    if by.startswith("dm-"):
        # A partition of a mapping (kpartx) puts "part<N>-" before the uuid of what it lies on.
        uuid = re.sub(r"^part\d+-", "", dm_uuid)
        return next((kind for prefix, kind in prefixes if uuid.startswith(prefix)), "dm")
    if by.startswith("md"):
        return "md"
    if by.startswith("bcache"):
        return "bcache"
    return "drbd" if by.startswith("drbd") else "other"


def _loop_users(roots: Roots, names: Iterable[str]) -> dict[str, list[str]]:
    """Loop devices that stand on a block device instead of a file, by the device's name."""
    users: dict[str, list[str]] = {}
    for name in names:
        if not name.startswith("loop"):
            continue
        backing = _text(roots.sys / "block" / name / "loop/backing_file")
        below = _loop_stands_on(roots, name) if backing else ""
        if not below and backing.startswith("/dev/"):
            below = backing.removeprefix("/dev/")
        if below:
            users.setdefault(below, []).append(name)
    return users


def _loop_stands_on(roots: Roots, name: str) -> str:
    """The kernel's name of the block device below a loop device, from the driver itself; empty for a file.

    The path in sysfs does not tell: the node may be another one for the same device (a chroot's), or be deleted by now. struct
    loop_info64 of linux/loop.h has the device's number in its third word.
    """
    loop_get_status64 = 0x4C05
    try:
        with (roots.dev / name).open("rb", buffering=0) as node:
            number = int.from_bytes(fcntl.ioctl(node, loop_get_status64, bytes(232))[16:24], sys.byteorder)
        return (roots.sys / f"dev/block/{os.major(number)}:{os.minor(number)}").readlink().name if number else ""
    except OSError:
        return ""


def _links(roots: Roots) -> dict[str, list[str]]:
    """The stable links of every device, by its kernel name."""
    found: dict[str, list[str]] = {}
    for kind in ("by-id", "by-path"):
        directory = roots.dev / "disk" / kind
        try:
            entries = sorted(directory.iterdir())
        except OSError:
            continue
        for entry in entries:
            try:
                target = entry.readlink()
            except OSError:
                continue
            found.setdefault(target.name, []).append(f"/dev/disk/{kind}/{entry.name}")
    return found


def _mounts(roots: Roots) -> dict[str, list[Mount]]:
    """Mounted file systems and swap in use, by the kernel name of the device."""
    numbers: dict[str, str] = {}
    for entry in (roots.sys / "class/block").glob("*/dev"):
        numbers[_text(entry)] = entry.parent.name
    found: dict[str, list[Mount]] = {}
    for line in _lines(roots.proc / "self/mountinfo"):
        mount = parse_mountinfo(line)
        if mount is None:
            continue
        number, source, fs, where, read_only = mount
        # btrfs and overlay mounts have a number of their own (0:N): their source names the device.
        name = numbers.get(number) or (_node_name(roots, source) if source.startswith("/dev/") else "")
        if name:
            found.setdefault(name, []).append(Mount(device=name, where=where, fs=fs, read_only=read_only))
    for line in _lines(roots.proc / "swaps")[1:]:
        words = line.split()
        if words and words[0].startswith("/dev/"):
            name = _node_name(roots, _unescape(words[0]))
            found.setdefault(name, []).append(Mount(device=name, where="", fs="swap", swap=True))
    return found


def parse_mountinfo(line: str) -> tuple[str, str, str, str, bool] | None:
    """(major:minor, source, file system, mount point, read-only) of a line of mountinfo (proc(5)); None when it is none.

    Read-only is said when the super block is: a mount that is only bound read-only can still be written to elsewhere.
    """
    left, dash, right = line.partition(" - ")
    before, after = left.split(), right.split()
    if not dash or len(before) < 6 or len(after) < 3:
        return None
    options = after[2].split(",")
    return before[2], _unescape(after[1]), after[0], _unescape(before[4]), "ro" in options


def _node_name(roots: Roots, path: str) -> str:
    """The kernel name behind a node or a link to it."""
    node = roots.dev / path.removeprefix("/dev/")
    return Path(os.path.realpath(node)).name


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _signatures(roots: Roots, nodes: Iterable[str], prober: Prober) -> tuple[tuple[Signature, ...], str]:
    found: list[Signature] = []
    note = ""
    for node in nodes:
        try:
            seen = prober(roots.dev / node.replace("!", "/"))
        except LithoError as exc:
            note = note or f"{node}: {exc.message}"
            continue
        for one in seen:
            if one.type:
                kind = Signature(device=node, type=one.type, usage=one.usage, label=one.label, uuid=one.uuid)
                found.append(kind)
            if one.table:
                found.append(Signature(device=node, type=one.table, usage="table", uuid=one.table_uuid))
    return tuple(found), note


def _text(path: Path) -> str:
    """A sysfs attribute as one clean line; empty when it is not there."""
    try:
        with path.open("rb") as file:
            return _clean(file.read(_MAX_ATTRIBUTE).decode(errors="replace"))
    except OSError:
        return ""


def _clean(text: str) -> str:
    """Without control characters and outer blanks: firmware says what it likes, and this goes to terminals and logs."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _first(*words: str) -> str:
    return next((_clean(word) for word in words if word.strip()), "")


def _number(path: Path, otherwise: int = 0) -> int:
    text = _text(path)
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) else otherwise


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
