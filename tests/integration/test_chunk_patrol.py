"""The controller reads the library through by itself, goes on where it was, and says what is damaged."""

import asyncio
import logging
import os
import time
from pathlib import Path

import msgspec
import pytest

from litho.library import ImageRef, Library, care
from litho.library.chunks import ChunkStore, ChunkWriter, health, scrub, trust
from litho.library.chunks import patrol as patrolling
from litho.library.chunks.patrol import Stopped, patrol
from litho.library.chunks.store import DIRECTORY
from litho.library.chunks.writer import Frame
from litho_controller.tasks.scrubbing import scrub_now_and_then
from support.chunked import MB, capture, contents
from support.controller import until

WEEK = 7 * 86400.0


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Two images of two packs each, read whole long ago."""
    library = Library.create(tmp_path / "lib")
    source = tmp_path / "source"
    for name, seed in (("golden", 1), ("other", 2)):
        source.write_bytes(contents(seed, 6 * MB, noise=1.0))
        capture(library, name, source, pack_bytes=2 * MB)
    a_week_passes(library)
    return library


def a_week_passes(library: Library) -> None:
    past = time.time() - WEEK - 60
    for path in (library.root / DIRECTORY).glob("*.checked"):
        os.utime(path, (past, past))


def pack_of(library: Library, name: str) -> Path:
    index = scrub.read_index(library, library.manifest(ImageRef(name)).parts[0])
    return ChunkStore(library).path(index.packs[0], "pack")


def rot(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 1]))


def test_a_patrol_that_is_broken_off_goes_on_where_it_was_and_then_rests_for_a_week(library):
    read: list[float] = []
    with pytest.raises(Stopped):
        patrol(ChunkStore(library), every_s=WEEK, cancelled=lambda: len(read) == 3, rest=read.append)
    assert health.read(ChunkStore(library)).ended == 0
    done = patrol(ChunkStore(library), every_s=WEEK, rest=read.append)
    assert len(read) == 4, "the three that were read are not read again"
    assert (done.packs, done.damaged, done.lacking) == (4, (), {})
    assert done == health.read(ChunkStore(library)) == patrol(ChunkStore(library), every_s=WEEK, rest=read.append)
    assert len(read) == 4
    a_week_passes(library)
    patrol(ChunkStore(library), every_s=WEEK, rest=read.append)
    assert len(read) == 8


def test_damage_is_told_with_the_images_that_need_it_and_once_a_week(library, tmp_path):
    hurt = pack_of(library, "golden")
    rot(hurt)
    told: list[health.Damage] = []
    found = patrol(ChunkStore(library), every_s=WEEK, found=told.append)
    assert [(one.pack, one.images) for one in told] == [(hurt.stem, ("golden.v1-sda1.chunks",))]
    assert found.of("golden", 1) == "1 of its chunks are damaged" and found.of("other", 1) == ""
    assert patrol(ChunkStore(library), every_s=WEEK, found=told.append) == found and len(told) == 1
    # A capture that meets the chunk heals the image; the next look is at once, because the pack's index has changed.
    (tmp_path / "source").write_bytes(contents(1, 6 * MB, noise=1.0))
    capture(library, "golden", tmp_path / "source")
    again = patrol(ChunkStore(library), every_s=WEEK, found=told.append)
    assert (again.damaged, again.lacking, len(told)) == ((), {}, 1)


def test_where_much_is_damaged_it_is_told_at_the_end_of_the_round_even_after_a_break(library, monkeypatch):
    monkeypatch.setattr(patrolling, "AT_ONCE", 0)
    names = {name: pack_of(library, name) for name in ("golden", "other")}
    for path in names.values():
        rot(path)
    told: list[health.Damage] = []
    read: list[float] = []
    with pytest.raises(Stopped):
        patrol(ChunkStore(library), every_s=WEEK, cancelled=lambda: len(read) == 4, rest=read.append, found=told.append)
    assert told == [] and len(health.read(ChunkStore(library)).damaged) == 2
    found = patrol(ChunkStore(library), every_s=WEEK, rest=read.append, found=told.append)
    assert {one.pack: one.images for one in told} == {
        path.stem: (f"{name}.v1-sda1.chunks",) for name, path in names.items()
    }
    assert set(found.damaged) == set(told)
    patrol(ChunkStore(library), every_s=WEEK, found=told.append)
    assert len(told) == 2


def test_an_image_whose_pack_or_index_is_gone_is_told(library):
    pack_of(library, "golden").with_suffix(".idx").unlink()
    (library.root / "other.v1-sda1.chunks").write_bytes(b"junk")
    found = patrol(ChunkStore(library), every_s=WEEK)
    assert found.of("golden", 1).endswith("of its chunks are in no pack")
    assert "is damaged" in found.of("other", 1)
    care.remove(library, ImageRef("golden"))
    a_week_passes(library)
    assert patrol(ChunkStore(library), every_s=WEEK).of("golden", 1) == ""


def test_an_image_in_the_making_is_not_said_to_lack_what_it_has_not_written_yet(library):
    (library.root / "new.v1-sda1.chunks.part").write_bytes((library.root / "golden.v1-sda1.chunks").read_bytes())
    (library.root / "new.v2-sda1.chunks").write_bytes(b"being written by somebody else's program")
    pack_of(library, "golden").with_suffix(".idx").unlink()
    assert set(patrol(ChunkStore(library), every_s=WEEK).lacking) == {"golden.v1-sda1.chunks"}


@pytest.mark.parametrize("junk", [b"", b"{", b'{"format":1,"ended":"x"}', b"\xff\xfe"])
def test_a_health_file_that_is_junk_says_nothing(library, junk):
    (library.root / DIRECTORY / "health.json").write_bytes(junk)
    assert health.read(ChunkStore(library)) == health.Health()


async def test_the_controller_warns_of_packs_and_images_and_can_be_stopped_in_the_middle(library, caplog):
    rot(pack_of(library, "golden"))
    caplog.set_level(logging.WARNING, "litho.tasks")
    scrubber = asyncio.create_task(
        scrub_now_and_then(library, every_s=WEEK, busy=lambda: False, first_s=0, look_s=0.01)
    )
    await until(lambda: "cannot be restored" in caplog.text, within_s=60)
    scrubber.cancel()
    await asyncio.gather(scrubber, return_exceptions=True)
    assert pack_of(library, "golden").stem in caplog.text
    assert "needed by golden.v1-sda1.chunks" in caplog.text
    assert "the image of golden.v1-sda1.chunks cannot be restored: 1 of its chunks are damaged" in caplog.text
    assert await scrub_now_and_then(library, every_s=0, busy=lambda: False) is None


def test_damage_that_no_crc_tells_is_not_forgotten_because_a_capture_signed_the_pack(library):
    store = ChunkStore(library)
    with ChunkWriter(store) as writer:
        # As when the memory of the node that captured it lost a bit between hashing and packing.
        [pack] = writer.add([Frame(b"\x07" * 32, 4096, False, b"\x01" * 4096)])
        writer.finish([pack])
    seen = store.path(pack, "pack").stat()
    assert [one.pack for one in patrol(store, every_s=WEEK).damaged] == [pack.hex()]
    trust.sign(store, pack, seen)
    told = msgspec.structs.replace(health.read(store).damaged[0], at=time.time() - WEEK - 60)
    health.write(store, msgspec.structs.replace(health.read(store), damaged=(told,), ended=told.at))
    assert [one.pack for one in patrol(store, every_s=WEEK).damaged] == [pack.hex()]
