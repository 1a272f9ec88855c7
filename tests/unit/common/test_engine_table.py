"""docs/reference/engines.md says of each pair of engine and file system what the tests prove, no more and no less."""

import re
from pathlib import Path

import pytest

from litho.errors import RefusedError
from litho_agent.engines.choose import choose
from support import chunked
from support.filesystems import CASES, CHECK, blkid_name

PAGE = Path(__file__).parents[3] / "docs/reference/engines.md"
VARIANTS = {
    "ext2": "ext2",
    "ext3": "ext3",
    "ext3, 1 KiB blocks": "ext3-1k",
    "ext4": "ext4",
    "XFS v5": "xfs",
    "XFS v4": "xfs-v4",
    "btrfs": "btrfs",
    "FAT12": "fat12",
    "FAT16": "fat16",
    "FAT32": "fat32",
    "NTFS": "ntfs",
    "exFAT": "exfat",
    "F2FS": "f2fs",
    "ReiserFS 3": "reiserfs",
    "JFS": "jfs",
    "swap": "swap",
}
CHUNKED = {"ext3": "ext3-1k", "vfat": "fat16"}
"""What `support.chunked` makes under these names (1 KiB blocks; FAT16 at its size)."""


def shown():
    """Every (variant, engine) of the page with what stands there, and the checkers."""
    rows = [
        line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    header, _, *body = [[cell.strip() for cell in row] for row in rows]
    cells = {
        (VARIANTS[row[0]], engine): cell for row in body for engine, cell in zip(header[1:5], row[1:5], strict=True)
    }
    return cells, {VARIANTS[row[0]]: row[5].strip("`") for row in body}


CELLS, CHECKERS = shown()


def test_every_variant_that_is_tested_has_its_row():
    assert {variant for variant, _ in CELLS} == set(VARIANTS.values()) == {case[0] for case in CASES}


def test_what_is_called_proven_is_what_the_tests_prove():
    by_streams = {(variant, engine) for variant, _, engine, _ in CASES}
    in_chunks = {(CHUNKED.get(fs, fs), "chunk") for fs in chunked.MKFS}
    assert {pair for pair, said in CELLS.items() if said == "proven"} == by_streams | in_chunks


@pytest.mark.parametrize(("variant", "engine"), sorted(pair for pair, said in CELLS.items() if said == "refused"))
def test_what_is_called_refused_is_refused_by_the_rule(variant, engine):
    with pytest.raises(RefusedError):
        choose(blkid_name(variant), engine, xfs_version=5)


def test_no_cell_says_anything_else():
    assert set(CELLS.values()) == {"proven", "refused", ""}


@pytest.mark.parametrize("variant", sorted(CHECKERS))
def test_the_checker_is_the_one_that_the_tests_ask(variant):
    program = CHECK.get(blkid_name(variant))
    if program is None:
        assert CHECKERS[variant].startswith("made anew")
    else:
        assert " ".join(program).startswith(re.sub(r" -q -y$", "", CHECKERS[variant]))
