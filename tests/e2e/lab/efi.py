"""A disk that boots by UEFI, with the lab's Debian on it.

    GPT; p1 EFI system partition (FAT32), p2 /boot (ext4), p3 / (XFS), p4 swap

GRUB lies where a distribution puts it, `\\EFI\\debian\\grubx64.efi`, or at the fallback's place `\\EFI\\BOOT\\BOOTX64.EFI`, where
firmware finds it without being told. mkfs.xfs cannot fill a file system while it makes it, so this one is mounted for a moment.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from litho import process
from litho_rootimg import stamps

from . import debian, disks, shared
from .disks import MIB

ESP_MIB, BOOT_MIB, ROOT_MIB, SWAP_MIB = 40, 64, 900, 32
SIZE_MIB = ESP_MIB + BOOT_MIB + ROOT_MIB + SWAP_MIB + 2
FALLBACK, VENDOR = "EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi"
BOOT_UUID = "b0070000-0000-4000-8000-0000000e2e03"
ROOT_UUID = "40070000-0000-4000-8000-0000000e2e03"
SWAP_UUID = "5a17c0de-0000-4000-8000-0000000e2e03"
ESP_ID = "E51D-0E2E"

_TABLE = f"""\
label: gpt
label-id: 117409AF-0000-4000-8000-0000000E2E03
start=2048, size={ESP_MIB}MiB, type=U, name="EFI System"
size={BOOT_MIB}MiB, type=L, name="boot"
size={ROOT_MIB}MiB, type=L, name="root"
size={SWAP_MIB}MiB, type=S, name="swap"
"""
_FIRST = f"""\
search --no-floppy --fs-uuid --set=root {BOOT_UUID}
set prefix=($root)/grub
configfile $prefix/grub.cfg
"""
_GRUB = f"""\
echo "LITHO-GRUB loads from the disk"
linux /vmlinuz root=UUID={ROOT_UUID} ro console=tty0 console=ttyS0,115200 quiet
initrd /initrd.img
boot
"""
_FSTAB = f"""\
UUID={ROOT_UUID} / xfs defaults 0 0
UUID={BOOT_UUID} /boot ext4 defaults 0 2
UUID={ESP_ID} /boot/efi vfat umask=0077 0 1
UUID={SWAP_UUID} none swap sw 0 0
"""
_MODULES = (
    "part_gpt", "fat", "ext2", "normal", "linux", "echo", "configfile", "search", "search_fs_uuid", "all_video",
)  # fmt: skip


def disk(cache: Path, *, loader: str = FALLBACK) -> Path:
    """A raw disk whose GRUB is the file `loader` of its EFI system partition; made when it is not there.

    Before a machine writes to it, lay a qcow2 over it (`disks.layer`).
    """
    with shared.alone(cache):
        return _disk(cache, loader)


def _disk(cache: Path, loader: str) -> Path:
    tree = debian.make(cache)
    name = loader.split("/")[1].lower()
    file = cache / f"efi-{name}.raw"
    wanted = stamps.digest([Path(__file__), Path(debian.__file__), Path(disks.__file__), loader])
    stamp = stamps.Stamp(cache / f"efi-{name}.stamp", wanted)
    if stamp.fresh(file):
        return file
    stamp.begin()
    file.unlink(missing_ok=True)
    work = cache / "efi.work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "boot/grub").mkdir(parents=True)
    (work / "boot/efi").mkdir()
    (work / "boot/grub/grub.cfg").write_text(_GRUB)
    kernel = sorted((tree / "boot").glob("vmlinuz-*"))[-1]
    shutil.copy(kernel, work / "boot/vmlinuz")
    shutil.copy(kernel.with_name(kernel.name.replace("vmlinuz", "initrd.img")), work / "boot/initrd.img")
    _sized(file, SIZE_MIB)
    process.run(["sfdisk", "--quiet", file], stdin=_TABLE.encode())
    at = 2048
    for image, mib in (
        (_esp(work, loader), ESP_MIB),
        (_boot(work), BOOT_MIB),
        (_root(work, tree), ROOT_MIB),
        (_swap(work), SWAP_MIB),
    ):
        disks.place(image, file, at)
        at += mib * 2048
    shutil.rmtree(work)
    stamp.done()
    return file


def _sized(file: Path, mib: int) -> Path:
    with file.open("wb") as raw:
        raw.truncate(mib * MIB)
    return file


def _esp(work: Path, loader: str) -> Path:
    image, grub, first = _sized(work / "esp.img", ESP_MIB), work / "grub.efi", work / "first.cfg"
    first.write_text(_FIRST)
    process.run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/grub", "-c", first, "-o", grub, *_MODULES])
    process.run(["mkfs.vfat", "-F", "32", "-i", ESP_ID.replace("-", ""), "-n", "ESP", image])
    parts = loader.split("/")
    for depth in range(1, len(parts)):
        process.run(["mmd", "-i", image, f"::/{'/'.join(parts[:depth])}"])
    process.run(["mcopy", "-i", image, grub, f"::/{loader}"])
    return image


def _boot(work: Path) -> Path:
    image = _sized(work / "boot.img", BOOT_MIB)
    process.run(["mke2fs", "-q", "-t", "ext4", "-U", BOOT_UUID, "-L", "golden-boot", "-d", work / "boot", image])
    return image


def _root(work: Path, tree: Path) -> Path:
    image = _sized(work / "root.img", ROOT_MIB)
    process.run(["mkfs.xfs", "-q", "-m", f"uuid={ROOT_UUID}", "-L", "golden-root", image])
    with tempfile.TemporaryDirectory(prefix="lab-efi-") as where:
        process.run(["mount", "-o", "loop", image, where])
        try:
            process.run(["cp", "-a", f"{tree}/.", where])
            (Path(where) / "etc/fstab").write_text(_FSTAB)
        finally:
            process.run(["umount", where])
    return image


def _swap(work: Path) -> Path:
    image = _sized(work / "swap.img", SWAP_MIB)
    process.run(["mkswap", "-U", SWAP_UUID, image])
    return image
