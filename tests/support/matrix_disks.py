"""Makes the matrix's disks with the usual tools, and targets that are full of other bytes."""

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from litho.errors import DiskError
from litho_agent.engines import Extent, used_extents
from support import filesystems
from support.loop import loop_disk, part, reread, sh
from support.matrix import MIB, Source, size_mib

FREE_MIB = 24
"""Free space behind the last partition."""
TYPES = {
    "dos": {"fat32": "c", "exfat": "7", "ntfs": "7", "swap": "82", "raw": "41"},
    "gpt": {
        "fat32": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",  # EFI system partition
        "raw": "9E1A2D38-C612-4316-AA26-8B49521E5A8B",  # PReP
        "empty": "21686148-6449-6E6F-744E-656564454649",  # BIOS boot
        "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
        "ntfs": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
        "exfat": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
    },
}
"""Partition types; `raw` stands in for PReP's boot partition and `empty`, on a GPT, for BIOS boot."""


class Place(msgspec.Struct, frozen=True):
    """Where a variant lies."""

    number: int
    variant: str
    start: int
    """Sectors."""
    size: int

    @property
    def end(self) -> int:
        """The sector behind it."""
        return self.start + self.size


class Made(msgspec.Struct, frozen=True):
    """A disk that was made."""

    source: Source
    disk: Path
    size: int
    """Bytes."""
    places: tuple[Place, ...]
    used: dict[int, tuple[Extent, ...]]
    """By the partition's number: every run of bytes that a restore must bring back."""
    needs: int
    """Bytes of the smallest disk onto which it fits."""

    def device(self, disk: Path, place: Place) -> Path:
        """The partition of `place` on `disk`; the disk itself without a table."""
        return part(disk, place.number) if place.number else disk


def label(source: Source) -> str:
    """sfdisk's word for the table; empty without one."""
    return {"MBR": "dos", "no table": ""}.get(source.kind, "gpt")


@contextlib.contextmanager
def made(source: Source, folder: Path) -> Iterator[Made]:
    """The disk of `source`, in a file in `folder`, with its partitions' nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    places, size = _placed(source)
    with loop_disk(folder / "source.disk", size=size, sector_size=source.sector) as disk:
        if label(source):
            _lay_out(source, disk, places, size)
        used = {}
        for place in places:
            device = part(disk, place.number) if place.number else disk
            _fill(place.variant, device, folder)
            used[place.number] = _used(place, device, source.sector)
        sh("sync", "--file-system", folder / "source.disk")
        last = max((place.end for place in places), default=0)
        tail = (1 + max(1, 16384 // source.sector)) if label(source) == "gpt" else 0
        needs = size if not label(source) else (last + tail) * source.sector
        yield Made(source, disk, size, places, used, needs)


@contextlib.contextmanager
def blank(folder: Path, size: int, sector: int) -> Iterator[Path]:
    """A disk on which every byte is another one than zero: what a restore leaves out shows."""
    image = folder / f"target-{sector}.disk"
    with image.open("wb") as file:
        left = size
        while left > 0:
            left -= file.write(b"\xa5" * min(left, 4 * MIB))
    try:
        with loop_disk(image, sector_size=sector) as disk:
            yield disk
    finally:
        image.unlink()


def _placed(source: Source) -> tuple[tuple[Place, ...], int]:
    """Where each lies, with numbers that are not in the disk's order where the table allows, and the bytes of the disk."""
    sector = source.sector
    if not label(source):
        size = size_mib(source.holds[0], sector) * MIB
        return (Place(0, source.holds[0], 0, size // sector),), size
    # The classic gap of 62 sectors before the first partition of an MBR, a MiB elsewhere.
    at = 63 if label(source) == "dos" and sector == 512 else MIB // sector
    count = len(source.holds)
    if label(source) == "gpt":
        # 1, n, n-1, ..., 3, 2 and the last one far behind.
        numbers = [1, *range(count, 1, -1)]
        numbers[-1] = 20 if count > 1 else 1
    elif not source.last_logical:
        numbers = list(range(count, 0, -1))
    else:
        # Three primary ones at most, backwards; of the logical ones each pair changes places.
        primary = min(3, count - 1)
        numbers = list(range(primary, 0, -1))
        logical = list(range(5, 5 + count - primary))
        for one in range(0, len(logical) - 1, 2):
            logical[one], logical[one + 1] = logical[one + 1], logical[one]
        numbers += logical
    places = []
    for number, variant in zip(numbers, source.holds, strict=True):
        if label(source) == "dos" and number > 4:
            at += max(1, MIB // sector // 2) + 1  # its own entry, and the last one's
        size = size_mib(variant, sector) * MIB // sector
        places.append(Place(number, variant, at, size))
        at += size
    return tuple(places), (at * sector // MIB + 1 + FREE_MIB) * MIB


def _lay_out(source: Source, disk: Path, places: tuple[Place, ...], size: int) -> None:
    kind, sector = label(source), source.sector
    lines = [f"label: {kind}", "unit: sectors", ""]
    logical = [place for place in places if kind == "dos" and place.number > 4]
    rows = [(place.number, place.start, place.size, _type(kind, place.variant), place) for place in places]
    if logical:
        start = logical[0].start - max(1, MIB // sector // 4)
        rows.append((4, start, size // sector - start, "f", logical[0]))
    for number, start, length, code, place in sorted(rows, key=lambda row: row[0]):
        more = f', name="{place.variant} \\xc3\\xa9"' if kind == "gpt" else ""
        more += ', attrs="LegacyBIOSBootable GUID:60"' if kind == "gpt" and place.variant == "ext4" else ""
        more += ", bootable" if kind == "dos" and number == 1 else ""
        lines.append(f"/dev/x{number} : start={start}, size={length}, type={code}{more}")
    script = "\n".join(lines) + "\n"
    sh("sfdisk", "--force", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin=script)
    if source.kind == "hybrid MBR":
        sh("sgdisk", f"--hybrid={places[0].number}", disk)
    noise(disk, 0, 440)
    first = min(place.start for place in places)
    reserved = sector if kind == "dos" else 2 * sector + 16384
    noise(disk, reserved, first * sector - reserved)
    if source.kind == "GPT without its backup":
        noise(disk, size - sector - 16384, sector + 16384)
    _show(disk, places, logical)


def _show(disk: Path, places: tuple[Place, ...], logical: list[Place]) -> None:
    done = subprocess.run(["partx", "-a", str(disk)], capture_output=True, check=False)
    if done.returncode != 0 and logical:
        # partx gives an extended partition on large sectors a length that the kernel refuses; the others can be added.
        for place in places:
            subprocess.run(["partx", "-a", "-n", str(place.number), str(disk)], capture_output=True, check=False)
    elif done.returncode != 0:
        reread(disk)
    for place in places:
        assert part(disk, place.number).is_block_device(), (place, done.stderr)


def _type(kind: str, variant: str) -> str:
    return TYPES[kind].get(variant, "83" if kind == "dos" else "0FC63DAF-8483-4772-8E79-3D69D8477DE4")


def _fill(variant: str, device: Path, folder: Path) -> None:
    if variant == "empty":
        return
    if variant == "raw":
        noise(device, 0, int(sh("blockdev", "--getsize64", device)))
    elif variant == "swap":
        sh("mkswap", "--label", "swap area", device)
    else:
        filesystems.make(variant, device)
        filesystems.fill(variant, device, folder)
        # Boot code of a partition: ext leaves its first 1 KiB to it, btrfs its first 64 KiB (GRUB's core image lies there).
        boot = 65536 if variant == "btrfs" else 1024 if variant.startswith("ext") else 0
        if boot:
            noise(device, 0, boot)


def _used(place: Place, device: Path, sector: int) -> tuple[Extent, ...]:
    if place.variant == "swap":
        return ()
    found = None
    if place.variant not in ("raw", "empty"):
        with contextlib.suppress(DiskError):
            found = used_extents(device, filesystems.blkid_name(place.variant))
    return found if found is not None else (Extent(0, place.size * sector),)


def noise(device: Path, offset: int, size: int) -> None:
    """Bytes that look like nothing, always the same."""
    data = random.Random(offset + size).randbytes(size)  # noqa: S311 - test data
    fd = os.open(device, os.O_RDWR)
    try:
        assert os.pwrite(fd, data, offset) == size
        os.fsync(fd)
    finally:
        os.close(fd)
