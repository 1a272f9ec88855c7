"""Physical volumes of LVM through a capture and a restore: real metadata, each volume a part, the same group afterwards.

There is no device-mapper here and none is needed; LVM's own tools judge what came out.
"""

import asyncio
import os
import time
from pathlib import Path

import pytest

from litho.job import Job
from litho.library import ImageRef, Library, Owner
from litho.messages import Failed, Planned, Succeeded
from litho_agent import mover, volumes
from litho_agent.mover import WorkOrder
from support.filesystems import blank
from support.loop import loop_disk, needs_root, part, reread, sh
from support.lvm import Lvm, window

pytestmark = [needs_root, pytest.mark.root]
MIB = 1024 * 1024
PLAIN = os.urandom(3 * MIB)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A disk with a partition and a volume group: an ext4, a swap, a volume in two pieces, a striped one's worth of nothing."""
    room = tmp_path_factory.mktemp("lvm")
    (room / "tree/etc").mkdir(parents=True)
    (room / "tree/etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (room / "tree/data").write_bytes(PLAIN)
    with loop_disk(room / "disk", size=160 * MIB) as disk:
        table = "label: gpt\nsize=8MiB\nsize=140MiB, type=lvm\n"
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin=table)
        reread(disk)
        sh("mkfs.ext2", "-q", part(disk, 1))
        lvm = Lvm(room / "etc", part(disk, 2))
        lvm("pvcreate", part(disk, 2))
        lvm("vgcreate", "vg0", part(disk, 2))
        lvm.volume("vg0", "root", 32)
        lvm.volume("vg0", "Swap_1", 8)
        lvm.volume("vg0", "odd", 8)
        lvm.volume("vg0", "gap", 4)
        lvm("lvextend", "-L", "16M", "vg0/odd")
        lvm("lvremove", "-y", "vg0/gap")
        found = volumes.look(part(disk, 2), 140 * MIB)
        places = {}
        for one in found.windows:
            places.setdefault(one.volume, []).append(one)
        for name, make in (
            ("root", ("mkfs.ext4", "-q", "-d", room / "tree", "-L", "the-root")),
            ("Swap_1", ("mkswap",)),
        ):
            [one] = places[name]
            loop = window(part(disk, 2), one.start, one.size)
            sh(*make, loop)
            sh("blockdev", "--flushbufs", loop)
            sh("losetup", "-d", loop)
        with part(disk, 2).open("r+b") as raw:
            for one in places["odd"]:
                raw.seek(one.start)
                raw.write(PLAIN)
        sh("sync", "--file-system", room)
        yield disk, lvm.facts("vg0"), places


async def do(library: Library, action: str, disk: Path, **job: object) -> tuple[object, list[str]]:
    order = WorkOrder(
        job=Job(action=action, image="golden", disk=str(disk), **job),  # type: ignore[arg-type]
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )
    steps: list[str] = []
    end = await mover.run(
        order, lambda news: steps.extend(news.steps) if isinstance(news, Planned) else None, asyncio.Event()
    )
    return end, steps


@pytest.mark.parametrize("engine", ["chunk", "auto"])
async def test_each_volume_is_a_part_and_the_group_is_the_same_on_the_other_disk(group, tmp_path, engine):
    disk, facts, places = group
    library = Library.create(tmp_path / "library")
    end, steps = await do(library, "capture", disk, engine=engine)
    assert isinstance(end, Succeeded), end
    how = "chunk" if engine == "chunk" else "partclone"
    name = part(disk, 2).name
    assert any(step.startswith(f"{name}-lv1: ext4 of vg0/root, ") and step.endswith(f" by {how}") for step in steps)
    assert f"{name}-lv2: swap of vg0/Swap_1, made anew with its UUID and label" in steps
    assert end.os.distro == "debian12", "a system on a logical volume is found, too"
    [note] = end.notes
    assert note.startswith(
        f"{name}: the volume vg0/odd does not lie in one piece: its 2 pieces were taken byte by byte"
    )
    manifest = library.manifest(ImageRef("golden", 1))
    frame = next(one for one in manifest.parts if one.number == 2)
    assert (frame.kind, frame.fs) == ("empty", "LVM2_member")
    inside = [one for one in manifest.parts if one.within == 2]
    assert [one.extra["lvm"] for one in inside].count("vg0/odd") == 2
    assert inside[-1].extra["lvm"] == "vg0"
    assert manifest.used < 80 * MIB, "extents that no volume has are not read"

    with loop_disk(tmp_path / "target", size=180 * MIB) as target:
        await asyncio.to_thread(blank, target)
        done, _ = await do(library, "restore", target)
        assert isinstance(done, Succeeded), done
        copy = part(target, 2)
        lvm = Lvm(tmp_path / "etc", copy)
        lvm("vgck", "vg0")
        assert lvm.facts("vg0") == facts
        [root] = places["root"]
        loop = window(copy, root.start, root.size)
        try:
            sh("e2fsck", "-fn", loop)
            sh("debugfs", "-R", f"dump /data {tmp_path / 'data'}", loop)
            assert "the-root" in sh("blkid", "-p", loop)
        finally:
            sh("losetup", "-d", loop)
        assert (tmp_path / "data").read_bytes() == PLAIN
        with copy.open("rb") as raw, part(disk, 2).open("rb") as source:
            for one in places["odd"]:
                raw.seek(one.start)
                source.seek(one.start)
                assert raw.read(one.size) == source.read(one.size)
        [swap] = places["Swap_1"]
        uuids = [
            sh("blkid", "-p", "-O", str(swap.start), "-o", "value", "-s", "UUID", d) for d in (copy, part(disk, 2))
        ]
        assert uuids[0] == uuids[1] != ""
    assert not [line for line in sh("losetup", "-l", "-n").splitlines() if name in line], "no window is left behind"


async def test_a_group_that_needs_another_disk_is_refused_and_taken_whole_when_the_task_says_so(tmp_path):
    library = Library.create(tmp_path / "library")
    with (
        loop_disk(tmp_path / "one", size=24 * MIB) as disk,
        loop_disk(tmp_path / "two", size=24 * MIB) as other,
    ):
        lvm = Lvm(tmp_path / "etc", disk, other)
        lvm("pvcreate", disk, other)
        lvm("vgcreate", "vg1", disk, other)
        lvm.volume("vg1", "wide", 32)
        end, _ = await do(library, "capture", disk)
        assert isinstance(end, Failed), end
        assert end.code == "source-incomplete"
        assert (
            f"{disk} belongs to the volume group vg1, of which 1 of 2 physical volumes are not on this disk ("
            in end.reason
        )
        assert "litho.on-dirty=raw" in end.reason
        end, steps = await do(library, "capture", disk, on_dirty="raw")
        assert isinstance(end, Succeeded), end
        assert steps == [f"{disk.name}: LVM2_member, {24 * MIB} bytes by chunk"]


async def test_a_group_on_a_whole_disk_whose_metadata_are_kept_twice_is_the_same_afterwards(tmp_path):
    library = Library.create(tmp_path / "library")
    with loop_disk(tmp_path / "disk", size=48 * MIB) as disk, loop_disk(tmp_path / "copy", size=48 * MIB) as copy:
        lvm = Lvm(tmp_path / "etc", disk)
        lvm("pvcreate", "--metadatacopies", "2", disk)
        lvm("vgcreate", "2024", disk)
        lvm.volume("2024", "striped.name+x", 8, "--addtag", "tag")
        facts = lvm.facts("2024")
        end, _ = await do(library, "capture", disk, engine="auto")
        assert isinstance(end, Succeeded), end
        done, _ = await do(library, "restore", copy)
        assert isinstance(done, Succeeded), done
        again = Lvm(tmp_path / "etc2", copy)
        again("vgck", "2024")
        assert again.facts("2024") == facts


async def test_damaged_metadata_are_not_believed(tmp_path):
    library = Library.create(tmp_path / "library")
    with loop_disk(tmp_path / "disk", size=24 * MIB) as disk:
        lvm = Lvm(tmp_path / "etc", disk)
        lvm("pvcreate", disk)
        lvm("vgcreate", "vg2", disk)
        with disk.open("r+b") as raw:
            raw.seek(4096 + 512 + 100)
            raw.write(b"\xff" * 1024)
        end, _ = await do(library, "capture", disk)
    assert isinstance(end, Failed), end
    assert end.code == "source-errors"
    assert "the physical volume of LVM cannot be read: its metadata are damaged (their checksum is wrong)" in end.reason
