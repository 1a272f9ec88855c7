"""The chunk store's care: nothing that an image needs is taken away, nothing stays that none needs, no damage is believed."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from litho.errors import IntegrityError, LibraryError, RefusedError
from litho.library import ImageRef, Library, care, verify
from litho.library.chunks import ChunkStore, gc, scrub
from litho.library.chunks import lock as lock_file
from litho.library.chunks.store import DIRECTORY
from litho_agent.chunk import adapter
from support.chunked import capture, change, contents, packs

MB = 1024 * 1024


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "lib")


def image(library: Library, tmp_path: Path, name: str, data: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(data)
    capture(library, name, source)


def restored(library: Library, tmp_path: Path, ref: ImageRef) -> bytes:
    """What a restore of the image writes over other bytes."""
    part = library.manifest(ref).parts[0]
    target = tmp_path / "target"
    target.write_bytes(b"\x5a" * part.size)
    adapter.restore_part(library, part, target, mode="plain", verify_target=True)
    return target.read_bytes()


def sweep(library: Library, times: int = 3) -> gc.Swept:
    for _ in range(times):
        done = gc.collect(ChunkStore(library), grace_s=0, pack_bytes=MB)
    return done


def stored(library: Library) -> int:
    return sum(path.stat().st_size for path in (library.root / DIRECTORY).glob("*.pack"))


def test_what_one_version_had_alone_goes_and_what_another_shares_stays(library, tmp_path):
    first = contents(1, 8 * MB)
    second = bytearray(first)
    second[4 * MB :] = contents(2, 4 * MB)
    image(library, tmp_path, "golden", first)
    image(library, tmp_path, "golden", second)
    before = stored(library)
    care.remove(library, ImageRef("golden", 1))
    done = sweep(library)
    assert before * 0.5 < stored(library) < before * 0.75
    assert done.freed > 0 or done.deleted == 0
    assert restored(library, tmp_path, ImageRef("golden", 2)) == second
    care.remove(library, ImageRef("golden", 2))
    sweep(library)
    assert packs(library) == set()


def test_what_checks_any_image_checks_one_in_chunks_too(library, tmp_path):
    image(library, tmp_path, "golden", contents(1, 2 * MB))
    manifest = library.manifest(ImageRef("golden"))
    assert verify.check_streams(library, manifest) == []
    flip(library.root / manifest.parts[0].data.file, 5000)
    assert [problem.file for problem in verify.check_streams(library, manifest)] == ["golden.v1-sda1.chunks"]
    assert [problem.file for problem in scrub.check_image(library, manifest)] == ["golden.v1-sda1.chunks"]


def test_mostly_unneeded_packs_are_rewritten_and_images_do_not_notice(library, tmp_path):
    first = contents(1, 8 * MB, noise=1.0)
    image(library, tmp_path, "old", first)
    kept = bytearray(8 * MB)
    for at in range(0, 8 * MB, MB):
        kept[at : at + 128 * 1024] = first[at : at + 128 * 1024]
    image(library, tmp_path, "new", kept)
    old_packs = set(packs(library))
    care.remove(library, ImageRef("old"))
    assert sweep(library, 1).moved >= MB
    sweep(library)
    assert stored(library) < 1.2 * MB
    assert not old_packs & packs(library)
    assert restored(library, tmp_path, ImageRef("new")) == kept
    assert scrub.scrub(ChunkStore(library)) == []


def test_many_small_packs_become_few(library, tmp_path):
    wanted = {}
    for n in range(20):
        wanted[n] = contents(n, 100_000, noise=1.0)
        source = tmp_path / "source"
        source.write_bytes(wanted[n])
        capture(library, f"n{n}", source, pack_bytes=64 * MB)
    assert len(packs(library)) == 20
    for _ in range(3):
        gc.collect(ChunkStore(library), grace_s=0, pack_bytes=64 * MB)
    assert len(packs(library)) == 1
    assert all(restored(library, tmp_path, ImageRef(f"n{n}")) == data for n, data in wanted.items())


def test_nothing_young_is_taken(library, tmp_path):
    image(library, tmp_path, "golden", contents(1, 2 * MB))
    (library.root / DIRECTORY / ("ab" * 16 + ".pack.part")).write_bytes(b"being written")
    before = packs(library)
    care.remove(library, ImageRef("golden"))
    for _ in range(3):
        assert gc.collect(ChunkStore(library), grace_s=3600).deleted == 0
    assert packs(library) == before


def test_an_image_in_the_making_keeps_its_chunks(library, tmp_path):
    data = contents(1, 2 * MB)
    image(library, tmp_path, "golden", data)
    part = library.manifest(ImageRef("golden")).parts[0]
    name = part.data.file
    # As after a crash between writing the index and publishing: only the unfinished file of another image speaks of them.
    shutil.copy(library.root / name, library.root / "other.v1-sda1.chunks.part")
    care.remove(library, ImageRef("golden"))
    sweep(library)
    assert len(packs(library)) >= 1
    (library.root / "other.v1-sda1.chunks.part").unlink()
    sweep(library)
    assert packs(library) == set()


def test_a_collector_deletes_nothing_while_an_index_is_damaged(library, tmp_path):
    image(library, tmp_path, "golden", contents(1, 2 * MB))
    image(library, tmp_path, "gone", contents(2, 2 * MB))
    care.remove(library, ImageRef("gone"))
    path = library.root / library.manifest(ImageRef("golden")).parts[0].data.file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = stored(library)
    with pytest.raises(IntegrityError, match=r"golden\.v1-sda1\.chunks"):
        sweep(library)
    assert stored(library) == before


def test_two_collectors_at_once_are_kept_apart_and_a_dead_ones_lock_is_taken_over(library, tmp_path):
    image(library, tmp_path, "golden", contents(1, MB))
    lock = library.root / DIRECTORY / "gc.lock"
    lock.write_bytes(b"somebody")
    with pytest.raises(RefusedError) as told:
        sweep(library)
    assert told.value.code == "gc-runs"
    os.utime(lock, (time.time() - lock_file.LOCK_S - 5,) * 2)
    sweep(library)
    assert not lock.exists()


def test_a_capture_beside_a_collector_that_wants_the_same_packs_never_publishes_what_is_gone(library, tmp_path):
    """The capture refers to chunks that no image needs, while a collector without any patience runs all the time."""
    data = contents(1, 4 * MB)
    over, turn = threading.Event(), threading.Lock()
    runs = 0

    def collect() -> None:
        nonlocal runs
        while not over.is_set():
            store = ChunkStore(library)
            with turn:
                gc.collect(store, grace_s=0.02, pack_bytes=MB)
            runs += 1

    def print_live() -> bytes:
        try:
            return restored(library, tmp_path, ImageRef("live"))
        except IntegrityError as exc:
            # Chunks that move every few milliseconds may be missed as often as a reader looks; they are somewhere all the same.
            assert exc.code in {"pack-missing", "chunk-missing"}, exc
            with turn:
                return restored(library, tmp_path, ImageRef("live"))

    collector = threading.Thread(target=collect)
    image(library, tmp_path, "seed", data)
    care.remove(library, ImageRef("seed"))
    collector.start()
    published = failed = 0
    try:
        for n in range(30):
            change(data, n, 0.01)
            try:
                image(library, tmp_path, "live", data)
            except LibraryError as exc:
                assert exc.code in {"chunks-gone", "library-missing", "chunk-missing", "pack-missing"}, exc
                failed += 1
                continue
            published += 1
            assert print_live() == data
            if n % 3 == 2:
                care.remove(library, ImageRef("live"))
    finally:
        over.set()
        collector.join()
    assert published >= 5, (published, failed)
    assert runs >= 5


# ---------------------------------------------------------------- damage


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_scrub_names_damaged_packs_and_the_images_that_need_them_and_mends(library, tmp_path):
    data = contents(1, 3 * MB, noise=1.0)
    image(library, tmp_path, "golden", data)
    image(library, tmp_path, "other", contents(9, MB, noise=1.0))
    store = ChunkStore(library)
    hurt = library.root / DIRECTORY / f"{_pack_of(library, 'golden')}.pack"
    flip(hurt, hurt.stat().st_size * 4)
    (report,) = scrub.scrub(store)
    assert report.pack == hurt.stem
    assert report.images == ("golden.v1-sda1.chunks",)
    assert not report.mended
    with pytest.raises(IntegrityError):
        restored(library, tmp_path, ImageRef("golden"))
    assert scrub.scrub(store, mend=True)[0].mended
    # The next capture of the same bytes heals the first.
    image(library, tmp_path, "again", data)
    assert restored(library, tmp_path, ImageRef("golden")) == data
    assert scrub.scrub(ChunkStore(library)) == []


@pytest.mark.parametrize("what", ["pack", "idx"])
def test_a_missing_file_of_a_pack_is_found_and_named(library, tmp_path, what):
    image(library, tmp_path, "golden", contents(1, MB, noise=1.0))
    pack = _pack_of(library, "golden")
    (library.root / DIRECTORY / f"{pack}.{what}").unlink()
    problems = scrub.check_image(library, library.manifest(ImageRef("golden")))
    assert any(pack in problem.sentence for problem in problems)
    target = tmp_path / "target"
    target.write_bytes(b"\x5a" * MB)
    with pytest.raises(IntegrityError, match=pack):
        adapter.restore_part(library, library.manifest(ImageRef("golden")).parts[0], target)
    assert target.read_bytes() == b"\x5a" * MB, "that could be known before the first write"


def test_a_pack_that_was_cut_is_refused_before_the_first_write(library, tmp_path):
    image(library, tmp_path, "golden", contents(1, MB, noise=1.0))
    path = library.root / DIRECTORY / f"{_pack_of(library, 'golden')}.pack"
    os.truncate(path, path.stat().st_size - 1)
    target = tmp_path / "target"
    target.write_bytes(b"\x5a" * MB)
    with pytest.raises(IntegrityError, match=path.stem):
        adapter.restore_part(library, library.manifest(ImageRef("golden")).parts[0], target)
    assert target.read_bytes() == b"\x5a" * MB


def test_a_lost_index_is_made_anew_from_the_packs_frames(library, tmp_path):
    data = contents(1, MB)
    image(library, tmp_path, "golden", data)
    pack = _pack_of(library, "golden")
    path = library.root / DIRECTORY / f"{pack}.idx"
    flip(path, 900)
    assert any(report.mended for report in scrub.scrub(ChunkStore(library), mend=True))
    assert restored(library, tmp_path, ImageRef("golden")) == data


def _pack_of(library: Library, name: str) -> str:
    index = scrub.read_index(library, library.manifest(ImageRef(name)).parts[0])
    return index.packs[0].hex()
