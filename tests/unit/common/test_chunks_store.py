"""The chunk store's directory: what is stored comes back, what is damaged is never believed, what is known is found."""

import contextlib
import errno
import fcntl
import mmap
import os
import random
import threading
import time
import zlib
from array import array
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from litho import process
from litho.errors import IntegrityError, LibraryError
from litho.library import Library
from litho.library.chunks import ChunkReader, ChunkStore, ChunkWriter, catalog, pack
from litho.library.chunks.known import Known
from litho.library.chunks.reader import Ahead, Locator, Wanted, check_pack
from litho.library.chunks.spans import PAGE, PackFile
from litho.library.chunks.store import sort_names
from litho.library.chunks.writer import Frame
from support.pace import Moment

GRAIN = 4096
MB = 1024 * 1024
PACK = bytes(range(16))


# ---------------------------------------------------------------- the directory


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(Library.create(tmp_path / "lib"))


def content(n: int, size: int = GRAIN) -> bytes:
    rng = random.Random(n)  # noqa: S311  the same bytes each time
    return rng.randbytes(size) if n % 2 else (b"%d " % n * size)[:size]


def frame(n: int, size: int = GRAIN) -> Frame:
    data = content(n, size)
    packed = zstandard.ZstdCompressor().compress(data)
    return (
        Frame(blake3(data).digest(), len(data), True, packed)
        if n % 2 == 0
        else Frame(blake3(data).digest(), len(data), False, data)
    )


def fill(store: ChunkStore, numbers, pack_bytes: int = 64 * 1024) -> dict[int, bytes]:
    with ChunkWriter(store, pack_bytes=pack_bytes) as writer:
        where = {n: writer.find(frame(n).digest) or writer.add([frame(n)])[0] for n in numbers}
        writer.finish(list(where.values()))
    return where


def read(store: ChunkStore, n: int, hint: bytes) -> bytes:
    into = bytearray(GRAIN)
    with ChunkReader(Locator(store)) as reader:
        reader.fetch([Wanted(frame(n).digest, hint, memoryview(into))])
    return bytes(into)


def test_chunks_come_back_as_they_were_stored(store):
    where = fill(store, range(60))
    assert len(set(where.values())) > 1
    with ChunkReader(Locator(store)) as reader:
        buffers = {n: bytearray(GRAIN) for n in where}
        order = sorted(where, key=lambda n: (n * 37) % 60)
        reader.fetch([Wanted(frame(n).digest, where[n], memoryview(buffers[n])) for n in order])
    assert all(buffers[n] == content(n) for n in where)


def test_what_the_library_has_is_found_by_the_next_capture_and_stored_once(store):
    where = fill(store, range(40))
    before = store.listing()
    assert fill(store, range(40)) == where
    assert store.listing().pack == before.pack
    assert fill(store, range(20, 60))[20] == where[20]
    assert sum(len(store.index(one)) for one in store.listing().live) == 60


def test_one_chunk_twice_in_one_capture_is_stored_once(store):
    with ChunkWriter(store) as writer:
        first, second = writer.add([frame(1), frame(1)])
        assert first == second == writer.find(frame(1).digest)
        writer.finish([first])
    assert len(store.index(first)) == 1


def test_a_pack_that_was_not_sealed_counts_for_nothing(store):
    writer = ChunkWriter(store)
    writer.add([frame(1)])
    assert store.listing().live == frozenset()
    assert len(store.listing().unfinished) == 1
    assert Known.load(ChunkStore(store.library)).find(frame(1).digest) is None
    writer.close()
    assert store.listing().unfinished == frozenset()
    assert Known.load(ChunkStore(store.library)).find(frame(1).digest) is not None


def test_a_pack_that_waits_for_the_keeper_when_a_capture_is_given_up_is_kept(store, monkeypatch):
    going, honest = threading.Event(), store.publish
    monkeypatch.setattr(store, "publish", lambda *words: going.wait(20) and honest(*words))
    writer = ChunkWriter(store, pack_bytes=1)
    added = []
    adding = threading.Thread(target=lambda: [added.append(writer.add([frame(n)])) for n in range(3)])
    adding.start()
    until = time.monotonic() + 20
    while len(store.listing().unfinished) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    closing = threading.Thread(target=writer.close)
    closing.start()
    going.set()
    closing.join(20)
    adding.join(20)
    assert [store.listing().live, len(added)] == [{where for (where,) in added}, 3]
    assert not store.listing().unfinished


def test_a_flush_that_fails_fails_the_capture(store, monkeypatch):
    monkeypatch.setattr("litho.library.chunks.writer.FLUSH_BYTES", 1)
    writer = ChunkWriter(store)

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        writer.add([frame(1)])
        writer.close()
    with pytest.raises(LibraryError) as told:
        writer.finish(())
    assert told.value.code == "library-full"
    assert store.listing().live == frozenset()
    assert store.listing().unfinished == frozenset()


def test_every_kind_of_damage_to_a_pack_is_found_by_reading_it(store):
    where = fill(store, range(6), pack_bytes=1 << 30)
    (name,) = set(where.values())
    path = store.path(name, "pack")
    data = path.read_bytes()
    rng = random.Random(3)  # noqa: S311  the same bits each time
    places = [*range(0, pack.PACK_HEADER * 8, 5), *rng.sample(range(pack.PACK_HEADER * 8, len(data) * 8), 300)]
    for place in places:
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        found = 0
        for n in where:
            try:
                assert read(store, n, name) == content(n)
            except IntegrityError as exc:
                assert name.hex() in exc.message
                found += 1
        assert found >= 1, place
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError):
        read(store, max(where), name)


def test_a_chunk_whose_pack_was_rewritten_is_found_in_the_new_one(store):
    where = fill(store, [1, 2])
    old = where[1]
    with ChunkWriter(store, known=Known(store)) as writer:
        writer.add([frame(1), frame(2)])
        writer.finish(())
    store.condemn(old)
    assert store.doom(old)
    assert read(ChunkStore(store.library), 1, old) == content(1)


def test_a_chunk_that_is_nowhere_is_an_error_that_says_so(store):
    where = fill(store, [1])
    store.condemn(where[1])
    assert store.doom(where[1])
    with pytest.raises(IntegrityError, match="in no pack") as told:
        read(store, 1, where[1])
    assert told.value.code == "chunk-missing"


def test_holding_brings_back_what_is_condemned_and_names_what_is_gone(store):
    where = fill(store, range(40))
    first, second = sorted(set(where.values()))[:2]
    store.condemn(first)
    assert first not in store.listing().live
    assert store.hold([first, second]) == set()
    assert first in store.listing().live
    store.condemn(second)
    assert store.doom(second)
    assert store.hold([first, second]) == {second}
    assert not store.doom(first)


def test_a_capture_whose_chunks_were_deleted_meanwhile_fails(store):
    where = fill(store, [1])
    with ChunkWriter(store) as writer:
        assert writer.find(frame(1).digest) == where[1]
        store.condemn(where[1])
        assert store.doom(where[1])
        with pytest.raises(LibraryError) as told:
            writer.finish([where[1]])
    assert told.value.code == "chunks-gone"


def test_a_pack_whose_file_is_gone_is_not_referred_to(store):
    where = fill(store, [1])
    store.path(where[1], "pack").unlink()
    assert Known.load(store).find(frame(1).digest) is None
    assert store.hold([where[1]]) == {where[1]}


def test_a_damaged_pack_index_only_costs_space(store):
    where = fill(store, [1])
    path = store.path(where[1], "idx")
    data = bytearray(path.read_bytes())
    data[70] ^= 4
    path.write_bytes(data)
    again = ChunkStore(store.library)
    where_now = fill(again, [1])
    assert where_now[1] != where[1]
    assert read(again, 1, where_now[1]) == content(1)


def test_many_packs_get_a_catalog_and_a_damaged_one_is_left_out(store):
    where = fill(store, range(300), pack_bytes=16 * 1024)
    listing = store.listing()
    assert len(listing.catalogs) == 1
    (name,) = listing.catalogs
    assert Known.load(ChunkStore(store.library)).find(frame(7).digest) == where[7]
    path = store.path(name, "catalog")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert Known.load(ChunkStore(store.library)).find(frame(7).digest) == where[7]


def test_a_full_library_ends_a_capture_with_a_sentence(store, monkeypatch):
    writer = ChunkWriter(store)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.writev", full)
    with pytest.raises(LibraryError) as told:
        writer.add([frame(1)])
    assert told.value.code == "library-full"
    monkeypatch.undo()
    writer.close()


def test_what_was_stored_before_the_library_was_full_counts_and_what_was_cut_off_does_not(store, monkeypatch):
    writer = ChunkWriter(store)
    where = writer.add([frame(1), frame(2)])
    write, written = os.writev, []

    def full(fd, pieces):
        if written:
            raise OSError(28, "No space left on device")
        written.append(write(fd, [pieces[0][:10]]))
        return written[0]

    monkeypatch.setattr("os.writev", full)
    with pytest.raises(LibraryError) as told:
        writer.add([frame(3), frame(4)])
    assert told.value.code == "library-full"
    monkeypatch.undo()
    assert writer.find(frame(3).digest) is None
    writer.close()
    assert store.listing().live == set(where)
    index = ChunkStore(store.library).index(where[0])
    assert {record.digest for record in index} == {frame(1).digest, frame(2).digest}
    assert store.path(where[0], "pack").stat().st_size == index.size
    assert read(store, 1, where[0]) == content(1)
    assert read(store, 2, where[1]) == content(2)


def test_a_pack_that_cannot_be_cut_back_does_not_count(store, monkeypatch):
    writer = ChunkWriter(store)
    writer.add([frame(1)])

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.writev", fail)
    monkeypatch.setattr("os.ftruncate", fail)
    with pytest.raises(LibraryError):
        writer.add([frame(2)])
    monkeypatch.undo()
    writer.close()
    assert store.listing().live == frozenset()
    assert store.listing().unfinished == frozenset()


def test_a_sync_that_fails_is_raised_at_the_end_and_its_pack_does_not_count(store, monkeypatch):
    writer = ChunkWriter(store)
    where = writer.add([frame(1)])

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(LibraryError) as told:
        writer.finish(where)
    assert told.value.code == "library-gone"
    assert store.listing().live == frozenset()


def test_names_in_the_directory_are_sorted_by_what_they_are():
    name = "00" * 16
    kinds = ["pack", "pack.part", "idx", "idx.condemned", "idx.doomed", "catalog"]
    listing = sort_names([*(f"{name}.{kind}" for kind in kinds), "x.idx", f"{name}.idx.old", f"{name.upper()}A.pack"])
    one = frozenset({bytes(16)})
    assert listing.pack == listing.unfinished == listing.live == listing.condemned == listing.doomed == one
    assert listing.catalogs == one
    assert listing.other == {"x.idx", f"{name}.idx.old", f"{name.upper()}A.pack"}


@settings(max_examples=25)
@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 6))
def test_the_crc_in_a_record_is_that_of_the_stored_bytes(tmp_path_factory, numbers, size):
    store = ChunkStore(Library.create(tmp_path_factory.mktemp("lib")))
    where = fill(store, numbers, pack_bytes=size * 8192)
    for n, name in where.items():
        record = store.index(name).find(frame(n).digest)
        assert record is not None
        data = store.path(name, "pack").read_bytes()
        assert zlib.crc32(data[record.offset + pack.FRAME_HEADER : record.end]) == record.crc


def test_ten_million_chunks_are_loaded_in_under_two_seconds(store):
    count, step = 10_000_000, (2**64 // 10_000_000) >> 20 << 20
    made = catalog.Catalog([PACK], array("Q", range(0, step * count, step)))
    store.make()
    for kind in ("idx", "pack"):
        store.path(PACK, kind).touch()
    store.path(b"c" * 16, "catalog").write_bytes(catalog.dump(made))
    del made
    since = Moment()
    known = Known.load(store)
    assert since.took() < 2
    assert len(known) == count
    assert list(known._all[0].candidates((step * 77).to_bytes(8, "big") + bytes(24))) == [PACK]


# ---------------------------------------------------------------- past the page cache


def pages(size: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_pack_file_gives_the_bytes_that_lie_there_wherever_they_begin_and_go_to(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("pack") / "one.pack"
    size = data.draw(st.integers(pack.PACK_HEADER, 5 * PAGE))
    whole = (pack.pack_header(PACK) + random.Random(size).randbytes(5 * PAGE))[:size]  # noqa: S311
    path.write_bytes(whole)
    anywhere = st.one_of(st.sampled_from([0, PAGE, 2 * PAGE, 3 * PAGE]), st.integers(0, 4 * PAGE))
    start, length, shift = (data.draw(anywhere) for _ in range(3))
    view = pages(9 * PAGE)[shift : shift + length]
    with contextlib.closing(PackFile(path, PACK)) as file:
        path.unlink()
        file.check_header()
        count = file.read(start, view)
    assert bytes(view[:count]) == whole[start : start + length]
    assert count == len(whole[start : start + length])


def test_a_pack_file_that_is_another_is_not_believed(tmp_path):
    (tmp_path / "one.pack").write_bytes(pack.pack_header(PACK))
    with (
        contextlib.closing(PackFile(tmp_path / "one.pack", PACK[::-1])) as file,
        pytest.raises(IntegrityError, match="another file than its name says"),
    ):
        file.check_header()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA])
def test_what_direct_reads_cannot_give_comes_through_the_cache_or_that_says_why(store, monkeypatch, code):
    """A disk says of a bad sector that it has no data, a file that it cannot be read."""
    where = fill(store, range(4))
    honest, broken = os.preadv, False

    def preadv(fd, buffers, start):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(code, os.strerror(code))
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return honest(fd, buffers, start)

    monkeypatch.setattr(os, "preadv", preadv)

    def ahead() -> bytes:
        into = bytearray(GRAIN)
        locator = Locator(store)
        with Ahead(locator) as reading, ChunkReader(locator) as reader:
            reader.take(reading.read([Wanted(frame(1).digest, where[1], memoryview(into))], pages(64 * 1024)))
        return bytes(into)

    assert ahead() == content(1)
    broken = True
    with pytest.raises(LibraryError) as caught:
        ahead()
    assert caught.value.code == "library-gone"


def test_a_pack_is_looked_at_from_end_to_end_in_many_reads_and_so_is_a_chunk_that_none_of_them_holds(store):
    sizes = [MB] * 11 + [12 * MB, GRAIN, 5 * MB]
    chunks = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]  # noqa: S311
    with ChunkWriter(store) as writer:
        (name,) = set(writer.add([Frame(blake3(data).digest(), len(data), False, data) for data in chunks]))
        writer.finish([name])
    told = list(check_pack(store, store.index(name)))
    path = store.path(name, "pack")
    assert sum(told) == path.stat().st_size
    assert len(told) > 4
    with path.open("r+b") as file:
        file.seek(-5 * MB - 100, os.SEEK_END)
        file.write(b"damage")
    with pytest.raises(IntegrityError, match="damaged"):
        list(check_pack(store, store.index(name)))


def direct_io_passes_the_cache(at: Path) -> bool:
    """Some file systems take O_DIRECT and use the page cache all the same."""
    at.write_bytes(bytes(64 * 1024))
    with at.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        fd = os.open(at, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    os.preadv(fd, [pages(64 * 1024)], 0)
    os.close(fd)
    return resident(at) == 0


def resident(path: Path) -> int:
    """Bytes of a file that are in memory."""
    return int(process.run(["fincore", "--bytes", "--noheadings", "--output", "RES", path]).out)


def test_chunks_are_read_ahead_in_whole_pages_and_leave_the_page_cache_to_others(store):
    where = fill(store, range(1, 1600, 2), pack_bytes=1 << 30)
    (only,) = store.listing().live
    path = store.path(only, "pack")
    if not direct_io_passes_the_cache(store.root / "probe"):
        pytest.skip("the file system of this directory has no direct I/O")
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    into = {n: bytearray(GRAIN) for n in where}
    wanted = [Wanted(frame(n).digest, where[n], memoryview(into[n])) for n in where]
    locator = Locator(store)
    with Ahead(locator) as ahead, ChunkReader(locator) as reader:
        fetched = ahead.read(wanted, pages(4 * MB))
        assert not fetched.left
        assert ahead.fetched == path.stat().st_size, "it begins on a page and ends with the pack"
        reader.take(fetched)
        assert reader.fetched == 0
    assert all(into[n] == content(n) for n in where)
    assert resident(path) < path.stat().st_size / 2, "all of a pack that was read once is in memory"


def test_what_finds_no_room_is_left_for_who_unpacks(store):
    where = fill(store, range(40), pack_bytes=16 * 1024)
    into = {n: bytearray(GRAIN) for n in where}
    wanted = [Wanted(frame(n).digest, where[n], memoryview(into[n])) for n in where]
    locator = Locator(store)
    with Ahead(locator) as ahead, ChunkReader(locator) as reader:
        fetched = ahead.read(wanted, pages(8 * PAGE))
        assert fetched.left
        assert fetched.stretches
        reader.take(fetched)
    assert all(into[n] == content(n) for n in where)
