"""A small system that boots within seconds: for tests that are about many nodes or about troubles, not about an operating system.

Debian's kernel, an initramfs with busybox and the drivers of the lab's disks, GRUB, and a file of random bytes. Its first
program compares the file with its MD5 (busybox takes 2.5 times as long for SHA-256) and says `LITHO-TINY content is whole on
/dev/sda2` on the console, or that it is damaged.

    p1 /boot (ext3)   p2 the content (ext4)   p3 swap

A library that holds it as the image `tiny` is captured by the agent on this machine, from a loop device: a lab that is about
restoring begins there (`give`).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from litho import process
from litho_rootimg import archive, modules, stamps
from support.loop import loop_disk, reread

from . import debian, disks, shared
from .disks import MIB

IMAGE = "tiny"
CONTENT_MIB = 160
SIZE_MIB = 400
BOOT_MIB, SWAP_MIB = 48, 16
BOOT_UUID = "b0070000-0000-4000-8000-0000000e2e02"
CONTENT_UUID = "c0070000-0000-4000-8000-0000000e2e02"
SWAP_UUID = "5a17c0de-0000-4000-8000-0000000e2e02"
MODULES = (
    "drivers/ata/ahci.ko", "drivers/ata/ata_piix.ko", "drivers/scsi/sd_mod.ko", "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko", "drivers/nvme/host/nvme.ko", "fs/ext4/ext4.ko", "crypto/crc32c_generic.ko",
)  # fmt: skip

_TABLE = f"""\
label: dos
label-id: 0x117409b0
start=2048, size={BOOT_MIB}MiB, type=83, bootable
start={2048 + BOOT_MIB * 2048}, size={SIZE_MIB - BOOT_MIB - SWAP_MIB - 2}MiB, type=83
start={2048 + (SIZE_MIB - SWAP_MIB - 2) * 2048}, size={SWAP_MIB}MiB, type=82
"""
_GRUB = """\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
echo "LITHO-GRUB loads from the disk"
linux /vmlinuz console=ttyS0,115200 quiet
initrd /initrd.img
boot
"""
_INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
modprobe -a {" ".join(Path(name).stem for name in MODULES)}
until disk=$(findfs UUID={CONTENT_UUID}); do sleep 0.2; done
if mount -t ext4 -o ro "$disk" /content && cd /content && md5sum -c -s sums; then
    echo "LITHO-TINY content is whole on $disk"
else
    echo "LITHO-TINY content is damaged on $disk"
fi
while :; do sleep 3600; done
"""


def disk(cache: Path) -> Path:
    """The raw disk; made when it is not there. Before a machine writes to it, lay a qcow2 over it (`disks.layer`)."""
    with shared.alone(cache):
        return _disk(cache)


def _disk(cache: Path) -> Path:
    tree = debian.make(cache)
    file = cache / "tiny.raw"
    stamp = stamps.Stamp(
        cache / "tiny.stamp", stamps.digest([Path(__file__), Path(debian.__file__), Path(disks.__file__)])
    )
    if stamp.fresh(file):
        return file
    stamp.begin()
    file.unlink(missing_ok=True)
    work = cache / "tiny.work"
    shutil.rmtree(work, ignore_errors=True)
    boot, content = work / "boot", work / "content"
    (boot / "grub").mkdir(parents=True)
    content.mkdir()
    (boot / "grub/grub.cfg").write_text(_GRUB)
    shutil.copy(sorted((tree / "boot").glob("vmlinuz-*"))[-1], boot / "vmlinuz")
    _initramfs(tree, work / "initramfs", boot / "initrd.img")
    (content / "bytes").write_bytes(os.urandom(CONTENT_MIB * MIB))
    (content / "sums").write_text(f"{process.run(['md5sum', content / 'bytes']).out.split()[0]}  bytes\n")
    with file.open("wb") as raw:
        raw.truncate(SIZE_MIB * MIB)
    process.run(["sfdisk", "--quiet", file], stdin=_TABLE.encode())
    at = 2048
    for source, kind, uuid, mib in (
        (boot, "ext3", BOOT_UUID, BOOT_MIB),
        (content, "ext4", CONTENT_UUID, SIZE_MIB - BOOT_MIB - SWAP_MIB - 2),
    ):
        image = work / f"{source.name}.img"
        _sized(image, mib)
        process.run(["mke2fs", "-q", "-t", kind, "-U", uuid, "-L", source.name, "-d", source, image])
        disks.place(image, file, at)
        at += mib * 2048
    swap = work / "swap.img"
    _sized(swap, SWAP_MIB)
    process.run(["mkswap", "-U", SWAP_UUID, swap])
    disks.place(swap, file, at)
    disks.grub(file, work)
    shutil.rmtree(work)
    stamp.done()
    return file


def _sized(file: Path, mib: int) -> None:
    with file.open("wb") as raw:
        raw.truncate(mib * MIB)


def _initramfs(tree: Path, root: Path, out: Path) -> None:
    version = next((tree / "usr/lib/modules").iterdir()).name
    for name in ("bin", "proc", "sys", "dev", "content", "lib"):
        (root / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    dep = modules.parse_dep((tree / "usr/lib/modules" / version / "modules.dep").read_text())
    # modules.builtin names what the kernel has without a file.
    there = [name for name in MODULES if f"kernel/{name}" in dep]
    modules.install(tree, root, version, modules.select(dep, there))
    archive.cpio_zst(root, out)


def library(cache: Path) -> Path:
    """An image library that holds `tiny`, captured once a run from a loop device by the agent of this tree."""
    folder = shared.folder() / "tiny.library"
    with shared.alone(cache):
        if not (folder / f"{IMAGE}.json").is_file():
            _capture(cache, folder)
    return folder


def _capture(cache: Path, folder: Path) -> None:
    with loop_disk(_disk(cache)) as device:
        reread(device)
        agent = Path(sys.executable).with_name("litho-agent")
        process.run([agent.with_name("litho"), "library", "init", folder])
        process.run(
            [agent, "capture", "--disk", device, "--library", folder, "--image", IMAGE, "--engine", "auto"],
            timeout_s=300,
        )


def give(cache: Path, into: Path) -> Path:
    """Lay the image into the library of a lab, by links: nobody changes a file of an image. Answers the library it came from."""
    source = library(cache)
    for file in source.iterdir():
        if file.name.startswith(f"{IMAGE}."):
            os.link(file, into / file.name)
    return source
