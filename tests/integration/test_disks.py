"""Holding real (loop) disks, and the inventory of the running kernel."""

import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from litho import process
from litho.errors import DiskError, EngineError, RefusedError
from litho_agent.disks import choose, held, inventory
from litho_agent.disks.disk import Disk
from litho_agent.filesystems import make_swap, probe, probe_all
from litho_agent.layout import partition_path
from support.loop import loop_disk, needs_root, reread, sh

pytestmark = needs_root
MIB = 1024 * 1024


def exclusive(path: Path) -> bool:
    """Whether somebody else could claim `path` now."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


@pytest.fixture
def disk(tmp_path: Path):
    with loop_disk(tmp_path / "disk", size=200 * MIB) as path:
        sh(
            "sfdisk",
            "--force",
            "--no-reread",
            "--no-tell-kernel",
            path,
            stdin="label: gpt\nsize=50M\nsize=50M\nsize=50M\n",
        )
        reread(path)
        yield path


def find(path: Path) -> Disk:
    return next(one for one in inventory.read() if one.path == str(path))


def test_the_inventory_knows_what_lies_on_a_real_disk(disk: Path) -> None:
    sh("mkfs.ext4", "-q", "-L", "root", partition_path(disk, 1))
    sh("mkswap", partition_path(disk, 2))
    found = find(disk)
    assert (found.transport, found.size, found.logical) == ("loop", 200 * MIB, 512)
    assert found.partitions == tuple(f"{disk.name}p{n}" for n in (1, 2, 3))
    assert [(s.device, s.type, s.label) for s in found.signatures] == [
        (disk.name, "gpt", ""),
        (f"{disk.name}p1", "ext4", "root"),
        (f"{disk.name}p2", "swap", ""),
    ]
    assert found.mounts == ()
    assert choose(inventory.read(), disk.name, "restore").require().path == str(disk)


def test_a_mounted_partition_shows_and_is_refused_and_cannot_be_held(disk: Path, tmp_path: Path) -> None:
    sh("mkfs.ext4", "-q", partition_path(disk, 2))
    where = tmp_path / "mount"
    where.mkdir()
    sh("mount", partition_path(disk, 2), where)
    try:
        found = find(disk)
        assert [(m.device, m.where, m.fs) for m in found.mounts] == [(f"{disk.name}p2", str(where), "ext4")]
        for action in ("capture", "restore"):
            with pytest.raises(RefusedError, match=f"has {disk.name}p2 mounted on {where}"):
                choose([found], disk.name, action).require()
        with (
            pytest.raises(RefusedError, match="something has it, or a partition of it") as caught,
            held(found, write=True, patience_s=0.1),
        ):
            pass
        assert caught.value.code == "disk-busy"
    finally:
        sh("umount", where)


def test_a_loop_device_over_a_partition_shows_by_whatever_node_it_was_made(disk: Path, tmp_path: Path) -> None:
    number = partition_path(disk, 1).stat().st_rdev
    node = tmp_path / "sda1"
    os.mknod(node, 0o600 | stat.S_IFBLK, number)
    loop = sh("losetup", "--find", "--show", node).strip()
    try:
        node.unlink()
        choice = choose(inventory.read(), str(disk), "restore")
        assert choice.code == "disk-held"
        assert f"({Path(loop).name} holds {partition_path(disk, 1).name})" in choice.message
    finally:
        sh("losetup", "-d", loop)
    assert choose(inventory.read(), str(disk), "restore").disk is not None


def test_swap_in_use_shows_and_is_refused(disk: Path) -> None:
    swap = partition_path(disk, 3)
    sh("mkswap", swap)
    done = subprocess.run(["swapon", str(swap)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    try:
        with pytest.raises(RefusedError, match=f"has swap in use on {swap.name}: run `swapoff {swap}`"):
            choose([find(disk)], disk.name, "restore").require()
    finally:
        sh("swapoff", swap)


def test_a_lvm_member_is_refused_unless_allowed(disk: Path) -> None:
    # LVM's label as its format says: "LABELONE" in the second sector, with its checksum left out (blkid does not ask for it).
    sh("wipefs", "-a", partition_path(disk, 1))
    sh("pvcreate", "-ff", "-y", "--config", "global/locking_type=0", partition_path(disk, 1))
    with pytest.raises(RefusedError, match=r"carries a physical volume of LVM \(LVM2_member"):
        choose([find(disk)], disk.name, "restore").require()
    assert choose([find(disk)], disk.name, "restore", ["lvm"]).require()


def test_a_write_protected_disk_is_refused_for_a_restore_and_held_for_a_capture(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=10 * MIB) as disk:
        sh("blockdev", "--setro", disk)
        try:
            with pytest.raises(RefusedError, match="is write-protected"):
                choose([find(disk)], disk.name, "restore").require()
            with pytest.raises(RefusedError, match="is write-protected"), held(disk, write=True):
                pass
            with held(disk, write=False) as hold:
                assert os.pread(hold.fd, 4, 0) == bytes(4)
        finally:
            sh("blockdev", "--setrw", disk)  # the flag outlives the file behind the loop device


def test_a_held_disk_and_its_partitions_cannot_be_claimed_by_anybody_else(disk: Path, tmp_path: Path) -> None:
    sh("mkfs.ext4", "-q", partition_path(disk, 1))
    for write in (True, False):
        with held(disk, write=write):
            assert not exclusive(disk)
            assert not exclusive(partition_path(disk, 1))
            assert subprocess.run(
                ["mount", str(partition_path(disk, 1)), str(tmp_path)], capture_output=True, check=False
            ).returncode
            with pytest.raises(RefusedError, match="is in use"), held(disk, write=write, patience_s=0.1):
                pass
        assert exclusive(disk)
        assert exclusive(partition_path(disk, 1))


def test_plain_programs_work_on_the_partitions_of_a_held_disk(disk: Path) -> None:
    one = partition_path(disk, 1)
    sh("mkfs.ext4", "-q", one)
    with held(disk, write=True):
        assert probe(one).type == "ext4"
        sh("e2fsck", "-fn", one)
        sh("dumpe2fs", "-h", one)


def test_a_program_that_claims_a_partition_needs_it_lent_and_its_siblings_stay_claimed(disk: Path) -> None:
    one, two = partition_path(disk, 1), partition_path(disk, 2)
    command = make_swap(two, uuid="12345678-1234-1234-1234-123456789abc", label="swap one")
    with held(disk, write=True) as hold:
        with pytest.raises(EngineError, match="Device or resource busy"):
            process.run(command)
        before = hold.fd
        with hold.lend(two):
            assert hold.fd == before
            assert exclusive(two)
            assert not exclusive(one)
            assert not exclusive(disk), "siblings are claimed, so the whole cannot be"
            with pytest.raises(RefusedError), held(disk, write=True, patience_s=0.1):
                pass
            process.run(command)
        assert not exclusive(two)
        assert os.pread(hold.fd, 1, 0) is not None
    found = probe(two)
    assert (found.type, found.uuid, found.label) == ("swap", "12345678-1234-1234-1234-123456789abc", "swap one")


def test_the_whole_disk_can_be_lent_when_the_file_system_is_on_it(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=50 * MIB) as disk, held(disk, write=True) as hold:
        with hold.lend(disk):
            sh("mkfs.ext4", "-q", "-F", disk)
        assert not exclusive(disk)
        assert probe(disk).type == "ext4"


def test_whoever_takes_a_lent_partition_for_good_is_noticed(disk: Path) -> None:
    with held(disk, write=True) as hold:
        thief = -1
        try:
            with pytest.raises(RefusedError, match="is in use"), hold.lend(partition_path(disk, 1)):
                thief = os.open(partition_path(disk, 1), os.O_RDONLY | os.O_EXCL)
        finally:
            os.close(thief)


def test_a_held_disk_is_locked_against_udev_also_while_it_is_lent(disk: Path) -> None:
    def locked() -> bool:
        fd = os.open(disk, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    assert not locked()
    with held(disk, write=True) as hold:
        assert locked()
        with hold.lend(partition_path(disk, 1)):
            assert locked()
        assert locked()
    assert not locked()


def test_a_disk_that_another_program_locked_is_waited_for_and_then_refused(disk: Path) -> None:
    with disk.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="is locked by another program"), held(disk, write=True, patience_s=0.2):
            pass


def test_a_device_that_is_not_there_or_no_disk_is_an_error(tmp_path: Path) -> None:
    for path in (Path("/dev/sd-none"), tmp_path / "none"):
        with pytest.raises(DiskError) as caught, held(path, write=True):
            pass
        assert caught.value.code == "disk-missing"
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(DiskError, match="is not a block device"), held(plain, write=True):
        pass


def test_every_signature_of_a_disk_with_several_lives_is_known(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=200 * MIB) as disk:
        sh("mkfs.btrfs", "-q", "-f", disk)
        sh("mkfs.ext4", "-q", "-F", disk)
        (tmp_path / "sb").write_bytes(b"_BHRfS_M")
        sh("dd", f"if={tmp_path / 'sb'}", f"of={disk}", "bs=1", f"seek={65536 + 64}", "conv=notrunc", "status=none")
        assert "ext4" in {one.type for one in probe_all(disk)}
        assert any(s.type == "ext4" for s in find(disk).signatures)
