"""A disk that disappears in the middle of a capture and of a restore: a true end, a sentence, and nothing half-believed.

The disk is a loop device on a FUSE file; "gone" is its connection cut, after which every read and write of it fails at once.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from litho.job import Job
from litho.library import Library, Owner
from litho.messages import Failed, Started, Succeeded
from litho_agent import mover
from litho_agent.mover import WorkOrder
from support.bad_disk import bad_file
from support.loop import loop_disk, needs_root, reread, sh
from support.site import PLAIN_MIB, plain_disk, stopped

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024


def order(library: Library, action: str, disk: Path, engine: str) -> WorkOrder:
    return WorkOrder(
        job=Job(action=action, image="golden", disk=str(disk), engine=engine),  # type: ignore[arg-type]
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )


def cut(file: Path) -> None:
    """Every use of the FUSE file fails from now on."""
    control = Path("/sys/fs/fuse/connections")
    if not any(control.iterdir()):
        sh("mount", "-t", "fusectl", "fusectl", control)
    (control / str(os.minor(file.stat().st_dev)) / "abort").write_text("1")


async def lost_in_the_middle(doing: WorkOrder, file: Path) -> Failed:
    """How the job ends whose disk goes as soon as partclone works on it."""
    running = asyncio.create_task(mover.run(doing, lambda _: None, asyncio.Event()))
    engine = await asyncio.to_thread(stopped, os.getpid(), "partclone")
    cut(file)
    os.kill(engine, signal.SIGCONT)
    end = await asyncio.wait_for(running, 60)
    assert isinstance(end, Failed), end
    return end


async def lost_at_the_start(doing: WorkOrder, file: Path) -> Failed:
    """The same for chunks, which the worker itself moves: the disk goes as the first of them are due."""

    def hear(message: object) -> None:
        if isinstance(message, Started):
            cut(file)

    end = await asyncio.wait_for(mover.run(doing, hear, asyncio.Event()), 60)
    assert isinstance(end, Failed), end
    return end


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return plain_disk(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("engine", ["partclone", "chunk"])
async def test_a_disk_that_disappears_while_it_is_captured_leaves_no_image_and_is_named(image, tmp_path, engine):
    library = Library.create(tmp_path / "library")
    with bad_file(image, tmp_path / "fuse", []) as file, loop_disk(file) as disk:
        reread(disk)
        lost = lost_in_the_middle if engine == "partclone" else lost_at_the_start
        end = await lost(order(library, "capture", disk, engine), file)
    assert (end.code, end.touched) == ("disk-gone", False)
    assert end.reason == (
        f"the disk {disk} no longer answers: nothing of {disk.name}p1 can be read: look at the node's kernel log, the disk's "
        "cable and its power; nothing was published"
    )
    assert library.versions("golden") == []
    assert [path.name for path in library.root.iterdir() if path.name not in (".lithograph", ".chunks")] == []


@pytest.mark.parametrize("engine", ["partclone", "chunk"])
async def test_a_disk_that_disappears_while_it_is_restored_onto_is_a_failure_and_the_image_stays(
    image, tmp_path, engine
):
    library = Library.create(tmp_path / "library")
    with loop_disk(image) as disk:
        reread(disk)
        end = await mover.run(order(library, "capture", disk, engine), lambda _: None, asyncio.Event())
        assert isinstance(end, Succeeded), end
    empty = tmp_path / "empty"
    with empty.open("wb") as made:
        made.truncate(PLAIN_MIB * MIB)
    with bad_file(empty, tmp_path / "fuse", []) as file, loop_disk(file) as disk:
        lost = lost_in_the_middle if engine == "partclone" else lost_at_the_start
        end = await lost(order(library, "restore", disk, ""), file)
    assert end.code in ("disk-io", "write-error")
    assert str(disk) in end.reason
    with loop_disk(tmp_path / "other", size=PLAIN_MIB * MIB) as disk:
        end = await mover.run(order(library, "restore", disk, ""), lambda _: None, asyncio.Event())
        assert isinstance(end, Succeeded), end
