"""Probing, checking, judging, growing and looking into real file systems on loop devices."""

import contextlib
import hashlib
import shutil
from pathlib import Path

import pytest

from litho import process
from litho.errors import DiskError, RefusedError
from litho.messages import OsFacts
from litho_agent import condition, osfacts
from litho_agent.disks import held
from litho_agent.filesystems import first_words, make_swap, probe, prove
from litho_agent.layout import partition_path, plan_fit, read_layout, write_head, write_table
from litho_agent.layout.grow import grow
from support.loop import loop_disk, needs_root, sh

pytestmark = needs_root
MIB = 1024 * 1024

MAKE = {
    "ext2": ["mkfs.ext2", "-q", "-F"],
    "ext3": ["mkfs.ext3", "-q", "-F"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
    "vfat": ["mkfs.vfat", "-I"],
    "ntfs": ["mkfs.ntfs", "-F", "-Q", "-q"],
    "exfat": ["mkfs.exfat"],
    "f2fs": ["mkfs.f2fs", "-q", "-f"],
    "swap": ["mkswap"],
}


@contextlib.contextmanager
def mounted(device: Path, where: Path, *, ntfs: bool = False):
    where.mkdir(exist_ok=True)
    if ntfs:
        sh("ntfs-3g", device, where)
    else:
        sh("mount", device, where)
    try:
        yield where
    finally:
        sh("umount", where)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("fs", MAKE)
def test_a_new_file_system_is_recognised_clean_and_proven(tmp_path: Path, fs: str) -> None:
    image = tmp_path / "disk"
    with loop_disk(image, size=400 * MIB) as disk:
        sh(*MAKE[fs], disk)
        found = probe(disk)
        assert (found.type, bool(found.uuid)) == (fs, True)
        sh("sync", "-f", image)
        before = digest(image)
        assert condition.inspect(disk, fs) == condition.CLEAN
        with held(disk, write=False) as hold:
            assert prove(disk, fs, hold=hold) is True
        assert digest(image) == before, "looking writes nothing"


@pytest.mark.parametrize("fs", ["ext4", "vfat"])
def test_a_damaged_file_system_is_not_proven(tmp_path: Path, fs: str) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB) as disk:
        sh(*MAKE[fs], disk)
        where = 1024 + 1024 if fs == "ext4" else 2 * MIB // 8
        sh(
            "dd",
            "if=/dev/urandom",
            f"of={disk}",
            "bs=1024",
            f"seek={where // 1024}",
            "count=64",
            "conv=notrunc",
            "status=none",
        )
        if fs == "vfat":
            sh("dd", "if=/dev/urandom", f"of={disk}", "bs=512", "seek=4", "count=64", "conv=notrunc", "status=none")
        with pytest.raises(DiskError, match="is not sound: "):
            prove(disk, fs)


def test_two_file_systems_at_once_are_an_error_and_not_a_guess(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=400 * MIB) as disk:
        sh("mkfs.xfs", "-q", "-f", disk)
        # The remains of another life: an ext superblock's magic and a plausible one around it.
        with loop_disk(tmp_path / "other", size=400 * MIB) as other:
            sh("mkfs.ext4", "-q", "-F", other)
            sh(
                "dd",
                f"if={other}",
                f"of={disk}",
                "bs=1024",
                "skip=1",
                "seek=1",
                "count=1",
                "conv=notrunc",
                "status=none",
            )
        with pytest.raises(DiskError, match="signatures of several file systems") as caught:
            probe(disk)
        assert caught.value.code == "ambivalent"


def test_a_device_that_is_gone_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot be read"):
        probe(tmp_path / "none")
    with loop_disk(tmp_path / "disk", size=10 * MIB) as disk:
        assert probe(disk).empty


# ---------------------------------------------------------------- condition


def test_a_journal_that_waits_is_found_refused_and_repaired(tmp_path: Path) -> None:
    image, copy = tmp_path / "disk", tmp_path / "copy"
    with loop_disk(image, size=100 * MIB) as disk:
        sh(*MAKE["ext4"], disk)
        with mounted(disk, tmp_path / "m") as where:
            (where / "file").write_text("kept")
            sh("sync")
            shutil.copyfile(image, copy)
    with loop_disk(copy) as disk:
        found = condition.inspect(disk, "ext4")
        assert (found.state, found.repairable) == ("dirty", True)
        with pytest.raises(RefusedError, match="journal that waits to be replayed"):
            condition.decide(disk, found, "refuse")
        with held(disk, write=True) as hold:
            assert condition.repair(hold, disk, "ext4") == condition.CLEAN
        with mounted(disk, tmp_path / "m") as where:
            assert (where / "file").read_text() == "kept"


def test_an_ext_file_system_with_errors_is_found(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=50 * MIB) as disk:
        sh(*MAKE["ext3"], disk)
        sh("debugfs", "-w", "-R", "set_super_value state 2", disk)
        assert condition.inspect(disk, "ext3").state == "errors"


def test_an_xfs_log_that_waits_is_found_and_replayed(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=400 * MIB) as disk:
        sh(*MAKE["xfs"], disk)
        with mounted(disk, tmp_path / "m") as where:
            (where / "file").write_text("kept")
            sh("sync", "-f", where)
            (where / "late").write_text("late")
            sh("xfs_io", "-x", "-c", "shutdown -f", where)
        assert condition.inspect(disk, "xfs").state == "dirty"
        with held(disk, write=True) as hold:
            assert condition.repair(hold, disk, "xfs") == condition.CLEAN
        with mounted(disk, tmp_path / "m") as where:
            assert (where / "file").read_text() == "kept"


def test_a_hibernated_windows_is_found_and_cannot_be_repaired(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with loop_disk(image, size=100 * MIB) as disk:
        sh(*MAKE["ntfs"], disk)
        with mounted(disk, tmp_path / "m", ntfs=True) as where:
            (where / "hiberfil.sys").write_bytes(b"hibr" + bytes(8192))
        sh("sync", "-f", image)
        before = digest(image)
        found = condition.inspect(disk, "ntfs")
        assert (found.state, found.repairable) == ("hibernated", False)
        assert digest(image) == before
        with pytest.raises(RefusedError, match="Windows that is hibernated"):
            condition.decide(disk, found, "repair")


def test_encrypted_volumes_are_named(tmp_path: Path) -> None:
    for fs, name in (("crypto_LUKS", "LUKS"), ("BitLocker", "BitLocker")):
        found = condition.inspect(tmp_path, fs)
        assert found.state == "encrypted"
        assert name in found.reason
        with pytest.raises(RefusedError, match=r"litho\.on-dirty=raw"):
            condition.decide(tmp_path, found, "repair")
    with loop_disk(tmp_path / "disk", size=10 * MIB) as disk:
        # The first sector of a BitLocker volume: jump, "-FVE-FS-", and the fields that blkid asks for.
        head = bytearray(512)
        head[0:11] = b"\xeb\x58\x90-FVE-FS-"
        disk.write_bytes(bytes(head))
        assert probe(disk).type in ("BitLocker", "")


# ---------------------------------------------------------------- growing


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("fs", ["ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "swap"])
def test_a_file_system_grows_into_the_larger_disk_and_keeps_its_files(
    tmp_path: Path, fs: str, sector_size: int
) -> None:
    with (
        loop_disk(tmp_path / "source", size=420 * MIB, sector_size=sector_size) as source,
        loop_disk(tmp_path / "target", size=700 * MIB, sector_size=sector_size) as target,
    ):
        sh("sfdisk", "--force", "--no-reread", "--no-tell-kernel", source, stdin="label: gpt\nsize=10M\nsize=400M\n")
        layout = read_layout(source)
        fitted = plan_fit(
            layout.table,
            source_size=layout.size,
            target_size=700 * MIB,
            target_sector=sector_size,
            fit="grow",
            growable=[2],
        )
        with held(target, write=True) as hold:
            write_table(hold, fitted.table)
            device = partition_path(target, 2)
            small = 400 * MIB
            with hold.lend(device):
                _make_small(fs, device, small, tmp_path)
            old = probe(device)
            grow(hold, device, fs, uuid=old.uuid, label=old.label)
            write_head(hold, layout.head, fitted.table)
            assert prove(device, fs)
        new = probe(device)
        assert (new.type, new.uuid, new.label) == (old.type, old.uuid, old.label)
        assert _size_of(fs, device, tmp_path) > 600 * MIB
        if fs != "swap":
            with mounted(device, tmp_path / "m", ntfs=fs == "ntfs") as where:
                assert (where / "file").read_text() == "kept"


def _make_small(fs: str, device: Path, size: int, tmp_path: Path) -> None:
    """A file system that takes only the first `size` bytes of `device`."""
    command = [*MAKE[fs]]
    if fs == "xfs":
        command += ["-d", f"size={size}"]
    if fs == "btrfs":
        command += ["-b", str(size)]
    block = [str(size // 1024) + "k"] if fs.startswith("ext") else []
    if fs == "ntfs":
        block = [str(size // int(sh("blockdev", "--getss", device)))]
    if fs == "swap":
        sh(*make_swap(device, label="swap"))
        return
    sh(*command, device, *block)
    with mounted(device, tmp_path / "m", ntfs=fs == "ntfs") as where:
        (where / "file").write_text("kept")


def _size_of(fs: str, device: Path, tmp_path: Path) -> int:
    if fs == "swap":
        return int(
            sh("blkid", "-p", "-s", "FSSIZE", "-o", "value", device).strip() or sh("blockdev", "--getsize64", device)
        )
    with mounted(device, tmp_path / "m", ntfs=fs == "ntfs") as where:
        return shutil.disk_usage(where).total


def test_a_btrfs_that_the_kernel_does_not_resize_is_left_as_it_was_and_said(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "small", size=128 * MIB) as small:
        sh(*MAKE["btrfs"], small)
    with loop_disk(tmp_path / "small", size=200 * MIB) as larger, held(larger, write=True) as hold:
        assert grow(hold, larger, "btrfs") == (
            f"the btrfs on {larger} was left at its size: the kernel resizes none to less than 256 MiB"
        )
        assert prove(larger, "btrfs", hold=hold)


def test_what_cannot_grow_says_so(tmp_path: Path) -> None:
    with (
        loop_disk(tmp_path / "disk", size=50 * MIB) as disk,
        held(disk, write=True) as hold,
        pytest.raises(DiskError) as caught,
    ):
        grow(hold, disk, "vfat")
    assert caught.value.code == "cannot-grow"


# ---------------------------------------------------------------- operating systems


def plant(root: Path) -> None:
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/bin").mkdir()
    (root / "etc").mkdir()
    (root / "usr/lib/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    shutil.copy("/usr/bin/bash", root / "usr/bin/bash")
    (root / "bin").symlink_to("usr/bin")


@pytest.mark.parametrize("fs", ["ext2", "ext3", "ext4", "xfs", "btrfs"])
def test_the_system_on_a_held_disk_is_told_and_nothing_is_written(tmp_path: Path, fs: str) -> None:
    image = tmp_path / "disk"
    with loop_disk(image, size=400 * MIB) as disk:
        sh(*MAKE[fs], disk)
        assert osfacts.read_os_release(disk, fs) == OsFacts()
        with mounted(disk, tmp_path / "m") as where:
            plant(where)
        sh("sync", "-f", image)
        before = digest(image)
        with held(disk, write=False):
            found = osfacts.read_os_release(disk, fs)
        assert found.name == "Linux"
        assert found.vers == "debian12"
        assert found.arch == process.run(["uname", "-m"]).out.strip()
        assert found.distro == f"debian12-{found.arch}"
        sh("sync", "-f", image)
        assert digest(image) == before


def test_windows_is_told_by_its_kernel(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=100 * MIB) as disk:
        sh(*MAKE["ntfs"], disk)
        assert osfacts.read_os_release(disk, "ntfs") == OsFacts()
        with mounted(disk, tmp_path / "m", ntfs=True) as where:
            (where / "Windows/System32").mkdir(parents=True)
            program = (
                b"MZ"
                + bytes(58)
                + (64).to_bytes(4, "little")
                + b"PE\0\0"
                + (0x8664).to_bytes(2, "little")
                + bytes(9000)
            )
            (where / "Windows/System32/ntoskrnl.exe").write_bytes(program)
        assert osfacts.read_os_release(disk, "ntfs") == OsFacts(name="Windows", arch="x86_64")


def test_what_holds_no_system_tells_nothing(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", size=50 * MIB) as disk:
        for fs in ("", "ext4", "xfs", "btrfs", "ntfs", "vfat"):
            assert osfacts.read_os_release(disk, fs) == OsFacts()


def test_a_program_that_says_too_much_is_cut_off(tmp_path: Path) -> None:
    assert first_words(["yes"], limit=10) == b"y\n" * 5
    assert first_words(["sleep", "60"], limit=10, timeout_s=0.2) == b""
