"""What a capture relies on is whole: chunks that the library says it has are looked at, unless somebody did so lately."""

import os
import time
from pathlib import Path

import pytest

from litho.errors import IntegrityError
from litho.library import ImageRef, Library, Manifest, Part, Stage, care
from litho.library.chunks import ChunkStore, ChunkWriter, gc, mend, roll, scrub, trust
from litho.library.chunks.lock import Lock
from litho.library.chunks.store import DIRECTORY
from litho.messages import DiskFacts
from litho_agent.chunk import adapter
from litho_agent.chunk.usage import used_map
from support.chunked import MB, OWNER, capture, contents


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "lib")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A disk of 6 MB; its packs hold 4 and 2 MB."""
    source = tmp_path / "source"
    source.write_bytes(contents(3, 6 * MB, noise=1.0))
    return source


def restored(library: Library, tmp_path: Path, name: str, version: int = 0) -> bytes:
    target = tmp_path / "target"
    target.write_bytes(b"\x5a" * (6 * MB))
    part = library.manifest(ImageRef(name, version)).parts[0]
    adapter.restore_part(library, part, target, mode="plain", verify_target=True)
    return target.read_bytes()


def a_pack(library: Library) -> Path:
    return min((library.root / DIRECTORY).glob("*.pack"))


def flip(path: Path, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)
        file.seek(byte)
        file.write(bytes([old[0] ^ 4]))


def time_passes(library: Library) -> None:
    """So much that no receipt counts any more. (Rot changes no time of a file; a test's flipping of a bit does.)"""
    past = time.time() - trust.TRUST_S - 60
    for path in (library.root / DIRECTORY).glob("*.checked"):
        os.utime(path, (past, past))


def receipts(library: Library) -> set[str]:
    return {path.stem for path in (library.root / DIRECTORY).glob("*.checked")}


def test_a_capture_signs_what_it_made_and_believes_it_for_a_time(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    packs = {path.stem for path in (library.root / DIRECTORY).glob("*.pack")}
    assert receipts(library) == packs and len(packs) == 2
    store = ChunkStore(library)
    writer = ChunkWriter(store)
    digest = store.index(bytes.fromhex(min(packs))).record(0).digest
    assert writer.find(digest) == bytes.fromhex(min(packs)) and writer.trust.read == 0
    # An old receipt says no more than none: the chunk is looked at, and is whole.
    time_passes(library)
    later = ChunkWriter(store)
    assert later.find(digest) == bytes.fromhex(min(packs)) and later.trust.read > 0
    writer.close()
    later.close()


@pytest.mark.parametrize("harm", ["bit", "header", "cut", "gone"])
def test_damage_that_a_capture_meets_is_stored_anew_and_heals_older_images(library, source, tmp_path, harm):
    data = source.read_bytes()
    capture(library, "golden", source, pack_bytes=2 * MB)
    pack = a_pack(library)
    if harm == "bit":
        flip(pack, pack.stat().st_size // 2)
    elif harm == "header":
        flip(pack, 20)
    elif harm == "cut":
        os.truncate(pack, pack.stat().st_size // 2)
    else:
        pack.unlink()
    time_passes(library)
    with pytest.raises(IntegrityError):
        restored(library, tmp_path, "golden")
    part = capture(library, "again", source, pack_bytes=2 * MB).parts[0]
    assert 128 * 1024 <= part.chunk_stored < 4.2 * MB, "what is damaged, or its pack, and no more"
    assert restored(library, tmp_path, "again") == data
    assert restored(library, tmp_path, "golden") == data, "without anybody's scrub"
    assert capture(library, "third", source).parts[0].chunk_stored == 0


@pytest.mark.parametrize("byte", [20, MB])
def test_damage_that_a_restore_meets_ends_the_trust_in_its_pack_at_once(library, source, tmp_path, byte):
    capture(library, "golden", source, pack_bytes=2 * MB)
    store, pack = ChunkStore(library), a_pack(library)
    flip(pack, byte)
    # A bit rots without anybody's knowledge: the receipt is young, and of the file as it is.
    trust.sign(store, bytes.fromhex(pack.stem), pack.stat())
    assert trust.checked_at(store, bytes.fromhex(pack.stem)) is not None
    with pytest.raises(IntegrityError, match=pack.stem):
        restored(library, tmp_path, "golden")
    assert trust.checked_at(store, bytes.fromhex(pack.stem)) is None
    capture(library, "again", source)
    assert restored(library, tmp_path, "again") == restored(library, tmp_path, "golden") == source.read_bytes()


def test_a_capture_whose_own_pack_comes_back_wrong_fails_and_the_next_one_succeeds(library, source, tmp_path):
    size = source.stat().st_size
    with Stage.open(library, "golden", OWNER) as stage, adapter.ChunkCapture(stage, pack_bytes=2 * MB) as chunks:
        chunks.save(source, used_map(source, "", size), suffix="sda1")
        chunks.finish()
        flip(a_pack(library), MB)
        with pytest.raises(IntegrityError, match=a_pack(library).stem):
            chunks.check()
    assert library.images() == []
    capture(library, "golden", source, pack_bytes=2 * MB)
    assert restored(library, tmp_path, "golden") == source.read_bytes()


def test_where_a_collector_runs_the_capture_is_right_and_older_images_wait_for_a_scrub(library, source, tmp_path):
    capture(library, "golden", source, pack_bytes=2 * MB)
    flip(a_pack(library), MB)
    time_passes(library)
    with Lock(ChunkStore(library)):
        capture(library, "again", source)
    assert restored(library, tmp_path, "again") == source.read_bytes()
    assert capture(library, "third", source).parts[0].chunk_stored == 0, (
        "the sound copy is found beside the damaged one"
    )
    with pytest.raises(IntegrityError):
        restored(library, tmp_path, "golden")
    scrub.scrub(ChunkStore(library), mend=True)
    assert restored(library, tmp_path, "golden") == source.read_bytes()


def test_a_capture_says_what_damage_it_met(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    pack = a_pack(library)
    flip(pack, MB)
    time_passes(library)
    with Stage.open(library, "again", OWNER) as stage, adapter.ChunkCapture(stage) as chunks:
        saved = chunks.save(source, used_map(source, "", 6 * MB), suffix="sda1")
        chunks.finish()
        (sentence,) = chunks.damaged
        assert pack.stem in sentence and "1 chunks of it were stored anew" in sentence
        chunks.check()
        part = Part(number=1, start=0, size=6 * MB, fs="", **saved.fields())
        disk = DiskFacts(path="/dev/sda", size=6 * MB)
        stage.publish(
            Manifest(
                image="again",
                version=stage.version,
                created="2026-11-22T16:00:00Z",
                software="test",
                disk=disk,
                disk_name="sda",
                table="none",
                parts=(part,),
            )
        )


def test_a_pack_of_which_a_capture_read_everything_is_signed_and_a_changed_one_is_not_believed(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    for path in (library.root / DIRECTORY).glob("*.checked"):
        path.unlink()
    capture(library, "again", source)
    assert len(receipts(library)) == 2
    store, pack = ChunkStore(library), a_pack(library)
    assert trust.checked_at(store, bytes.fromhex(pack.stem)) is not None
    os.utime(pack, (1, 1))
    assert trust.checked_at(store, bytes.fromhex(pack.stem)) is None


@pytest.mark.parametrize("junk", [b"", b"lithograph checked 1 \n", b"\xff" * 5000])
def test_a_receipt_that_says_something_else_counts_as_none(library, source, junk):
    capture(library, "golden", source, pack_bytes=2 * MB)
    pack = a_pack(library)
    pack.with_suffix(".checked").write_bytes(junk)
    assert trust.checked_at(ChunkStore(library), bytes.fromhex(pack.stem)) is None


def test_receipts_go_with_their_packs(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    (library.root / DIRECTORY / ("ab" * 16 + ".checked")).write_bytes(b"of nothing")
    care.remove(library, ImageRef("golden"))
    for _ in range(3):
        gc.collect(ChunkStore(library), grace_s=0)
    assert {path.name for path in (library.root / DIRECTORY).iterdir()} <= {roll.NAME}


def test_receipts_of_the_future_and_of_long_ago_do_not_count():
    assert trust.fresh(100.0, 200.0, 101.0)
    assert not trust.fresh(100.0, 200.0, 100.0)
    assert trust.fresh(200.0, 199.0, 100.0)
    assert not trust.fresh(20000.0, 200.0, 100.0)
    assert not trust.fresh(None, 200.0, 100.0)


def damage(library: Library, places: tuple[int, ...]) -> tuple[ChunkStore, bytes, list[bytes]]:
    """A pack with these places of its index damaged; the hashes of all its chunks, in the index's order."""
    path = a_pack(library)
    store = ChunkStore(library)
    index = store.index(bytes.fromhex(path.stem))
    for place in places:
        flip(path, index.record(place).end - 1)
    return store, index.pack, [record.digest for record in index]


def test_what_an_index_is_to_forget_is_read_again_and_stays_when_it_is_whole(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    store, pack, digests = damage(library, (3,))
    # As when the server did not answer while somebody looked for damage.
    assert mend.take_out(store, pack, {digests[1], digests[3], digests[5]})
    assert [record.digest for record in store.index(pack)] == digests[:3] + digests[4:]


def test_a_condemned_pack_whose_index_is_mended_is_live_and_nothing_else(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    store, pack, digests = damage(library, (3,))
    store.condemn(pack)
    assert mend.take_out(store, pack, {digests[3]})
    listing = store.listing()
    assert pack in listing.live and pack not in listing.condemned
    assert store.index(pack).position(digests[3]) < 0
    # Whatever left a second index beside a live one: the pack is not deleted by it.
    care.remove(library, ImageRef("golden", 1))
    store.path(pack, "idx.condemned").write_bytes(store.path(pack, "idx").read_bytes())
    gc.collect(store, grace_s=-60)
    assert store.path(pack, "pack").exists()


def test_an_index_that_another_capture_mends_meanwhile_misleads_nobody(library, source):
    capture(library, "golden", source, pack_bytes=2 * MB)
    time_passes(library)
    store, pack, digests = damage(library, (2, 6))
    believed = trust.Trust(store)
    before = store.index(pack)
    assert [believed.holds(before, place) for place in range(8)] == [place not in (2, 6) for place in range(8)]
    assert mend.take_out(ChunkStore(library), pack, {digests[2]})
    store.forget(pack)
    after = store.index(pack)
    for place in range(len(after)):
        assert believed.holds(after, place) == (after.record(place).digest != digests[6])
    # Who still has the old one is answered by the same rule.
    assert not believed.holds(before, 2) and not believed.holds(before, 6) and believed.holds(before, 5)
    assert believed.damaged()[pack][1] >= {digests[6]}
    assert digests[5] not in believed.damaged()[pack][1]
