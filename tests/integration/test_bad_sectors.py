"""Disks with bad sectors: a capture stops at the first and says where, or goes on and tells what it lost."""

import asyncio
import os
import re
import time
from pathlib import Path

import pytest

from litho.errors import DiskError
from litho.job import Job
from litho.library import ImageRef, Library, Owner
from litho.library.manifest import BadRange
from litho.messages import Failed, Succeeded
from litho_agent import mover
from litho_agent.engines import Source, bad
from litho_agent.engines.choose import ENGINES
from litho_agent.engines.used import Extent
from litho_agent.mover import Note, WorkOrder
from support import transfers
from support.bad_disk import bad_file
from support.jobs import printed
from support.loop import loop_disk, needs_root, part, reread, sh

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024
PAGE = 4096
"""What partclone and the chunk engine lose for one bad sector: the page that it lies in. The reader of raw loses the sector."""
INSIDE = 512
"""Where in its page each bad sector lies."""
START = 2048 * 512


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A disk with one ext3, which partimage knows, too; and the place of a file's block in it, in bytes of the partition."""
    room = tmp_path_factory.mktemp("bad")
    (room / "tree").mkdir()
    content = os.urandom(12 * MIB)
    (room / "tree/file").write_bytes(content)
    with loop_disk(room / "disk", size=40 * MIB) as disk:
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin="start=2048, size=32MiB\n")
        reread(disk)
        sh("mkfs.ext3", "-q", "-b", "4096", "-g", "2048", "-d", room / "tree", part(disk, 1))
        blocks = [int(sh("debugfs", "-R", f"bmap /file {number}", part(disk, 1))) for number in (2000, 2002)]
        assert blocks[1] == blocks[0] + 2
        sh("sync", "--file-system", room)
    return room / "disk", blocks[0] * PAGE, content


@pytest.fixture
def failing(image, tmp_path):
    """The disk, of which 512 bytes in a file and 512 bytes two pages later cannot be read."""
    disk, at, _ = image
    with (
        bad_file(disk, tmp_path / "fuse", [(START + at + INSIDE, 512), (START + at + 2 * PAGE + INSIDE, 512)]) as file,
        loop_disk(file) as loop,
    ):
        ready(loop)
        yield loop, at


def ready(loop: Path) -> None:
    """Let the loop device read as a disk reads, sector by sector, and have its partitions."""
    sh("losetup", "--direct-io=on", loop)
    reread(loop)


async def capture(library: Library, disk: Path, **job: object) -> tuple[object, list[str]]:
    order = WorkOrder(
        job=Job(action="capture", image="golden", disk=str(disk), **job),  # type: ignore[arg-type]
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )
    notes: list[str] = []
    end = await mover.run(
        order, lambda news: notes.append(news.text) if isinstance(news, Note) else None, asyncio.Event()
    )
    return end, notes


@pytest.mark.parametrize("engine", ["partclone", "raw", "chunk", "partimage"])
async def test_a_capture_stops_at_the_first_bad_sector_and_says_disk_partition_offset_and_way_out(
    failing, tmp_path, engine
):
    disk, at = failing
    library = Library.create(tmp_path / "library")
    end, _ = await capture(library, disk, engine=engine)
    assert isinstance(end, Failed), end
    assert end.code == "bad-sector"
    assert end.reason.startswith(f"the disk {disk} ")
    assert (
        f"has a bad sector in {part(disk, 1).name}: 512 bytes at byte {at + INSIDE} of {part(disk, 1).name} "
        f"(byte {START + at + INSIDE} of the disk) cannot be read: " in end.reason
    )
    assert "litho.on-bad-sector=continue" in end.reason
    assert ("litho.engine=auto or raw" in end.reason) == (engine == "partimage")
    assert not end.touched
    assert [entry.name for entry in library.root.iterdir() if entry.name.startswith("golden")] == []


@pytest.mark.parametrize("engine", ["partclone", "raw", "chunk"])
async def test_a_capture_that_may_go_on_counts_and_places_what_is_lost_and_the_rest_restores(
    failing, image, tmp_path, engine
):
    disk, at = failing
    size, first = (512, at + INSIDE) if engine == "raw" else (PAGE, at)
    library = Library.create(tmp_path / "library")
    end, notes = await capture(library, disk, engine=engine, on_bad_sector="continue")
    assert isinstance(end, Succeeded), end
    told = (
        f"{part(disk, 1).name}: {2 * size} bytes in 2 places could not be read and are lost, "
        f"at byte {first} ({size} bytes), {first + 2 * PAGE} ({size} bytes)"
    )
    assert end.lost == 2 * size
    assert told in end.notes
    assert told in notes
    manifest = library.manifest(ImageRef("golden", 1))
    [one] = manifest.parts
    assert told in manifest.notes
    assert one.bad == (BadRange(start=first, size=size), BadRange(start=first + 2 * PAGE, size=size))
    assert (one.lost, manifest.lost) == ((2 * size, 2), 2 * size)

    with loop_disk(tmp_path / "target", size=40 * MIB) as target:
        restored = await printed(library, target)
        assert told in restored.notes, "who prints the image is told, too"
        sh("debugfs", "-R", f"dump /file {tmp_path / 'file'}", part(target, 1))
        found, content = (tmp_path / "file").read_bytes(), image[2]
        lost = [number for number in range(len(content) // PAGE) if differs(found, content, number)]
        assert lost == [2000, 2002]


def differs(found: bytes, content: bytes, number: int) -> bool:
    return found[number * PAGE : (number + 1) * PAGE] != content[number * PAGE : (number + 1) * PAGE]


async def test_an_engine_that_cannot_go_on_says_so_before_and_at_the_end(failing, tmp_path):
    disk, _ = failing
    end, notes = await capture(Library.create(tmp_path / "library"), disk, engine="partimage", on_bad_sector="continue")
    said = f"{part(disk, 1).name}: partimage cannot go on past a bad sector and ends at the first; other engines can"
    assert said in notes
    assert isinstance(end, Failed)
    assert end.code == "bad-sector"
    assert "partimage cannot go on past it; say litho.engine=auto or raw" in end.reason


@pytest.mark.parametrize("engine", ["partclone", "raw", "chunk"])
async def test_a_disk_that_loses_too_much_gives_no_image(image, tmp_path, engine):
    disk, at, _ = image
    with (
        bad_file(disk, tmp_path / "fuse", [(START + at, 5 * MIB // 2)]) as file,
        loop_disk(file) as loop,
    ):
        ready(loop)
        library = Library.create(tmp_path / "library")
        end, _ = await capture(library, loop, engine=engine, on_bad_sector="continue")
    assert isinstance(end, Failed), end
    assert end.code == "bad-sectors-many"
    assert "cannot be read in so many places" in end.reason
    assert [entry.name for entry in library.root.iterdir() if entry.name.startswith("golden")] == []


@pytest.fixture(scope="module")
def maps(image):
    """Where the bitmaps of used blocks of the disk's file system lie, in bytes of the partition."""
    with loop_disk(image[0]) as disk:
        reread(disk)
        words = sh("dumpe2fs", part(disk, 1))
    return [int(number) * PAGE for number in re.findall(r"Block bitmap at ([0-9]+)", words)]


# The first keeps blkid from telling the file system, the last keeps dumpe2fs from telling what is used.
@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("engine", ["chunk", "auto"])
async def test_a_map_of_used_blocks_that_cannot_be_read_ends_the_capture_or_makes_it_take_every_block(
    image, maps, tmp_path, engine, which
):
    at = maps[which]
    with bad_file(image[0], tmp_path / "fuse", [(START + at, 512)]) as file, loop_disk(file) as disk:
        ready(disk)
        library = Library.create(tmp_path / "library")
        end, _ = await capture(library, disk, engine=engine)
        assert isinstance(end, Failed), end
        assert end.code == "bad-sector"
        name = part(disk, 1).name
        assert f"has a bad sector in {name}: 512 bytes at byte {at} of {name} " in end.reason
        end, notes = await capture(library, disk, engine=engine, on_bad_sector="continue")
        assert isinstance(end, Succeeded), end
        told = f"{name}: what lies there cannot be looked at because of bad sectors (the first at byte {at})"
        assert [note.startswith(told) for note in notes].count(True) == 1, notes
        [one] = library.manifest(ImageRef("golden", 1)).parts
        assert (one.engine, one.used) == ("chunk" if engine == "chunk" else "raw", 32 * MIB)
        assert [place.start for place in one.bad] == [at]
        with loop_disk(tmp_path / "target", size=40 * MIB) as target:
            restored = await printed(library, target)
            assert any(note.startswith(told) for note in restored.notes)


# The MBR, and the gap in which a boot loader may lie; going on does not help with either.
@pytest.mark.parametrize(("at", "way"), [(0, "stop"), (300 * 1024, "continue")])
async def test_a_bad_sector_at_the_table_or_behind_it_is_placed_and_said_to_be_the_end(image, tmp_path, at, way):
    with bad_file(image[0], tmp_path / "fuse", [(at, 512)]) as file, loop_disk(file) as disk:
        sh("losetup", "--direct-io=on", disk)
        library = Library.create(tmp_path / "library")
        end, _ = await capture(library, disk, on_bad_sector=way)
    assert isinstance(end, Failed), end
    assert end.code == "bad-sector"
    assert f"the disk {disk} has a bad sector at its partition table, or before its first partition: " in end.reason
    assert f"512 bytes at byte {at} of the disk cannot be read" in end.reason
    assert "no capture goes on past that, whatever litho.on-bad-sector says" in end.reason


def test_the_reader_keeps_what_lies_beside_a_bad_sector_and_fills_the_rest_with_zeros(tmp_path):
    content = os.urandom(3 * MIB + 1536)
    (tmp_path / "image").write_bytes(content)
    with bad_file(tmp_path / "image", tmp_path / "fuse", [(MIB + 700, 10)]) as file:
        source = Source(device=file, fs="", size=len(content), used=len(content), may_lose=MIB)
        saved, stored = transfers.save(ENGINES["raw"], source, tmp_path / "stream", "none")
        found = stored.path.read_bytes()
        with pytest.raises(DiskError, match="cannot be read in so many places") as caught:
            transfers.save(
                ENGINES["raw"],
                Source(device=file, fs="", size=len(content), may_lose=100),
                tmp_path / "other",
                "none",
            )
        assert bad.find(file, [Extent(0, MIB)]) is None
        first = bad.find(file, [Extent(0, 4096), Extent(MIB - 8192, 2 * MIB)])
    assert caught.value.code == "bad-sectors-many"
    assert (saved.bad.bytes, saved.bad.places) in {(512, 1), (PAGE, 1)}, "by how the kernel reads through FUSE"
    [lost] = saved.bad.ranges
    assert first == lost
    assert lost.start <= MIB + 700 < MIB + 710 <= lost.start + lost.size
    assert found == content[: lost.start] + bytes(lost.size) + content[lost.start + lost.size :]
