"""Free space as XFS, NTFS, FAT and exFAT record it: real file systems in plain files, sound, flipped and senseless."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho_agent import freespace
from litho_agent.chunk import usage
from litho_agent.freespace import DoubtError, ReadAt, WholeError, base, used_runs

MIB = 1024 * 1024
MADE = {
    "xfs": ("xfs", 320, ("mkfs.xfs", "-q")),
    "ntfs": ("ntfs", 16, ("mkntfs", "-q", "-F", "-Q", "-p", "0", "-H", "16", "-S", "63", "-s", "512")),
    "fat12": ("vfat", 4, ("mkfs.fat", "-F", "12")),
    "fat16": ("vfat", 24, ("mkfs.fat", "-F", "16")),
    "fat32": ("vfat", 64, ("mkfs.fat", "-F", "32", "-s", "1")),
    "exfat": ("exfat", 16, ("mkfs.exfat",)),
}
Disk = tuple[str, Path, int]


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Disk]:
    """Each file system in a plain file, with some files where mtools can put them."""
    folder = tmp_path_factory.mktemp("disks")
    made = {}
    for name, (fs, mib, argv) in MADE.items():
        path = folder / name
        with path.open("wb") as file:
            file.truncate(mib * MIB)
        subprocess.run([*argv, str(path)], check=True, capture_output=True)
        if fs == "vfat":
            for number, size in enumerate((70_000, 300, 150_000)):
                (folder / f"file{number}").write_bytes(bytes(size))
                subprocess.run(["mcopy", "-i", path, folder / f"file{number}", "::/"], check=True)
            subprocess.run(["mdel", "-i", path, "::/file0"], check=True)
        made[name] = (fs, path, mib * MIB)
    return made


@pytest.mark.parametrize("name", MADE)
def test_a_fresh_file_system_is_mostly_free_and_used_where_it_stands(name: str, disks: dict[str, Disk]) -> None:
    fs, path, size = disks[name]
    runs = used_runs(path, fs, size)
    assert runs == base.joined(runs)
    assert runs[0][0] == 0
    assert sum(length for _, length in runs) < size // 2
    # The file is sparse: whatever its maker and mtools wrote lies in what is called used.
    data = path.read_bytes()
    at = 0
    for start, length in [*runs, (size, 0)]:
        if name in {"fat12", "fat16", "fat32"}:
            break  # a deleted file's bytes stay
        assert not data[at:start].strip(b"\0"), f"bytes in what is called free, before {start}"
        at = start + length


def test_an_ntfs_is_used_to_the_copy_of_its_boot_sector(disks: dict[str, Disk]) -> None:
    fs, path, size = disks["ntfs"]
    assert sum(used_runs(path, fs, size)[-1]) == size


def flipped(data: bytes, change: dict[int, int]) -> ReadAt:
    """`data` with some of its bytes changed."""

    def read_at(offset: int, length: int) -> bytes:
        piece = bytearray(data[offset : offset + length])
        for at, value in change.items():
            if offset <= at < offset + len(piece):
                piece[at - offset] ^= value
        return bytes(piece)

    return read_at


def places(name: str, runs: base.Runs) -> Callable[[random.Random], int]:
    """Where the metadata lies that a reader goes by."""
    first = runs[0][1]
    if name == "xfs":
        # The first sectors and the roots of the trees of each of the four groups.
        return lambda rng: rng.randrange(4) * 80 * MIB + rng.randrange(3 * 4096)
    return lambda rng: rng.randrange(min(first, 40_000))


def test_no_flipped_bit_makes_an_xfs_give_up_what_it_uses(disks: dict[str, Disk]) -> None:
    fs, path, size = disks["xfs"]
    sound = used_runs(path, fs, size)
    data = path.read_bytes()
    # Everything that the reader goes by: superblock, group headers, and the blocks of both trees.
    where = [start + at for start in range(0, size, size // 4) for at in (*range(144, 152), *range(512, 576))]
    where += [at for at in range(512) if at < 152] + [
        start + 4096 + n for start in range(0, size, size // 4) for n in range(64)
    ]
    doubted = 0
    rng = random.Random(1)  # noqa: S311  the same flips each time
    for place in rng.sample(where, 300):
        try:
            assert freespace.READERS[fs](flipped(data, {place: 1 << rng.randrange(8)}), size) == sound
        except DoubtError:
            doubted += 1
    assert doubted > 100


@pytest.mark.parametrize("name", MADE)
def test_whatever_bytes_there_are_the_answer_is_a_map_or_a_doubt(name: str, disks: dict[str, Disk]) -> None:
    fs, path, size = disks[name]
    data = path.read_bytes()
    runs = used_runs(path, fs, size)
    where = places(name, runs)
    rng = random.Random(name)  # noqa: S311  the same bytes each time
    answers = {"map": 0, "doubt": 0}
    for _ in range(400):
        change = {where(rng): rng.randrange(1, 256) for _ in range(rng.choice((1, 1, 2, 8)))}

        try:
            found = freespace.READERS[fs](flipped(data, change), size)
        except DoubtError:
            answers["doubt"] += 1
        else:
            answers["map"] += 1
            assert found == base.joined(found)
            assert found[0][0] >= 0
            assert sum(found[-1]) <= size
    assert all(answers.values())


@pytest.mark.parametrize("fs", freespace.READERS)
def test_what_is_no_such_file_system_or_ends_early_is_doubted(fs: str, disks: dict[str, Disk]) -> None:
    for content in (b"", bytes(100), bytes(MIB), b"\xff" * MIB, random.Random(fs).randbytes(MIB)):  # noqa: S311
        with pytest.raises(DoubtError):
            freespace.READERS[fs](flipped(content, {}), len(content))
    for kind, path, size in disks.values():
        if kind != fs:
            with pytest.raises(DoubtError):
                used_runs(path, fs, size)
        else:
            # The partition is smaller than the file system says that it is.
            with pytest.raises(DoubtError):
                used_runs(path, fs, size // 2)


def test_a_file_system_without_a_reader_and_a_device_that_is_gone_are_doubted(tmp_path: Path) -> None:
    with pytest.raises(DoubtError, match="ext4"):
        used_runs(tmp_path, "ext4", MIB)
    with pytest.raises(DoubtError, match="No such file"):
        used_runs(tmp_path / "none", "xfs", MIB)


def test_a_table_that_is_too_large_for_a_node_is_not_read(disks: dict[str, Disk]) -> None:
    with pytest.raises(DoubtError, match="more than is read here"):
        base.exactly(lambda _, length: bytes(length), 0, base.MOST + 1)


@given(st.binary(max_size=40), st.integers(0, 320))
def test_runs_of_set_bits_are_the_set_bits(bitmap: bytes, count: int) -> None:
    found = base.set_bits(bitmap, count)
    bits = {bit for first, length in found for bit in range(first, first + length)}
    assert bits == {n for n in range(min(count, 8 * len(bitmap))) if bitmap[n // 8] >> n % 8 & 1}
    assert found == base.joined(found)


@given(st.sets(st.integers(0, 60)), st.integers(61, 80))
def test_the_rest_of_what_is_free_is_used(free: set[int], count: int) -> None:
    used = base.rest([(one, 1) for one in sorted(free)], count)
    assert {n for first, length in used for n in range(first, first + length)} == set(range(count)) - free


@pytest.mark.parametrize("free", [[(0, 2), (1, 1)], [(5, 0)], [(9, 2)], [(4, 1), (2, 1)]])
def test_free_runs_that_cannot_be_are_doubted(free: base.Runs) -> None:
    with pytest.raises(DoubtError, match="cannot be"):
        base.rest(free, 10)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_free_entries_of_every_width_are_found_where_they_are(used: list[bool]) -> None:
    # An entry of which only one byte is not zero, in any place, is in use.
    expected = base.joined((n, 1) for n, one in enumerate(used) if not one)
    for width in (2, 4):
        table = b"\xf8" + b"\xff" * (2 * width - 1)
        table += b"".join(
            (1 << 8 * (n % width)).to_bytes(width, "little") if one else bytes(width) for n, one in enumerate(used)
        )
        assert base.joined(freespace.fat._free(table, width)) == expected
    packed = 0xFFFFF8
    for n, one in enumerate(used, start=2):
        packed |= (0x100 if one else 0) << 12 * n
    table = packed.to_bytes((len(used) + 2) * 3 // 2 + 2, "little")
    assert freespace.fat._free12(table, len(used)) == expected


@pytest.mark.parametrize(("name", "change"), [("fat32", {40: 0x81}), ("exfat", {106: 0x01}), ("exfat", {110: 0x03})])
def test_where_another_table_than_the_first_counts_everything_is_taken(
    name: str, change: dict[int, int], disks: dict[str, Disk], tmp_path: Path
) -> None:
    fs, path, size = disks[name]
    other = tmp_path / "other"
    other.write_bytes(flipped(path.read_bytes(), change)(0, size))
    with pytest.raises(WholeError):
        used_runs(other, fs, size)
    assert list(usage.used_map(other, fs, size)) == [(0, size)]
