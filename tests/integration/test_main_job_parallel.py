"""Two partitions at once, by real workers on real disks: the same image, counts for each, and one cancel for both."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from litho.job import Job
from litho.library import ImageRef, Library, Owner, verify
from litho.messages import Stopped, Succeeded
from litho_agent import mover
from litho_agent.mover import Tick, WorkOrder
from support.loop import loop_disk, needs_root, part, reread, sh
from support.pace import Moment
from support.site import below, plain_tree

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024
SIZE = 320 * MIB
TABLE = "label: dos\nstart=2048, size=150MiB, type=83\nsize=150MiB, type=83\n"


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    room = tmp_path_factory.mktemp("two")
    tree = plain_tree(room)
    with loop_disk(room / "two.disk", size=SIZE) as made:
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", made, stdin=TABLE)
        reread(made)
        for number, fs in ((1, "ext4"), (2, "ext3")):
            sh(f"mkfs.{fs}", "-q", "-F", "-d", tree, "-L", f"part{number}", part(made, number))
        sh("sync")
        yield made


def order(library: Library, action: str, disk: Path) -> WorkOrder:
    return WorkOrder(
        job=Job(action=action, image="golden", engine="auto", disk=str(disk), parallel=2),
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )


async def test_two_partitions_at_once_make_the_same_image_and_the_same_disk(disk, tmp_path):
    library = Library.create(tmp_path / "library")
    ticks: list[Tick] = []

    def hear(message):
        if isinstance(message, Tick):
            ticks.append(message)

    end = await mover.run(order(library, "capture", disk), hear, asyncio.Event())
    assert isinstance(end, Succeeded), end
    manifest = library.manifest(ImageRef("golden", 1))
    assert [part.number for part in manifest.parts] == [1, 2]
    assert verify.check_streams(library, manifest) == []
    # Each has its own count, and what they have in common only grows.
    assert any([one.part for one in tick.progress.moving] == [1, 2] for tick in ticks)
    assert any(tick.progress.stages for tick in ticks)
    done = [tick.progress.done for tick in ticks]
    assert done == sorted(done)
    assert done[-1] == manifest.used
    # What was done lies beside the image.
    assert manifest.log is not None
    log = (library.root / manifest.log.file).read_text()
    saved = [line for line in log.splitlines() if "partclone.ext" in line and " -c " in line]
    assert all(any(str(part(disk, number)) in line for line in saved) for number in (1, 2))

    with loop_disk(tmp_path / "target.disk", size=SIZE) as printed:
        end = await mover.run(order(library, "restore", printed), lambda _: None, asyncio.Event())
        assert isinstance(end, Succeeded), end
        for number in (1, 2):
            sh("e2fsck", "-fn", part(printed, number))
            assert f"part{number}" in sh("blkid", "-p", "-s", "LABEL", "-o", "value", part(printed, number))


@pytest.mark.parametrize("action", ["capture", "restore"])
async def test_one_cancel_ends_both_within_two_seconds(disk, tmp_path, action):
    library = Library.create(tmp_path / "library")
    if action == "restore":
        assert isinstance(await mover.run(order(library, "capture", disk), lambda _: None, asyncio.Event()), Succeeded)
    with loop_disk(tmp_path / "target.disk", size=SIZE) as printed:
        cancel = asyncio.Event()
        since: Moment | None = None

        def hear(message):
            nonlocal since
            if isinstance(message, Tick) and message.progress.phase == "partition" and not cancel.is_set():
                since = Moment()
                cancel.set()

        end = await mover.run(order(library, action, disk if action == "capture" else printed), hear, cancel)
        assert since is not None
        assert since.took() < 2.0
        assert isinstance(end, Stopped), end
        assert end.touched == (action == "restore")
        assert below(os.getpid(), "partclone") == 0
        if action == "capture":
            assert library.versions("golden") == []
            assert sorted(path.name for path in library.root.iterdir()) == [".lithograph"]
