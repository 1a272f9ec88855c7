"""The marks of an unclean end in the sectors of FAT, exFAT and F2FS, as data."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho_agent import dirtybits
from litho_agent.dirtybits import Mark

MAGIC = 0xF2F52010


def reader(data: bytes) -> dirtybits.ReadAt:
    return lambda offset, length: data[offset : offset + length]


def a_fat(bits: int, *, state: int = 0, entry: int = 2**32 - 1, mark: int = 0x29) -> bytes:
    """The first sectors of a FAT with `bits` bits an entry."""
    wide = bits == 32
    boot = bytearray(512)
    sectors = {12: 4000, 16: 60000, 32: 200000}[bits]
    struct.pack_into("<HBHBH", boot, 11, 512, 1, 2, 2, 0 if wide else 512)
    struct.pack_into("<H" if sectors < 65536 else "<I", boot, 19 if sectors < 65536 else 32, sectors)
    struct.pack_into("<I" if wide else "<H", boot, 36 if wide else 22, 250)
    boot[0x41 if wide else 0x25] = state
    boot[0x42 if wide else 0x26] = mark
    table = bytearray(512)
    struct.pack_into("<I" if wide else "<H", table, 4 if wide else 2, entry & (2**32 - 1 if wide else 2**16 - 1))
    return bytes(boot + bytes(512) + table)


@pytest.mark.parametrize(
    ("data", "mark"),
    [
        (a_fat(12), "clean"),
        (a_fat(12, entry=0), "clean"),
        (a_fat(12, state=1), "dirty"),
        (a_fat(16), "clean"),
        (a_fat(16, state=1), "dirty"),
        (a_fat(16, state=2), "clean"),
        (a_fat(16, state=1, mark=0), "clean"),
        (a_fat(16, entry=0x7FFF), "dirty"),
        (a_fat(16, entry=0xBFFF), "clean"),
        (a_fat(32), "clean"),
        (a_fat(32, state=1), "dirty"),
        (a_fat(32, entry=0x07FFFFFF), "dirty"),
        (a_fat(32, entry=0x0BFFFFFF), "clean"),
        (a_fat(32)[:600], "unreadable"),
        (bytes(2048), "unreadable"),
        (b"", "unreadable"),
    ],
)
def test_a_fat_says_whether_it_was_unmounted(data: bytes, mark: Mark) -> None:
    assert dirtybits.fat(reader(data)) == mark


@pytest.mark.parametrize(
    ("flags", "mark"), [(0, "clean"), (1, "clean"), (2, "dirty"), (3, "dirty"), (4, "clean"), (0x8000, "clean")]
)
def test_an_exfat_says_whether_it_was_unmounted(flags: int, mark: Mark) -> None:
    boot = b"\xeb\x76\x90EXFAT   " + bytes(95) + struct.pack("<H", flags) + bytes(404)
    assert dirtybits.exfat(reader(boot)) == mark
    assert dirtybits.exfat(reader(boot[:511])) == "unreadable"
    assert dirtybits.exfat(reader(bytes(512))) == "unreadable"


def an_f2fs(*packs: tuple[int, int, int]) -> bytes:
    """Two superblocks and checkpoint packs of (version of the first block, of the last block, flags), of 3 blocks each."""
    data = bytearray(2 * 512 * 4096 + 20480)
    for at in (1024, 4096 + 1024):
        struct.pack_into("<I", data, at, MAGIC)
        struct.pack_into("<II", data, at + 16, 12, 9)
        struct.pack_into("<I", data, at + 76, 2)
    for place, (first, last, flags) in zip((8192, 8192 + 512 * 4096), packs, strict=False):
        for at, version in ((place, first), (place + 2 * 4096, last)):
            block = bytearray(4096)
            struct.pack_into("<Q", block, 0, version)
            struct.pack_into("<II", block, 132, flags, 3)
            struct.pack_into("<I", block, 164, 4092)
            crc = zlib.crc32(block[:4092], MAGIC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
            struct.pack_into("<I", block, 4092, crc)
            data[at : at + 4096] = block
    return bytes(data)


@pytest.mark.parametrize(
    ("packs", "mark"),
    [
        (((7, 7, 0x85), (6, 6, 0)), "clean"),
        (((7, 7, 0x84), (6, 6, 1)), "dirty"),
        (((6, 6, 1), (7, 7, 0)), "dirty"),
        # A pack whose end is of another version was never finished: the older one counts.
        (((7, 7, 1), (8, 7, 0)), "clean"),
        (((8, 7, 0), (9, 8, 0)), "unreadable"),
        ((), "unreadable"),
    ],
)
def test_the_newest_whole_checkpoint_of_an_f2fs_counts(packs: tuple[tuple[int, int, int], ...], mark: Mark) -> None:
    assert dirtybits.f2fs(reader(an_f2fs(*packs))) == mark


def test_the_second_superblock_of_an_f2fs_serves_when_the_first_is_gone() -> None:
    data = bytearray(an_f2fs((7, 7, 1)))
    data[1024:1028] = bytes(4)
    assert dirtybits.f2fs(reader(bytes(data))) == "clean"
    data[5120:5124] = bytes(4)
    assert dirtybits.f2fs(reader(bytes(data))) == "unreadable"


@given(
    st.binary(max_size=600),
    st.sampled_from([a_fat(16), a_fat(32), b"\xeb\x76\x90EXFAT   " + bytes(500), an_f2fs((7, 7, 1))[:16384]]),
    st.integers(0, 8000),
)
def test_any_bytes_give_an_answer(noise: bytes, base: bytes, at: int) -> None:
    data = base[:at] + noise + base[at + len(noise) :]
    for look in (dirtybits.fat, dirtybits.exfat, dirtybits.f2fs):
        assert look(reader(data)) in ("clean", "dirty", "unreadable")
