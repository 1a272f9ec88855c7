"""What must be true of a disk that was restored, told by the usual tools and byte for byte, apart from the agent's own looks."""

import contextlib
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support import filesystems
from support.loop import sh
from support.matrix import GROWABLE, MIB, Case
from support.matrix_disks import Made, Place, label

_MOUNT = {
    "ntfs": ("ntfs-3g", "-o", "ro"),
    "xfs": ("mount", "-o", "ro,nouuid"),
    "btrfs": ("mount", "-o", "ro"),
    "ext2": ("mount", "-o", "ro"),
}


def proven(case: Case, made: Made, disk: Path, size: int, folder: Path) -> None:
    """Fail unless `disk` of `size` bytes holds what `made` holds, as `case` wants it."""
    grown = _grown(case)
    if label(case.source):
        _table(case, made, disk, size)
        _before_the_first_partition(case, made, disk)
    for place in made.places:
        device = made.device(disk, place)
        if grown is not None and place.number == made.places[-1].number:
            _larger(place, made, device, folder)
        else:
            _same_bytes(made, place, device)
        _sound(made, place, device)


def _grown(case: Case) -> str | None:
    """The variant that must have been grown."""
    last = case.source.holds[-1]
    return last if case.target == "larger, grow" and last in GROWABLE else None


# ---------------------------------------------------------------- the table


def dump(disk: Path) -> dict[str, str]:
    """What `sfdisk --dump` says: header lines by their key, partitions by their number."""
    found = {}
    for line in sh("sfdisk", "--dump", disk).splitlines():
        row = re.match(rf"{disk}p(\d+) : (.*)", line)
        if row:
            found[row[1]] = re.sub(r"\s+", "", row[2])
        elif line and not line.startswith(("device:", "last-lba:")):
            key, _, value = line.partition(":")
            found[key] = value.strip()
    return found


def _table(case: Case, made: Made, disk: Path, size: int) -> None:
    wanted, found = dump(made.disk), dump(disk)
    last = str(made.places[-1].number)
    sector = case.source.sector
    if _grown(case) is not None:
        tail = (1 + 16384 // sector) * sector if label(case.source) == "gpt" else 0
        for number in [last] + ([] if "4" not in wanted or not case.source.last_logical else ["4"]):
            end = _end(found[number]) * sector
            assert size - tail - MIB < end <= size - tail, f"partition {number} ends at {end} of {size}"
            found[number] = _with_size(found[number], wanted[number])
    elif case.target == "smaller, fits" and case.source.last_logical:
        assert _end(found["4"]) == _end(found[last]), "the extended partition was cut to the end of its last one"
        found["4"] = _with_size(found["4"], wanted["4"])
    assert found == wanted
    if label(case.source) == "gpt":
        said = sh("sgdisk", "--verify", disk)
        assert "No problems found" in said, said
        with disk.open("rb") as file:
            file.seek(-sector, os.SEEK_END)
            assert file.read(8) == b"EFI PART", "the backup lies at the disk's own end"


def _field(row: str, key: str) -> int:
    found = re.search(rf"{key}=(\d+)", row)
    assert found, row
    return int(found[1])


def _end(row: str) -> int:
    """The sector behind a partition."""
    return _field(row, "start") + _field(row, "size")


def _with_size(row: str, other: str) -> str:
    return re.sub(r"size=\d+", f"size={_field(other, 'size')}", row)


def _before_the_first_partition(case: Case, made: Made, disk: Path) -> None:
    sector = case.source.sector
    first = min(place.start for place in made.places) * sector
    gap = sector if label(case.source) == "dos" else 2 * sector + 16384
    with made.disk.open("rb") as one, disk.open("rb") as other:
        before, after = one.read(first), other.read(first)
    assert any(before[:440]) and any(before[gap:])
    assert after[:440] == before[:440], "boot code"
    assert after[gap:] == before[gap:], "the gap before the first partition"
    if case.source.kind == "hybrid MBR":
        entries = [before[at : at + 16] for at in range(446, 510, 16) if before[at + 4] not in (0, 0xEE)]
        assert len(entries) == 1
        if _grown(case) is not None:
            # The hybrid's partition is the first one; when it is also the last, it was grown.
            entries = [entry[:12] for entry in entries] if len(made.places) == 1 else entries
        kept = [after[at : at + 16] for at in range(446, 510, 16) if after[at + 4] not in (0, 0xEE)]
        if _grown(case) is not None and len(made.places) == 1:
            size = _field(dump(disk)[str(made.places[0].number)], "size")
            assert [entry[12:] for entry in kept] == [struct.pack("<I", size)]
            kept = [entry[:12] for entry in kept]
        assert kept == entries


# ---------------------------------------------------------------- what lies on the partitions


def _same_bytes(made: Made, place: Place, device: Path) -> None:
    source = made.device(made.disk, place)
    if place.variant == "swap":
        assert sh("swaplabel", device) == sh("swaplabel", source)
        # Made anew, it takes all that it lies on: with a table, its partition.
        assert _swap_bytes(device) == int(sh("blockdev", "--getsize64", device)) // 4096 * 4096
        return
    extents = made.used[place.number]
    assert extents
    with source.open("rb", buffering=0) as one, device.open("rb", buffering=0) as other:
        for extent in extents:
            for at in range(extent.start, extent.end, 4 * MIB):
                length = min(4 * MIB, extent.end - at)
                left, right = os.pread(one.fileno(), length, at), os.pread(other.fileno(), length, at)
                assert left == right, f"{place.variant}: bytes {at} to {at + length} differ"


def _larger(place: Place, made: Made, device: Path, folder: Path) -> None:
    """The file system fills its new partition (but for what it cannot divide), and its files are the same."""
    source = made.device(made.disk, place)
    partition = int(sh("blockdev", "--getsize64", device))
    assert partition > place.size * made.source.sector + 8 * MIB
    if place.variant == "swap":
        assert sh("swaplabel", device) == sh("swaplabel", source)
        assert _swap_bytes(device) > partition - 4096
        return
    with _mounted(place.variant, source, folder / "one") as one, _mounted(place.variant, device, folder / "two") as two:
        before, after = _files(one), _files(two)
        assert len(before) > 50
        assert after == before
        status = os.statvfs(two)
        assert status.f_blocks * status.f_frsize > os.statvfs(one).f_blocks * status.f_frsize
    # Whole groups of blocks only: ext adds no group that is too small for its own tables.
    assert partition - _told_size(place.variant, device) < 9 * MIB


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _told_size(variant: str, device: Path) -> int:
    """How large the file system says that it is, in its own super block."""
    with device.open("rb") as file:
        head = file.read(128 * 1024)
    if variant.startswith("ext"):
        blocks, _, _, _, _, shift = struct.unpack_from("<6I", head, 1024 + 4)
        return int(blocks) << (10 + shift)
    if variant == "xfs":
        block, blocks = struct.unpack_from(">IQ", head, 4)
        return int(block * blocks)
    if variant == "btrfs":
        return int(struct.unpack_from("<Q", head, 65536 + 0x70)[0])
    assert variant == "ntfs"
    return int(struct.unpack_from("<Q", head, 0x28)[0] * struct.unpack_from("<H", head, 0x0B)[0])


def _swap_bytes(device: Path) -> int:
    """Bytes of a swap area: its header holds the number of its last page."""
    with device.open("rb") as file:
        file.seek(1028)
        return int((struct.unpack("<I", file.read(4))[0] + 1) * 4096)


@contextlib.contextmanager
def _mounted(variant: str, device: Path, where: Path) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    sh(*_MOUNT.get(variant, ("mount", "-o", "ro,noload")), device, where)
    try:
        yield where
    finally:
        sh("umount", where)


def _sound(made: Made, place: Place, device: Path) -> None:
    """Its own checker is content, and it has the identity that it had."""
    source = made.device(made.disk, place)
    for key in ("TYPE", "UUID", "LABEL"):
        argv = ["blkid", "-p", "-s", key, "-o", "value"]
        before, after = (
            subprocess.run([*argv, str(one)], capture_output=True, check=False) for one in (source, device)
        )
        assert after.stdout == before.stdout, f"{key} of {place.variant}"
    fs = filesystems.blkid_name(place.variant)
    if fs in filesystems.CHECK:
        filesystems.check(fs, device)
