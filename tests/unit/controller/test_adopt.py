"""Adopting without disks: names, the bits of a bitmap, and a small partimage image built here by the format's description."""

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.errors import LithoError, UsageError
from litho_controller.adopt import names, partclone, partimage, probing, table
from litho_controller.adopt.stream import ByteSum, Kept, Stream, bits, count_bits

BLOCK = 1024
BLOCKS = 200
USED = frozenset({0, 1, 2, 3, *range(50, 120), 199})


def bitmap():
    made = bytearray((BLOCKS + 7) // 8 + 16)
    for block in USED:
        made[block >> 3] |= 1 << (block & 7)
    return bytes(made)


def summed(data):
    return data + struct.pack("<I", sum(byte - 256 * (byte > 127) for byte in data) % 2**32)


def content(block):
    return zlib.compress(b"%d" % block).ljust(BLOCK, b"\xee")


def a_boot_sector(device, *, wrong=0):
    sector = b"\xeb\x63" + b"\x90" * 508 + b"\x55\xaa"
    total = sum(byte - 256 * (byte > 127) for byte in sector) + wrong
    return (sector + struct.pack("<I", total % 2**32) + device.encode()).ljust(2048, b"\0")


def an_image(*, last_volume=0, boots=()):
    main = bytearray(16384)
    main[:6], main[4608:4617] = b"ext3fs", b"/dev/hda1"
    struct.pack_into("<Q", main, 9592, BLOCK * BLOCKS)
    struct.pack_into("<II", main, 9792, len(boots), 2048)
    local = bytearray(16384)
    struct.pack_into("<QQQQ", local, 0, BLOCK, len(USED), BLOCKS, len(bitmap()))
    stream = summed(bytes(main)) + b"MAGIC-BEGIN-MBRBACKUP" + b"".join(boots)
    stream += b"".join(b"MAGIC-BEGIN-EXT%03d" % number + bytes(4) for number in range(10))
    stream += b"MAGIC-BEGIN-LOCALHEADER" + summed(bytes(local)) + b"MAGIC-BEGIN-BITMAP" + bitmap()
    stream += b"MAGIC-BEGIN-INFO" + summed(bytes(16384)) + b"MAGIC-BEGIN-DATABLOCKS"
    data = b"".join(content(block) for block in sorted(USED))
    for at in range(0, len(data), 65536):
        piece = data[at : at + 65536]
        stream += piece
        if len(piece) == 65536:
            stream += struct.pack("<4sIQ", b"CHK\0", zlib.crc32(piece), 0)
    stream += b"MAGIC-BEGIN-TAIL"
    tail = struct.pack("<QI", sum(stream), last_volume).ljust(16384, b"\0")
    return b"PaRtImAgE-VoLuMe".ljust(32, b"\0") + b"0.6.1".ljust(64, b"\0") + bytes(416) + stream + tail


IMAGE = an_image()


def read(data, *, volumes=1, piece=10_007):
    passed = []
    blocks = (data[at : at + piece] for at in range(0, len(data), piece))
    return partimage.read(Stream(blocks, passed.append), volumes=volumes), b"".join(passed)


def test_an_image_is_read_and_passed_on_byte_for_byte():
    found, passed = read(IMAGE)
    assert passed == IMAGE
    assert (found.fs, found.device, found.size, found.used) == (
        "ext3fs",
        "/dev/hda1",
        BLOCK * BLOCKS,
        BLOCK * len(USED),
    )
    assert found.kept == {block * BLOCK: content(block) for block in USED}


def test_the_number_of_volumes_is_held_against_the_tail_and_passed_on_as_one():
    several = an_image(last_volume=3)
    assert read(several, volumes=4)[1] == IMAGE
    with pytest.raises(LithoError, match="written in 4 volumes, and 2 were given"):
        read(several, volumes=2)


@pytest.mark.parametrize(
    ("boots", "found"),
    [
        ([a_boot_sector("/dev/hda")], True),
        ([a_boot_sector("hda")], True),
        ([], False),
        ([a_boot_sector("hda"), a_boot_sector("hdb")], False),
        ([a_boot_sector("hdb")], False),
        ([a_boot_sector("hda", wrong=1)], False),
    ],
    ids=["one", "a short name", "none", "two", "another disk's", "a wrong sum"],
)
def test_the_boot_sector_in_an_image_is_taken_when_it_is_surely_that_of_its_disk(boots, found):
    assert read(an_image(boots=boots))[0].boot_sector == (boots[0][:512] if found else b"")


@settings(max_examples=300, deadline=None)
@given(at=st.integers(512, len(IMAGE) - 16384 + 11), bit=st.integers(0, 7))
def test_no_flipped_bit_of_the_stream_goes_unseen(at, bit):
    spoilt = bytearray(IMAGE)
    spoilt[at] ^= 1 << bit
    with pytest.raises(LithoError):
        read(bytes(spoilt))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(IMAGE) - 1))
def test_no_cut_goes_unseen(length):
    with pytest.raises(LithoError, match=r"ends early|first bytes"):
        read(IMAGE[:length])


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, 40_000))
def test_whatever_stands_in_a_file_is_answered_by_a_sentence_or_read(data, at):
    spoilt = IMAGE[:at] + data + IMAGE[at + len(data) :]
    for reader in (lambda stream: partimage.read(stream, volumes=1), partclone.read):
        try:
            reader(Stream(iter([spoilt]), lambda _: None))
        except LithoError as exc:
            assert exc.message


@given(data=st.binary(max_size=64), first=st.integers(0, 512), last=st.integers(0, 512))
def test_bits_are_counted_as_one_would_by_hand(data, first, last):
    last = min(last, len(data) * 8)
    assert bits(data, first, last) == sum(data[at >> 3] >> (at & 7) & 1 for at in range(first, last))
    assert count_bits(data, last) == bits(data, 0, last)


@given(pieces=st.lists(st.binary(max_size=2000), max_size=20))
def test_the_sum_of_bytes_matches_the_sum_and_not_another(pieces):
    counted = ByteSum()
    for piece in pieces:
        counted.add(piece)
    total = sum(map(sum, pieces))
    assert counted.matches(total)
    assert not counted.matches(total + 1)


def test_the_file_table_of_an_ntfs_is_kept_wherever_its_boot_sector_says_it_is():
    width, count, place = 4096, 3000, 2500
    boot = bytearray(width)
    boot[3:11] = b"NTFS    "
    struct.pack_into("<H", boot, 11, 512)
    struct.pack_into("<QQ", boot, 40, count * 8 - 1, place)
    used = [0, 5, 2000, *range(place, place + 20)]
    marks = bytearray(count // 8)
    for block in used:
        marks[block >> 3] |= 1 << (block & 7)
    kept = Kept(width, bytes(marks), count)
    data = bytes(boot) + b"".join(bytes([number]) * width for number in range(1, len(used)))
    for at in range(0, len(data), 10_000):
        kept.feed(at, data[at : at + 10_000])
    assert sorted(kept.found) == [0, 5 * width, *(block * width for block in range(place, place + 16))]
    assert kept.found[place * width] == bytes([3]) * width
    assert probing.ntfs_tail(kept.found, count * width) == bytes(boot[:512])
    assert probing.ntfs_tail(kept.found, count * width + 512) == b""


@pytest.mark.parametrize(
    ("name", "kind", "disk", "number", "base", "order"),
    [
        ("golden-sda.sfdisk", "table", "sda", 0, "", None),
        ("golden-hda.mbr", "boot", "hda", 0, "", None),
        ("sda-pt.sf", "table", "sda", 0, "", None),
        ("sda-mbr", "boot", "sda", 0, "", None),
        ("nvme0n1-hidden-data-after-mbr", "gap", "nvme0n1", 0, "", None),
        ("swappt-sda5.info", "swap", "sda", 5, "", None),
        ("golden-sda1.gz", "part", "sda", 1, "golden-sda1.gz", None),
        ("golden-sda1.gz.003", "part", "sda", 1, "golden-sda1.gz", 3),
        ("hda12.000", "part", "hda", 12, "hda12", 0),
        ("sda1.ext4-ptcl-img.gz.ab", "part", "sda", 1, "sda1.ext4-ptcl-img.gz", 1),
        ("sda2.aac", "part", "sda", 2, "sda2", 2),
        ("sda1.pcl", "part", "sda", 1, "sda1.pcl", None),
        ("sda1.pcl.aa", "part", "sda", 1, "sda1.pcl", 0),
        ("nvme0n1p3.img", "part", "nvme0n1", 3, "nvme0n1p3.img", None),
        ("image-x86-win7-v2-vda2.partimage", "part", "vda", 2, "image-x86-win7-v2-vda2.partimage", None),
    ],
)
def test_a_name_says_what_a_file_is(name, kind, disk, number, base, order):
    found = names.role(name)
    assert found is not None
    assert (found.kind, found.disk, found.number, found.base, found.order) == (kind, disk, number, base, order)


@pytest.mark.parametrize(
    "name", ["golden.img", "sda1.md5", "disk", "parts", "sda", "nvme0n13.img", "Info-dmi.txt", "sda0.gz"]
)
def test_a_name_that_does_not_say_it_is_not_guessed_at(name):
    assert names.role(name) is None


def a(*words):
    return [Path("/x") / word for word in words]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("golden-sda.sfdisk", "what"), "'what' does not say what the file is"),
        (("golden-sda.sfdisk", "old-sda1.gz"), "not of one image: the images in their names are 'golden', 'old'"),
        (("sda.sfdisk", "sda-pt.sf", "sda1.gz"), "two files are a table"),
        (("sda.sfdisk", "sda1.gz", "sda1.img"), "partition 1 has more than one image: sda1.gz and sda1.img"),
        (("sda.sfdisk", "sda1.gz", "sda1.gz.000"), "partition 1 has more than one image"),
        (("sda.sfdisk", "sda1.001"), "what comes before sda1.001 is not there: volume 0 is missing"),
        (("sda.sfdisk",), "no image of a partition"),
        (("sda1.gz",), "no partition table is among the files"),
    ],
)
def test_files_that_do_not_make_one_image_are_refused(files, words):
    with pytest.raises(UsageError, match=words):
        names.sort(a(*files))


def test_volumes_come_in_their_order_whatever_order_they_were_named_in():
    found = names.sort(a("sda1.gz.002", "sda1.gz.000", "sda.sfdisk", "sda1.gz.001"))
    assert [path.name for path in found.parts[1]] == ["sda1.gz.000", "sda1.gz.001", "sda1.gz.002"]


def test_a_huge_file_that_is_said_to_be_the_table_is_not_read_into_memory(tmp_path):
    with (tmp_path / "sda.sfdisk").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="holds no partition table"):
        table.read(tmp_path / "sda.sfdisk", "sda")
