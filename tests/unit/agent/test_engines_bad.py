"""Bad sectors: what programs say of them, what is remembered, and what people are told."""

import pytest

from litho.library import Part
from litho.library.manifest import BadRange
from litho.messages import DiskFacts
from litho_agent.engines import bad
from litho_agent.engines.bad import BadMap, Place
from litho_agent.engines.base import Source
from litho_agent.engines.choose import ENGINES
from litho_agent.engines.used import Extent

MIB = 1024**2
PLACE = Place(disk=DiskFacts(path="/dev/sda", size=2**40, model="ST9000", serial="Z1F"), name="sda2", start=1024 * MIB)


def collected(*runs: tuple[int, int]) -> BadMap:
    found = BadMap()
    for start, size in runs:
        found.add(start, size)
    return found


def test_sectors_beside_each_other_are_one_place() -> None:
    found = collected((512, 512), (1024, 512), (1536, 512), (8192, 4096))
    assert found.ranges == (BadRange(start=512, size=1536), BadRange(start=8192, size=4096))
    assert (found.bytes, found.places) == (5632, 2)


def test_what_is_said_twice_counts_once() -> None:
    found = collected((0, 512), (4096, 512), (0, 512), (4096, 512), (4608, 512))
    assert found.ranges == (BadRange(start=0, size=512), BadRange(start=4096, size=1024))
    assert (found.bytes, found.places) == (1536, 2)


def test_beyond_the_limit_places_are_counted_and_no_longer_listed() -> None:
    many = bad.MOST_PLACES + 7
    found = collected(*((number * 4096, 512) for number in range(many)))
    assert len(found.ranges) == bad.MOST_PLACES
    assert (found.bytes, found.places) == (many * 512, many)
    found.add(many * 4096 - 4096 + 512, 512)
    assert (found.bytes, found.places) == (many * 512 + 512, many), "the last place has grown"
    assert found.ranges[-1] == BadRange(start=(bad.MOST_PLACES - 1) * 4096, size=512)


def test_partclone_says_each_lost_sector_with_its_place() -> None:
    said = (
        "Elapsed: 00:00:01, Remaining: 00:01:39, Completed:   1.00%,   0.00byte/min,"
        "WARNING: Can't read sector at 10588160, lost data.\nWARNING: Can't read sector at 10588672, lost data.\n"
        "WARNING: Can't read sector at 1079"
    )
    assert ENGINES["partclone"].bad(said) == ((10588160, 512), (10588672, 512))


def test_the_reader_of_raw_says_runs() -> None:
    assert ENGINES["raw"].bad("bad 4096 512\nbad 8192 65536\nbad 1") == ((4096, 512), (8192, 65536))


def test_only_a_save_that_may_lose_something_goes_on(tmp_path) -> None:
    device = tmp_path / "sda1"
    for name in ("partclone", "raw"):
        engine = ENGINES[name]
        strict = engine.save(Source(device=device, fs="ext4", size=MIB))
        going_on = engine.save(Source(device=device, fs="ext4", size=MIB, may_lose=512))
        assert engine.rescues
        assert strict != going_on
    assert "--rescue" not in ENGINES["partclone"].save(Source(device=device, fs="ext4", size=MIB))
    assert "--rescue" in ENGINES["partclone"].save(Source(device=device, fs="ext4", size=MIB, may_lose=1))
    assert not ENGINES["partimage"].rescues


@pytest.mark.parametrize(("used", "limit"), [(0, MIB), (MIB, MIB), (100 * MIB, 10 * MIB)])
def test_a_tenth_may_be_lost_and_a_megabyte_in_any_case(used: int, limit: int) -> None:
    assert bad.may_lose(used) == limit


def test_the_cause_is_looked_for_in_used_bytes_around_the_place_where_the_stream_ended() -> None:
    extents = (Extent(0, 10 * MIB), Extent(500 * MIB, 300 * MIB), Extent(2000 * MIB, 3000 * MIB))
    # 200 MiB had moved: 10 of the first and 190 of the second extent; 64 MiB before that is 136 MiB into used data.
    found = bad.near(extents, 200 * MIB)
    assert found[0] == Extent((500 + 126) * MIB, 174 * MIB)
    assert found[1].start == 2000 * MIB
    assert sum(one.size for one in found) == 1024 * MIB
    assert bad.near(extents, 0)[0] == Extent(0, 10 * MIB)
    assert bad.near((), 5) == ()


def test_an_end_at_a_bad_sector_names_disk_partition_and_offset_and_the_ways_out() -> None:
    told = str(bad.stopped(PLACE, BadRange(start=4096, size=512), engine="partclone", rescues=True))
    assert told == (
        "the disk /dev/sda (ST9000, Z1F) has a bad sector in sda2: 512 bytes at byte 4096 of sda2 (byte 1073745920 of the disk) "
        "cannot be read: say litho.on-bad-sector=continue to go on without it, or replace the disk (`smartctl -a /dev/sda` tells "
        "its state)"
    )
    other = bad.stopped(PLACE, BadRange(start=4096, size=512), engine="partimage", rescues=False)
    assert (
        "partimage cannot go on past it; say litho.engine=auto or raw, and litho.on-bad-sector=continue" in other.hint
    )
    assert other.code == "bad-sector"


def test_what_was_lost_is_told_in_a_note_that_fits_the_manifest() -> None:
    ranges = tuple(BadRange(start=10**15 + number * 4096, size=512) for number in range(6))
    part = Part(number=2, kind="empty", start=0, size=2**50, bad=ranges)
    told = bad.told(PLACE, part)
    assert told.startswith(
        "sda2: 3072 bytes in 6 places could not be read and are lost, at byte 1000000000000000 (512 bytes), "
    )
    assert told.endswith(" and 2 more places")
    assert len(told) <= 256
    one = Part(number=2, kind="empty", start=0, size=2**50, bad=ranges[:1], bad_bytes=512, bad_places=1)
    assert "512 bytes in 1 place could not" in bad.told(PLACE, one)
