"""Partition tables on loop devices with the real sfdisk, wipefs, partx and blkid."""

import os
import random
import threading
from pathlib import Path

import pytest

from litho.errors import DiskError, RefusedError
from litho_agent.disks import held
from litho_agent.filesystems import probe, probe_all
from litho_agent.layout import Table, parse_dump, partition_path, plan_fit, read_layout, reread, write_head, write_table
from litho_agent.layout.kernel import differing
from support.loop import loop_disk, needs_root, sh

pytestmark = needs_root
MIB = 1024 * 1024

LOGICALS = """label: dos
label-id: 0x1234abcd

/dev/x1 : start=63, size=20000, type=83, bootable
/dev/x2 : start=20480, size=4000, type=82
/dev/x4 : start=26000, size=400000, type=5
/dev/x5 : start=26063, size=9937, type=83
/dev/x6 : start=36063, size=9937, type=83
/dev/x7 : start=60001, size=9937, type=7
/dev/x8 : start=49000, size=10000, type=83
/dev/x9 : start=100000, size=10000, type=83
/dev/x10 : start=110001, size=10000, type=83
/dev/x11 : start=120002, size=10000, type=83
/dev/x12 : start=130100, size=10000, type=83
/dev/x13 : start=140120, size=10000, type=b
/dev/x14 : start=150130, size=10000, type=83
"""
UEFI = r"""label: gpt
label-id: 5C27AA3A-8EFC-794D-B9B9-6B5898030574

/dev/x1 : start=2048, size=20480, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=C06F77A8-8CBF-254A-BEEB-7EA8AA8D6A44, name="EFI \x22\xc3\xa9", attrs="RequiredPartition LegacyBIOSBootable GUID:48,63"
/dev/x2 : start=100000, size=20480, type=21686148-6449-6E6F-744E-656564454649, uuid=E4DEDEA0-729A-0B4B-90F0-44BB6ACD4D51
/dev/x9 : start=40000, size=20480, type=9E1A2D38-C612-4316-AA26-8B49521E5A8B, uuid=E4DEDEA0-729A-0B4B-90F0-44BB6ACD4D52, name="PReP"
"""  # noqa: E501 - sfdisk wants a partition on one line


def apply(disk: Path, script: str, *more: str) -> None:
    sh("sfdisk", "--force", "--no-reread", "--no-tell-kernel", *more, disk, stdin=script)


def noise(disk: Path, offset: int, size: int, seed: int = 1) -> bytes:
    data = random.Random(seed).randbytes(size)  # noqa: S311 - test data
    fd = os.open(disk, os.O_RDWR)
    os.pwrite(fd, data, offset)
    os.fsync(fd)
    os.close(fd)
    return data


def bytes_of(disk: Path, offset: int, size: int) -> bytes:
    fd = os.open(disk, os.O_RDONLY)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def boot_code(disk: Path, gap_at: int, gap: int) -> tuple[bytes, bytes]:
    return noise(disk, 0, 440, 1), noise(disk, gap_at, gap, 2)


@pytest.mark.parametrize(
    ("script", "gap_at", "first"), [(LOGICALS, 512, 63), (UEFI, 34 * 512, 2048)], ids=["dos-logicals", "gpt"]
)
def test_a_table_with_boot_code_comes_back_equal_on_a_larger_disk(
    tmp_path: Path, script: str, gap_at: int, first: int
) -> None:
    with (
        loop_disk(tmp_path / "source", size=300 * MIB) as source,
        loop_disk(tmp_path / "target", size=400 * MIB) as target,
    ):
        apply(source, script)
        code, gap = boot_code(source, gap_at, first * 512 - gap_at)
        layout = read_layout(source)
        assert len(layout.head) == first * 512
        assert layout.notes == ()
        assert layout.size == 300 * MIB

        fitted = plan_fit(parse_dump(layout.dump), source_size=layout.size, target_size=400 * MIB, target_sector=512)
        with held(target, write=True) as hold:
            write_table(hold, fitted.table)
            half = bytes_of(target, 0, 512)
            assert half[:440] == bytes(440), "no boot code before the end"
            assert half[446] == 0, "no active partition before the end"
            assert "C12A7328" not in sh("sfdisk", "--dump", target), "no EFI system partition before the end"
            assert differing(target, fitted.table) == ""
            write_head(hold, layout.head, fitted.table)
        printed = read_layout(target)
        assert printed.table.same(layout.table)
        assert printed.notes == ()
        assert (bytes_of(target, 0, 440), bytes_of(target, gap_at, len(gap))) == (code, gap)
        wanted = [line for line in layout.dump.splitlines() if " : " in line]
        found = [line.replace(str(target), str(source)) for line in printed.dump.splitlines() if " : " in line]
        assert found == wanted
        if script == UEFI:
            assert bytes_of(target, 400 * MIB - 512, 8) == b"EFI PART", "the backup lies at the target's own end"
            assert "does not match" not in sh("sgdisk", "--verify", target)


def test_a_disk_with_4096_bytes_a_sector_comes_back_equal(tmp_path: Path) -> None:
    script = "label: gpt\nsize=64M, type=U, name=efi\nsize=100M\n"
    with (
        loop_disk(tmp_path / "source", size=300 * MIB, sector_size=4096) as source,
        loop_disk(tmp_path / "target", size=250 * MIB, sector_size=4096) as target,
    ):
        apply(source, script)
        boot_code(source, 6 * 4096, MIB - 6 * 4096)
        layout = read_layout(source)
        assert layout.table.sector_size == 4096
        fitted = plan_fit(layout.table, source_size=layout.size, target_size=250 * MIB, target_sector=4096)
        with held(target, write=True) as hold:
            write_table(hold, fitted.table)
            write_head(hold, layout.head, fitted.table)
        printed = read_layout(target)
        assert printed.table.same(layout.table)
        assert printed.head[6 * 4096 :] == layout.head[6 * 4096 :]
        assert bytes_of(target, 250 * MIB - 4096, 8) == b"EFI PART"


def test_an_mbr_on_4096_bytes_a_sector_comes_back_equal(tmp_path: Path) -> None:
    with (
        loop_disk(tmp_path / "source", size=300 * MIB, sector_size=4096) as source,
        loop_disk(tmp_path / "target", size=300 * MIB, sector_size=4096) as target,
    ):
        apply(source, "label: dos\nsize=64M, bootable\nsize=100M, type=5\nstart=20000, size=5000\nsize=5000\n")
        layout = read_layout(source)
        with held(target, write=True) as hold:
            write_table(hold, layout.table)
            write_head(hold, layout.head, layout.table)
        assert read_layout(target).table.same(layout.table)


def test_the_backup_of_an_old_gpt_does_not_survive_a_new_mbr(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=200 * MIB) as disk:
        apply(disk, "label: gpt\nsize=20M\n")
        with held(disk, write=True) as hold:
            write_table(
                hold, parse_dump("label: dos\nlabel-id: 0x00000001\n/dev/x1 : start=2048, size=20480, type=83\n")
            )
        assert b"EFI PART" not in bytes_of(disk, 199 * MIB, MIB)
        assert b"EFI PART" not in bytes_of(disk, 0, MIB)
        assert probe(disk).table == "dos"


def test_stale_signatures_on_the_new_partitions_are_gone(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=300 * MIB) as disk:
        apply(disk, "label: gpt\nstart=2048, size=200M\n")
        with held(disk, write=True) as hold:
            reread(hold, read_layout(disk).table)
        sh("mkfs.btrfs", "-q", "-f", partition_path(disk, 1))
        table = parse_dump("label: dos\nlabel-id: 0x00000001\n/dev/x1 : start=2048, size=409600, type=83\n")
        assert probe(partition_path(disk, 1)).type == "btrfs"
        with held(disk, write=True) as hold:
            write_table(hold, table)
        assert probe(partition_path(disk, 1)).empty


def test_a_hybrid_mbr_is_noticed_and_kept(tmp_path: Path) -> None:
    with (
        loop_disk(tmp_path / "source", size=200 * MIB) as source,
        loop_disk(tmp_path / "target", size=200 * MIB) as target,
    ):
        apply(source, "label: gpt\nsize=50M\nsize=20M\n")
        sh("sgdisk", "--hybrid=1:2", source)
        layout = read_layout(source)
        assert layout.hybrid
        assert layout.notes == ("the disk has a hybrid MBR; its entries are kept",)
        with held(target, write=True) as hold:
            write_table(hold, layout.table)
            write_head(hold, layout.head, layout.table)
        assert bytes_of(target, 446, 64) == bytes_of(source, 446, 64)
        assert read_layout(target).table.same(layout.table)


def test_a_gpt_without_its_backup_is_read_and_said_and_made_whole(tmp_path: Path) -> None:
    with (
        loop_disk(tmp_path / "source", size=200 * MIB) as source,
        loop_disk(tmp_path / "target", size=200 * MIB) as target,
    ):
        apply(source, "label: gpt\nsize=50M\n")
        noise(source, 200 * MIB - 33 * 512, 33 * 512)
        layout = read_layout(source)
        assert layout.notes == ("the GPT has no valid backup at the end of the disk; a restore makes a new one",)
        with held(target, write=True) as hold:
            write_table(hold, layout.table)
            write_head(hold, layout.head, layout.table)
        assert read_layout(target).notes == ()


def test_a_gpt_whose_disk_has_grown_says_where_its_backup_is(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with loop_disk(image, size=200 * MIB) as disk:
        apply(disk, "label: gpt\nsize=50M\n")
    with loop_disk(image, size=300 * MIB) as disk:
        assert read_layout(disk).notes == ("the backup GPT is not at the end of the disk; a restore puts it there",)


def test_a_gpt_without_its_primary_is_read_from_the_backup(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=200 * MIB) as disk:
        apply(disk, "label: gpt\nsize=50M\nsize=20M\n")
        noise(disk, 512, 33 * 512)
        layout = read_layout(disk)
        assert [part.number for part in layout.table.partitions] == [1, 2]
        assert "primary GPT is damaged" in layout.notes[0]


def test_a_gpt_with_both_copies_damaged_is_an_error_and_not_an_mbr(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=200 * MIB) as disk:
        apply(disk, "label: gpt\nsize=50M\n")
        noise(disk, 512, 33 * 512)
        noise(disk, 200 * MIB - 33 * 512, 33 * 512)
        with pytest.raises(DiskError, match="is damaged, and so is its backup"):
            read_layout(disk)


@pytest.mark.parametrize(
    "make",
    [
        ["mkfs.ext4", "-q", "-F"],
        ["mkfs.vfat", "-I"],
        ["mkfs.ntfs", "-F", "-Q", "-q"],
        ["mkfs.xfs", "-q"],
        ["mkswap"],
        ["mkfs.exfat"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_file_system_on_the_whole_disk_is_no_table(tmp_path: Path, make: list[str]) -> None:
    with (
        loop_disk(tmp_path / "source", size=400 * MIB) as source,
        loop_disk(tmp_path / "target", size=400 * MIB) as target,
    ):
        sh(*make, source)
        layout = read_layout(source)
        assert layout.table == Table(label="none", sector_size=512)
        assert (layout.head, layout.dump) == (b"", "")
        apply(target, "label: gpt\nsize=50M\n")
        with held(target, write=True) as hold:
            write_table(hold, layout.table)
            write_head(hold, layout.head, layout.table)
        assert probe(target).empty
        assert differing(target, layout.table) == ""


def test_an_empty_disk_and_an_empty_mbr_are_told_apart(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=50 * MIB) as disk:
        assert read_layout(disk).table.label == "none"
        apply(disk, "label: dos\n")
        layout = read_layout(disk)
        assert (layout.table.label, layout.table.partitions) == ("dos", ())
        with held(disk, write=True) as hold:
            write_table(hold, layout.table)
            write_head(hold, layout.head, layout.table)
        assert read_layout(disk).table.same(layout.table)


def test_a_table_beside_the_remains_of_a_file_system_is_still_a_table(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB) as disk:
        sh("mkfs.ext4", "-q", "-F", disk)
        apply(disk, "label: dos\nstart=2048, size=40960\n", "--wipe=never")
        assert read_layout(disk).table.label == "dos"


def test_a_file_system_behind_an_mbr_that_names_no_partition_is_not_passed_over(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB) as disk:
        sh("mkfs.ext4", "-q", "-F", disk)
        apply(disk, "label: dos\n", "--wipe=never")
        assert [(one.table, one.type) for one in probe_all(disk)] == [("dos", "ext4")]
        assert read_layout(disk).table.label == "none"


def test_a_table_of_another_kind_is_refused_with_its_name(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB) as disk:
        apply(disk, "label: sun\n")
        with pytest.raises(DiskError, match="'sun', which is not supported"):
            read_layout(disk)


def test_an_extended_partition_is_cut_by_its_free_end_on_a_smaller_disk(tmp_path: Path) -> None:
    script = "label: dos\nstart=2048,size=20480\nstart=30000,size=300000,type=f\nstart=32048,size=40000\n"
    with (
        loop_disk(tmp_path / "source", size=200 * MIB) as source,
        loop_disk(tmp_path / "target", size=100 * MIB) as target,
    ):
        apply(source, script)
        layout = read_layout(source)
        fitted = plan_fit(layout.table, source_size=layout.size, target_size=100 * MIB, target_sector=512)
        with held(target, write=True) as hold:
            write_table(hold, fitted.table)
            write_head(hold, layout.head, fitted.table)
        printed = read_layout(target).table
        assert printed.partition(5) == layout.table.partition(5)
        assert printed.partition(2).end == 100 * MIB // 512 - 1


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_the_last_partition_grows_to_the_end_of_a_larger_disk(tmp_path: Path, label: str) -> None:
    with (
        loop_disk(tmp_path / "source", size=100 * MIB) as source,
        loop_disk(tmp_path / "target", size=333 * MIB) as target,
    ):
        apply(source, f"label: {label}\nstart=2048,size=20480\nstart=30720,size=40960\n")
        layout = read_layout(source)
        fitted = plan_fit(
            layout.table, source_size=layout.size, target_size=333 * MIB, target_sector=512, fit="grow", growable=[2]
        )
        assert fitted.grown == 2
        with held(target, write=True) as hold:
            write_table(hold, fitted.table)
            write_head(hold, layout.head, fitted.table)
        assert read_layout(target).table.same(fitted.table)
        tail = 0 if label == "dos" else MIB
        assert int(sh("blockdev", "--getsize64", partition_path(target, 2))) == 333 * MIB - 15 * MIB - tail


def test_a_target_of_another_sector_size_keeps_every_byte(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB, sector_size=4096) as disk:
        before = noise(disk, 0, 4 * MIB)
        table = parse_dump("label: dos\n/dev/x1 : start=2048, size=2048, type=83\n")
        with held(disk, write=True) as hold, pytest.raises(DiskError, match="4096 bytes a sector"):
            write_table(hold, table)
        with pytest.raises(RefusedError, match="512 bytes a sector and /dev/sdz has 4096"):
            plan_fit(table, source_size=MIB, target_size=MIB, target_sector=4096, target="/dev/sdz")
        assert bytes_of(disk, 0, 4 * MIB) == before


def test_what_is_written_in_front_of_a_partition_leaves_its_first_sectors_alone(tmp_path: Path) -> None:
    """Sector 63 and the sectors behind an EBR share their page of memory with what the table's writer writes."""
    with (
        loop_disk(tmp_path / "source", size=300 * MIB) as source,
        loop_disk(tmp_path / "target", size=300 * MIB) as target,
    ):
        apply(source, LOGICALS)
        boot_code(source, 512, 62 * 512)
        layout = read_layout(source)
        filled = [part for part in layout.table.partitions if not layout.table.is_extended(part)]
        assert sum(part.start % 8 != 0 for part in filled) > 5
        with held(target, write=True) as hold:
            write_table(hold, layout.table)
            for part in filled:
                noise(partition_path(target, part.number), 0, 8192, part.number)
            write_head(hold, layout.head, layout.table)
        for part in filled:
            wanted = random.Random(part.number).randbytes(8192)  # noqa: S311 - test data
            assert bytes_of(target, part.start * 512, 8192) == wanted, part.number
            assert bytes_of(partition_path(target, part.number), 0, 8192) == wanted, part.number


def test_a_head_that_would_reach_into_the_first_partition_is_refused(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB) as disk:
        table = parse_dump("label: dos\n/dev/x1 : start=63, size=2048, type=83\n")
        with held(disk, write=True) as hold:
            write_table(hold, table)
            with pytest.raises(DiskError, match="do not fit in front of it"):
                write_head(hold, bytes(64 * 512), table)


def test_the_table_is_taken_although_somebody_looks_at_a_partition_for_a_moment(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with loop_disk(image, size=100 * MIB) as disk:
        table = parse_dump("label: dos\nlabel-id: 0x00000001\n/dev/x1 : start=2048, size=2048, type=83\n")
        with held(disk, write=True) as hold:
            write_table(hold, table)
            other = parse_dump("label: dos\nlabel-id: 0x00000001\n/dev/x1 : start=4096, size=2048, type=83\n")
            with partition_path(disk, 1).open("rb"), pytest.raises(DiskError, match="something keeps a partition open"):
                reread(hold, other, patience_s=0.3)
            with partition_path(disk, 1).open("rb") as file:
                threading.Timer(0.5, file.close).start()
                reread(hold, other)
            assert differing(disk, other) == ""
