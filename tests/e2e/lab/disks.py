"""Partitioned, bootable disks with the lab's Debian on them.

Nothing is mounted and no loop device is taken: file systems are filled while they are made (`mke2fs -d`) and put into place.

    bios_disk    MBR, GRUB in the gap; p1 /boot (ext3), p5 / (ext3, a logical partition), p6 swap
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from litho import process
from litho_rootimg import stamps

from . import debian

MIB = 1024 * 1024
SWAP_UUID = "5a17c0de-0000-4000-8000-0000000e2e01"
BOOT_UUID = "b0070000-0000-4000-8000-0000000e2e01"
ROOT_UUID = "40070000-0000-4000-8000-0000000e2e01"

_TABLE = """\
label: dos
label-id: 0x117409af
start=2048, size={boot}MiB, type=83, bootable
start={extended}, type=5
start={root_at}, size={root}MiB, type=83
start={swap_at}, size={swap}MiB, type=82
"""
_GRUB = """\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
echo "LITHO-GRUB loads from the disk"
linux /vmlinuz root=UUID={root} ro console=tty0 console=ttyS0,115200 quiet
initrd /initrd.img
boot
"""


def bios_disk(cache: Path, *, size_mib: int = 2048, boot_mib: int = 128, swap_mib: int = 64) -> Path:
    """A raw disk with Debian that boots by BIOS; made when it is not there.

    Before a machine writes to it, lay a qcow2 over it (`layer`).
    """
    tree = debian.make(cache)
    disk = cache / "bios.raw"
    wanted = stamps.digest([Path(__file__), Path(debian.__file__), str((size_mib, boot_mib, swap_mib))])
    stamp = stamps.Stamp(cache / "bios.stamp", wanted)
    if stamp.fresh(disk):
        return disk
    stamp.begin()
    disk.unlink(missing_ok=True)
    # In sectors: the gap of 1 MiB before each logical partition holds its link of the chain.
    extended = 2048 + boot_mib * 2048
    root_mib = size_mib - boot_mib - swap_mib - 4
    root_at = extended + 2048
    swap_at = root_at + root_mib * 2048 + 2048
    work = cache / "bios.work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "boot/grub").mkdir(parents=True)
    kernel = sorted((tree / "boot").glob("vmlinuz-*"))[-1]
    shutil.copy(kernel, work / "boot/vmlinuz")
    shutil.copy(kernel.with_name(kernel.name.replace("vmlinuz", "initrd.img")), work / "boot/initrd.img")
    (work / "boot/grub/grub.cfg").write_text(_GRUB.format(root=ROOT_UUID))
    mounts = (f"UUID={ROOT_UUID} / ext3 errors=remount-ro 0 1", f"UUID={BOOT_UUID} /boot ext3 defaults 0 2")
    (tree / "etc/fstab").write_text("\n".join((*mounts, f"UUID={SWAP_UUID} none swap sw 0 0\n")))
    with disk.open("wb") as file:
        file.truncate(size_mib * MIB)
    table = _TABLE.format(
        boot=boot_mib, extended=extended, root_at=root_at, root=root_mib, swap_at=swap_at, swap=swap_mib
    )
    process.run(["sfdisk", "--quiet", disk], stdin=table.encode())
    for uuid, label, source, at, mib in (
        (BOOT_UUID, "golden-boot", work / "boot", 2048, boot_mib),
        (ROOT_UUID, "golden-root", tree, root_at, root_mib),
    ):
        image = work / f"{label}.img"
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        process.run(["mke2fs", "-q", "-t", "ext3", "-U", uuid, "-L", label, "-d", source, image])
        place(image, disk, at)
    swap = work / "swap.img"
    with swap.open("wb") as file:
        file.truncate(swap_mib * MIB)
    process.run(["mkswap", "-U", SWAP_UUID, "-L", "golden-swap", swap])
    place(swap, disk, swap_at)
    grub(disk, work)
    shutil.rmtree(work)
    stamp.done()
    return disk


def place(image: Path, disk: Path, sector: int) -> None:
    """Put a partition's content, a file that goes with this, to its place on a disk; `sector` of 512 bytes, at a whole MiB."""
    process.run(
        ["dd", f"if={image}", f"of={disk}", "bs=512K", f"seek={sector // 1024}", "conv=notrunc,sparse", "status=none"]
    )
    image.unlink()


def grub(disk: Path, work: Path) -> None:
    """GRUB without grub-install: its first sector's code into the MBR, the rest into the gap behind it.

    It reads /grub/grub.cfg on the first partition.
    """
    core = work / "core.img"
    modules = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "serial", "terminal", "echo", "configfile")
    process.run(["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/grub", "-o", core, *modules])
    code = core.read_bytes()
    assert len(code) <= 2047 * 512, "GRUB fits into the gap before the first partition"
    with disk.open("r+b") as file:
        file.write(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
        file.seek(512)
        file.write(code)


def layer(over: Path, file: Path) -> Path:
    """A qcow2 that begins as `over` and leaves it untouched."""
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", over, "-F", "raw", file])
    return file


def blank(file: Path, mib: int) -> Path:
    """An empty qcow2."""
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", file, f"{mib}M"])
    return file


def main() -> None:
    """Make what the lab keeps: it has no way to Debian's archive from inside its namespace."""
    cache = Path(sys.argv[1])
    begun = time.monotonic()
    sys.stdout.write(f"{bios_disk(cache)}: {time.monotonic() - begun:.1f} s\n")


if __name__ == "__main__":
    main()
