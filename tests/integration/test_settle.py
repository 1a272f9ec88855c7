"""The last look of a restore: what a file system's own checker calls damaged never ends as a success."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from litho.errors import CancelledError, EngineError
from litho.job import Job
from litho.library import Library, Owner
from litho.messages import Failed, Succeeded
from litho_agent import filesystems, mover
from litho_agent.disks import held
from litho_agent.filesystems import Check, prove
from litho_agent.mover import WorkOrder
from support.loop import loop_disk, needs_root, part, reread, sh
from support.site import BOOT_CODE, digest, pretends_to_boot

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A disk whose only partition says that it is clean and is not: a link count that no directory explains."""
    room = tmp_path_factory.mktemp("unsound")
    (room / "tree").mkdir()
    (room / "tree/file").write_text("content")
    with loop_disk(room / "disk", size=40 * MIB) as disk:
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin="start=2048, size=24MiB, bootable\n")
        with disk.open("r+b") as raw:
            raw.write(BOOT_CODE)
        reread(disk)
        sh("mkfs.ext4", "-q", "-d", room / "tree", part(disk, 1))
        sh("debugfs", "-w", "-R", "sif /file links_count 7", part(disk, 1))
        yield disk


async def do(library: Library, action: str, disk: Path, **job: object) -> object:
    order = WorkOrder(
        job=Job(action=action, image="golden", disk=str(disk), **job),  # type: ignore[arg-type]
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )
    return await mover.run(order, lambda _: None, asyncio.Event())


async def test_a_restored_file_system_that_its_checker_calls_damaged_ends_the_task_as_failed(source, tmp_path):
    library = Library.create(tmp_path / "library")
    before = digest(source)
    assert isinstance(await do(library, "capture", source), Succeeded)
    assert digest(source) == before
    with loop_disk(tmp_path / "target", size=40 * MIB) as target:
        end = await do(library, "restore", target)
        assert isinstance(end, Failed), end
        assert (end.code, end.touched) == ("not-clean", True)
        assert end.reason.startswith(
            f"the ext4 on {part(target, 1)} is not sound: e2fsck says: Inode 12 ref count is 7, should be 1."
        )
        assert "if its source is not sound either, repair it there and capture it again" in end.reason
        assert not pretends_to_boot(target)
        # The way out when the image is wanted all the same.
        end = await do(library, "restore", target, on_dirty="raw")
        assert isinstance(end, Succeeded), end
        assert any("is not sound: e2fsck says: Inode 12 ref count is 7" in note for note in end.notes)
        assert pretends_to_boot(target)


async def test_what_was_captured_unclean_on_request_is_restored_and_said_to_be_unchecked(tmp_path):
    library = Library.create(tmp_path / "library")
    with loop_disk(tmp_path / "disk", size=40 * MIB) as disk, loop_disk(tmp_path / "target", size=40 * MIB) as target:
        sh("mkfs.ext4", "-q", disk)
        sh("debugfs", "-w", "-R", "set_super_value state 2", disk)
        assert isinstance(await do(library, "capture", disk, on_dirty="raw", engine="auto"), Succeeded)
        end = await do(library, "restore", target)
        assert isinstance(end, Succeeded), end
        assert end.notes == (
            f"the ext4 on {target} was not checked: its source was in state 'errors' when it was captured",
        )
        assert digest(target) == digest(disk)


def test_a_check_is_given_up_as_soon_as_the_task_is_cancelled(source):
    with held(source, write=False) as hold, pytest.raises(CancelledError):
        prove(part(source, 1), "ext4", hold=hold, cancelled=lambda: True)


def test_a_checker_that_was_killed_says_nothing_about_the_file_system(source, monkeypatch):
    monkeypatch.setattr(filesystems, "checker", lambda _device, _fs: Check(("sh", "-c", "kill -KILL $$")))
    with pytest.raises(EngineError, match="could not be checked: sh was ended by SIGKILL for want of memory") as caught:
        prove(part(source, 1), "ext4")
    assert caught.value.code == "no-check"
