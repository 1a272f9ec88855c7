"""The chunk store's formats: what is written is read, and what is damaged is never believed."""

import random
import struct
import subprocess
import sys
from array import array
from pathlib import Path
from textwrap import dedent

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import IntegrityError, LibraryError
from litho.library.chunks import UsedMap, catalog, index, pack
from litho.library.chunks.pack import Record
from litho.library.chunks.usedmap import units

GRAIN = 4096
PACK = bytes(range(16))
extents = st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 30_000)), max_size=30)


def digest(n: int) -> bytes:
    return blake3(n.to_bytes(8, "little")).digest()


def flips(data: bytes, count: int = 400):
    """`data` with one bit flipped: every bit of a short one, `count` of a long one, the first 1024 bits always."""
    rng = random.Random(7)  # noqa: S311  the same bits each time
    total = len(data) * 8
    places = range(total) if total <= 1024 + count else [*range(1024), *rng.sample(range(1024, total), count)]
    for place in places:
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


# ---------------------------------------------------------------- used bytes


@given(extents, st.integers(1, 150_000))
def test_a_map_holds_exactly_the_bytes_that_it_was_given(given_extents, size):
    used = UsedMap(given_extents, size)
    wanted = {b for start, length in given_extents for b in range(start, min(size, start + length), 1)}
    assert used.used == len(wanted)
    last = -1
    for extent in used:
        assert extent.start > last
        assert extent.size > 0
        last = extent.end
    low, high = size // 3, size
    inside = sum(extent.size for extent in used.within(low, high))
    assert inside == sum(1 for b in wanted if low <= b < high)
    assert inside + sum(hole.size for hole in used.holes(low, high)) == high - low


@given(extents, st.integers(1, 150_000))
def test_a_map_comes_back_from_its_bytes(given_extents, size):
    used = UsedMap(given_extents, size)
    assert UsedMap.from_bytes(used.to_bytes(), size) == used


@given(extents, st.integers(1, 150_000), st.integers(0, 9000))
def test_what_is_read_in_one_go_covers_all_that_is_used_on_boundaries(given_extents, size, gap):
    used = UsedMap(given_extents, size)
    reads = used.merged(gap, 512)
    for extent in reads:
        assert extent.start % 512 == 0
        assert extent.end % 512 == 0
    for extent in used:
        assert sum(e.size for e in reads.within(extent.start, extent.end)) == extent.size
    ends = [(a.end, b.start) for a, b in zip(list(reads), list(reads)[1:], strict=False)]
    assert all(start - end > gap for end, start in ends)


@given(extents, st.integers(1, 150_000))
def test_chunk_numbers_are_those_in_which_a_used_byte_lies(given_extents, size):
    used = UsedMap(given_extents, size)
    wanted = sorted({b // GRAIN for e in used for b in (*range(e.start, e.end, GRAIN), e.end - 1)})
    numbers = used.chunks(GRAIN)
    assert list(numbers) == wanted
    slices = list(units(numbers, GRAIN, 4 * GRAIN))
    assert [i for begin, end in slices for i in range(begin, end)] == list(range(len(numbers)))
    assert all(len({numbers[i] // 4 for i in range(begin, end)}) == 1 for begin, end in slices)


@pytest.mark.parametrize("data", [b"\0" * 16, array("Q", [5, 10, 10, 1]).tobytes(), array("Q", [0, 101]).tobytes()])
def test_a_map_that_overlaps_is_empty_or_leaves_the_partition_is_refused(data):
    with pytest.raises(IntegrityError):
        UsedMap.from_bytes(data, 100)


# ---------------------------------------------------------------- pack and its index


def records(count: int) -> list[Record]:
    made, at = [], pack.PACK_HEADER
    for n in range(count):
        record = Record(digest(n), at, 100 + n, 100 + n if n % 3 else 4096, n % 3 == 0, n * 7)
        made.append(record)
        at = record.end
    return made


@given(st.integers(0, 60))
def test_a_pack_index_comes_back_from_its_bytes(count):
    made = records(count)
    size = made[-1].end if made else pack.PACK_HEADER
    parsed = pack.parse_index(pack.dump_index(PACK, size, made), PACK)
    assert parsed.size == size
    assert list(parsed) == sorted(made)
    for record in made:
        assert parsed.find(record.digest) == record
    assert parsed.find(digest(1000)) is None


def test_every_flipped_bit_of_a_pack_index_is_found():
    made = records(5)
    data = pack.dump_index(PACK, made[-1].end, made)
    for changed in flips(data, 10_000):
        with pytest.raises(LibraryError):
            pack.parse_index(changed, PACK)
    for cut in range(len(data)):
        with pytest.raises(LibraryError):
            pack.parse_index(data[:cut], PACK)


def test_an_index_with_records_outside_its_pack_is_refused_although_its_hash_is_right():
    made = records(3)
    for bad in (
        made[0]._replace(offset=2),
        made[0]._replace(length=0),
        made[0]._replace(length=pack.MAX_CHUNK + 1),
        made[2]._replace(offset=made[2].offset + 1),
        made[1]._replace(stored=made[1].stored - 1),
    ):
        kept = [bad if record.digest == bad.digest else record for record in made]
        with pytest.raises(IntegrityError):
            pack.parse_index(pack.dump_index(PACK, made[-1].end, kept), PACK)
    with pytest.raises(IntegrityError):
        pack.parse_index(pack.dump_index(PACK, made[-1].end, [made[0], made[0]]), PACK)


def test_every_flipped_bit_of_a_pack_header_and_of_a_frame_header_is_found():
    for changed in flips(pack.pack_header(PACK), 10_000):
        with pytest.raises(IntegrityError):
            pack.check_pack_header(changed, PACK)
    record = records(1)[0]
    head = pack.frame_header(record)
    assert pack.walk(head, record.offset) == record
    assert all(pack.walk(changed, record.offset) != record for changed in flips(head, 10_000))


# ---------------------------------------------------------------- index of an image


def an_index(given_extents=((0, 20_000), (90_000, 9000)), size=100_000) -> index.Index:
    used = UsedMap(given_extents, size)
    numbers = used.chunks(GRAIN)
    digests = b"".join(digest(n) for n in numbers)
    pack_of = array("I", [index.ZEROS if n % 4 == 3 else n % 2 for n in range(len(numbers))])
    return index.make(GRAIN, used, numbers, digests, pack_of=pack_of, packs=[PACK, PACK[::-1]])


@given(extents, st.integers(1, 150_000))
def test_an_index_comes_back_from_its_bytes(given_extents, size):
    made = an_index(given_extents, size)
    assert index.parse(index.dump(made), what="it", expect_root=made.root) == made


def test_every_flipped_bit_of_an_index_is_found():
    data = index.dump(an_index())
    for changed in flips(data, 10_000):
        with pytest.raises(LibraryError):
            index.parse(changed, what="it")
    for cut in range(0, len(data), 3):
        with pytest.raises(LibraryError):
            index.parse(data[:cut], what="it")


def test_the_reference_is_enough_to_read_an_index_and_its_root(tmp_path):
    made = an_index()
    path = tmp_path / "golden.v3-sda1.chunks"
    path.write_bytes(index.dump(made))
    page = (Path(__file__).parents[3] / "docs" / "reference" / "chunks.md").read_text()
    script = page.partition("<<'EOF'\n")[2].partition("    EOF")[0]
    done = subprocess.run(
        [sys.executable, "-", str(path)], input=dedent(script), capture_output=True, text=True, check=True
    )
    assert done.stdout == (f"9 chunks of 4096 bytes, 29000 of 100000 bytes used, 2 packs, root {made.root.hex()}\n"), (
        done.stdout
    )
    data = path.read_bytes()
    extents_end, numbers_end = 120 + 16 * 2, 120 + 16 * 2 + 4 * 9
    head = b"lithograph chunk root 1".ljust(24, b"\0") + struct.pack("<IQQQ", 4096, 100_000, 2, 9)
    columns = data[120:extents_end] + data[extents_end:numbers_end] + data[numbers_end : numbers_end + 32 * 9]
    assert blake3(head + columns).digest() == made.root


def test_an_index_of_other_content_than_the_manifest_says_is_refused():
    made = an_index()
    with pytest.raises(IntegrityError, match="manifest"):
        index.parse(index.dump(made), what="it", expect_root=digest(1))


def test_the_root_tells_of_content_and_place_and_not_of_where_it_is_stored():
    made = an_index()
    elsewhere = index.make(
        GRAIN,
        made.used,
        made.numbers,
        made.digests,
        pack_of=array("I", [0] * len(made.numbers)),
        packs=[digest(3)[:16]],
    )
    assert elsewhere.root == made.root
    assert an_index(((0, 20_001), (90_000, 9000))).root != made.root
    assert an_index(size=100_001).root != made.root
    other = bytearray(made.digests)
    other[40] ^= 1
    assert index.root(GRAIN, made.used, made.numbers, other) != made.root


@pytest.mark.parametrize(
    ("extents", "size", "numbers"),
    [
        ([(0, 1 << 50)], 1 << 50, []),
        ([(0, 1 << 50)], 1 << 50, [0, 1, 2]),
        ([((1 << 60) - 512, 512)], 1 << 60, [7]),
    ],
)
def test_an_index_of_a_stranger_that_speaks_of_far_more_than_it_has_is_refused_at_once(extents, size, numbers):
    numbers = array("I", numbers)
    digests = bytes(32 * len(numbers))
    pack_of = array("I", [index.ZEROS] * len(numbers))
    made = index.make(512, UsedMap(extents, size), numbers, digests, pack_of=pack_of, packs=())
    with pytest.raises(IntegrityError, match="not those of its used bytes"):
        index.parse(index.dump(made), what="x")


def test_an_index_that_names_a_pack_it_does_not_list_is_refused():
    made = an_index()
    wrong = index.make(
        GRAIN, made.used, made.numbers, made.digests, pack_of=array("I", [7] * len(made.numbers)), packs=[PACK]
    )
    with pytest.raises(IntegrityError):
        index.parse(index.dump(wrong), what="it")


# ---------------------------------------------------------------- catalogs


def catalog_of(packs: dict[bytes, list[int]]) -> catalog.Catalog:
    made = []
    for name, numbers in packs.items():
        kept, at = [], pack.PACK_HEADER
        for n in numbers:
            kept.append(Record(digest(n), at, 10, 10, False, 0))
            at = kept[-1].end
        made.append(pack.parse_index(pack.dump_index(name, at, kept), name))
    return catalog.of_packs(made)


def test_a_catalog_names_the_packs_that_may_hold_a_chunk():
    one, two = b"1" * 16, b"2" * 16
    made = catalog_of({one: [1, 2, 3], two: [3, 4]})
    again = catalog.parse(catalog.dump(made))
    assert [list(again.candidates(digest(n))) for n in range(6)] == [[], [one], [one], [one, two], [two], []]


def test_joined_catalogs_hold_what_is_alive_of_each_once():
    one, two, three = b"1" * 16, b"2" * 16, b"3" * 16
    first, second = catalog_of({one: [1, 2], two: [3]}), catalog_of({two: [3], three: [4]})
    joined = catalog.join([first, second], {one, two, three})
    assert len(joined) == 4
    assert [list(joined.candidates(digest(n))) for n in (1, 3, 4)] == [[one], [two], [three]]
    assert len(catalog.join([first, second], {three})) == 1


def test_joining_in_slices_is_the_same_as_joining_at_once(monkeypatch):
    packs = {bytes([n]) * 16: list(range(n * 50, n * 50 + 60)) for n in range(8)}
    parts = [catalog_of({name: numbers}) for name, numbers in packs.items()]
    at_once = catalog.join(parts, set(packs))
    monkeypatch.setattr(catalog, "_LARGE", 10)
    in_slices = catalog.join(parts, set(packs))
    assert in_slices.entries == at_once.entries
    assert list(in_slices.entries) == sorted(in_slices.entries)


def test_every_flipped_bit_of_a_catalog_is_found():
    data = catalog.dump(catalog_of({b"1" * 16: [1, 2, 3]}))
    for changed in flips(data, 10_000):
        with pytest.raises(IntegrityError):
            catalog.parse(changed)
