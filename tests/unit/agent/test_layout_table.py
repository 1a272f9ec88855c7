"""Partition tables as data: dumps that sfdisk wrote, dumps that nobody should believe, and fitting to another size."""

import os
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.errors import DiskError, RefusedError
from litho_agent.layout import sectors
from litho_agent.layout.fit import last_usable, plan_fit
from litho_agent.layout.table import (
    ESP_GPT,
    LINUX_GPT,
    Partition,
    Table,
    check,
    parse_dump,
    partition_path,
)

EXAMPLES = int(os.environ.get("LITHO_EXAMPLES", "200"))
MIB = 1024 * 1024

DOS = """label: dos
label-id: 0x1234ABCD
device: /dev/loop1
unit: sectors
sector-size: 512

/dev/loop1p1 : start=          63, size=       20000, type=83, bootable
/dev/loop1p4 : start=       26000, size=      400000, type=5
/dev/loop1p5 : start=       26063, size=        9937, type=83
/dev/loop1p12 : start=      130100, size=       10000, type=b
/dev/loop1p6 : start=      140120, size=       10000, type=0c
"""
GPT = r"""label: gpt
label-id: 5c27aa3a-8efc-794d-b9b9-6b5898030574
device: /dev/nvme0n1
unit: sectors
first-lba: 34
last-lba: 614366
table-length: 256
sector-size: 512

/dev/nvme0n1p1 : start=        2048, size=      102400, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=C06F77A8-8CBF-254A-BEEB-7EA8AA8D6A44, name="a\x22, b\xc3\xa9", attrs="RequiredPartition LegacyBIOSBootable GUID:48,63"
/dev/nvme0n1p128 : start=      200000, size=       41664, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=E4DEDEA0-729A-0B4B-90F0-44BB6ACD4D51
"""  # noqa: E501 - as sfdisk prints it


def test_an_mbr_with_logical_partitions_is_read() -> None:
    table = parse_dump(DOS)
    assert (table.label, table.id, table.sector_size) == ("dos", "0x1234abcd", 512)
    assert [part.number for part in table.partitions] == [1, 4, 5, 6, 12]
    assert [part.type for part in table.partitions] == ["83", "5", "83", "c", "b"]
    assert table.partition(1).bootable
    frame = table.extended()
    assert frame is not None
    assert frame.number == 4
    assert [table.is_logical(part) for part in table.partitions] == [False, False, True, True, True]
    assert table.start_bytes(table.partition(5)) == 26063 * 512
    with pytest.raises(DiskError, match="no partition 2"):
        table.partition(2)


def test_a_gpt_is_read_with_names_and_attributes() -> None:
    table = parse_dump(GPT)
    assert table.id == "5C27AA3A-8EFC-794D-B9B9-6B5898030574"
    assert (table.first_lba, table.last_lba, table.table_length, table.entry_sectors) == (34, 614366, 256, 64)
    first = table.partition(1)
    assert first.name == 'a", bé'
    assert first.attrs == "RequiredPartition LegacyBIOSBootable GUID:48,63"
    assert table.partition(128).start == 200000


@pytest.mark.parametrize("dump", [DOS, GPT])
def test_the_script_describes_the_same_table(dump: str) -> None:
    table = parse_dump(dump)
    again = parse_dump(table.script())
    assert table.same(again)
    assert again.same(table)


def test_nothing_boots_from_an_unbootable_table() -> None:
    table = parse_dump(GPT).unbootable()
    assert (table.partition(1).type, table.partition(1).attrs) == (LINUX_GPT, "RequiredPartition GUID:48,63")
    assert ESP_GPT not in table.script()
    plain = parse_dump(DOS).unbootable()
    assert "bootable" not in plain.script()
    assert [(p.start, p.size) for p in plain.partitions] == [(p.start, p.size) for p in parse_dump(DOS).partitions]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("label: dos", "label: sun", "'sun' is not supported"),
        ("label: dos", "label: dos\nlabel: dos", "is not understood"),
        ("label: dos", "evil: 1\nlabel: dos", "is not understood"),
        ("unit: sectors", "unit: cylinders", "does not count in sectors"),
        ("sector-size: 512", "sector-size: 513", "sectors of 513 bytes"),
        ("0x1234ABCD", "0x1234; rm", "is not its identifier"),
        ("/dev/loop1p1 ", "/dev/loop1p0 ", "has no partition number"),
        ("/dev/loop1p1 ", "/dev/loop1 ", "has no partition number"),
        ("/dev/loop1p6 ", "/dev/loop1p5 ", "the same number"),
        ("/dev/loop1p6 ", "/dev/loop1p2000 ", "out of range"),
        ("start=          63", "start=-1", "is no start"),
        ("start=          63", "start=0", "starts in the table itself"),
        ("size=       20000", "size=0", "no type or no size"),
        ("size=       20000", "size=26000", "partitions 1 and 4 overlap"),
        ("size=        9937", "size=200000", "partitions 5 and 12 overlap"),
        ("size=      400000", "size=10000", "not inside an extended one"),
        ("type=5", "type=83", "not inside an extended one"),
        ("type=83, bootable", "type=5", "two extended"),
        ("type=83, bootable", "type=zz", "no type or no size"),
        ("type=83, bootable", "type=83, what=1", "is not understood"),
        ("type=83, bootable", "type=83, type=83", "is not understood"),
        ("type=83, bootable", 'type=83, name="x', "is not understood"),
        ("size=       20000", "size=4294967296", "beyond what an MBR can say"),
    ],
)
def test_a_dump_that_cannot_be_is_refused_with_the_reason(old: str, new: str, why: str) -> None:
    assert DOS.count(old) >= 1
    with pytest.raises(DiskError, match=why):
        parse_dump(DOS.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("table-length: 256", "table-length: 999999"),
        ("uuid=C06F77A8-", "uuid=C06F77A8;"),
        ("first-lba: 34", "first-lba: x"),
        ("last-lba: 614366", "last-lba: 1000"),
        ("RequiredPartition", "Required`reboot`"),
        (r"a\x22, b\xc3\xa9", "x" * 37),
        (r"a\x22, b\xc3\xa9", r"a\x00b"),
        ("nvme0n1p128", "nvme0n1p257"),
    ],
)
def test_a_gpt_dump_that_cannot_be_is_refused(old: str, new: str) -> None:
    assert old in GPT
    with pytest.raises(DiskError):
        parse_dump(GPT.replace(old, new, 1))


@given(st.text(max_size=400))
def test_any_text_is_a_table_or_an_error_of_ours(text: str) -> None:
    for dump in (text, f"label: dos\n\n{text}", f"label: gpt\n\n/dev/a1 : {text}"):
        try:
            check(parse_dump(dump))
        except DiskError as exc:
            assert exc.code in ("bad-table", "table-kind")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=36))
def test_any_name_survives_the_script(name: str) -> None:
    if len(name.encode("utf-16-le")) > 72:
        return
    table = parse_dump(GPT)
    first = msgspec.structs.replace(table.partition(1), name=name)
    script = msgspec.structs.replace(table, partitions=(first,)).script()
    assert script.isascii()
    assert parse_dump(script).partition(1).name == name


@pytest.mark.parametrize(
    ("disk", "number", "path"),
    [
        ("/dev/sda", 1, "/dev/sda1"),
        ("/dev/nvme0n1", 12, "/dev/nvme0n1p12"),
        ("/dev/loop0", 1, "/dev/loop0p1"),
        ("/dev/mmcblk0", 2, "/dev/mmcblk0p2"),
        ("/dev/sda", 0, "/dev/sda"),
    ],
)
def test_partitions_are_named_as_the_kernel_names_them(disk: str, number: int, path: str) -> None:
    assert partition_path(disk, number) == Path(path)


# ---------------------------------------------------------------- fitting


def simple(label: str = "dos", *, sizes: tuple[int, ...] = (20480, 40960), sector_size: int = 512) -> Table:
    parts, at = [], MIB // sector_size
    for number, size in enumerate(sizes, 1):
        parts.append(Partition(number=number, start=at, size=size, type="83" if label == "dos" else LINUX_GPT))
        at += size
    return Table(label=label, sector_size=sector_size, partitions=tuple(parts))  # type: ignore[arg-type]


def test_a_disk_of_the_same_size_keeps_everything() -> None:
    table = simple()
    fitted = plan_fit(table, source_size=100 * MIB, target_size=100 * MIB, target_sector=512)
    assert (fitted.table, fitted.grown, fitted.notes) == (table, None, ())


def test_a_smaller_disk_takes_it_when_the_end_was_free() -> None:
    exact = MIB + (20480 + 40960) * 512
    fitted = plan_fit(simple(), source_size=10**9, target_size=exact, target_sector=512)
    assert fitted.table.partitions == simple().partitions
    gpt = plan_fit(simple("gpt"), source_size=10**9, target_size=exact + 33 * 512, target_sector=512)
    assert gpt.table.last_lba == gpt.table.partitions[-1].end


def test_a_disk_that_is_too_small_is_refused_with_the_numbers() -> None:
    exact = MIB + (20480 + 40960) * 512
    with pytest.raises(RefusedError) as caught:
        plan_fit(simple(), source_size=10**9, target_size=exact - 512, target_sector=512, target="/dev/sda")
    assert caught.value.code == "disk-too-small"
    assert caught.value.message == (
        "/dev/sda is too small: the image needs 32505856 bytes (32.5 MB; partition 2 ends there) and it has 32505344 (32.5 MB)"
    )
    with pytest.raises(RefusedError, match=f"needs {exact + 33 * 512} bytes"):
        plan_fit(simple("gpt"), source_size=10**9, target_size=exact, target_sector=512)


def test_another_sector_size_is_refused_with_the_reason() -> None:
    with pytest.raises(RefusedError, match="made on a disk with 512 bytes a sector and the disk has 4096") as caught:
        plan_fit(simple(), source_size=10**9, target_size=10**9, target_sector=4096)
    assert caught.value.code == "sector-size"


def test_a_file_system_on_the_whole_disk_needs_the_whole_size() -> None:
    table = Table(label="none", sector_size=512)
    with pytest.raises(RefusedError, match="the file system takes the whole disk"):
        plan_fit(table, source_size=100 * MIB, target_size=99 * MIB, target_sector=512)
    assert plan_fit(table, source_size=MIB, target_size=2 * MIB, target_sector=512, fit="grow", growable=[0]).grown == 0
    assert plan_fit(table, source_size=MIB, target_size=2 * MIB, target_sector=512, growable=[0]).grown is None


def test_only_the_last_partition_grows_and_only_when_it_can() -> None:
    grown = plan_fit(
        simple("gpt"), source_size=MIB, target_size=100 * MIB, target_sector=512, fit="grow", growable=[1, 2]
    )
    assert grown.grown == 2
    assert grown.table.partition(2).end + 1 == 99 * MIB // 512
    assert grown.notes == ("partition 2 was grown from 21.0 MB to 92.3 MB",)
    kept = plan_fit(simple("gpt"), source_size=MIB, target_size=100 * MIB, target_sector=512, fit="grow", growable=[1])
    assert kept.grown is None
    assert kept.notes == (
        "partition 2 is the last one and what lies on it cannot be grown; the space behind it stays free",
    )


def test_a_logical_partition_grows_with_its_extended_one() -> None:
    table = parse_dump(DOS)
    fitted = plan_fit(table, source_size=MIB, target_size=300 * MIB, target_sector=512, fit="grow", growable=[5, 6, 12])
    assert fitted.grown == 6
    assert fitted.table.partition(6).end + 1 == 300 * MIB // 512
    frame = fitted.table.extended()
    assert frame is not None
    assert frame.end == fitted.table.partition(6).end


def test_an_mbr_grows_no_further_than_it_can_say() -> None:
    fitted = plan_fit(simple(), source_size=MIB, target_size=3 * 1024**4, target_sector=512, fit="grow", growable=[2])
    assert fitted.table.partition(2).end < 2**32
    assert fitted.table.partition(2).end > 2**32 - 4096


@st.composite
def tables(draw: st.DrawFn) -> Table:
    label = draw(st.sampled_from(["dos", "gpt"]))
    sector = draw(st.sampled_from([512, 4096]))
    parts, at = [], draw(st.integers(64, 4096))
    count = draw(st.integers(0, 4 if label == "dos" else 20))
    numbers = draw(st.permutations(range(1, count + 1)))
    for number in numbers:
        size = draw(st.integers(1, 10**6))
        parts.append(Partition(number=number, start=at, size=size, type="83" if label == "dos" else LINUX_GPT))
        at += size + draw(st.integers(0, 5000))
    return Table(label=label, sector_size=sector, partitions=tuple(sorted(parts, key=lambda p: p.number)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(tables(), st.integers(0, 10**11), st.sampled_from(["keep", "grow"]), st.sets(st.integers(1, 20)))
def test_a_fitted_table_is_valid_on_its_target_and_never_smaller_than_its_source(table, target, fit, growable) -> None:
    check(table)
    needed = max((part.end for part in table.partitions), default=0)
    try:
        fitted = plan_fit(
            table, source_size=10**12, target_size=target, target_sector=table.sector_size, fit=fit, growable=growable
        )
    except RefusedError as exc:
        assert exc.code == "disk-too-small"
        assert needed > last_usable(table, target)
        return
    check(fitted.table)
    assert [part.number for part in fitted.table.partitions] == [part.number for part in table.partitions]
    for before, after in zip(table.partitions, fitted.table.partitions, strict=True):
        assert after.start == before.start
        assert after.size >= before.size
        assert after.end <= last_usable(table, target)
        if after.size != before.size:
            assert fitted.grown == after.number
            assert fit == "grow"
            assert after.number in growable
    if fit == "keep":
        assert fitted.table.partitions == table.partitions


# ---------------------------------------------------------------- sectors


def mbr(*entries: tuple[int, int, int, int]) -> bytes:
    packed = b"".join(struct.pack("<B3xB3xII", *entry) for entry in entries).ljust(64, b"\0")
    return bytes(446) + packed + b"\x55\xaa"


def test_mbr_kinds_are_told_apart() -> None:
    protective, plain = mbr((0, 0xEE, 1, 999)), mbr((0x80, 0x83, 63, 100), (0, 7, 200, 100))
    hybrid = mbr((0, 0xEE, 1, 99), (0, 0x83, 100, 100))
    assert [sectors.is_protective(sector) for sector in (protective, plain, hybrid)] == [True, False, True]
    assert [sectors.is_hybrid(sector) for sector in (protective, plain, hybrid)] == [False, False, True]
    assert [sectors.is_dos(sector) for sector in (protective, plain, mbr(), bytes(512), b"")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert sectors.mbr_entries(b"short") is None
    assert not sectors.is_dos(mbr((0x33, 0x83, 63, 100))), "a boot flag that is none belongs to a file system's code"


def test_an_exfat_s_boot_sector_is_told_from_an_mbr() -> None:
    boot = b"\xeb\x76\x90EXFAT   " + bytes(499) + b"\x55\xaa"
    assert sectors.is_exfat(boot)
    assert not sectors.is_exfat(boot[:63])
    assert not sectors.is_exfat(boot[:20] + b"\1" + boot[21:])
    assert not sectors.is_exfat(mbr((0x80, 0x83, 63, 100)))


def test_a_hybrid_mbr_says_the_new_size_of_a_partition_that_was_grown() -> None:
    entries = mbr((0, 0xEE, 1, 2047), (0x80, 0x83, 2048, 100), (0, 7, 9000, 50), (0, 0xEE, 9100, 0xFFFFFFFF))[446:510]
    found = sectors.hybrid_entries(entries, {2048: 6000, 8000: 10}, 10_000)
    assert found == mbr((0, 0xEE, 1, 2047), (0x80, 0x83, 2048, 6000), (0, 7, 9000, 50), (0, 0xEE, 9100, 900))[446:510]
    assert sectors.hybrid_entries(found, {2048: 2**33}, 2**34)[16 + 12 : 32] == b"\xff\xff\xff\xff"


def gpt_disk(size_lba: int, *, sector: int = 512) -> bytearray:
    disk = bytearray(size_lba * sector)
    entries = bytes(128 * 128)
    for lba, other, at in ((1, size_lba - 1, 2), (size_lba - 1, 1, size_lba - 1 - len(entries) // sector)):
        header = bytearray(92)
        struct.pack_into("<8sIIII", header, 0, b"EFI PART", 0x10000, 92, 0, 0)
        struct.pack_into("<QQQQ", header, 24, lba, other, 34, size_lba - 34)
        struct.pack_into("<QIII", header, 72, at, 128, 128, zlib.crc32(entries))
        struct.pack_into("<I", header, 16, zlib.crc32(bytes(header)))
        disk[lba * sector : lba * sector + 92] = header
    return disk


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(["primary", "backup"]), st.integers(0, 91), st.integers(1, 255))
def test_any_flipped_byte_of_a_gpt_header_is_noticed(which: str, at: int, flip: int) -> None:
    disk = gpt_disk(200)
    where = (1 if which == "primary" else 199) * 512
    disk[where + at] ^= flip
    state = sectors.gpt_state(
        lambda offset, length: bytes(disk[offset : offset + length]), size=200 * 512, sector_size=512
    )
    assert (state.primary is None) == (which == "primary")
    assert (state.backup is None) == (which == "backup")
    assert len(state.notes(199)) == 1


def test_a_sound_gpt_has_nothing_to_say() -> None:
    disk = gpt_disk(200)
    state = sectors.gpt_state(
        lambda offset, length: bytes(disk[offset : offset + length]), size=200 * 512, sector_size=512
    )
    assert state.notes(199) == ()
    assert state.notes(300) == ("the backup GPT is not at the end of the disk; a restore puts it there",)


@given(st.binary(max_size=4096))
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    state = sectors.gpt_state(lambda offset, length: data[offset : offset + length], size=len(data), sector_size=512)
    assert state == sectors.GptState(None, None)
    assert sectors.is_dos(data) in (True, False)


def test_a_line_of_blanks_is_refused_at_once() -> None:
    with pytest.raises(DiskError, match="not understood"):
        parse_dump("label: dos\n/dev/sda1 : start=1, size=" + " " * 500_000 + '"')


@pytest.mark.parametrize(
    "line",
    [
        'start=2048, size=8, type=83, name="no MBR has names"',
        'start=2048, size=8, type=83, attrs="RequiredPartition"',
    ],
)
def test_an_mbr_with_what_only_a_gpt_has_is_refused(line: str) -> None:
    with pytest.raises(DiskError, match="no entry of its kind"):
        parse_dump(f"label: dos\ndevice: /dev/sda\n\n/dev/sda1 : {line}\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bootable", "no entry of its kind"),
        ('attrs="Bogus"', "attribute"),
        ('attrs="GUID:64"', "attribute"),
        ('attrs="RequiredPartition,GUID:48"', "attribute"),
    ],
)
def test_attributes_that_sfdisk_would_not_take_are_refused(line: str, told: str) -> None:
    with pytest.raises(DiskError, match=told):
        parse_dump(f"label: gpt\ndevice: /dev/sda\n\n/dev/sda1 : start=2048, size=8, type={LINUX_GPT}, {line}\n")


def test_attributes_are_read_as_sfdisk_writes_them() -> None:
    words = "RequiredPartition LegacyBIOSBootable GUID:48,63"
    line = f'/dev/sda1 : start=2048, size=8, type={LINUX_GPT}, attrs="{words}"'
    assert parse_dump(f"label: gpt\ndevice: /dev/sda\n\n{line}\n").partitions[0].attrs == words
