"""Used maps that are read here: what they call free may hold anything, and file systems and files stay as they were."""

import contextlib
import hashlib
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from litho.errors import RefusedError
from litho.library.chunks.usedmap import UsedMap
from litho_agent.chunk import usage
from litho_agent.engines.choose import choose_for
from litho_agent.engines.used import used_extents
from litho_agent.freespace import DoubtError, used_runs
from support import filesystems
from support.loop import loop_disk, needs_root, sh

pytestmark = needs_root

MIB = 1024 * 1024
MKNTFS = ("mkntfs", "-q", "-F", "-Q", "-p", "0", "-H", "16", "-S", "63")
CASES = {
    "xfs-1k": ("xfs", 320, 512, ("mkfs.xfs", "-q", "-f", "-b", "size=1024", "-d", "agcount=3", "-m", "rmapbt=1")),
    "xfs-64k": ("xfs", 512, 512, ("mkfs.xfs", "-q", "-f", "-b", "size=65536")),
    "xfs-4kn": ("xfs", 320, 4096, ("mkfs.xfs", "-q", "-f")),
    "xfs-v4": ("xfs", 320, 512, ("mkfs.xfs", "-q", "-f", "-m", "crc=0")),
    "ntfs": ("ntfs", 48, 512, MKNTFS),
    "ntfs-64k": ("ntfs", 64, 512, (*MKNTFS, "-c", "65536")),
    "ntfs-4kn": ("ntfs", 48, 4096, (*MKNTFS, "-s", "4096")),
    "fat12": ("vfat", 14, 512, ("mkfs.fat", "-F", "12")),
    "fat16": ("vfat", 48, 512, ("mkfs.fat", "-F", "16")),
    "fat32": ("vfat", 64, 512, ("mkfs.fat", "-F", "32")),
    "fat32-4kn": ("vfat", 320, 4096, ("mkfs.fat", "-F", "32", "-S", "4096", "-s", "1")),
    "exfat-4kn": ("exfat", 64, 4096, ("mkfs.exfat", "-c", "32K")),
}
ENOUGH = {"fat12": 60, "xfs-1k": 2000}
"""How many files fit, where it is not the usual number."""


@contextlib.contextmanager
def mounted(fs: str, disk: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    sh(*(("ntfs-3g", disk, at) if fs == "ntfs" else ("mount", disk, at)))
    try:
        yield at
    finally:
        sh("umount", at)


def age(tree: Path, rng: random.Random, count: int) -> None:
    """Fill it with files of all sizes, delete many, write others into the gaps, and make some longer."""
    for number in range(count):
        (tree / f"f{number}").write_bytes(rng.randbytes(rng.choice((100, 700, 5_000, 20_000))))
    os.sync()
    for number in rng.sample(range(count), count * 2 // 3):
        (tree / f"f{number}").unlink()
    os.sync()
    (tree / "deep").mkdir()
    for number in range(count // 5):
        (tree / "deep" / f"g{number}").write_bytes(rng.randbytes(rng.choice((3_000, 30_000))))
        with contextlib.suppress(FileNotFoundError), (tree / f"f{number}").open("ab") as file:
            file.write(rng.randbytes(9_000))
    (tree / "gone").write_bytes(rng.randbytes(2 * MIB))
    os.sync()
    (tree / "gone").unlink()


def hashes(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


def fill_unmounted(disk: Path, folder: Path, rng: random.Random, count: int) -> None:
    """The same for a FAT, by mtools."""
    tree = folder / "files"
    tree.mkdir()
    for number in range(count):
        (tree / f"f{number}").write_bytes(rng.randbytes(rng.choice((100, 700, 5_000, 20_000))))
    sh("mcopy", "-i", disk, *sorted(tree.iterdir()), "::/")
    for number in rng.sample(range(count), count // 2):
        sh("mdel", "-i", disk, f"::/f{number}")
    (tree / "long").write_bytes(rng.randbytes(MIB))
    sh("mcopy", "-i", disk, tree / "long", "::/")


def contents(fs: str, disk: Path, folder: Path) -> dict[str, str]:
    """The hash of every file on `disk`."""
    if fs == "exfat":
        # No driver and no program here can write into one; what it holds is what its maker put there.
        return {}
    if fs == "vfat":
        out = Path(folder / f"out{os.urandom(4).hex()}")
        out.mkdir()
        sh("mcopy", "-s", "-n", "-i", disk, "::/*", out)
        return hashes(out)
    with mounted(fs, disk, folder / "mnt") as tree:
        return hashes(tree)


def scramble(disk: Path, free: list[tuple[int, int]], rng: random.Random) -> int:
    """Random bytes over everything in `free`; answers how many."""
    noise = rng.randbytes(MIB)
    with disk.open("r+b", buffering=0) as file:
        for start, size in free:
            for at in range(start, start + size, MIB):
                file.seek(at)
                file.write(noise[: min(MIB, start + size - at)])
    os.sync()
    return sum(size for _, size in free)


@pytest.mark.parametrize("case", CASES)
def test_what_the_map_calls_free_may_hold_anything(case: str, tmp_path: Path) -> None:
    fs, mib, sector, mkfs = CASES[case]
    rng = random.Random(case)  # noqa: S311  the same disk each time
    size = mib * MIB
    with loop_disk(tmp_path / "disk.img", size=size, sector_size=sector) as disk:
        if case == "xfs-v4":
            # Not every kernel mounts it; its maker can put files in.
            filesystems.make(case, disk)
            filesystems.fill(case, disk, tmp_path)
        else:
            sh(*mkfs, disk)
        count = ENOUGH.get(case, 600)
        if fs == "vfat":
            fill_unmounted(disk, tmp_path, rng, min(count, 150))
        elif fs != "exfat" and case != "xfs-v4":
            with mounted(fs, disk, tmp_path / "mnt") as tree:
                age(tree, rng, count)
        before = {} if case == "xfs-v4" else contents(fs, disk, tmp_path)
        assert len(before) >= (0 if case == "xfs-v4" or fs == "exfat" else 20)

        runs = used_runs(disk, fs, size)
        own = UsedMap(runs, size)
        assert list(own) == runs, "ascending, and apart from each other"
        said = used_extents(disk, fs)
        assert (said is None) == (case == "fat12"), "whose map partclone gets wrong"
        theirs = UsedMap([(one.start, one.size) for one in said or ()], size) if said else own
        missing = [hole for one in theirs for hole in own.holes(one.start, one.end)]
        assert not missing, "it is all that partclone's map has"
        # Only the reserve of an XFS's groups, and what lies behind the last cluster, is more.
        more = sum(hole.size for one in own for hole in theirs.holes(one.start, one.end))
        assert more <= (12 * 16 * 65536 if fs == "xfs" else 65536 if fs == "ntfs" else 2 * MIB)

        mapped = usage.used_map(disk, fs, size)
        assert scramble(disk, [tuple(one) for one in mapped.holes(0, size)], rng) > size // 10
        filesystems.check(fs, disk)
        assert case == "xfs-v4" or contents(fs, disk, tmp_path) == before
        assert UsedMap(used_runs(disk, fs, size), size) == own


def test_an_xfs_with_its_log_elsewhere_is_left_to_partclone(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "a", size=320 * MIB) as disk, loop_disk(tmp_path / "b", size=320 * MIB) as log:
        sh("mkfs.xfs", "-q", "-f", "-l", f"logdev={log}", disk)
        with pytest.raises(DoubtError, match="external log"):
            used_runs(disk, "xfs", 320 * MIB)


def test_a_map_that_does_not_add_up_is_partclone_s_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with loop_disk(tmp_path / "disk", size=48 * MIB) as disk:
        sh("mkfs.fat", "-F", "16", disk)
        (tmp_path / "file").write_bytes(bytes(MIB))
        sh("mcopy", "-i", disk, tmp_path / "file", "::/")
        good = usage.used_map(disk, "vfat", 48 * MIB)
        caplog.set_level("INFO")
        with disk.open("r+b") as file:
            # The last sector of the second table.
            reserved, copies, _, _, _, table = struct.unpack_from("<HBHHBH", file.read(512), 14)
            file.seek((reserved + copies * table) * 512 - 512)
            file.write(b"\x01\x02")
            os.fsync(file.fileno())
        assert usage.used_map(disk, "vfat", 48 * MIB) == good
    assert "the FAT's two tables do not say the same; partclone is asked" in caplog.text


def test_a_fat12_is_not_left_to_partclone_which_takes_other_clusters(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=9 * MIB) as disk:
        sh("mkfs.fat", "-F", "12", disk)
        fill_unmounted(disk, tmp_path, random.Random(12), 60)  # noqa: S311  the same disk each time
        assert used_extents(disk, "vfat") is None
        assert choose_for(disk, "vfat").name == "raw"
        with pytest.raises(RefusedError, match="partclone cannot save FAT12"):
            choose_for(disk, "vfat", "partclone")
        # The tables say different things: nobody is believed, and everything is taken.
        with disk.open("r+b", buffering=0) as file:
            boot = file.read(512)
            file.seek(512 * int.from_bytes(boot[14:16], "little"))
            table = bytearray(file.read(512))
            table[300] ^= 0xFF
            file.seek(-512, os.SEEK_CUR)
            file.write(table)
        with pytest.raises(DoubtError, match="do not say the same"):
            used_runs(disk, "vfat", 9 * MIB)
        assert list(usage.used_map(disk, "vfat", 9 * MIB)) == [(0, 9 * MIB)]
