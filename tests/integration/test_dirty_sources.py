"""Sources that should not be captured blindly: found before anything is written, said in words, and taken as the task says.

Each is made by its own mkfs and then marked as a system leaves it that was not shut down.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litho.errors import RefusedError
from litho.job import Job
from litho.library import ImageRef, Library, Owner
from litho.messages import Failed, Succeeded
from litho_agent import condition, mover
from litho_agent.disks import held
from litho_agent.mover import WorkOrder
from support import dirty
from support.jobs import printed
from support.loop import loop_disk, needs_root, sh
from support.site import digest

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024
SHUT_DOWN = "shut its system down cleanly, or say litho.on-dirty=repair or raw"

KINDS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], None], str]] = {
    "fat12-linux": (
        "vfat",
        ("mkfs.fat", "-F", "12"),
        lambda disk: dirty.fat_by_linux(disk, wide=False),
        "holds a FAT that is marked as not cleanly unmounted",
    ),
    "fat16-linux": (
        "vfat",
        ("mkfs.fat", "-F", "16"),
        lambda disk: dirty.fat_by_linux(disk, wide=False),
        "holds a FAT that is marked as not cleanly unmounted",
    ),
    "fat16-windows": (
        "vfat",
        ("mkfs.fat", "-F", "16"),
        lambda disk: dirty.fat_by_windows(disk, wide=False),
        "holds a FAT that is marked as not cleanly unmounted",
    ),
    "fat32-linux": (
        "vfat",
        ("mkfs.fat", "-F", "32"),
        lambda disk: dirty.fat_by_linux(disk, wide=True),
        "holds a FAT that is marked as not cleanly unmounted",
    ),
    "fat32-windows": (
        "vfat",
        ("mkfs.fat", "-F", "32"),
        lambda disk: dirty.fat_by_windows(disk, wide=True),
        "holds a FAT that is marked as not cleanly unmounted",
    ),
    "exfat": ("exfat", ("mkfs.exfat",), dirty.exfat, "holds an exFAT that is marked as not cleanly unmounted"),
}


def size_of(kind: str) -> int:
    return (8 if kind.startswith("fat12") else 48) * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_of_an_unclean_end_is_found_and_its_own_checker_settles_it(tmp_path: Path, kind: str) -> None:
    fs, make, mark, reason = KINDS[kind]
    with loop_disk(tmp_path / "disk", size=size_of(kind)) as disk:
        sh(*make, disk)
        assert condition.inspect(disk, fs) == condition.CLEAN
        mark(disk)
        found = condition.inspect(disk, fs)
        assert (found.state, found.reason, found.way_out, found.repairable) == ("dirty", reason, SHUT_DOWN, True)
        with held(disk, write=True) as hold:
            assert condition.repair(hold, disk, fs) == condition.CLEAN
        assert condition.inspect(disk, fs) == condition.CLEAN


def test_an_f2fs_without_its_last_checkpoint_of_an_unmount_is_found(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=64 * MIB) as disk:
        sh("mkfs.f2fs", "-q", "-f", disk)
        assert condition.inspect(disk, "f2fs") == condition.CLEAN
        dirty.f2fs(disk)
        found = condition.inspect(disk, "f2fs")
        assert (found.state, found.reason) == ("dirty", "holds an F2FS that waits to be rolled forward")
        dirty.f2fs(disk, damaged=True)
        found = condition.inspect(disk, "f2fs")
        assert (found.state, found.repairable) == ("errors", False)
        assert found.reason == "holds an F2FS neither of whose checkpoints is whole"


async def capture(library: Library, disk: Path, **job: object) -> object:
    order = WorkOrder(
        job=Job(action="capture", image="golden", disk=str(disk), **job),  # type: ignore[arg-type]
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )
    return await mover.run(order, lambda _: None, asyncio.Event())


def hibernated(disk: Path) -> None:
    sh("mkswap", disk)
    dirty.hibernated_swap(disk)


FOREIGN: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "luks1": (
        lambda disk: dirty.luks(disk, 1),
        "source-encrypted",
        "is encrypted with LUKS",
        "say litho.on-dirty=raw to copy every block, or decrypt it first",
    ),
    "luks2": (
        lambda disk: dirty.luks(disk, 2),
        "source-encrypted",
        "is encrypted with LUKS",
        "say litho.on-dirty=raw to copy every block, or decrypt it first",
    ),
    "bitlocker": (
        dirty.bitlocker,
        "source-encrypted",
        "is encrypted with BitLocker",
        "say litho.on-dirty=raw to copy every block, or decrypt it first",
    ),
    "hibernated": (
        hibernated,
        "source-hibernated",
        "is swap in which a hibernated Linux lies, whose file systems are not settled",
        "start that Linux and shut it down, or say litho.on-dirty=raw",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_what_nobody_can_look_into_is_refused_in_words_and_copied_raw_when_the_task_says_so(tmp_path, kind):
    make, code, reason, way_out = FOREIGN[kind]
    library = Library.create(tmp_path / "library")
    with loop_disk(tmp_path / "disk", size=8 * MIB) as disk:
        make(disk)
        before = digest(disk)
        end = await capture(library, disk)
        assert isinstance(end, Failed), end
        assert (end.code, end.reason) == (code, f"{disk} {reason}: {way_out}")
        end = await capture(library, disk, on_dirty="repair")
        assert isinstance(end, Failed), end
        assert end.reason == f"{disk} {reason}; it cannot be repaired from here: {way_out}"
        end = await capture(library, disk, on_dirty="raw")
        assert isinstance(end, Succeeded), end
        assert digest(disk) == before
        [part] = library.manifest(ImageRef("golden", 1)).parts
        assert (part.kind, part.used) == ("stream", 8 * MIB)
        assert part.extra["condition"] == code.removeprefix("source-")
        with loop_disk(tmp_path / "copy", size=8 * MIB) as copy:
            await printed(library, copy)
            assert digest(copy) == before


async def test_a_dirty_fat_ends_a_capture_before_anything_is_written(tmp_path):
    library = Library.create(tmp_path / "library")
    with loop_disk(tmp_path / "disk", size=48 * MIB) as disk:
        sh("mkfs.fat", "-F", "32", disk)
        dirty.fat_by_linux(disk, wide=True)
        end = await capture(library, disk)
        assert isinstance(end, Failed), end
        assert (end.code, end.reason) == (
            "source-dirty",
            f"{disk} holds a FAT that is marked as not cleanly unmounted: {SHUT_DOWN}",
        )
        assert [path.name for path in library.root.iterdir() if path.name.startswith("golden")] == []
        end = await capture(library, disk, on_dirty="repair")
        assert isinstance(end, Succeeded), end


def test_one_of_two_devices_of_a_btrfs_is_found_and_refused(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "a", size=128 * MIB) as one, loop_disk(tmp_path / "b", size=128 * MIB) as other:
        sh("mkfs.btrfs", "-q", one)
        assert condition.inspect(one, "btrfs") == condition.CLEAN
        sh("mkfs.btrfs", "-q", "-f", one, other)
        for disk in (one, other):
            found = condition.inspect(disk, "btrfs")
            assert (found.state, found.repairable) == ("incomplete", False)
            with pytest.raises(RefusedError, match="is one of the 2 devices of a btrfs") as caught:
                condition.decide(disk, found, "refuse")
            assert caught.value.code == "source-incomplete"
            with pytest.raises(RefusedError):
                condition.decide(disk, found, "repair")
            assert condition.decide(disk, found, "raw") == "raw"
