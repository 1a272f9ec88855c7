"""The chunk engine's rules: which bytes are used, when reading the target pays, what workers do, what a device promises."""

import contextlib
import ctypes
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import CancelledError, DiskError, IntegrityError
from litho.library import Library
from litho.library.chunks import ChunkStore, ChunkWriter, UsedMap
from litho.library.chunks.reader import check_pack
from litho_agent.chunk import crew
from litho_agent.chunk.capture import save_partition
from litho_agent.chunk.delta import PROBE_EVERY, SAMPLES, Chooser, Seconds, spread
from litho_agent.chunk.device import Device, UnreadableError, page_buffer
from litho_agent.chunk.readback import read_back, require_same
from litho_agent.chunk.restore import PACKED, packed_buffers, restore_partition
from litho_agent.chunk.usage import whole_map

GRAIN = 64 * 1024
MB = 1024 * 1024


# ---------------------------------------------------------------- which bytes


def test_a_partition_without_a_map_is_taken_whole():
    assert list(whole_map(None, "", 5000)) == [(0, 5000)]


def test_boot_code_before_the_first_block_belongs_to_the_partition():
    assert list(whole_map([(8192, 100)], "ext4", 10**6)) == [(0, 4096), (8192, 100)]
    assert list(whole_map([(10**6, 100)], "btrfs", 10**7)) == [(0, 65536), (10**6, 100)]


def test_the_last_sectors_of_an_ntfs_belong_to_the_partition():
    assert list(whole_map([(0, 8192)], "ntfs", 1_000_448))[-1] == (1_000_448 - 4096, 4096)


# ---------------------------------------------------------------- the delta rule


def settle(chooser: Chooser, *, read: float, write: float, share: float, units: int = 200) -> list[bool]:
    """What the rule says for `units` units when reading and writing take that many seconds a megabyte."""
    said = []
    for _ in range(units):
        look = chooser.look()
        said.append(look)
        if look:
            chooser.looked(Seconds(disk=read), MB, int(share * MB))
        count = int(share * MB) if look else MB
        if count:
            chooser.wrote(Seconds(disk=write * count / MB), count)
    return said


def test_reading_goes_on_when_nothing_differs():
    assert all(settle(Chooser("auto"), read=1.0, write=5.0, share=0.0))


def test_reading_stops_when_it_is_slower_than_writing():
    said = settle(Chooser("auto"), read=2.0, write=1.0, share=0.5)
    assert all(said[:SAMPLES])
    assert sum(said[SAMPLES:]) <= len(said) / PROBE_EVERY + 1


def test_reading_stops_when_everything_differs():
    said = settle(Chooser("auto"), read=0.5, write=1.0, share=1.0)
    assert sum(said) < SAMPLES + 10


def test_reading_goes_on_when_little_differs_and_the_library_is_slow():
    assert all(settle(Chooser("auto"), read=1.0, write=3.0, share=0.2))


def test_a_target_that_is_right_further_on_is_noticed():
    chooser = Chooser("auto")
    assert not all(settle(chooser, read=0.5, write=1.0, share=1.0))
    said = settle(chooser, read=0.5, write=1.0, share=0.0, units=PROBE_EVERY * 40)
    assert all(said[-20:])


@pytest.mark.parametrize(
    ("look", "write", "share", "answer"),
    [
        # Writing waits for the server, so that the disk and the cores have time to look.
        (Seconds(disk=0.9, cores=0.5), Seconds(disk=1.0, cores=0.6, library=2.0), 0.5, True),
        # The disk is what it waits for, and a look takes more of it than it spares.
        (Seconds(disk=0.9, cores=0.1), Seconds(disk=1.0, cores=0.9, library=0.9), 0.5, False),
        # The sums say that a look is cheap (1.2 of 3.0), but each of the three is busy all the time already.
        (Seconds(disk=0.6, cores=0.6), Seconds(disk=1.0, cores=1.0, library=1.0), 0.7, False),
        # Somewhat slower than writing all, for the sake of what need not be written.
        (Seconds(disk=0.6, cores=0.6), Seconds(disk=1.0, cores=1.0, library=1.0), 0.6, True),
        # Little would have to be written, and yet the disk reads more slowly than it writes.
        (Seconds(disk=1.1), Seconds(disk=1.0), 0.01, False),
        (Seconds(disk=0.5, cores=1.1), Seconds(disk=1.0, cores=0.4), 0.01, False),
    ],
)
def test_what_is_busiest_decides_and_not_the_sum(look, write, share, answer):
    chooser = Chooser("auto")
    for _ in range(SAMPLES):
        chooser.looked(look, MB, int(share * MB))
        chooser.wrote(write, MB)
    assert chooser.pays() is answer


@pytest.mark.parametrize(("mode", "answer"), [("plain", False), ("delta", True)])
def test_what_was_asked_for_is_not_weighed(mode, answer):
    assert set(settle(Chooser(mode), read=9.0, write=1.0, share=1.0 if answer else 0.0)) == {answer}


@given(st.integers(0, 500), st.integers(2, 40))
def test_samples_come_first_and_every_unit_comes_once(count, samples):
    order = spread(count, samples)
    assert sorted(order) == list(range(count))
    if count > samples * 2:
        assert max(order[:samples]) - min(order[:samples]) >= count // 2


# ---------------------------------------------------------------- workers


def no_worker(do):
    @contextlib.contextmanager
    def worker():
        yield do

    return worker


def run(pieces, do, **more):
    hands = crew.Crew()
    hands.step("do", 3, hands.pieces(pieces), no_worker(do))
    hands.follow(**{"tell": lambda: None, "cancelled": lambda: False, "stuck": lambda: None, **more})


def test_every_piece_is_done_once():
    done = []
    run(range(500), done.append)
    assert sorted(done) == list(range(500))


def test_the_first_failure_stops_all_and_is_raised():
    done = []

    def do(n):
        if n == 20:
            raise DiskError("no more")
        done.append(n)

        threading.Event().wait(0.001)

    stuck = []
    with pytest.raises(DiskError, match="no more"):
        run(range(100_000), do, stuck=lambda: stuck.append(1))
    ended = len(done)
    assert ended < 1000
    assert not stuck
    threading.Event().wait(0.05)
    assert len(done) == ended


def test_a_cancel_ends_it_within_a_second():
    asked = threading.Event()

    def do(_):
        asked.wait(0.01)

    with pytest.raises(CancelledError):
        run(range(10**9), do, cancelled=lambda: True)


def test_a_thread_that_hangs_is_left_its_device():
    hang, stuck = threading.Event(), []

    def do(n):
        if n == 0:
            hang.wait(20)
        raise DiskError("gone")

    with pytest.raises(DiskError):
        run(range(10), do, stuck=lambda: stuck.append(1))
    assert stuck == [1]
    hang.set()


# ---------------------------------------------------------------- devices


def test_a_read_beyond_the_end_is_zeros_and_a_file_that_shrank_is_an_error(tmp_path: Path):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 10_000)
    view = page_buffer(16384)
    with Device(path) as disk:
        disk.read(0, view)
        assert bytes(view) == b"x" * 10_000 + bytes(6384)
        path.write_bytes(b"y" * 100)
        with pytest.raises(DiskError):
            disk.read(0, view)


def test_odd_lengths_are_written_to_the_last_byte(tmp_path: Path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(10_001))
    view = page_buffer(12288)
    with Device(path, write=True) as disk:
        view[:] = b"z" * len(view)
        disk.write(0, view[:10_001])
        disk.sync()
    assert path.read_bytes() == b"z" * 10_001


def test_memory_that_disks_write_into_suits_huge_pages_and_is_kept_from_children():
    view = page_buffer(4 * MB)
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    assert (len(view), address % (2 * MB)) == (4 * MB, 0)
    mappings = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]
    for mapping in mappings:
        low, high = (int(word, 16) for word in mapping.split(maxsplit=1)[0].split("-"))
        if low <= address < high:
            assert address + len(view) <= high
            assert "dc" in mapping.partition("VmFlags:")[2].split()
            break
    else:
        pytest.fail("the memory is in no mapping")


def test_a_disk_that_is_not_there_is_named():
    with pytest.raises(DiskError, match="/dev/nowhere"):
        Device(Path("/dev/nowhere"))


# ---------------------------------------------------------------- both ways, on plain files


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(Library.create(tmp_path / "lib"))


def patterned(path: Path, size: int) -> bytes:
    data = b"".join(n.to_bytes(8, "little") for n in range(size // 8 + 1))[:size]
    path.write_bytes(data)
    return data


def save(store: ChunkStore, path: Path, used: UsedMap, **more):
    with ChunkWriter(store) as writer:
        saved = save_partition(path, used, writer, grain=GRAIN, **more)
        writer.finish(saved.index.packs)
    return saved


def test_used_bytes_come_back_and_unused_ones_never_count(tmp_path, store):
    source, target = tmp_path / "a", tmp_path / "b"
    data = patterned(source, 3 * MB + 777)
    used = UsedMap([(0, 5000), (200_000, 300_000), (2 * MB + 5, 100_000), (3 * MB + 700, 77)], len(data))
    saved = save(store, source, used)
    target.write_bytes(b"\xa5" * len(data))
    done = restore_partition(target, saved.index, store, mode="plain")
    out = target.read_bytes()
    assert all(out[e.start : e.end] == data[e.start : e.end] for e in used)
    assert done.written == done.total
    # Other bytes where nothing is used: the same image, and nothing to write.
    for path in (source, target):
        changed = bytearray(path.read_bytes())
        for hole in used.holes(0, len(data)):
            changed[hole.start : hole.end] = b"\x77" * hole.size
        path.write_bytes(changed)
    again = save(store, source, used)
    assert (again.index.root, again.stored) == (saved.index.root, 0)
    delta = restore_partition(target, saved.index, store, mode="delta")
    assert (delta.written, delta.right) == (0, done.total)
    assert read_back(target, saved.index).root == saved.index.root.hex()


def test_only_the_chunks_that_differ_are_written(tmp_path, store):
    source = tmp_path / "a"
    data = bytearray(patterned(source, 4 * MB))
    saved = save(store, source, UsedMap([(0, len(data))], len(data)))
    data[GRAIN * 5 + 3] ^= 1
    data[GRAIN * 20] ^= 1
    source.write_bytes(data)
    with pytest.raises(IntegrityError) as told:
        require_same(source, saved.index, read_back(source, saved.index))
    assert told.value.code == "target-differs"
    assert [e.start for e in read_back(source, saved.index).differing] == [GRAIN * 5, GRAIN * 20]
    done = restore_partition(source, saved.index, store, mode="auto")
    assert (done.written, done.right) == (2 * GRAIN, len(data) - 2 * GRAIN)
    require_same(source, saved.index, read_back(source, saved.index))


def test_zeros_are_not_stored_and_are_written_back(tmp_path, store):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(bytes(2 * MB) + b"end")
    saved = save(store, source, UsedMap([(0, 2 * MB + 3)], 2 * MB + 3))
    assert saved.zeros == 2 * MB
    assert saved.new == 3
    target.write_bytes(b"\xff" * (2 * MB + 3))
    restore_partition(target, saved.index, store)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("cores", "mib", "workers", "buffers"),
    [
        (1, 16_000, 1, 20),
        (2, 16_000, 2, 24),
        (2, 0, 2, 24),
        (4, 16_000, 4, 32),
        (64, 64_000, 16, 32),
        (16, 256, 8, 16),
        (4, 100, 3, 6),
        (4, 10, 2, 4),
    ],
)
def test_there_are_as_many_workers_and_buffers_as_cores_and_memory_allow(cores, mib, workers, buffers):
    assert crew.hands(cores, mib * MB) == (workers, buffers)


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 64, 256])
@pytest.mark.parametrize("unit", [4, 8, 16])
def test_buffers_stay_under_the_memory_that_is_promised(cores, unit):
    hands = crew.hands(cores, 64_000 * MB)
    packed = max(PACKED, 2 * unit * MB if unit > 4 else 0)
    views = hands.buffers_of(unit * MB) * unit * MB
    assert views + packed_buffers(hands, packed) * packed <= 300 * MB


def test_each_kind_of_work_is_told_as_its_share_of_its_hands_time():
    works = crew.Works({"read": 3, "write": 2})
    assert [(one.name, one.bytes, one.busy_s) for one in works.rates()] == [("read", 0, 0.0), ("write", 0, 0.0)]
    for _ in range(3):
        works.stage("read").add(100, 2.0)
    for _ in range(2):
        works.stage("write").add(30, 1.0)
    assert [(one.name, one.bytes, one.busy_s) for one in works.rates()] == [("read", 300, 2.0), ("write", 60, 1.0)]


def test_work_passes_all_hands_and_what_is_done_goes_no_further():
    hands, seen = crew.Crew(), []
    pool = hands.pool(2, lambda: bytearray(1))
    taken = []

    def take(n):
        buffer = pool.take()
        taken.append(id(buffer))
        buffer[0] = n
        return n, buffer

    def half(pair):
        n, buffer = pair
        if n % 2:
            pool.give(buffer)
            return None
        return pair

    def end(pair):
        n, buffer = pair
        assert buffer[0] == n
        seen.append(n)
        pool.give(buffer)

    halves = hands.step("half", 3, hands.step("take", 4, hands.pieces(range(200)), no_worker(take)), no_worker(half))
    hands.step("end", 1, halves, no_worker(end))
    hands.follow(tell=lambda: None, cancelled=lambda: False, stuck=lambda: None)
    assert sorted(seen) == list(range(0, 200, 2))
    assert len(set(taken)) <= 2


def test_a_failure_of_the_last_hands_ends_those_that_wait_for_a_buffer():
    hands = crew.Crew()
    pool = hands.pool(2, object)

    def fail(_):
        raise DiskError("no more")

    taken = hands.step("take", 4, hands.pieces(range(10**9)), no_worker(lambda _: pool.take()))
    hands.step("end", 1, taken, no_worker(fail))
    stuck = []
    with pytest.raises(DiskError, match="no more"):
        hands.follow(tell=lambda: None, cancelled=lambda: False, stuck=lambda: stuck.append(1))
    assert not stuck


def test_the_stages_of_a_capture_and_of_a_restore_are_told(tmp_path, store):
    source, target = tmp_path / "a", tmp_path / "b"
    data = patterned(source, 2 * MB)
    seen = []
    saved = save(store, source, UsedMap([(0, len(data))], len(data)), watcher=seen.append)
    assert {one.name: one.bytes for one in seen[-1]} == {
        "disk read": len(data),
        "hash": len(data),
        "compress": len(data),
        "library write": saved.stored,
    }
    target.write_bytes(bytes(len(data)))
    done = restore_partition(target, saved.index, store, mode="plain", watcher=seen.append)
    assert {one.name: one.bytes for one in seen[-1]} == {
        "disk compare": 0,
        "hash": 0,
        "library read": done.fetched,
        "unpack": len(data),
        "disk write": len(data),
    }
    assert saved.index.total == len(data)


def test_a_cancelled_capture_does_not_wait_for_its_units(tmp_path, store):
    source = tmp_path / "a"
    data = patterned(source, 16 * MB)
    with pytest.raises(CancelledError):
        save(store, source, UsedMap([(0, len(data))], len(data)), level=19, cancelled=lambda: True)


def test_a_pack_is_read_back_as_it_lies_and_a_flipped_bit_in_it_is_found(tmp_path, store):
    source = tmp_path / "a"
    data = patterned(source, MB)
    with ChunkWriter(store) as writer:
        saved = save_partition(source, UsedMap([(0, len(data))], len(data)), writer, grain=GRAIN)
        writer.finish(saved.index.packs)
    [pack] = writer.sealed
    index = store.index(pack)
    path = store.path(pack, "pack")
    assert sum(check_pack(store, index)) == path.stat().st_size >= saved.stored
    stored = bytearray(path.read_bytes())
    for at in (5, len(stored) // 2, len(stored) - 1):
        stored[at] ^= 4
        path.write_bytes(stored)
        with pytest.raises(IntegrityError):
            list(check_pack(store, index))
        stored[at] ^= 4
    for other in (stored[:-1], stored + b"x"):
        path.write_bytes(other)
        with pytest.raises(IntegrityError, match=f"{len(other)} bytes instead of {len(stored)}"):
            list(check_pack(store, index))


@pytest.mark.parametrize("begin", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("mode", ["plain", "auto", "delta"])
def test_it_does_not_matter_where_a_restore_begins(tmp_path, store, begin, mode):
    source, target = tmp_path / "a", tmp_path / "b"
    data = patterned(source, 30 * MB)
    saved = save(store, source, UsedMap([(0, 10 * MB), (15 * MB, 15 * MB)], len(data)))
    target.write_bytes(b"\x11" * len(data))
    done = restore_partition(target, saved.index, store, mode=mode, begin=begin)
    assert done.written == 25 * MB
    assert target.read_bytes() == data[: 10 * MB] + b"\x11" * 5 * MB + data[15 * MB :]


def test_a_target_that_is_too_small_is_refused_before_anything_is_written(tmp_path, store):
    source, target = tmp_path / "a", tmp_path / "b"
    patterned(source, MB)
    saved = save(store, source, UsedMap([(0, MB)], MB))
    target.write_bytes(b"keep" * 1000)
    with pytest.raises(DiskError) as told:
        restore_partition(target, saved.index, store)
    assert told.value.code == "target-too-small"
    assert target.read_bytes() == b"keep" * 1000


def bad_device(places: set[int], monkeypatch) -> None:
    """Pages that cannot be read, as a failing disk has them: no device here can be made to have real ones."""
    honest = Device.read

    def read(self, offset, view):
        if any(offset <= place < offset + len(view) for place in places):
            raise UnreadableError(f"{self.path} cannot be read at byte {offset}")
        honest(self, offset, view)

    monkeypatch.setattr(Device, "read", read)


def test_unreadable_sectors_stop_a_capture_that_did_not_ask_to_go_on(tmp_path, store, monkeypatch):
    patterned(tmp_path / "a", MB)
    bad_device({300_000}, monkeypatch)
    with pytest.raises(UnreadableError):
        save(store, tmp_path / "a", UsedMap([(0, MB)], MB))


def test_unreadable_sectors_become_zeros_and_are_told_when_the_task_says_so(tmp_path, store, monkeypatch):
    data = bytearray(patterned(tmp_path / "a", MB))
    bad_device({300_000, 302_000, 700_000, 703_000}, monkeypatch)
    saved = save(store, tmp_path / "a", UsedMap([(0, 702_000)], MB), on_bad_sector="continue")
    monkeypatch.undo()
    # The page at 303,104 is not bad, the one at 700,416 is used up to byte 702,000 only.
    assert [(b.start, b.size) for b in saved.bad] == [(299_008, 4096), (696_320, 5680)]
    for b in saved.bad:
        data[b.start : b.start + b.size] = bytes(b.size)
    target = tmp_path / "b"
    target.write_bytes(bytes(MB))
    restore_partition(target, saved.index, store)
    assert target.read_bytes()[:702_000] == data[:702_000]


def test_progress_reaches_the_used_bytes(tmp_path, store):
    patterned(tmp_path / "a", 9 * MB)
    used = UsedMap([(0, 5 * MB), (6 * MB, MB)], 9 * MB)
    seen = []
    save(store, tmp_path / "a", used, tick=lambda done, stored: seen.append((done, stored)))
    assert seen[-1][0] == used.used
    assert seen == sorted(seen)
