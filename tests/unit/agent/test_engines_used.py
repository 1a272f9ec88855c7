"""Maps of used blocks, as partclone 0.3.23 and dumpe2fs 1.47 print them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import EngineError
from litho_agent.engines.used import Extent, parse_domain_log, parse_dumpe2fs

LOG = """# Domain logfile created by unset_name v0.3.23
# Source: /dev/loop0
# Offset: 0x00000000
# current_pos  current_status
0x01840000     ?
#      pos        size  status
0x00000000  0x007B6400  +
0x007B6400  0x0004A000  ?
0x00800400  0x000BF800  +
0x008BFC00  0x00F80400  ?
"""


def test_a_map_s_used_extents() -> None:
    assert parse_domain_log(LOG) == (Extent(0, 0x7B6400), Extent(0x800400, 0xBF800))


def test_extents_that_touch_become_one() -> None:
    text = "0x3000 ?\n0x0 0x1000 +\n0x1000 0x1000 +\n0x2000 0x1000 ?\n"
    assert parse_domain_log(text) == (Extent(0, 0x2000),)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "an end"),
        (LOG.replace("0x00800400  0x000BF800  +\n", ""), "a gap"),
        (LOG[: LOG.index("0x008BFC00")], "an early end"),
        (LOG + "0x01840000  0x00001000  +\n", "an end that does not fit"),
        (LOG.replace("+", "*"), "a line that is none"),
        (LOG + "0x02000000 ?\n", "a line that is none"),
        ("# nothing\nSegmentation fault\n", "a line that is none"),
    ],
)
def test_a_map_that_is_cut_or_strange_is_not_believed(text: str, what: str) -> None:
    with pytest.raises(EngineError, match=what) as caught:
        parse_domain_log(text)
    assert caught.value.code == "bad-used-map"


@given(st.lists(st.tuples(st.integers(1, 2**40), st.booleans()), min_size=1, max_size=40))
def test_any_whole_map_comes_back(runs: list[tuple[int, bool]]) -> None:
    at, rows, used = 0, [], 0
    for size, is_used in runs:
        rows.append(f"0x{at:08X}  0x{size:08X}  {'+' if is_used else '?'}")
        used += size if is_used else 0
        at += size
    extents = parse_domain_log(f"0x{at:08X} ?\n" + "\n".join(rows))
    assert sum(extent.size for extent in extents) == used
    assert all(first.end < second.start for first, second in itertools.pairwise(extents))


DUMP = """dumpe2fs 1.47.0 (5-Feb-2023)
Block count:              100
Free blocks:              40
First block:              1
Block size:               1024


Group 0: (Blocks 1-50)
  20 free blocks, 10 free inodes, 2 directories
  Free blocks: 31-50
  Free inodes: 12-22
Group 1: (Blocks 51-99) [INODE_UNINIT, BLOCK_UNINIT]
  20 free blocks, 0 free inodes, 0 directories
  Free blocks: 60, 62-80
  Free inodes:
"""


def test_what_dumpe2fs_does_not_list_as_free_is_used() -> None:
    assert parse_dumpe2fs(DUMP) == (
        Extent(0, 31 * 1024),
        Extent(51 * 1024, 9 * 1024),
        Extent(61 * 1024, 1024),
        Extent(81 * 1024, 19 * 1024),
    )


def test_a_count_that_does_not_agree_with_the_bitmaps_is_a_dirty_file_system() -> None:
    with pytest.raises(EngineError, match="not cleanly unmounted") as caught:
        parse_dumpe2fs(DUMP.replace("62-80", "62-79"))
    assert caught.value.code == "fs-dirty"


@pytest.mark.parametrize(
    "text",
    [
        "",
        DUMP.replace("Block size:               1024", "Block size:               512"),
        DUMP.replace("Block count:              100", "Block count:              70"),
        DUMP.replace("60, 62-80", "50, 62-80"),
        DUMP.replace("Block count:", "Blocks:"),
    ],
)
def test_a_dump_that_cannot_be_is_not_believed(text: str) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        parse_dumpe2fs(text)
